"""What a head is calibrated on: similarities of labelled frames, before any temperature.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmreward.encoders import ImageTextEncoder
from vlmreward.frames import Frames
from vlmreward.goals import Goal
from vlmreward.heads import Similarities, SoftmaxHead
from vlmreward.reward_model import GoalIndex, RewardModel


def similarities_of(
    encoder: ImageTextEncoder,
    goals: Goal | Sequence[Goal],
    obs: Mapping[str, Any] | Frames,
    goal_index: GoalIndex = 0,
) -> Similarities:
    """Encode frames and compare each with its goal and that goal's negatives.

    Args:
        encoder: Embeds frames and texts.
        goals: One goal, or several to choose from row by row, all with negatives.
        obs: Frames `[N, H, W, 3]`, or a mapping of modalities with N rows.
        goal_index: Positions in `goals`: one for all, or one per row.

    Raises:
        FrameError: If the frames are none; see `frames.check_frames`.
        TypeError: If a goal index is not a whole number.
        ValueError: If a goal lacks negatives, or the number of goal indices is not that of the
            rows.
        IndexError: If a goal index is out of range.

    Example:
        >>> import numpy as np
        >>> from vlmreward import FakeEncoder
        >>> red = np.zeros((1, 8, 8, 3), np.uint8)
        >>> red[..., 0] = 255
        >>> seen = similarities_of(FakeEncoder(), Goal("a red room", ["a green room"]), red)
        >>> seen.goal, seen.negatives
        (tensor([1.]), tensor([[0.]]))
    """
    # Its temperature has no part in similarities; that the goals have negatives is checked.
    model = RewardModel(encoder, goals, SoftmaxHead(temperature=1.0))
    return model.similarities(obs, goal_index)
