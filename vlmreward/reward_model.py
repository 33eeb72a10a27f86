"""From observations and goals to rewards.

Axes: `B` batch, `D` width of the embedding, `G` goals, `M` candidates of a goal (itself, then its
negatives, then padding), `U` distinct candidates of all goals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from vlmreward.encoders import ImageTextEncoder
from vlmreward.frames import PIXELS, Frames
from vlmreward.goals import Goal
from vlmreward.heads import SoftmaxHead

GoalIndex: TypeAlias = int | np.integer[Any] | Sequence[int] | NDArray[Any] | torch.Tensor
"""Which goal: one for the whole batch, or one per row."""


@dataclass(frozen=True)
class Scores:
    """What one forward pass says about a batch of observations, on the encoder's device.

    Attributes:
        reward: What the learner is paid.
        probability: That the frame shows the goal rather than one of its negatives (Eq. 1 of
            Baumli et al.), in [0, 1].
        embedding: Of the observations, unit length.
    """

    reward: Float[torch.Tensor, " B"]
    probability: Float[torch.Tensor, " B"]
    embedding: Float[torch.Tensor, "B D"]


class RewardModel:
    """Pays for observations that show a goal.

    The texts are embedded here, once; a call is one forward pass of the encoder, whatever the
    number of goals in the batch.

    Args:
        encoder: Embeds observations and texts.
        goals: One goal, or several to choose from row by row.
        head: Turns similarities into rewards. The encoder's own calibrated head if None.

    Example:
        >>> import numpy as np
        >>> from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead
        >>> goals = [Goal("a red room", ["a green room"]), Goal("a green room", ["a red room"])]
        >>> reward_model = RewardModel(FakeEncoder(), goals, SoftmaxHead(0.5, threshold=0.8))
        >>> red, green = np.zeros((2, 8, 8, 3), np.uint8)
        >>> red[..., 0], green[..., 1] = 255, 255
        >>> scores = reward_model.score(np.stack([red, green]), goal_index=0)
        >>> scores.probability
        tensor([0.8808, 0.1192])
        >>> reward_model(np.stack([red, green]), goal_index=[0, 1])
        tensor([1., 1.])

    Raises:
        ValueError: If there is no goal, if a goal has no negatives, or if there is neither a head
            nor a calibrated encoder.
    """

    def __init__(
        self,
        encoder: ImageTextEncoder,
        goals: Goal | Sequence[Goal],
        head: SoftmaxHead | None = None,
    ) -> None:
        head = head or encoder.calibrated_head
        if head is None:
            raise ValueError(
                f"encoder {encoder.name!r} has no calibrated head: pass SoftmaxHead(temperature=..."
                ", threshold=...). The model's own temperature is "
                f"{1 / encoder.logit_scale:.4g}; choose the threshold on labelled frames"
            )
        self.encoder = encoder
        self.head = head
        self.goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
        if not self.goals:
            raise ValueError("expected at least one goal, got none")
        for goal in self.goals:
            if not goal.negative_prompts:
                raise ValueError(
                    f"{goal} has no negatives, so that its softmax probability is 1 whatever the "
                    "frame shows: say what else a frame might show in `negative_prompts`"
                )
        self._embeddings, self._candidates, self._is_candidate = _embed_goals(encoder, self.goals)

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
        if not isinstance(obs, Mapping):
            obs = {PIXELS: obs}
        return self.score_embeddings(self.encoder.encode_obs(obs), goal_index)

    def score_embeddings(
        self, embedding: Float[torch.Tensor, "B D"], goal_index: GoalIndex = 0
    ) -> Scores:
        """Scores observations that are embedded already; see `score`."""
        goal = self.check_goal_index(goal_index, len(embedding))
        similarity = embedding @ self._embeddings.T
        candidates = similarity.gather(1, self._candidates[goal])
        probability = self.head.probability(candidates, self._is_candidate[goal])
        return Scores(self.head.reward(probability), probability, embedding)

    def config(self) -> dict[str, Any]:
        """Describes the reward for the record of a run, as JSON types."""
        return {
            "encoder": self.encoder.name,
            "temperature": self.head.temperature,
            "threshold": self.head.threshold,
            "goals": [
                {"prompts": list(goal.prompts), "negative_prompts": list(goal.negative_prompts)}
                for goal in self.goals
            ],
        }

    def check_goal_index(self, goal_index: GoalIndex, num_rows: int) -> Int[torch.Tensor, " B"]:
        """Returns one goal index per row; see `score` for what it raises."""
        index = torch.as_tensor(goal_index)
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


def _embed_goals(
    encoder: ImageTextEncoder, goals: Sequence[Goal]
) -> tuple[Float[torch.Tensor, "U D"], Int[torch.Tensor, "G M"], Bool[torch.Tensor, "G M"]]:
    """Embeds every distinct candidate once, and says which ones each goal is compared with."""
    rows: dict[tuple[str, ...], int] = {}
    candidates = [
        [
            rows.setdefault(prompts, len(rows))
            for prompts in (goal.prompts, *((text,) for text in goal.negative_prompts))
        ]
        for goal in goals
    ]
    widest = max(map(len, candidates))
    padded = torch.tensor([row + [0] * (widest - len(row)) for row in candidates])
    lengths = torch.tensor([len(row) for row in candidates])
    is_candidate = torch.arange(widest) < lengths[:, None]

    # One pass over all texts; a goal of several prompts is then the unit mean of its unit rows.
    texts = [text for prompts in rows for text in prompts]
    embedded = iter(encoder.encode_text(texts))
    means = torch.stack([torch.stack([next(embedded) for _ in row]).mean(dim=0) for row in rows])
    embeddings = torch.nn.functional.normalize(means, dim=1)
    return embeddings, padded.to(encoder.device), is_candidate.to(encoder.device)
