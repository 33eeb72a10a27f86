"""The online part of the scaling trend: goal-conditioned agents trained on one reward.

Axis letters: ``K`` points of a curve, ``G`` goals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from algdistill.sources import ActorCritic, ActorCriticConfig
from algdistill.tasks import StepResult
from run_folder import Arrays
from trend_domains import Domain
from trend_tasks import ScoredTasks, launcher_tasks, playroom_tasks
from vlmreward import Goal, ImageTextEncoder, RewardModel, SoftmaxHead, ThresholdHead

NUM_TASKS = 64
_EVALUATION_SEED = 5_000_000
_SEEDS_APART = 10_000
_FRAMES_KEPT = 6


class MakeTasks(Protocol):
    """Makes a domain's tasks."""

    def __call__(
        self,
        num_tasks: int,
        goals: list[str],
        seed: int,
        reward_model: RewardModel | None = None,
        *,
        ends_when_paid: bool = True,
    ) -> ScoredTasks:
        """Return tasks, each with one of the goals in each episode."""
        ...


@dataclass(frozen=True)
class OnlineDomain:
    """What agents are trained to do in a domain.

    Attributes:
        make_tasks: Makes its tasks.
        train_goals: Goals that they learn.
        test_goals: Held-out goals.
    """

    make_tasks: MakeTasks
    train_goals: tuple[Goal, ...]
    test_goals: tuple[Goal, ...]


def online_domain(domain: Domain) -> OnlineDomain:
    """Return what agents learn: to lift things, and to open apps."""
    make: dict[str, MakeTasks] = {"playroom": playroom_tasks, "launcher": launcher_tasks}
    chosen = [
        (goal, held_out)
        for goal, held_out in zip(domain.goals, domain.is_held_out, strict=True)
        if domain.name == "launcher" or "holding" in goal.prompts[0]
    ]
    return OnlineDomain(
        make[domain.name],
        tuple(goal for goal, held_out in chosen if not held_out),
        tuple(goal for goal, held_out in chosen if held_out),
    )


def rewards(encoder: ImageTextEncoder, goals: tuple[Goal, ...], threshold: float) -> RewardModel:
    """Return Baumli et al.'s reward: 1 where the goal's probability exceeds the threshold."""
    head = ThresholdHead(SoftmaxHead(1 / encoder.logit_scale), threshold)
    return RewardModel(encoder, goals, head)


def train_agent(
    domain: OnlineDomain,
    encoder: ImageTextEncoder | None,
    threshold: float,
    *,
    num_steps: int,
    num_points: int,
    num_evaluated: int,
    seed: int,
) -> Arrays:
    """Train an agent on an encoder's reward, or on the ground truth where there is no encoder.

    Returns:
        ``steps``, ``vlm_return`` and ``env_return`` of training episodes ``[K]``: the share that
        the reward paid and that reached the goal; ``test_success`` and ``train_success`` ``[K]``:
        of held-out goals and of those trained on, by the ground truth, in episodes that go on to
        their limit; and where an encoder pays, what `watch_rewards` sees of the trained agent.
    """
    reward_model = encoder and rewards(encoder, domain.train_goals, threshold)
    sentences = [goal.prompts[0] for goal in domain.train_goals]
    tasks = domain.make_tasks(NUM_TASKS, sentences, seed * _SEEDS_APART, reward_model)
    config = learner_config(num_steps, tasks.episode_length)
    learner = ActorCritic(tasks, config, seed * _SEEDS_APART + tasks.task_ids)
    total = config.num_episodes * tasks.episode_length
    ends = np.linspace(0, total, num_points + 1).round().astype(int)[1:] - 1
    log, curves = _EpisodeLog(NUM_TASKS), []
    for step, (_, _, result) in enumerate(learner.steps()):
        log.add(result.reward, result.env_reward, result.terminated | result.truncated)
        if step in ends:
            test = evaluate(domain, learner, domain.test_goals, num_evaluated)
            train = evaluate(domain, learner, domain.train_goals, num_evaluated)
            curves.append(((step + 1) * NUM_TASKS, *log.take(), test, train))
    columns = ("steps", "vlm_return", "env_return", "test_success", "train_success")
    found = dict(zip(columns, np.array(curves).T, strict=True))
    if encoder is not None:
        reward_model = rewards(encoder, domain.test_goals, threshold)
        found |= watch_rewards(domain, learner, num_evaluated, reward_model)
    return found


def learner_config(num_steps: int, episode_length: int) -> ActorCriticConfig:
    """Return how an agent learns for that many steps, of all tasks together."""
    return ActorCriticConfig(
        num_episodes=-(-num_steps // (NUM_TASKS * episode_length)),
        num_actors=NUM_TASKS,
        hidden_size=128,
        num_layers=2,
        rollout_length=16,
        num_epochs=6,
        num_minibatches=4,
        learning_rate=1e-3,
        discount=0.95,
        gae_lambda=0.9,
        entropy_coefficient=0.01,
    )


def evaluate(
    domain: OnlineDomain, learner: ActorCritic, goals: tuple[Goal, ...], num_episodes: int
) -> float:
    """Return the share of episodes that reach their goal at any step, by the ground truth.

    The policy's actions are drawn; episodes go on to their limit.
    """
    tasks = domain.make_tasks(
        num_episodes, [goal.prompts[0] for goal in goals], _EVALUATION_SEED, ends_when_paid=False
    )
    reached = torch.zeros(num_episodes, dtype=torch.bool)
    for result in act(learner, tasks):
        reached |= result.env_reward > 0
    return float(reached.float().mean())


def watch_rewards(
    domain: OnlineDomain, learner: ActorCritic, num_episodes: int, reward_model: RewardModel
) -> Arrays:
    """Let a trained agent act on held-out goals and see what its reward model pays.

    Returns:
        ``test_paid``, ``test_reached`` and ``test_paid_wrongly``: the shares of episodes with a
        step that is paid, that reaches the goal, and that is paid without reaching it;
        ``wrong_frames`` ``[K, H, W, 3]``, the first frame of some episodes that was paid wrongly,
        and ``wrong_goals`` ``[K]``, their goals.
    """
    goals = [goal.prompts[0] for goal in domain.test_goals]
    tasks = domain.make_tasks(
        num_episodes, goals, _EVALUATION_SEED, reward_model, ends_when_paid=False
    )
    seen = torch.zeros(3, num_episodes, dtype=torch.bool)
    frames, wrong_goals = [], []
    goal_index = tasks.goal_index
    for result in act(learner, tasks):
        paid, reached = result.reward > 0, result.env_reward > 0
        wrong = paid & ~reached
        first = (wrong & ~seen[2]).nonzero()[:, 0]
        frames.append(tasks.frames[first])
        wrong_goals.append(goal_index[first])
        seen |= torch.stack([paid, reached, wrong])
    shares = seen.float().mean(dim=1).tolist()
    names = ("test_paid", "test_reached", "test_paid_wrongly")
    return {
        **{name: np.array(share) for name, share in zip(names, shares, strict=True)},
        "wrong_frames": torch.cat(frames)[:_FRAMES_KEPT].numpy(),
        "wrong_goals": torch.cat(wrong_goals)[:_FRAMES_KEPT].numpy(),
    }


def act(learner: ActorCritic, tasks: ScoredTasks) -> Iterator[StepResult]:
    """Act for one episode, drawing from the policy; all episodes end together."""
    generator = torch.Generator().manual_seed(0)
    obs = tasks.reset()
    for _ in range(tasks.episode_length):
        result = tasks.step(_draw_actions(learner, obs, generator))
        obs = result.obs
        yield result


@torch.no_grad()
def _draw_actions(
    learner: ActorCritic, obs: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw from the policy in tasks that the learner does not train in."""
    logits = learner.network(obs[None])[0, :, :-1]  # the last output is the value
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


class _EpisodeLog:
    """Counts the episodes in which there was a reward, and in which the truth was reached."""

    def __init__(self, num_tasks: int) -> None:
        self._seen = torch.zeros(2, num_tasks, dtype=torch.bool)
        self._counts = torch.zeros(3)

    def add(self, reward: torch.Tensor, env_reward: torch.Tensor, ended: torch.Tensor) -> None:
        """Count one step of all tasks."""
        self._seen |= torch.stack([reward > 0, env_reward > 0])
        finished = self._seen[:, ended]
        self._counts += torch.tensor([*finished.sum(dim=1).tolist(), int(ended.sum())])
        self._seen &= ~ended

    def take(self) -> tuple[float, float]:
        """Return both shares since they were last taken."""
        paid, reached, episodes = self._counts.tolist()
        self._counts.zero_()
        return paid / max(1.0, episodes), reached / max(1.0, episodes)
