"""Source algorithms whose learning is distilled.

`algdistill.sources.sb3` records any Stable-Baselines3 algorithm; it needs the `sb3` extra and is
imported by its own name.
"""

from algdistill.sources.random_streams import uniform_block
from algdistill.sources.tabular_q_learning import TabularQLearning, TabularQLearningConfig

__all__ = ["TabularQLearning", "TabularQLearningConfig", "uniform_block"]
