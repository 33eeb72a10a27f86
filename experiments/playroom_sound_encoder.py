"""Train a backbone that sees, hears and remembers on the Playroom with sound.

    python experiments/playroom_sound_encoder.py

First its steps: sound is contrasted with sentences about what is heard, frames with those about
what is seen and heard, so that they learn how little they tell of sound, and both together with all
kinds; sentences are true and nearly true. Then, on the tokens of whole episodes, its memory; all
else stays as it is, so that memories can be compared: ``--memories`` and ``--memory-seeds`` name
several. Goes on where it was killed. Ends with the weights of each and average precision by kind of
goal, ``summary.json``, under ``runs/playroom_sound_encoder/``.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``G`` sentences, ``F`` fusion tokens
of a step, ``D`` width.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from playroom_sound_calibration import FALSE_POSITIVE_RATE, calibrate_streams
from playroom_sound_domain import (
    GOALS_OF_KIND,
    IS_HELD_OUT,
    SENTENCES,
    LabelledEpisodes,
    SoundBatch,
    SoundBatchConfig,
    SoundBatches,
    draw_episodes,
)
from run_folder import machine, versions, write_json
from vlmreward.backbone.encoder import MultimodalEncoder
from vlmreward.backbone.files import save_backbone, tokenizer_of
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
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
)
from vlmreward.backbone.optimisers import OptimiserConfig
from vlmreward.backbone.training import BackboneTrainingConfig, train_backbone
from vlmreward.encoders.open_clip import Tokenizer
from vlmreward.evaluation import average_precision
from vlmreward_envs.playroom_sound import GoalKind

TRAIN_SEED, PROGRESS_SEED, TEST_SEED = 6_000_001, 6_000_002, 6_000_003
"""Of episodes: memories are trained on the first, looked at on the second, measured on the last."""
_OFF = PairConfig(weight=0.0)
# Sound and sight have nothing to do with each other here but what the person does.
_OF_STEPS = ObjectivesConfig(audio_video=_OFF, episode_text=_OFF)
_OF_EPISODES = ObjectivesConfig(
    image_text=_OFF, audio_text=_OFF, audio_video=_OFF, fusion_text=_OFF
)
_KINDS_OF_STREAM = {
    "video": (GoalKind.SEEN, GoalKind.HEARD),
    "audio": (GoalKind.HEARD,),
    "fusion": tuple(GoalKind),
}
"""The kinds of sentences that each stream is contrasted with."""
_ROWS_AT_A_TIME = 256


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Attributes:
        num_steps: Gradient steps of the streams.
        batch: Of each.
        num_memory_steps: Gradient steps of a memory.
        memory_batch: Episodes of each.
        num_described: Steps of each of these episodes that are described.
        num_train_episodes: Episodes that memories are trained on.
        num_episodes: Episodes to measure on.
        episode_length: Their steps.
        calibrate_every: Steps between those calibrated on; neighbours are much alike.
    """

    num_steps: int
    batch: SoundBatchConfig
    num_memory_steps: int
    memory_batch: int
    num_described: int
    num_train_episodes: int
    num_episodes: int
    episode_length: int
    calibrate_every: int


PRESETS = {
    "full": Preset(5000, SoundBatchConfig(), 600, 8, 100, 384, 64, 200, 5),
    "debug": Preset(2, SoundBatchConfig(8, 1, 1), 2, 2, 4, 3, 4, 100, 1),
}


@dataclass(frozen=True)
class SoundEncoderOptions:
    """Options of the command line.

    Attributes:
        memories: What goes over the steps of an episode; one or several, to compare.
        memory_seeds: Of the memories' weights and batches.
        time_stamps: Whether memories are told the number of each step; a mean never is.
        preset: ``debug`` runs through everything in little time.
        seed: Of the streams' weights and batches.
        num_threads: Of torch; another number gives other rounding, so other bytes.
        num_workers: Processes that draw batches ahead.
        device: Where to train.
        run_name: Folder under ``runs/``.
    """

    memories: tuple[MemoryKind, ...] = ("transformer",)
    memory_seeds: tuple[int, ...] = (0,)
    time_stamps: bool = False
    preset: Literal["full", "debug"] = "full"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 0
    device: str = "cpu"
    run_name: str = "playroom_sound_encoder"


class ContrastiveSteps(nn.Module):
    """A backbone whose streams are contrasted with sentences about single steps.

    Args:
        config: Shape of the backbone.
        seed: Of its weights.
    """

    def __init__(self, config: BackboneConfig, seed: int) -> None:
        super().__init__()
        self.backbone = MultimodalBackbone(config, torch.Generator().manual_seed(seed))
        self.objectives = ContrastiveObjectives(_OF_STEPS)
        for part in _parts_of_memory(self.backbone):
            part.requires_grad_(False)

    def forward(self, batch: SoundBatch) -> Mapping[str, Tensor]:
        """Return the losses of a batch, by the pair of streams."""
        step = encode(self.backbone, batch.frames, batch.log_mel)
        text = self.backbone.encode_text(batch.tokens)
        own = {
            name: torch.isin(batch.kind, torch.tensor(kinds, device=batch.kind.device))
            for name, kinds in _KINDS_OF_STREAM.items()
        }
        return self.objectives(
            {name: StreamEmbeddings(getattr(step, name)) for name in PURE_AND_FUSED},
            {name: StreamTexts(text[of], batch.is_true[:, of]) for name, of in own.items()},
        )


@dataclass(frozen=True)
class EpisodeBatch:
    """Whole episodes as tokens, and what is true of some of their steps.

    Attributes:
        tokens: Fusion tokens of every step.
        described: Whether a step is described.
        is_true: Which sentence is true of those, one episode after the other.
    """

    tokens: Float[Tensor, "E T F D"]
    described: Bool[Tensor, "E T"]
    is_true: Bool[Tensor, "B G"]


@dataclass(frozen=True)
class EpisodeBatches:
    """The batch of each step of a memory's training: a function of the step alone.

    Attributes:
        tokens: Of all episodes, in half precision.
        is_true: Of all episodes.
        preset: How much a batch holds.
        seed: Of all batches.
    """

    tokens: Float[Tensor, "E T F D"]
    is_true: Bool[Tensor, "E T G"]
    preset: Preset
    seed: int

    def __call__(self, step: int) -> EpisodeBatch:
        """Draw a batch."""
        rng = np.random.default_rng((self.seed, step))
        num_episodes, length = self.tokens.shape[:2]
        chosen = torch.from_numpy(rng.permutation(num_episodes)[: self.preset.memory_batch])
        described = torch.zeros(len(chosen), length, dtype=torch.bool)
        for row in described:
            row[torch.from_numpy(rng.permutation(length)[: self.preset.num_described])] = True
        return EpisodeBatch(self.tokens[chosen].float(), described, self.is_true[chosen][described])


class ContrastiveMemory(nn.Module):
    """A backbone whose memory is contrasted with sentences about episodes so far.

    Args:
        backbone: All of it but its memory stays as it is.
        text: The sentences that it is contrasted with, embedded.
    """

    def __init__(self, backbone: MultimodalBackbone, text: Float[Tensor, "G D"]) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        for part in _parts_of_memory(backbone):
            part.requires_grad_(True)
        self.objectives = ContrastiveObjectives(_OF_EPISODES)
        self.register_buffer("embedded", text, persistent=False)
        self.embedded: Tensor

    def forward(self, batch: EpisodeBatch) -> Mapping[str, Tensor]:
        """Return the loss of a batch."""
        episode = remember(self.backbone, batch.tokens)[batch.described]
        return self.objectives(
            {"episode": StreamEmbeddings(episode)},
            {"episode": StreamTexts(self.embedded, batch.is_true)},
        )


def _parts_of_memory(backbone: MultimodalBackbone) -> tuple[nn.Module, ...]:
    return backbone.memory, backbone.memory_pool, backbone.memory_projection


def encode(backbone: MultimodalBackbone, frames: Tensor, mels: Tensor) -> StepEmbeddings:
    """Embed single steps that have both frame and sound."""
    return backbone.encode_step(backbone.video_tokens(frames), backbone.audio_tokens(mels))


def remember(
    backbone: MultimodalBackbone, tokens: Float[Tensor, "E T F D"]
) -> Float[Tensor, "E T D"]:
    """Embed episodes so far at every step."""
    is_first = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return backbone.remember_all(tokens, is_first)


@torch.no_grad()
def encode_episodes(backbone: MultimodalBackbone, episodes: LabelledEpisodes) -> dict[str, Tensor]:
    """Embed every step of episodes in every stream ``[E, T, D]``; ``tokens`` in half precision."""
    device = next(backbone.parameters()).device
    frames, mels = episodes.frames.flatten(0, 1), episodes.log_mel.flatten(0, 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*PURE_AND_FUSED, "tokens")}
    for some in torch.arange(len(frames)).split(_ROWS_AT_A_TIME):
        step = encode(backbone, frames[some].to(device), mels[some].to(device))
        for name in PURE_AND_FUSED:
            parts[name].append(getattr(step, name).cpu())
        parts["tokens"].append(step.tokens.half().cpu())
    shape = episodes.is_true.shape[:2]
    return {name: torch.cat(of).unflatten(0, shape) for name, of in parts.items()}


@torch.no_grad()
def encode_streams(backbone: MultimodalBackbone, episodes: LabelledEpisodes) -> dict[str, Tensor]:
    """Embed every step of episodes in every stream, that of the memory too ``[E, T, D]``."""
    embedded = encode_episodes(backbone, episodes)
    tokens = embedded.pop("tokens").float().to(next(backbone.parameters()).device)
    return {**embedded, "episode": remember(backbone, tokens).cpu()}


def goal_precision(
    is_true: Bool[Tensor, "E T G"],
    embedded: Float[Tensor, "E T D"],
    text: Float[Tensor, "G D"],
    kind: GoalKind,
) -> NDArray[np.float64]:
    """Return the average precision of each goal of a kind; NaN where it is never true."""
    found = []
    scores = (embedded @ text.T).flatten(0, 1).double().numpy()
    labels = is_true.flatten(0, 1).numpy()
    for goal in GOALS_OF_KIND[kind]:
        is_ever = labels[:, goal].any()
        found.append(average_precision(labels[:, goal], scores[:, goal]) if is_ever else np.nan)
    return np.array(found)


def measure_steps(
    model: nn.Module, episodes: LabelledEpisodes, tokenizer: Tokenizer
) -> dict[str, float]:
    """Return the mean average precision of each kind of goal, by each stream of a step."""
    backbone: Any = model.backbone
    embedded, text = encode_episodes(backbone, episodes), embed_sentences(backbone, tokenizer)
    return {
        name: value
        for stream, kinds in _KINDS_OF_STREAM.items()
        for kind in kinds
        for name, value in _named(
            kind, stream, goal_precision(episodes.is_true, embedded[stream], text, kind)
        ).items()
    }


@torch.no_grad()
def measure_memory(
    model: nn.Module,
    is_true: Bool[Tensor, "E T G"],
    tokens: Float[Tensor, "E T F D"],
    text: Float[Tensor, "G D"],
) -> dict[str, float]:
    """Return the mean average precision of each kind of goal, by the memory."""
    backbone: Any = model.backbone
    device = next(backbone.parameters()).device
    embedded = remember(backbone, tokens.float().to(device)).cpu()
    return {
        name: value
        for kind in GoalKind
        for name, value in _named(
            kind, "episode", goal_precision(is_true, embedded, text, kind)
        ).items()
    }


def _named(kind: GoalKind, stream: str, precision: NDArray[np.float64]) -> dict[str, float]:
    """Mean average precision of the goals that are ever true, held-out ones apart."""
    held_out = IS_HELD_OUT[GOALS_OF_KIND[kind]]
    name, known = f"ap_{kind.name.lower()}_{stream}", ~np.isnan(precision)
    groups = {name: known & ~held_out, f"{name}_held_out": known & held_out}
    return {group: float(precision[of].mean()) for group, of in groups.items() if of.any()}


@torch.no_grad()
def embed_sentences(backbone: MultimodalBackbone, tokenizer: Tokenizer) -> Float[Tensor, "G D"]:
    """Embed every sentence."""
    device = next(backbone.parameters()).device
    return backbone.encode_text(tokenizer(list(SENTENCES)).to(device)).cpu()


def main(options: SoundEncoderOptions) -> Path:
    """Train, measure and save, and return the run folder."""
    torch.set_num_threads(options.num_threads)
    preset, run_dir = PRESETS[options.preset], Path("runs") / options.run_name
    config = BackboneConfig()
    tokenizer = tokenizer_of(config)
    progress, test = (
        draw_episodes(
            number, preset.episode_length, config.log_mel, np.random.default_rng(seed)
        )
        for number, seed in (
            (-(-preset.num_episodes // 4), PROGRESS_SEED), (preset.num_episodes, TEST_SEED)
        )
    )  # fmt: skip
    steps = train_steps(config, options, run_dir / "steps", progress, tokenizer)
    found = {"steps": measure_steps(steps, test, tokenizer)}
    drawn = draw_episodes(
        preset.num_train_episodes,
        preset.episode_length,
        config.log_mel,
        np.random.default_rng(TRAIN_SEED),
    )
    train, looked_at, measured = (
        (of.is_true, encode_episodes(steps.backbone, of)["tokens"])
        for of in (drawn, progress, test)
    )
    named = torch.from_numpy(~IS_HELD_OUT)
    text = embed_sentences(steps.backbone, tokenizer)
    for memory in options.memories:
        for seed in options.memory_seeds:
            name = f"{memory}_{seed}"
            own = replace(
                config, memory=memory, time_stamps=options.time_stamps and memory != "mean"
            )
            backbone = with_memory(steps.backbone, own, seed)
            model = train_backbone(
                ContrastiveMemory(backbone, text[named]).to(options.device),
                EpisodeBatches(train[1], train[0][..., named], preset, seed),
                _training(options, preset.num_memory_steps, seed),
                run_dir / name,
                evaluate=partial(
                    measure_memory, is_true=looked_at[0], tokens=looked_at[1], text=text
                ),
            )
            found[name] = measure_memory(model, *measured, text)
            trained = {
                stream: 1 / objectives.logit_scale(pair).item()
                for objectives, pair, stream in (
                    (steps.objectives, "audio_text", "audio"),
                    (steps.objectives, "image_text", "video"),
                    (steps.objectives, "fusion_text", "fusion"),
                    (model.objectives, "episode_text", "episode"),
                )
            }
            metrics = {"steps": found["steps"], "episode": found[name]}
            path = run_dir / f"{name}_backbone"
            every = preset.calibrate_every
            save(model.backbone, progress, trained, path, metrics, calibrate_every=every)
    write_json(
        run_dir / "summary.json",
        {
            "command": shlex.join(["python", *sys.argv]),
            "versions": versions(),
            "machine": machine(),
            "config": config.to_dict(),
            "parameters": sum(p.numel() for p in steps.backbone.parameters()),
            "average_precision": found,
        },
    )
    print(run_dir / "summary.json")
    return run_dir


def train_steps(
    config: BackboneConfig,
    options: SoundEncoderOptions,
    run_dir: Path,
    progress: LabelledEpisodes,
    tokenizer: Tokenizer,
) -> ContrastiveSteps:
    """Train the streams of a step, or load them if an earlier run has."""
    preset = PRESETS[options.preset]
    model = ContrastiveSteps(config, options.seed).to(options.device)
    return train_backbone(
        model,
        SoundBatches(preset.batch, config.log_mel, tokenizer, options.seed),
        _training(options, preset.num_steps, options.seed),
        run_dir,
        evaluate=partial(measure_steps, episodes=progress, tokenizer=tokenizer),
    )


def save(
    backbone: MultimodalBackbone,
    episodes: LabelledEpisodes,
    trained: Mapping[str, float],
    path: Path,
    metrics: Mapping[str, Mapping[str, float]],
    *,
    calibrate_every: int,
) -> Path:
    """Calibrate every stream on some episodes, and write the backbone with its card."""
    embedded = encode_streams(backbone, episodes)
    some = slice(None, None, calibrate_every)
    encoder = MultimodalEncoder(backbone, tokenizer_of(backbone.config), name=path.name)
    calibrated = calibrate_streams(
        encoder,
        {stream: vectors.flatten(0, 1)[some] for stream, vectors in embedded.items()},
        episodes.is_true.flatten(0, 1)[some],
        trained,
    )
    return save_backbone(
        backbone,
        path,
        temperatures={stream: of.temperature for stream, of in calibrated.items()},
        heads={stream: of.head for stream, of in calibrated.items()},
        training={
            "command": shlex.join(["python", *sys.argv]),
            "torch": torch.__version__,
            "calibrated_false_positive_rate": FALSE_POSITIVE_RATE,
            "average_precision": dict(metrics),
        },
    )


def with_memory(steps: MultimodalBackbone, config: BackboneConfig, seed: int) -> MultimodalBackbone:
    """Return a backbone with another memory, drawn anew; all else is as in the one given."""
    backbone = MultimodalBackbone(config, torch.Generator().manual_seed(seed))
    for name, part in steps.named_children():
        if not name.startswith("memory"):
            getattr(backbone, name).load_state_dict(part.state_dict())
    return backbone


def _training(options: SoundEncoderOptions, num_steps: int, seed: int) -> BackboneTrainingConfig:
    return BackboneTrainingConfig(
        num_steps=num_steps,
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=min(200, num_steps)),
        seed=seed,
        num_workers=options.num_workers,
        checkpoint_interval=100,
        evaluation_interval=500,
    )


if __name__ == "__main__":
    main(tyro.cli(SoundEncoderOptions))
