"""The backbone as an encoder: what whatever takes a CLIP takes too.

Axis letters: ``B`` batch, ``N`` environments or texts, ``H W`` pixels, ``S`` samples of a step,
``K`` tokens, ``E`` width of a token, ``P`` samples kept from step to step, ``X`` features of a
step, ``D`` width of an embedding, one more than the backbone's where several streams are scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vlmreward.backbone.audio import AudioError, StreamingLogMel, check_waveform
from vlmreward.backbone.model import PURE_AND_FUSED, MultimodalBackbone
from vlmreward.backbone.state import StateError
from vlmreward.encoders.base import check_texts, require_modalities
from vlmreward.encoders.cache import TextEmbeddingCache
from vlmreward.encoders.open_clip import Tokenizer, warn_where_truncated
from vlmreward.frames import PIXELS, check_frames, to_tensor
from vlmreward.heads import Head

AUDIO = "audio"
Scored = Literal["audio", "video", "fusion", "episode", "present"]
_DEFAULT_TEMPERATURE = 0.07


class MultimodalEncoder:
    """A frozen backbone that sees, hears and remembers, as an `EpisodeEncoder`.

    An observation holds `pixels`, frames uint8 `[B, H, W, 3]`, and `audio`, what was heard during
    the step, mono float32 `[B, S]` in [-1, 1] at `sample_rate`. Either may be missing, or None, for
    all rows of a call: then the other one is embedded alone.

    Args:
        backbone: In any mode; it is put into evaluation mode and its parameters stop requiring
            gradients.
        tokenizer: The text tower's own.
        name: What to call it in records of a run.
        stream: What is scored: ``"episode"``, all steps so far; ``"fusion"``, the present step;
            ``"audio"`` or ``"video"``, one modality of it; ``"present"``, the present step by
            ``fusion`` where there are both, and by the one that is there where a sensor is missing.
        temperatures: Of each stream, as calibrated: what makes a softmax of its cosines a
            probability (`vlmreward.evaluation.fit_temperature`). With ``"present"``, cosines of the
            streams are brought to one scale by them, so that a reward does not jump because a
            sensor drops out.
        calibrated_head: The head that was measured for this model and stream.
        training: How the weights were made, for the record.

    Raises:
        ValueError: If there is no such stream, or temperatures are not positive or not all there.
    """

    modalities = (PIXELS, AUDIO)
    logit_bias: float | None = None

    def __init__(
        self,
        backbone: MultimodalBackbone,
        tokenizer: Tokenizer,
        *,
        name: str,
        stream: Scored = "episode",
        temperatures: Mapping[str, float] | None = None,
        calibrated_head: Head | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        if stream not in get_args(Scored):
            raise ValueError(f"got stream={stream!r}, expected one of {get_args(Scored)}")
        self.backbone = backbone.eval().requires_grad_(False)
        self.tokenizer: Any = tokenizer
        self.name = name
        self.stream = stream
        streams = PURE_AND_FUSED if stream == "present" else (stream,)
        self._scales = _scales(streams, temperatures)
        self.calibrated_head = calibrated_head
        self.training = dict(training or {})
        self.embed_dim = backbone.config.embed_dim + (len(streams) > 1)
        self.context_length = backbone.config.text.context_length
        self.device: torch.device = next(backbone.parameters()).device
        self._text_embeddings = TextEmbeddingCache(self._encode_new_texts)

    @property
    def logit_scale(self) -> float:
        """1 / temperature of the cosines; where several streams are scored, of all of them."""
        return max(self._scales.values())

    @property
    def sample_rate(self) -> int:
        """Samples of a second of the sound that is expected."""
        return self.backbone.config.log_mel.sample_rate

    @property
    def optional_modalities(self) -> tuple[str, ...]:
        """The modality that is not scored by itself, or either."""
        return {"audio": (PIXELS,), "video": (AUDIO,)}.get(self.stream, self.modalities)

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[Tensor, "B D"]:
        """Embeds observations, each as the first and only step of an episode.

        Raises:
            MissingModalityError: If there are neither frames nor sound, or not the one that is
                scored.
            FrameError: If `pixels` are not frames.
            AudioError: If `audio` is not sound; see `vlmreward.backbone.audio`.
        """
        features = self.encode_step(obs)
        return self.new_memory(len(features)).push(np.arange(len(features)), features)

    @torch.no_grad()
    def encode_step(self, obs: Mapping[str, Any]) -> Float[Tensor, "B X"]:
        """Returns what the memory needs of single steps: tokens of the frames, and the sound."""
        given = require_modalities(obs, self)
        num_rows = len(next(iter(given.values())))
        frames, sound = self._frames(given, num_rows), self._sound(given, num_rows)
        has = [torch.full((num_rows, 1), float(key in given)) for key in self.modalities]
        return torch.cat([frames, sound, *(flag.to(self.device) for flag in has)], dim=1)

    def new_memory(self, num_envs: int) -> MultimodalMemory:
        """Returns a memory of episodes, none of which has begun."""
        return MultimodalMemory(self, num_envs)

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Embeds texts, each once in the life of this encoder."""
        return self._text_embeddings(check_texts(texts))

    def _encode_new_texts(self, texts: list[str]) -> Float[Tensor, "N D"]:
        warn_where_truncated(texts, self.tokenizer, self.context_length, self.name)
        with torch.no_grad():
            text = self.backbone.encode_text(self.tokenizer(texts).to(self.device))
        return functional.pad(text, (0, self.embed_dim - text.shape[1]))

    def shrink(
        self, embedding: Float[Tensor, "B _"], streams: Sequence[str]
    ) -> Float[Tensor, "B D"]:
        """Bring the cosines of several streams to one scale; unit vectors stay unit vectors.

        A cosine is multiplied by its stream's scale over the largest one: the vector is shortened,
        and made whole again along a direction that no text has.
        """
        if self.embed_dim == embedding.shape[1]:
            return embedding
        shares = [self._scales[stream] / self.logit_scale for stream in streams]
        share = torch.tensor(shares, device=embedding.device)[:, None]
        return torch.cat([share * embedding, (1 - share**2).sqrt()], dim=1)

    def _frames(self, given: Mapping[str, Any], num_rows: int) -> Float[Tensor, "B X"]:
        config = self.backbone.config.video
        if PIXELS not in given:
            return torch.zeros(num_rows, config.num_tokens * config.embed_dim, device=self.device)
        frames = to_tensor(check_frames(given[PIXELS]), self.device)
        return self.backbone.video_tokens(frames).flatten(1)

    def _sound(self, given: Mapping[str, Any], num_rows: int) -> Float[Tensor, "B S"]:
        config = self.backbone.config
        if AUDIO not in given:
            return torch.zeros(num_rows, config.step_samples, device=self.device)
        sound = _as_tensor(given[AUDIO])
        if sound.ndim == 2 and sound.shape[1] != config.step_samples:
            rate = config.log_mel.sample_rate
            seconds = config.step_samples / rate
            raise AudioError(
                f"got {sound.shape[1]} samples a step, expected {config.step_samples}, "
                f"{seconds:g} s at {rate} Hz: if it is {seconds:g} s of sound, it is at "
                f"{sound.shape[1] / seconds:.0f} Hz, resample it; else cut it into steps of "
                f"{seconds:g} s"
            )
        checked = check_waveform(sound, config.log_mel)
        if len(checked) != num_rows:
            raise AudioError(
                f"got {num_rows} frames and sound of {len(checked)} rows, expected as many: one "
                "row of each an environment"
            )
        return checked.to(self.device)


def _as_tensor(sound: Any) -> Tensor:
    """Return sound as a tensor, whatever holds it."""
    if isinstance(sound, Tensor):
        return sound
    try:
        return torch.from_numpy(np.require(sound, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:  # ragged, or no numbers
        raise AudioError(
            f"expected sound as an array of numbers [B, S], got {type(sound).__name__}: {error}"
        ) from error


class MultimodalMemory:
    """The episodes of several environments; see `EpisodeMemory`. Its size does not grow.

    Args:
        encoder: Whose memory it is.
        num_envs: N.
    """

    def __init__(self, encoder: MultimodalEncoder, num_envs: int) -> None:
        self._encoder = encoder
        self._backbone = backbone = encoder.backbone
        self._log_mel = StreamingLogMel(backbone.config.log_mel)
        self._state = backbone.memory.initial_state(num_envs)
        kept = backbone.config.log_mel.num_kept
        self._samples = torch.zeros(num_envs, kept, device=encoder.device)
        self._is_first = torch.ones(num_envs, dtype=torch.bool, device=encoder.device)
        self._streams = [""] * num_envs

    @property
    def streams(self) -> tuple[str, ...]:
        """The stream that the last step of each environment was embedded by; "" before any."""
        return tuple(self._streams)

    def clear(self, rows: Int64[NDArray[Any], " _"]) -> None:
        """Forgets some environments' episodes."""
        self._is_first[torch.from_numpy(rows).to(self._is_first.device)] = True

    @torch.no_grad()
    def push(
        self, rows: Int64[NDArray[Any], " _"], features: Float[Tensor, "B X"]
    ) -> Float[Tensor, "B D"]:
        """Adds one step to some environments, and embeds what is scored of them.

        Raises:
            StateError: If the features are not those of a step of this model, or of other rows.
        """
        if len(features) != len(rows):
            raise StateError(
                f"got features of {len(features)} rows for {len(rows)} environments, expected as "
                "many: they are of another batch"
            )
        index = torch.from_numpy(rows).to(self._is_first.device)
        is_first = self._is_first[index]
        video, sound, has_video, has_audio = self._unpacked(features)
        frames, samples = self._log_mel.step(sound, is_first, self._samples[index])
        step = self._backbone.encode_step(
            video, self._backbone.audio_tokens(frames), has_video, has_audio
        )
        episode, state = self._backbone.remember(step.tokens, is_first, self._state[index])
        self._samples[index] = samples
        self._state = self._state.replace_rows(index, state)
        self._is_first[index] = False
        of_stream = {**vars(step), "episode": episode}
        streams = self._scored(has_video, has_audio)
        for row, name in zip(rows.tolist(), streams, strict=True):
            self._streams[row] = name
        embedding: Tensor = episode.clone()
        for name in set(streams):
            chosen = torch.tensor([name == stream for stream in streams], device=embedding.device)
            embedding[chosen] = of_stream[name][chosen]
        return self._encoder.shrink(embedding, streams)

    def _scored(self, has_video: Bool[Tensor, " B"], has_audio: Bool[Tensor, " B"]) -> list[str]:
        """Which stream is scored of each row."""
        if self._encoder.stream != "present":
            return [self._encoder.stream] * len(has_video)
        pairs = zip(has_video.tolist(), has_audio.tolist(), strict=True)
        return [
            "fusion" if sees and hears else "video" if sees else "audio" for sees, hears in pairs
        ]

    def _unpacked(
        self, features: Float[Tensor, "B X"]
    ) -> tuple[
        Float[Tensor, "B K E"], Float[Tensor, "B S"], Bool[Tensor, " B"], Bool[Tensor, " B"]
    ]:
        config = self._backbone.config
        video, samples = config.video, config.step_samples
        sizes = [video.num_tokens * video.embed_dim, samples, 1, 1]
        if features.shape[1] != sum(sizes):
            raise StateError(
                f"got features of width {features.shape[1]}, expected {sum(sizes)}: those of "
                f"encoder {self._encoder.name!r}"
            )
        tokens, sound, has_video, has_audio = torch.split(features, sizes, dim=1)
        return (
            tokens.reshape(-1, video.num_tokens, video.embed_dim),
            sound,
            has_video[:, 0] > 0,
            has_audio[:, 0] > 0,
        )


def _scales(streams: Sequence[str], temperatures: Mapping[str, float] | None) -> dict[str, float]:
    """Return 1 / temperature of each stream."""
    if temperatures is None:
        temperatures = dict.fromkeys(streams, _DEFAULT_TEMPERATURE)
    wrong = [name for name in streams if not 0 < temperatures.get(name, 0.0) < math.inf]
    if wrong:
        raise ValueError(
            f"got temperatures {dict(temperatures)}, expected a positive number for {wrong}: see "
            "vlmreward.evaluation.fit_temperature"
        )
    return {name: 1 / temperatures[name] for name in streams}
