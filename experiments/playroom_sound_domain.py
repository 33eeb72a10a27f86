"""What the experiments share about the Playroom with sound: captioned steps and episodes.

Axis letters: ``B`` steps, ``E`` episodes, ``T`` their length, ``Q`` steps of episodes that are
described, ``N`` texts, ``H W`` pixels, ``R`` log-mel frames of a step, ``M`` mel bands, ``L``
tokens of a text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from playroom_domain import HELD_OUT_KINDS, NAMED_KINDS, draw_states
from vlmreward.backbone.audio import LogMelConfig, log_mel
from vlmreward.encoders.open_clip import Tokenizer
from vlmreward.pretraining import CaptionedFrames
from vlmreward.pretraining.captions import TextBatch, draw_texts
from vlmreward_envs.description import Description
from vlmreward_envs.playroom import PlayroomRenderer
from vlmreward_envs.playroom_sound import (
    STEP_SAMPLES,
    GoalKind,
    PlayroomSoundConfig,
    PlayroomSoundState,
    PlayroomSynthesiser,
    describe,
    give_voices,
    step_sound_rooms,
)

STREAMS = {
    "video": (GoalKind.SEEN,),
    "audio": (GoalKind.HEARD,),
    "fusion": (GoalKind.SEEN, GoalKind.HEARD, GoalKind.SEEN_AND_HEARD),
    "episode": tuple(GoalKind),
}
"""Which sentences each stream can know to be true."""
_STAYS = 0.5  # of all actions: so that what is beside or in hand often still is a step later
_LONGEST_WAIT = 40


@dataclass(frozen=True)
class SoundBatch:
    """Single steps and whole episodes, with sentences about them.

    Attributes:
        frames: Of single steps.
        log_mel: Of the same steps, their past included.
        episode_frames: Of every step of some episodes.
        episode_log_mel: Of the same.
        described: Which steps of the episodes are described, counted through all of them.
        tokens: Every sentence once.
        is_true: By stream, which sentence is true of which step; ``episode`` of those described.
        is_text: By stream, which sentences it is contrasted with.
    """

    frames: UInt8[Tensor, "B H W 3"]
    log_mel: Float[Tensor, "B R M"]
    episode_frames: UInt8[Tensor, "E T H W 3"]
    episode_log_mel: Float[Tensor, "E T R M"]
    described: Int64[Tensor, " Q"]
    tokens: Int64[Tensor, "N L"]
    is_true: dict[str, Bool[Tensor, "_ N"]]
    is_text: dict[str, Bool[Tensor, " N"]]


@dataclass(frozen=True)
class SoundBatchConfig:
    """How much a batch holds.

    Attributes:
        num_steps: B.
        num_episodes: E.
        episode_length: T.
        described_per_episode: Q / E.
        captions_per_step: True sentences of each step and stream.
        near_misses_per_caption: False ones of each of these.
    """

    num_steps: int = 96
    num_episodes: int = 4
    episode_length: int = 96
    described_per_episode: int = 4
    captions_per_step: int = 4
    near_misses_per_caption: int = 2


class SoundBatches:
    """The batch of each training step: a function of the step alone.

    No sentence names the held-out kinds of object, and no frame shows them.

    Args:
        config: How much a batch holds.
        mel: How sound is read.
        tokenizer: The text tower's own.
        seed: Of all batches.
    """

    def __init__(
        self, config: SoundBatchConfig, mel: LogMelConfig, tokenizer: Tokenizer, seed: int
    ) -> None:
        self._config = config
        self._mel = mel
        self._tokenizer = tokenizer
        self._seed = seed
        self._rooms = PlayroomSoundConfig()
        self._renderer = PlayroomRenderer(self._rooms.playroom)
        self._synthesiser = PlayroomSynthesiser(self._rooms)

    def __call__(self, step: int) -> SoundBatch:
        """Draw a batch."""
        rng, config = np.random.default_rng((self._seed, step)), self._config
        state, sound = self._single_steps(rng)
        frames = self._renderer(state)
        described = self._describe(state)
        texts = {
            stream: self._texts(frames, described, stream, rng)
            for stream in STREAMS
            if stream != "episode"
        }
        rolled = roll(self._rooms, self._draw(config.num_episodes, rng), rng)
        episodes = list(islice(rolled, config.episode_length))
        episode_sound = torch.stack([self._synthesiser(state) for state in episodes], dim=1)
        chosen, about = self._described_steps(episodes, rng)
        texts["episode"] = self._texts(frames[:0], about, "episode", rng)
        tokens, is_true, is_text = _merged(texts, self._tokenizer)
        return SoundBatch(
            frames=frames,
            log_mel=self._log_mel(sound)[:, -STEP_SAMPLES // self._mel.hop :],
            episode_frames=torch.stack([self._renderer(state) for state in episodes], dim=1),
            episode_log_mel=self._log_mel(episode_sound.flatten(1)).unflatten(
                1, (config.episode_length, -1)
            ),
            described=chosen,
            tokens=tokens,
            is_true=is_true,
            is_text=is_text,
        )

    def _draw(self, num_rooms: int, rng: np.random.Generator) -> PlayroomSoundState:
        order = rng.random((num_rooms, len(NAMED_KINDS))).argsort(axis=1)
        kinds = np.array(NAMED_KINDS)[order[:, : self._rooms.playroom.num_objects]]
        room = draw_states(self._rooms.playroom, num_rooms, rng, torch.from_numpy(kinds))
        seeds = torch.from_numpy(rng.integers(2**62, size=num_rooms))
        return give_voices(self._rooms, room, seeds)

    def _single_steps(
        self, rng: np.random.Generator
    ) -> tuple[PlayroomSoundState, Float[Tensor, "B _"]]:
        """Draw rooms at any time of their episodes, with the sound of two steps."""
        state = self._draw(self._config.num_steps, rng)
        until = torch.from_numpy(rng.integers(1, _LONGEST_WAIT, size=len(state)))
        before = state
        rolled = islice(roll(self._rooms, state, rng), _LONGEST_WAIT)
        for time, after in enumerate(rolled, start=1):
            goes_on = until >= time
            before = state.where(goes_on, before)
            state = after.where(goes_on, state)
        sound = torch.cat([self._synthesiser(before), self._synthesiser(state)], dim=1)
        return state, sound

    def _describe(self, state: PlayroomSoundState) -> list[dict[GoalKind, Description]]:
        return describe(self._rooms, state, HELD_OUT_KINDS)

    def _described_steps(
        self, episodes: Sequence[PlayroomSoundState], rng: np.random.Generator
    ) -> tuple[Int64[Tensor, " Q"], list[dict[GoalKind, Description]]]:
        config = self._config
        chosen, about = [], []
        for episode in range(config.num_episodes):
            row = torch.tensor([episode])
            for time in rng.permutation(config.episode_length)[: config.described_per_episode]:
                chosen.append(episode * config.episode_length + int(time))
                about += self._describe(episodes[time][row])
        return torch.tensor(chosen), about

    def _texts(
        self,
        frames: Tensor,
        described: Sequence[dict[GoalKind, Description]],
        stream: str,
        rng: np.random.Generator,
    ) -> TextBatch:
        """Draw what a stream is contrasted with."""
        said = [[of_step[kind] for kind in STREAMS[stream]] for of_step in described]
        rows = CaptionedFrames(
            frames.new_zeros(len(said), 1, 1, 3),
            [[text for one in of_step for text in one.true] for of_step in said],
            [[misses for one in of_step for misses in one.near_misses] for of_step in said],
        )
        config = self._config
        return draw_texts(rows, config.captions_per_step, config.near_misses_per_caption, rng)

    def _log_mel(self, sound: Float[Tensor, "B S"]) -> Float[Tensor, "B _ M"]:
        return log_mel(sound, self._mel)


def roll(
    config: PlayroomSoundConfig, state: PlayroomSoundState, rng: np.random.Generator
) -> Iterator[PlayroomSoundState]:
    """Let persons do this and that for ever, and half of the time nothing; yield every state."""
    while True:
        action = torch.from_numpy(rng.integers(7, size=len(state)))
        stays = torch.from_numpy(rng.random(len(state)) < _STAYS)
        state = step_sound_rooms(config, state, action.masked_fill(stays, 0))
        yield state


def _merged(
    texts: dict[str, TextBatch], tokenizer: Tokenizer
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Tokenize every sentence once, and say for each stream which are its own and true."""
    every = list(dict.fromkeys(text for batch in texts.values() for text in batch.texts))
    column = {text: index for index, text in enumerate(every)}
    is_true, is_text = {}, {}
    for stream, batch in texts.items():
        own = torch.tensor([column[text] for text in batch.texts])
        is_true[stream] = torch.zeros(len(batch.is_true), len(every), dtype=torch.bool)
        is_true[stream][:, own] = batch.is_true
        is_text[stream] = torch.zeros(len(every), dtype=torch.bool).index_fill(0, own, True)
    return tokenizer(every), is_true, is_text
