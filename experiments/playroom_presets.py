"""How much of everything the Playroom experiment does."""

from dataclasses import dataclass

from algdistill.sources import TabularQLearningConfig
from hidden_goal_learning import HiddenGoalPreset


@dataclass(frozen=True)
class Preset(HiddenGoalPreset):
    """How much of everything.

    Attributes:
        frames_per_goal: Fresh frames on which each goal's reward is measured.
        agent_steps: Environment steps of each SB3 agent.
        agent_seeds: SB3 agents trained on each reward.
        distil_seeds: Distillations.
    """

    frames_per_goal: int
    agent_steps: int
    agent_seeds: int
    distil_seeds: int


PRESETS = {
    "debug": Preset(
        frames_per_goal=16,
        agent_steps=2048,
        agent_seeds=1,
        num_train_tasks=40,
        num_test_tasks=16,
        source=TabularQLearningConfig(num_episodes=12, exploration_episodes=6),
        num_updates=4,
        distil_seeds=1,
        num_episodes=10,
        num_validation_tasks=8,
    ),
    "demo": Preset(
        frames_per_goal=64,
        agent_steps=60_000,
        agent_seeds=1,
        num_train_tasks=1500,
        num_test_tasks=96,
        source=TabularQLearningConfig(),
        num_updates=1900,
        distil_seeds=1,
        num_episodes=30,
        num_validation_tasks=64,
    ),
    "full": Preset(
        frames_per_goal=256,
        agent_steps=80_000,
        agent_seeds=3,
        num_train_tasks=2500,
        num_test_tasks=192,
        source=TabularQLearningConfig(),
        num_updates=3000,
        distil_seeds=3,
        num_episodes=50,
        num_validation_tasks=64,
    ),
}
