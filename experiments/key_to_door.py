"""Algorithm Distillation in Dark Key-to-Door (Laskin et al. 2022): a key, then a door, both hidden.

python experiments/key_to_door.py
"""

from dataclasses import replace

import torch
import tyro

from algdistill.sources import (
    GoalSearch,
    GoalSearchConfig,
    NoisyOracle,
    NoisyOracleConfig,
    TabularQLearning,
    TabularQLearningConfig,
)
from algdistill.training import TrainingConfig
from in_context_learning import Options, run_experiment
from in_context_task import Ids, InContextTask, Method, Split, split_at_random
from vlmreward_envs.key_to_door import (
    DARK_KEY_TO_DOOR,
    DarkKeyToDoorTasks,
    no_adaptation_return,
)

NUM_TRAIN = 2400
Q_LEARNING = TabularQLearningConfig(
    num_episodes=50,
    exploration_episodes=0,
    final_epsilon=0.02,
    initial_value=1.0,
    replayed_episodes=8,
    reward_memory=2,
)
SEARCH = GoalSearchConfig(num_episodes=30, epsilon=0.02, memory=3)
NOISE = NoisyOracleConfig(num_episodes=30)
TRAINING = TrainingConfig(num_updates=5000, batch_size=32, evaluate_every=500, log_every=100)
SHORTER = replace(TRAINING, num_updates=2000, evaluate_every=250, precision="bf16")


def make_tasks(ids: Ids, streams: Ids) -> DarkKeyToDoorTasks:
    """Rooms with the keys and doors that the ids name; starts are drawn from the streams."""
    return DarkKeyToDoorTasks(ids, streams, DARK_KEY_TO_DOOR)


def _split() -> Split:
    split = split_at_random(DARK_KEY_TO_DOOR.num_tasks, num_validation=64, num_test=100)
    order = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(1))
    return Split(split.train[order[:NUM_TRAIN].sort().values], split.validation, split.test)


TASK = InContextTask(
    name="key_to_door",
    title="Dark Key-to-Door",
    split=_split(),
    make_tasks=make_tasks,
    methods={
        "search": Method("AD of a search", GoalSearch, SEARCH, 4, SHORTER),
        "ad": Method("AD of Q-learning", TabularQLearning, Q_LEARNING, 2, TRAINING),
        "noise": Method("AD on ε-noise", NoisyOracle, NOISE, 2, SHORTER),
        "expert": Method(
            "Expert Distillation", TabularQLearning, Q_LEARNING, 2, SHORTER, last_episodes=10
        ),
        "dpt": Method(
            "Decision-Pretrained Transformer",
            NoisyOracle,
            NOISE,
            2,
            SHORTER,
            predicts_optimal=True,
        ),
    },
    model={
        "context_length": 200,
        "embed_dim": 64,
        "num_layers": 4,
        "num_heads": 4,
        "mlp_dim": 256,
    },
    num_episodes=100,
    repeats=2,
    no_adaptation=no_adaptation_return(DARK_KEY_TO_DOOR),
    limitations=(
        "The source counts the rewards of its episode, so that it tells the way to the door from "
        "that to the key; the model has to read that off its context.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options))
