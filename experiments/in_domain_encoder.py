"""A CLIP for an environment: a small one trained on captions from the environment's own state."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from vlmreward.encoders import save_encoder
from vlmreward.pretraining import CaptionedFrames, CaptionSource, PretrainConfig, pretrain

_FRAMES_SEED = 3_000_001
_DRAWN_AT_ONCE = 256


def model_config(size: tuple[int, int]) -> dict[str, Any]:
    """Return the open_clip configuration of a small CLIP that reads frames of a size (H, W)."""
    return {
        "embed_dim": 128,
        "init_logit_scale": 3.0,
        "vision_cfg": {
            "timm_model_name": "patch_convnet",
            "timm_model_pretrained": False,
            "timm_pool": "catavgmax",
            "timm_proj": "",
            "image_size": list(size),
        },
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 64,
            "heads": 4,
            "layers": 2,
        },
    }


class DrawnOnce:
    """A fixed set of captioned frames, drawn when first needed, from which batches are taken.

    Somebody else's renderer is slower than a training step of a small CLIP.

    Args:
        source: Draws the frames.
        num_frames: How many.
    """

    def __init__(self, source: CaptionSource, num_frames: int) -> None:
        self._source = source
        self._num_frames = num_frames
        self._drawn: list[CaptionedFrames] = []

    def __call__(self, num_frames: int, rng: np.random.Generator) -> CaptionedFrames:
        """Take frames at random, with replacement."""
        if not self._drawn:
            self._draw()
        block, row = np.divmod(rng.integers(self._num_frames, size=num_frames), _DRAWN_AT_ONCE)
        places = list(zip(block.tolist(), row.tolist(), strict=True))
        return CaptionedFrames(
            torch.stack([self._drawn[b].frames[r] for b, r in places]),
            [self._drawn[b].captions[r] for b, r in places],
            [self._drawn[b].near_misses[r] for b, r in places],
        )

    def _draw(self) -> None:
        starts = range(0, self._num_frames, _DRAWN_AT_ONCE)
        for number, start in enumerate(track(starts, "drawing frames")):
            rng = np.random.default_rng((_FRAMES_SEED, number))
            self._drawn.append(self._source(min(_DRAWN_AT_ONCE, self._num_frames - start), rng))


def train_encoder(
    captions: CaptionSource,
    size: tuple[int, int],
    run_dir: Path,
    *,
    num_steps: int,
    num_frames: int,
) -> Path:
    """Train a CLIP on an environment's own captions; return the file that `load_encoder` reads.

    Training that was killed goes on from its last checkpoint.
    """
    config = PretrainConfig(
        num_steps=num_steps,
        batch_size=128,
        captions_per_frame=3,
        near_misses_per_caption=2,
        learning_rate=2e-3,
        warmup_steps=min(100, num_steps),
        checkpoint_interval=100,
    )
    tower = model_config(size)
    model = pretrain(tower, DrawnOnce(captions, num_frames), config, run_dir / "pretraining")
    return save_encoder(model, tower, run_dir / "encoder")
