"""Algorithm Distillation in Dark Room Hard (Laskin et al. 2022): 289 cells, paid once an episode.

python experiments/dark_room_hard.py
"""

import tyro

from algdistill.sources import (
    NoisyOracle,
    NoisyOracleConfig,
    TabularQLearning,
    TabularQLearningConfig,
)
from algdistill.training import TrainingConfig
from in_context_learning import Options, run_experiment
from in_context_task import Ids, InContextTask, Method, split_at_random
from vlmreward_envs.dark_room import DARK_ROOM_HARD, DarkRoomTasks, no_adaptation_return

Q_LEARNING = TabularQLearningConfig(
    num_episodes=120, exploration_episodes=0, initial_value=1.0, replayed_episodes=20
)
TRAINING = TrainingConfig(num_updates=8000, evaluate_every=1000, log_every=100)


def make_tasks(ids: Ids, streams: Ids) -> DarkRoomTasks:
    """Rooms with the goals that the ids name; nothing in them is random."""
    del streams
    return DarkRoomTasks(ids, DARK_ROOM_HARD)


def _q_learning(tasks: DarkRoomTasks, seeds: Ids) -> TabularQLearning:
    return TabularQLearning(tasks, Q_LEARNING, seeds)


def _noisy_oracle(tasks: DarkRoomTasks, seeds: Ids) -> NoisyOracle:
    return NoisyOracle(tasks, NoisyOracleConfig(num_episodes=30), seeds)


TASK = InContextTask(
    name="dark_room_hard",
    title="Dark Room Hard",
    split=split_at_random(DARK_ROOM_HARD.num_tasks, num_validation=16, num_test=33),
    make_tasks=make_tasks,
    methods={
        "ad": Method("Algorithm Distillation", _q_learning, 20, TRAINING),
        "noise": Method("AD on ε-noise", _noisy_oracle, 40, TRAINING),
        "expert": Method("Expert Distillation", _q_learning, 20, TRAINING, last_episodes=10),
        "dpt": Method(
            "Decision-Pretrained Transformer", _noisy_oracle, 40, TRAINING, predicts_optimal=True
        ),
    },
    model={"context_length": 80, "embed_dim": 64, "num_layers": 4, "num_heads": 4, "mlp_dim": 256},
    num_episodes=100,
    repeats=6,
    no_adaptation=no_adaptation_return(DARK_ROOM_HARD),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options))
