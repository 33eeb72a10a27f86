"""Frames with sentences about them, from any captioner.

Axis letters: ``B`` frames, ``N`` distinct texts, ``H W`` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor


@dataclass(frozen=True)
class CaptionedFrames:
    """A batch of frames and what is true, and nearly true, of each.

    Attributes:
        frames: RGB, uint8 0–255.
        captions: For each frame, the sentences that are true of it, at least one. The more complete
            the list, the fewer true pairs are trained as false.
        near_misses: For each frame and each of its captions, false sentences that resemble it
            (may be empty).

    Raises:
        ValueError: The three do not fit together, or a frame has no caption.
    """

    frames: UInt8[Tensor, "B H W 3"]
    captions: Sequence[Sequence[str]]
    near_misses: Sequence[Sequence[Sequence[str]]]

    def __post_init__(self) -> None:
        num_frames = len(self.frames)
        if not len(self.captions) == len(self.near_misses) == num_frames:
            raise ValueError(
                f"got {num_frames} frames, {len(self.captions)} lists of captions and "
                f"{len(self.near_misses)} lists of near misses; expected one of each per frame"
            )
        for index, (true, wrong) in enumerate(zip(self.captions, self.near_misses, strict=True)):
            if not true:
                raise ValueError(f"frame {index} has no caption; drop it or describe it")
            if len(true) != len(wrong):
                raise ValueError(
                    f"frame {index} has {len(true)} captions and {len(wrong)} lists of near "
                    "misses; expected one list (perhaps empty) per caption"
                )


@runtime_checkable
class CaptionSource(Protocol):
    """Draws captioned frames: an environment with a captioner, or a labelled data set."""

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Draw ``num_frames`` frames; the same ``rng`` state gives the same batch."""
        ...


@dataclass(frozen=True)
class TextBatch:
    """The distinct texts of one training batch.

    Attributes:
        texts: Captions and near misses, each once.
        is_true: Which text is true of which frame. Equal captions of two frames are one text and
            so a positive of both.
    """

    texts: tuple[str, ...]
    is_true: Bool[Tensor, "B N"]


def draw_texts(
    batch: CaptionedFrames,
    captions_per_frame: int,
    near_misses_per_caption: int,
    rng: np.random.Generator,
) -> TextBatch:
    """Draw the texts to contrast a batch of frames with.

    Args:
        batch: The captioned frames.
        captions_per_frame: True captions drawn per frame (all, if it has fewer).
        near_misses_per_caption: Hard negatives drawn per drawn caption (all, if fewer).
        rng: Random generator.
    """
    index_of: dict[str, int] = {}
    for true, wrong in zip(batch.captions, batch.near_misses, strict=True):
        for drawn in rng.permutation(len(true))[:captions_per_frame]:
            index_of.setdefault(true[drawn], len(index_of))
            for miss in rng.permutation(len(wrong[drawn]))[:near_misses_per_caption]:
                index_of.setdefault(wrong[drawn][miss], len(index_of))
    is_true = torch.zeros(len(batch.frames), len(index_of), dtype=torch.bool)
    for frame, true in enumerate(batch.captions):
        is_true[frame, [index_of[text] for text in true if text in index_of]] = True
    return TextBatch(tuple(index_of), is_true)
