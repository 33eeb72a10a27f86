"""A fixed scale for a dense reward, measured on frames.

Shapes: N frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmreward.frames import Frames
from vlmreward.heads import NormalizedHead
from vlmreward.reward_model import GoalIndex, RewardModel

_ROUNDING = 1e-5  # by this much, embeddings of one frame may differ from batch to batch


def fit_normalized_head(
    reward_model: RewardModel, obs: Mapping[str, Any] | Frames, goal_index: GoalIndex = 0
) -> NormalizedHead:
    """Puts a reward model's head on the scale of its rewards for some frames.

    Over these frames the head that is returned pays 0 on average, with standard deviation 1. They
    say where a learner begins: a random policy's are a good choice, and what lies beyond them pays
    more than they do. Frames are scored one by one, whatever the model's timing: the rewards of
    windows have a scale of their own.

    Args:
        reward_model: Scores; it stays as it is.
        obs: Frames `[N, H, W, 3]`, or a mapping of modalities with N rows.
        goal_index: Positions in its goals: one for all, or one per row. All share the scale.

    Raises:
        FrameError: If the frames are none; see `frames.check_frames`.
        ValueError: If rewards hardly differ, if one is not finite, or if the head is binary.

    Example:
        A red and a black frame have cosines 1 and 0 to a red room: mean and deviation are .5.

        >>> import numpy as np
        >>> from vlmreward import CosineHead, FakeEncoder, Goal
        >>> frames = np.zeros((2, 8, 8, 3), np.uint8)
        >>> frames[0, ..., 0] = 255
        >>> encoder, goal = FakeEncoder(), Goal("a red room")
        >>> head = fit_normalized_head(RewardModel(encoder, goal, CosineHead()), frames)
        >>> head
        NormalizedHead(head=CosineHead(), mean=0.5, std=0.5)
        >>> RewardModel(encoder, goal, head)(frames)
        tensor([ 1., -1.])
    """
    reward = reward_model(obs, goal_index).double().cpu()
    mean, std = float(reward.mean()), float(reward.std(correction=0))
    if not std > _ROUNDING:
        raise ValueError(
            f"expected rewards that differ between frames, got {len(reward)} with mean {mean:g} "
            f"and standard deviation {std:g}: take more, and different, frames"
        )
    return NormalizedHead(reward_model.head, mean, std)
