"""Train a family of CLIPs that differ in the size of image tower and embedding.

    python experiments/encoder_family.py

Five image towers, the largest with 115 times the parameters of the smallest, each with a text tower
of its own, on Playroom and Launcher together: the same frames, schedule and rule (the last weights
count) for all. Two larger ones, for a GPU, are trained where ``--sizes`` names them. Goes on where
it was killed. Ends with a model card, ``<size>.json`` beside its weights, for each size under
``runs/encoder_family/``.
"""

import copy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from playroom_encoder import MODEL_CONFIG
from trend_domains import Domain, MixedCaptions, domains
from trend_scores import (
    FALSE_POSITIVE_RATE,
    accuracy,
    calibrated_threshold,
    embed,
    goal_scores,
    mean_average_precision,
    reward_model_of,
)
from vlmreward import load_encoder
from vlmreward.encoders import OpenCLIPEncoder, build_tokenizer, save_encoder
from vlmreward.pretraining import CaptionSource, PretrainConfig, pretrain

CALIBRATION_SEED, TEST_SEED, PROGRESS_SEED = 2_000_001, 2_000_002, 2_000_003
"""Of labelled trajectories, none of which is trained on."""
_TEXTS_SEED = 2_000_004


@dataclass(frozen=True)
class Size:
    """A member of the family.

    Attributes:
        tower: Name of the image tower; see `vlmreward.encoders.towers`.
        embed_dim: Width of the embedding.
    """

    tower: str
    embed_dim: int


SIZES = {
    "xs": Size("patch_convnet_xs", 32),
    "s": Size("patch_convnet_s", 64),
    "m": Size("patch_convnet_m", 128),
    "l": Size("patch_convnet", 256),
    "xl": Size("patch_convnet_xl", 256),
    "xxl": Size("patch_convnet_xxl", 512),
    "xxxl": Size("patch_convnet_xxxl", 512),
}
CPU_SIZES = ("xs", "s", "m", "l", "xl")
"""Those that two cores train in an afternoon."""


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_steps: Gradient steps of 128 frames.
        num_episodes: Labelled trajectories of each domain, to calibrate on and to test on.
        evaluation_interval: Gradient steps between looks at the average precision.
        num_text_batches: Batches whose sentences tell which tokens are read at all.
    """

    num_steps: int
    num_episodes: int
    evaluation_interval: int
    num_text_batches: int


PRESETS = {"full": Preset(5000, 1024, 1000, 64), "debug": Preset(2, 32, 2, 8)}


@dataclass(frozen=True)
class FamilyOptions:
    """Options of the command line.

    Attributes:
        sizes: Which members.
        preset: ``debug`` runs through everything in little time.
        seed: Of the weights and of every batch.
        run_name: Folder under ``runs/``.
        num_threads: Of torch; another number gives other rounding, so other bytes.
        device: Where to train. On a GPU in bfloat16, and not the same bytes in each run.
        num_workers: Processes that draw batches ahead.
    """

    sizes: tuple[str, ...] = CPU_SIZES
    preset: Literal["full", "debug"] = "full"
    seed: int = 0
    run_name: str = "encoder_family"
    num_threads: int = 1
    device: str = "cpu"
    num_workers: int = 0


def main(options: FamilyOptions) -> list[Path]:
    """Train, calibrate, measure and save each size, and return the cards.

    Raises:
        ValueError: A size that there is not.
    """
    if unknown := set(options.sizes) - set(SIZES):
        raise ValueError(f"got sizes {sorted(unknown)}, expected some of {list(SIZES)}")
    torch.set_num_threads(options.num_threads)
    run_dir = Path("runs") / options.run_name
    return [train(name, options, run_dir) for name in options.sizes]


def train(name: str, options: FamilyOptions, run_dir: Path) -> Path:
    """Train one size, unless its card says that it is done, and return the card."""
    preset, both = PRESETS[options.preset], domains()
    card = run_dir / f"{name}.json"
    if card.exists():
        return card
    on_gpu = torch.device(options.device).type == "cuda"
    config = PretrainConfig(
        num_steps=preset.num_steps,
        batch_size=128,
        captions_per_frame=6,
        near_misses_per_caption=2,
        learning_rate=3e-3,
        warmup_steps=min(200, preset.num_steps),
        seed=options.seed,
        checkpoint_interval=100,
        evaluation_interval=preset.evaluation_interval,
        mixed_precision=on_gpu,
    )
    model_cfg = model_config(SIZES[name])
    progress = {
        domain.name: domain.draw(preset.num_episodes // 8, np.random.default_rng(PROGRESS_SEED))
        for domain in both
    }

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        encoder = OpenCLIPEncoder(
            copy.deepcopy(model), build_tokenizer(model_cfg), name="in training"
        )
        found = {}
        for domain in both:
            labelled = progress[domain.name]
            scores = goal_scores(reward_model_of(encoder, domain), embed(encoder, labelled.frames))
            for group, goals in _groups(domain).items():
                value = mean_average_precision(labelled.labels, scores, goals)
                found[f"ap_{domain.name}_{group}"] = value
        return found

    source = MixedCaptions(*(domain.captions for domain in both))
    model = pretrain(
        model_cfg,
        source,
        config,
        run_dir / name,
        evaluate=evaluate,
        device=options.device,
        num_workers=options.num_workers,
    ).cpu()
    forget_unread_tokens(model, model_cfg, source, preset.num_text_batches)
    # Calibrate and measure the half-precision weights that are saved, not the ones just trained.
    unmeasured = save_encoder(model, model_cfg, run_dir / name / "unmeasured")
    encoder = load_encoder(str(unmeasured), device=options.device)
    training = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": options.seed,
        "num_frames": preset.num_steps * config.batch_size,
        "num_threads": options.num_threads,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "image_tower_parameters": sum(p.numel() for p in encoder.model.visual.parameters()),
        "calibrated_false_positive_rate": FALSE_POSITIVE_RATE,
        "domains": {domain.name: measure(encoder, domain, preset) for domain in both},
    }
    return save_encoder(model, model_cfg, run_dir / name, training=training)


def model_config(size: Size) -> dict[str, Any]:
    """Return the open_clip configuration of a member: that of the Playroom's but for its size."""
    vision = {**MODEL_CONFIG["vision_cfg"], "timm_model_name": size.tower}
    return {**MODEL_CONFIG, "embed_dim": size.embed_dim, "vision_cfg": vision}


@torch.no_grad()
def forget_unread_tokens(
    model: Any, model_cfg: dict[str, Any], source: CaptionSource, num_batches: int
) -> None:
    """Set the embeddings of tokens that no training sentence has to 0.

    They are what they were drawn as, and most of the file: zeros take no room in an archive.
    """
    texts: set[str] = set()
    for batch in range(num_batches):
        drawn = source(128, np.random.default_rng((_TEXTS_SEED, batch)))
        texts.update(text for captions in drawn.captions for text in captions)
        texts.update(text for frame in drawn.near_misses for misses in frame for text in misses)
    read = build_tokenizer(model_cfg)(sorted(texts)).unique()
    weight = model.token_embedding.weight
    kept = torch.zeros(len(weight), 1).index_fill_(0, read, 1.0)
    weight.mul_(kept)


def measure(encoder: OpenCLIPEncoder, domain: Domain, preset: Preset) -> dict[str, Any]:
    """Calibrate a threshold on some trajectories and measure rewards on others."""
    reward_model = reward_model_of(encoder, domain)
    calibration, test = (
        domain.draw(preset.num_episodes, np.random.default_rng(seed))
        for seed in (CALIBRATION_SEED, TEST_SEED)
    )
    calibration_scores = goal_scores(reward_model, embed(encoder, calibration.frames))
    threshold = calibrated_threshold(calibration.labels, calibration_scores)
    scores = goal_scores(reward_model, embed(encoder, test.frames))
    measured = {
        group: accuracy(test, scores, goals, threshold).to_dict()
        for group, goals in _groups(domain).items()
    }
    return {
        "threshold": threshold,
        **{
            group: {name: value for name, value in of_group.items() if name != "per_goal"}
            for group, of_group in measured.items()
        },
    }


def _groups(domain: Domain) -> dict[str, np.ndarray]:
    return {"named": ~domain.is_held_out, "held_out": domain.is_held_out}


if __name__ == "__main__":
    main(tyro.cli(FamilyOptions))
