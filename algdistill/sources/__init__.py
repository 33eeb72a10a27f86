"""Source algorithms whose learning is distilled.

`algdistill.sources.sb3` records any Stable-Baselines3 algorithm; it needs the `sb3` extra and is
imported by its own name.
"""

from algdistill.sources.actor_critic import ActorCritic, ActorCriticConfig
from algdistill.sources.bandits import UCB1, ThompsonSampling, ThompsonSamplingConfig, UCB1Config
from algdistill.sources.deep_q_learning import DeepQLearning, DeepQLearningConfig
from algdistill.sources.fleet import FleetConfig, SourceFleet
from algdistill.sources.goal_search import GoalSearch, GoalSearchConfig, SearchableTasks
from algdistill.sources.noisy_oracle import NoisyOracle, NoisyOracleConfig, OracleTasks
from algdistill.sources.optimal_targets import optimal_targets
from algdistill.sources.random_streams import uniform_block
from algdistill.sources.rendered_tasks import RenderedTasks, Simulator
from algdistill.sources.tabular_q_learning import TabularQLearning, TabularQLearningConfig

__all__ = [
    "UCB1",
    "ActorCritic",
    "ActorCriticConfig",
    "DeepQLearning",
    "DeepQLearningConfig",
    "FleetConfig",
    "GoalSearch",
    "GoalSearchConfig",
    "NoisyOracle",
    "NoisyOracleConfig",
    "OracleTasks",
    "RenderedTasks",
    "SearchableTasks",
    "Simulator",
    "SourceFleet",
    "TabularQLearning",
    "TabularQLearningConfig",
    "ThompsonSampling",
    "ThompsonSamplingConfig",
    "UCB1Config",
    "optimal_targets",
    "uniform_block",
]
