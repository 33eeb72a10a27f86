"""Algorithm Distillation in Dark Room Hard (Laskin et al. 2022): 289 cells, paid once an episode.

python experiments/dark_room_hard.py
"""

import tyro

from algdistill.sources import (
    GoalSearch,
    GoalSearchConfig,
    NoisyOracle,
    NoisyOracleConfig,
)
from algdistill.training import TrainingConfig
from in_context_learning import Options, run_experiment
from in_context_task import Ids, InContextTask, Method, split_at_random
from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomTasks, no_adaptation_return

SEARCH = GoalSearchConfig(num_episodes=80, epsilon=0.02, memory=6)
NOISE = NoisyOracleConfig(num_episodes=30)
TRAINING = TrainingConfig(
    num_updates=5000, batch_size=32, evaluate_every=500, log_every=100, precision="bf16"
)


def make_tasks(ids: Ids, streams: Ids) -> DarkRoomTasks:
    """Rooms with the goals that the ids name; nothing in them is random."""
    del streams
    return DarkRoomTasks(ids, DARK_ROOM_HARD)


TASK = InContextTask(
    name="dark_room_hard",
    title="Dark Room Hard",
    split=split_at_random(DARK_ROOM_HARD.num_tasks, num_validation=16, num_test=33),
    make_tasks=make_tasks,
    methods={
        "search": Method("AD of a search", GoalSearch, SEARCH, 20, TRAINING),
        "noise": Method("AD on ε-noise", NoisyOracle, NOISE, 40, TRAINING),
        "expert": Method("Expert Distillation", GoalSearch, SEARCH, 20, TRAINING, last_episodes=10),
        "dpt": Method(
            "Decision-Pretrained Transformer",
            NoisyOracle,
            NOISE,
            40,
            TRAINING,
            predicts_optimal=True,
        ),
    },
    model={"context_length": 160, "embed_dim": 64, "num_layers": 4, "num_heads": 4, "mlp_dim": 256},
    num_episodes=100,
    repeats=6,
    no_adaptation=no_adaptation_return(DARK_ROOM_HARD),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options))
