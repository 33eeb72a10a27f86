"""Algorithm Distillation in Dark Room (Laskin et al. 2022): goals never seen, found in context.

python experiments/dark_room.py
"""

from dataclasses import replace

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
from in_context_task import Ids, InContextTask, Method, split_at_random
from rl2 import RL2Config
from vlmreward_envs.dark_room import DARK_ROOM, DarkRoomTasks, no_adaptation_return

Q_LEARNING = TabularQLearningConfig(
    num_episodes=60,
    exploration_episodes=0,
    final_epsilon=0.02,
    discount=0.8,
    initial_value=1.0,
    replayed_episodes=8,
)
SLOW = TabularQLearningConfig(
    num_episodes=320,
    exploration_episodes=0,
    final_epsilon=0.02,
    learning_rate=0.2,
    discount=0.9,
    initial_value=1.0,
)
SEARCH = GoalSearchConfig(num_episodes=30, epsilon=0.02, memory=3)
NOISE = NoisyOracleConfig(num_episodes=30)
TRAINING = TrainingConfig(num_updates=8000, evaluate_every=1000, log_every=100)
SHORTER = replace(TRAINING, num_updates=2500, evaluate_every=500, precision="bf16")
SLOWER = replace(SHORTER, num_updates=4000)


def make_tasks(ids: Ids, streams: Ids) -> DarkRoomTasks:
    """Rooms with the goals that the ids name; nothing in them is random."""
    del streams
    return DarkRoomTasks(ids, DARK_ROOM)


TASK = InContextTask(
    name="dark_room",
    title="Dark Room",
    split=split_at_random(DARK_ROOM.num_tasks, num_validation=6, num_test=10),
    make_tasks=make_tasks,
    methods={
        "search": Method("AD of a search", GoalSearch, SEARCH, 100, SHORTER),
        "ad": Method("AD of Q-learning", TabularQLearning, Q_LEARNING, 100, TRAINING),
        "noise": Method("AD on ε-noise", NoisyOracle, NOISE, 100, SHORTER),
        "slow": Method(
            "AD of every 16th episode of slow learners",
            TabularQLearning,
            SLOW,
            100,
            SLOWER,
            keep_every=16,
        ),
        "expert": Method(
            "Expert Distillation", TabularQLearning, Q_LEARNING, 100, SHORTER, last_episodes=10
        ),
        "dpt": Method(
            "Decision-Pretrained Transformer",
            NoisyOracle,
            NOISE,
            100,
            SHORTER,
            predicts_optimal=True,
        ),
    },
    model={"context_length": 80, "embed_dim": 64, "num_layers": 4, "num_heads": 4, "mlp_dim": 256},
    num_episodes=100,
    repeats=20,
    no_adaptation=no_adaptation_return(DARK_ROOM),
    rl2=RL2Config(num_updates=600, evaluate_every=50),
    limitations=(
        "The test goals are ten of 81 cells, the same for all seeds.",
        "Q-learners see what the model sees, (x, y) and rewards, but keep a table for all of it.",
        "The search knows how moves lead from cell to cell, and learns only where it is paid.",
    ),
)

if __name__ == "__main__":
    run_experiment(TASK, tyro.cli(Options))
