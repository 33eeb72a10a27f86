"""Train a backbone that sees, hears and remembers on the Playroom with sound.

    python experiments/playroom_sound_encoder.py

Contrasts sound, video, both, and episodes so far with sentences that are true or nearly true of
them. Goes on where it was killed. Ends with the weights and average precision by kind of goal,
``summary.json``, under ``runs/playroom_sound_encoder/``.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``G`` goals.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from playroom_sound_domain import SoundBatch, SoundBatchConfig, SoundBatches, roll
from run_folder import machine, versions, write_json
from vlmreward.backbone.audio import log_mel
from vlmreward.backbone.model import (
    PURE_AND_FUSED,
    BackboneConfig,
    MemoryKind,
    MultimodalBackbone,
    StepEmbeddings,
)
from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    StreamEmbeddings,
    StreamTexts,
)
from vlmreward.backbone.optimisers import OptimiserConfig
from vlmreward.backbone.training import BackboneTrainingConfig, train_backbone
from vlmreward.encoders import build_tokenizer
from vlmreward.encoders.open_clip import Tokenizer
from vlmreward.evaluation import average_precision
from vlmreward_envs.playroom_sound import (
    GoalKind,
    PlayroomSoundRooms,
    all_goals,
    goal_reached,
    goal_tensor,
)

TEST_SEED = 6_000_001
_STREAM_OF = {
    GoalKind.SEEN: ("video", "fusion", "episode"),
    GoalKind.HEARD: ("audio", "fusion", "episode"),
    GoalKind.SEEN_AND_HEARD: ("fusion", "episode"),
    GoalKind.TOLD: ("fusion", "episode"),
}
"""The streams that each kind of goal is scored by, to be compared."""


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_steps: Gradient steps.
        batch: Of each.
        num_episodes: Labelled episodes to measure on.
        episode_length: Their steps.
    """

    num_steps: int
    batch: SoundBatchConfig
    num_episodes: int
    episode_length: int


PRESETS = {
    "full": Preset(6000, SoundBatchConfig(), 64, 200),
    "debug": Preset(2, SoundBatchConfig(8, 2, 6, 2), 4, 16),
}


@dataclass(frozen=True)
class SoundEncoderOptions:
    """Options of the command line.

    Attributes:
        memory: What goes over the steps of an episode.
        time_stamps: Whether it is told the number of each step.
        preset: ``debug`` runs through everything in little time.
        seed: Of the weights and of every batch.
        num_threads: Of torch; another number gives other rounding, so other bytes.
        num_workers: Processes that draw batches ahead.
        device: Where to train.
        run_name: Folder under ``runs/``.
    """

    memory: MemoryKind = "transformer"
    time_stamps: bool = False
    preset: Literal["full", "debug"] = "full"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 0
    device: str = "cpu"
    run_name: str = "playroom_sound_encoder"


class ContrastiveBackbone(nn.Module):
    """A backbone with its losses: what `train_backbone` trains.

    Episodes are gone over by the memory alone: their tokens are not trained by what it makes of
    them, which would cost three times as much.

    Args:
        config: Shape of the backbone.
        seed: Of its weights.
    """

    def __init__(self, config: BackboneConfig, seed: int) -> None:
        super().__init__()
        self.backbone = MultimodalBackbone(config, torch.Generator().manual_seed(seed))
        self.objectives = ContrastiveObjectives(ObjectivesConfig())

    def forward(self, batch: SoundBatch) -> Mapping[str, Tensor]:
        """Return the losses of a batch, by the pair of streams."""
        backbone = self.backbone
        step = self.encode(batch.frames, batch.log_mel)
        with torch.no_grad():
            flat = (batch.episode_frames.flatten(0, 1), batch.episode_log_mel.flatten(0, 1))
            tokens = self.encode(*flat).tokens
        of_episode = tokens.unflatten(0, batch.episode_frames.shape[:2])
        is_first = torch.zeros(of_episode.shape[:2], dtype=torch.bool, device=tokens.device)
        episode = backbone.remember_all(of_episode, is_first).flatten(0, 1)[batch.described]
        text = backbone.encode_text(batch.tokens)
        streams = {name: getattr(step, name) for name in PURE_AND_FUSED}
        streams["episode"] = episode
        return self.objectives(
            {name: StreamEmbeddings(vectors) for name, vectors in streams.items()},
            {
                name: StreamTexts(text[own], batch.is_true[name][:, own])
                for name, own in batch.is_text.items()
            },
        )

    def encode(self, frames: Tensor, mels: Tensor) -> StepEmbeddings:
        """Embed single steps that have both frame and sound."""
        backbone = self.backbone
        return backbone.encode_step(backbone.video_tokens(frames), backbone.audio_tokens(mels))


@dataclass(frozen=True)
class LabelledEpisodes:
    """Episodes of persons who do this and that, with the ground truth of every goal.

    Attributes:
        frames: uint8 ``[E, T, H, W, 3]``.
        log_mel: ``[E, T, R, M]``.
        labels: By kind, which goals are true ``[E * T, G]``.
    """

    frames: Tensor
    log_mel: Tensor
    labels: Mapping[GoalKind, np.ndarray]


def draw_labelled(preset: Preset, config: BackboneConfig) -> LabelledEpisodes:
    """Draw what is measured on: the same for every model."""
    rng = np.random.default_rng(TEST_SEED)
    rooms = PlayroomSoundRooms(preset.num_episodes)
    rooms.reset(torch.from_numpy(rng.integers(2**62, size=preset.num_episodes)))
    frames, sounds = [], []
    labels: dict[GoalKind, list[Tensor]] = {kind: [] for kind in GoalKind}
    goals = {kind: goal_tensor(all_goals(kind), rooms.device) for kind in GoalKind}
    for state in islice(roll(rooms.config, rooms.state, rng), preset.episode_length):
        rooms.state = state
        frames.append(rooms.render())
        sounds.append(rooms.listen())
        for kind, rows in goals.items():
            true = [goal_reached(state, row.expand(len(state), -1)) for row in rows]
            labels[kind].append(torch.stack(true, dim=1))
    mels = log_mel(torch.cat(sounds, dim=1), config.log_mel)
    return LabelledEpisodes(
        torch.stack(frames, dim=1),
        mels.unflatten(1, (preset.episode_length, -1)),
        {
            kind: torch.stack(of_kind, dim=1).flatten(0, 1).numpy()
            for kind, of_kind in labels.items()
        },
    )


@torch.no_grad()
def measure(
    model: ContrastiveBackbone, labelled: LabelledEpisodes, tokenizer: Tokenizer
) -> dict[str, float]:
    """Return the mean average precision of each kind of goal, by each stream that scores it.

    Goals that are never true, or at every step, are left out.
    """
    backbone = model.backbone
    device = next(backbone.parameters()).device
    columns: dict[str, list[Tensor]] = {
        name: [] for name in ("audio", "video", "fusion", "episode")
    }
    for frames, mels in zip(labelled.frames, labelled.log_mel, strict=True):
        step = model.encode(frames.to(device), mels.to(device))
        is_first = torch.zeros(1, len(frames), dtype=torch.bool, device=device)
        columns["episode"].append(backbone.remember_all(step.tokens[None], is_first)[0])
        for name in PURE_AND_FUSED:
            columns[name].append(getattr(step, name))
    embedded = {name: torch.cat(parts) for name, parts in columns.items()}
    found = {}
    for kind, labels in labelled.labels.items():
        sentences = [goal.sentence for goal in all_goals(kind)]
        text = backbone.encode_text(tokenizer(sentences).to(device))
        told = labels.any(axis=0) & ~labels.all(axis=0)
        for stream in _STREAM_OF[kind]:
            scores = (embedded[stream] @ text.T).cpu().double().numpy()
            of_goal = [average_precision(labels[:, g], scores[:, g]) for g in np.flatnonzero(told)]
            found[f"ap_{kind.name.lower()}_{stream}"] = float(np.mean(of_goal))
    return found


def main(options: SoundEncoderOptions) -> Path:
    """Train, measure and save, and return the run folder."""
    torch.set_num_threads(options.num_threads)
    preset, run_dir = PRESETS[options.preset], Path("runs") / options.run_name
    config = replace(BackboneConfig(), memory=options.memory, time_stamps=options.time_stamps)
    text_cfg = {"context_length": config.text.context_length, "vocab_size": config.text.vocab_size}
    tokenizer = build_tokenizer({"text_cfg": text_cfg, "vision_cfg": {}, "embed_dim": 1})
    labelled = draw_labelled(preset, config)
    training = BackboneTrainingConfig(
        num_steps=preset.num_steps,
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=min(200, preset.num_steps)),
        seed=options.seed,
        num_workers=options.num_workers,
        checkpoint_interval=100,
        evaluation_interval=500,
    )
    model = train_backbone(
        ContrastiveBackbone(config, options.seed).to(options.device),
        SoundBatches(preset.batch, config.log_mel, tokenizer, options.seed),
        training,
        run_dir,
        evaluate=partial(measure, labelled=labelled, tokenizer=tokenizer),
    )
    write_json(
        run_dir / "summary.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "versions": versions(),
            "machine": machine(),
            "config": config.to_dict(),
            "parameters": sum(p.numel() for p in model.backbone.parameters()),
            "average_precision": measure(model, labelled, tokenizer),
        },
    )
    print(run_dir / "summary.json")
    return run_dir


if __name__ == "__main__":
    main(tyro.cli(SoundEncoderOptions))
