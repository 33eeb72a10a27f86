"""What an encoder is, whatever model is behind it.

Axes: `B` batch, `N` texts, `D` width of the embedding, `F` features of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from vlmreward.heads import Head


class MissingModalityError(ValueError):
    """An observation lacks a modality that the encoder reads."""


@runtime_checkable
class ImageTextEncoder(Protocol):
    """Puts observations and texts into one space, where a cosine says how well they agree.

    An observation is a mapping of modalities, batched: `pixels` holds frames `[B, H, W, 3]`, uint8,
    of any one size. An encoder reads the entries named in `modalities` and ignores the others. It
    brings its own preprocessing and its own tokenizer.

    An embedding depends on its own row alone: however a batch is split, the results agree to
    1e-5, in lower precisions to what they resolve. An encoder computes no gradients.
    """

    @property
    def name(self) -> str:
        """What the encoder is called in records of a run."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The observation keys that `encode_obs` reads."""

    @property
    def embed_dim(self) -> int:
        """The width of its embeddings."""

    @property
    def device(self) -> torch.device:
        """Where its embeddings are."""

    @property
    def logit_scale(self) -> float:
        """What the model multiplied cosines with in training: 1 / temperature."""

    @property
    def logit_bias(self) -> float | None:
        """What a model trained with a sigmoid added to scaled cosines; None for softmax models."""

    @property
    def context_length(self) -> int:
        """How many tokens of a text it reads; it warns when a text is longer."""

    @property
    def calibrated_head(self) -> Head | None:
        """The head that was measured for this encoder, None where nobody has."""

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B D"]:
        """Embeds a batch of observations, each row of unit length.

        Raises:
            MissingModalityError: If the observation lacks a modality that the encoder reads.
            FrameError: If `pixels` are not frames, or if the batch is empty.
        """

    def encode_text(self, texts: Sequence[str]) -> Float[torch.Tensor, "N D"]:
        """Embeds texts, each row of unit length.

        Raises:
            ValueError: If there is no text, or if one is empty or blank.
        """


@runtime_checkable
class EpisodeMemory(Protocol):
    """What an `EpisodeEncoder` remembers of several environments, each on its own."""

    @property
    def streams(self) -> tuple[str, ...]:
        """By which of the encoder's streams each environment's last step was embedded."""

    def clear(self, rows: Int64[NDArray[Any], " _"]) -> None:
        """Forgets some environments' episodes."""

    def push(
        self, rows: Int64[NDArray[Any], " _"], features: Float[torch.Tensor, "B F"]
    ) -> Float[torch.Tensor, "B D"]:
        """Adds one step to some environments, each at most once; returns their embeddings now.

        Each row is of unit length. A row depends on its own episode alone.
        """


@runtime_checkable
class EpisodeEncoder(ImageTextEncoder, Protocol):
    """An encoder that remembers: an embedding tells of an episode so far, not of one observation.

    `encode_obs` embeds observations as if each were an episode of its own. Along an episode,
    `encode_step` does the part that each step needs of itself alone, in one batch, and the memory
    does the rest; so a `RewardStream` reads every step, first observations included.
    """

    @property
    def optional_modalities(self) -> tuple[str, ...]:
        """Those of `modalities` that an observation may lack, or have as None; not all at once."""

    def encode_step(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B F"]:
        """Returns what the memory needs of a batch of observations; raises what `encode_obs` does.

        A row depends on its own observation alone.
        """

    def new_memory(self, num_envs: int) -> EpisodeMemory:
        """Returns a memory in which no episode has begun."""


class EncoderWrapper:
    """An encoder around another, which it is in everything but `encode_obs`.

    Args:
        encoder: The one inside.

    Raises:
        TypeError: If it is an `EpisodeEncoder`, whose memory would be lost.
    """

    def __init__(self, encoder: ImageTextEncoder) -> None:
        if isinstance(encoder, EpisodeEncoder):
            raise TypeError(
                f"encoder {encoder.name!r} remembers episodes, and {type(self).__name__} knows "
                "single observations only: use it as it is"
            )
        self.encoder = encoder

    @property
    def name(self) -> str:
        """The encoder's own: the embeddings are the same."""
        return self.encoder.name

    @property
    def modalities(self) -> tuple[str, ...]:
        """See `ImageTextEncoder`."""
        return self.encoder.modalities

    @property
    def embed_dim(self) -> int:
        """See `ImageTextEncoder`."""
        return self.encoder.embed_dim

    @property
    def device(self) -> torch.device:
        """See `ImageTextEncoder`."""
        return self.encoder.device

    @property
    def logit_scale(self) -> float:
        """See `ImageTextEncoder`."""
        return self.encoder.logit_scale

    @property
    def logit_bias(self) -> float | None:
        """See `ImageTextEncoder`."""
        return self.encoder.logit_bias

    @property
    def context_length(self) -> int:
        """See `ImageTextEncoder`."""
        return self.encoder.context_length

    @property
    def calibrated_head(self) -> Head | None:
        """See `ImageTextEncoder`."""
        return self.encoder.calibrated_head

    def encode_text(self, texts: Sequence[str]) -> Float[torch.Tensor, "N D"]:
        """Embeds texts; see `ImageTextEncoder`."""
        return self.encoder.encode_text(texts)


def may_lack(encoder: ImageTextEncoder, modality: str) -> bool:
    """Whether an observation without a modality can be embedded."""
    return isinstance(encoder, EpisodeEncoder) and modality in encoder.optional_modalities


def require_modalities(obs: Mapping[str, Any], encoder: ImageTextEncoder) -> dict[str, Any]:
    """Returns what an encoder reads of an observation, or says what it lacks.

    Raises:
        MissingModalityError: If a modality is missing that must not be.
    """
    absent = [key for key in encoder.modalities if obs.get(key) is None]
    missing = [key for key in absent if not may_lack(encoder, key)]
    if len(absent) == len(encoder.modalities):
        missing = absent
    if missing:
        given = sorted(key for key in obs if obs[key] is not None)
        raise MissingModalityError(
            f"encoder {encoder.name!r} reads {list(encoder.modalities)}, got an observation with "
            f"{given}: add {missing}. For 'pixels', wrap the environment in "
            "gymnasium.wrappers.AddRenderObservation(env, render_only=False)"
        )
    return {key: obs[key] for key in encoder.modalities if key not in absent}


def check_texts(texts: Sequence[str]) -> list[str]:
    """Returns texts as a list, or says why they cannot be embedded.

    Raises:
        TypeError: If a single string came in place of a sequence of them.
        ValueError: If there is none, or if one is empty or blank.
    """
    if isinstance(texts, str):
        raise TypeError(f"expected a sequence of texts, got the string {texts!r}: pass [text]")
    if not texts:
        raise ValueError("expected at least one text, got none")
    for text in texts:
        if not text.strip():
            raise ValueError(f"expected texts with words in them, got {text!r}")
    return list(texts)
