"""Let an agent act for many episodes in tasks it never saw, and keep every return.

Axis letters: ``N`` tasks, ``E`` in-context episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from algdistill.agents.base import Agent
from algdistill.agents.loop_detector import LoopDetector
from algdistill.tasks import BatchedTasks, TaskSpace


@dataclass(frozen=True)
class EvaluationResult:
    """Returns of every in-context episode of every task.

    Attributes:
        returns: Sums of the rewards that the agent saw.
        env_returns: Sums of the ground truth.
        loops: Where the agent walked in unpaid circles; see `algdistill.agents.LoopDetector`.
    """

    returns: Float[np.ndarray, "N E"]
    env_returns: Float[np.ndarray, "N E"]
    loops: Bool[np.ndarray, "N E"]

    @property
    def loop_share(self) -> Float[np.ndarray, " E"]:
        """Share of the tasks, 0 to 1, in which the agent walked in circles, for each episode."""
        share: Float[np.ndarray, " E"] = self.loops.mean(axis=0)
        return share


def evaluate_in_context(
    agent: Agent,
    tasks: BatchedTasks,
    *,
    num_episodes: int,
    generator: torch.Generator,
    prepare: Callable[[], None] | None = None,
) -> EvaluationResult:
    """Reset the agent once, then act for ``num_episodes`` episodes in every task.

    Episodes are taken to last ``tasks.episode_length`` steps in every task, so that returns of
    one episode can be compared over tasks.

    Args:
        agent: Forgets all it knew, and then only what its context cannot hold.
        tasks: Tasks to act in.
        num_episodes: Episodes in a row.
        generator: Draws the agent's actions.
        prepare: Called once the agent is reset, such as to prompt it.

    Raises:
        ValueError: If the agent is made for other spaces, ``num_episodes < 1``, or an episode ends
            before its time.
    """
    if agent.space != TaskSpace.of(tasks):
        raise ValueError(f"got an agent for {agent.space}, expected one for {TaskSpace.of(tasks)}")
    if num_episodes < 1:
        raise ValueError(f"got num_episodes={num_episodes}, expected at least 1")
    shape = (num_episodes, tasks.num_tasks)
    returns, env_returns = torch.zeros(2, *shape, device=tasks.device)
    detector = LoopDetector(tasks.num_tasks, tasks.episode_length, device=tasks.device)
    loops = torch.zeros(shape, dtype=torch.bool, device=tasks.device)
    agent.reset(tasks.num_tasks, generator)
    if prepare is not None:
        prepare()
    obs = tasks.reset()
    for episode in range(num_episodes):
        for step in range(tasks.episode_length):
            actions = agent.act(obs)
            result = tasks.step(actions)
            ended = result.terminated | result.truncated
            if not torch.equal(ended, torch.full_like(ended, step == tasks.episode_length - 1)):
                raise ValueError(
                    f"got {int(ended.sum())} of {tasks.num_tasks} episodes ending at step "
                    f"{step + 1}, expected all to end at step {tasks.episode_length} only"
                )
            agent.observe(actions, result.reward, ended)
            detector.observe(obs, actions, result.reward)
            returns[episode] += result.reward
            env_returns[episode] += result.env_reward
            obs = result.obs
        loops[episode] = detector.episode_loops()
    return EvaluationResult(*(column.T.cpu().numpy() for column in (returns, env_returns, loops)))
