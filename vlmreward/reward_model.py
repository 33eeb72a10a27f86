"""From observations and goals to rewards.

Axes: `B` batch, `D` width of the embedding, `G` goals, `M` negatives of a goal, padded to the
longest list, `U` distinct directions: every goal, negative and baseline once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from vlmreward.encoders import ImageTextEncoder
from vlmreward.frames import PIXELS, Frames
from vlmreward.goal_bank import GoalBank
from vlmreward.goals import Goal
from vlmreward.heads import Head, Similarities, head_config
from vlmreward.timing import RewardTiming

GoalIndex: TypeAlias = int | np.integer[Any] | Sequence[int] | NDArray[Any] | torch.Tensor
"""Which goal: one for the whole batch, or one per row."""


@dataclass(frozen=True)
class Scores:
    """What one forward pass says about a batch of observations, on the encoder's device.

    Attributes:
        reward: What the learner is paid.
        score: What the head says of the observation, before any threshold; its range is the head's.
        embedding: Of the observations, unit length.
    """

    reward: Float[torch.Tensor, " B"]
    score: Float[torch.Tensor, " B"]
    embedding: Float[torch.Tensor, "B D"]


class RewardModel:
    """Pays for observations that show a goal.

    The texts are embedded here, once; a call is one forward pass of the encoder, whatever the
    number of goals in the batch.

    Args:
        encoder: Embeds observations and texts.
        goals: One goal, or several to choose from row by row.
        head: Turns similarities into scores and rewards, see `vlmreward.heads`. The encoder's own
            calibrated head if None.
        timing: When rewards are worked out, and from how many frames: what a `RewardStream`, and so
            every wrapper, does with the scores. `score` itself knows single frames only.

    Example:
        >>> import numpy as np
        >>> from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead
        >>> goals = [Goal("a red room", ["a green room"]), Goal("a green room", ["a red room"])]
        >>> head = ThresholdHead(SoftmaxHead(temperature=0.5), threshold=0.8)
        >>> reward_model = RewardModel(FakeEncoder(), goals, head)
        >>> red, green = np.zeros((2, 8, 8, 3), np.uint8)
        >>> red[..., 0], green[..., 1] = 255, 255
        >>> scores = reward_model.score(np.stack([red, green]), goal_index=0)
        >>> scores.score
        tensor([0.8808, 0.1192])
        >>> reward_model(np.stack([red, green]), goal_index=[0, 1])
        tensor([1., 1.])

    Raises:
        ValueError: If there is no goal, if a goal lacks the negatives or the baseline that the head
            needs, or if there is neither a head nor a calibrated encoder.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        goals: Goal | Sequence[Goal],
        head: Head | None = None,
        timing: RewardTiming | None = None,
    ) -> None:
        head = head or encoder.calibrated_head
        if head is None:
            raise ValueError(
                f"encoder {encoder.name!r} has no calibrated head: pass one, such as "
                "ThresholdHead(SoftmaxHead(temperature=...), threshold=...). The model's own "
                f"temperature is {1 / encoder.logit_scale:.4g}; choose the threshold on labelled "
                "frames"
            )
        self.encoder = encoder
        self.head = head
        self.timing = timing or RewardTiming()
        self.goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
        if not self.goals:
            raise ValueError("expected at least one goal, got none")
        for goal in self.goals:
            _check_goal(goal, head)
        self._bank = GoalBank.of(encoder, self.goals)

    @property
    def num_goals(self) -> int:
        """How many goals `goal_index` chooses from."""
        return len(self.goals)

    def __call__(
        self, obs: Mapping[str, Any] | Frames, goal_index: GoalIndex = 0
    ) -> Float[torch.Tensor, " B"]:
        """Returns the rewards alone; see `score`."""
        return self.score(obs, goal_index).reward

    def score(self, obs: Mapping[str, Any] | Frames, goal_index: GoalIndex = 0) -> Scores:
        """Scores a batch of observations, each against its goal.

        Args:
            obs: A mapping of batched modalities, or frames `[B, H, W, 3]`, uint8.
            goal_index: Positions in `goals`.

        Raises:
            FrameError: If the frames are none; see `frames.check_frames`.
            MissingModalityError: If the encoder needs more than the observation has.
            TypeError: If a goal index is not a whole number.
            ValueError: If the number of goal indices is not that of the rows.
            IndexError: If a goal index is out of range.
        """
        return self.score_embeddings(self._encode(obs), goal_index)

    def score_embeddings(
        self, embedding: Float[torch.Tensor, "B D"], goal_index: GoalIndex = 0
    ) -> Scores:
        """Scores observations that are embedded already; see `score`."""
        goal = self.check_goal_index(goal_index, len(embedding))
        score = self.head.score(self._bank.similarities(embedding, goal))
        return Scores(self.head.reward(score), score, embedding)

    def similarities(
        self, obs: Mapping[str, Any] | Frames, goal_index: GoalIndex = 0
    ) -> Similarities:
        """Returns the cosines that the head turns into scores; see `score`."""
        embedding = self._encode(obs)
        return self._bank.similarities(embedding, self.check_goal_index(goal_index, len(embedding)))

    def goal_embeddings(self, goal_index: GoalIndex) -> Float[torch.Tensor, "B D"]:
        """Returns the unit embeddings of goals, which a goal-conditioned policy can observe."""
        num_rows = int(np.size(torch.as_tensor(goal_index).cpu().numpy()))
        return self._bank.goal_embeddings(self.check_goal_index(goal_index, num_rows))

    def _encode(self, obs: Mapping[str, Any] | Frames) -> Float[torch.Tensor, "B D"]:
        return self.encoder.encode_obs(obs if isinstance(obs, Mapping) else {PIXELS: obs})

    def config(self) -> dict[str, Any]:
        """Describes the reward for the record of a run, as JSON types."""
        return {
            "encoder": self.encoder.name,
            "head": head_config(self.head),
            "timing": self.timing.config(),
            "goals": [goal.config() for goal in self.goals],
        }

    def check_goal_index(self, goal_index: GoalIndex, num_rows: int) -> Int[torch.Tensor, " B"]:
        """Returns one goal index per row; see `score` for what it raises."""
        try:
            index = torch.as_tensor(goal_index)
        except (
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:  # no numbers, or lists of two lengths
            raise TypeError(f"expected whole numbers as goal_index, got {goal_index!r}") from error
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"expected whole numbers as goal_index, got dtype {index.dtype}")
        if index.ndim == 0:
            index = index.expand(num_rows)
        if tuple(index.shape) != (num_rows,):
            raise ValueError(
                f"expected one goal_index for all, or one for each of the {num_rows} observations, "
                f"got shape {list(index.shape)}"
            )
        outside = index[(index < 0) | (index >= self.num_goals)]
        if len(outside):
            raise IndexError(
                f"expected goal_index from 0 to {self.num_goals - 1}, got {int(outside[0])}"
            )
        return index.to(self.encoder.device, torch.long)


def _check_goal(goal: Goal, head: Head) -> None:
    kind = type(head).__name__
    if head.needs_negatives and not goal.negative_prompts:
        raise ValueError(
            f"{goal} has no negatives, and {kind} compares a goal with them: say what else a frame "
            "might show in `negative_prompts`"
        )
    if head.needs_baseline and not goal.baseline_prompts:
        raise ValueError(
            f"{goal} has no baseline, and {kind} starts from one: say how the scene looks without "
            "the goal in `baseline_prompts`"
        )
