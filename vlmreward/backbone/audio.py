r"""From sound to tokens: log-mel frames, offline or as the sound comes in.

With a window :math:`w` of :math:`N` samples that ends with the present one, a hop of :math:`h`, and
triangular bands :math:`M` that are evenly spaced on the mel scale :math:`2595 \log_{10}(1 + f/700)`
(O'Shaughnessy 1987):

.. math::
    P_{tk} &= \Big|\sum_{n=0}^{N-1} w_n\, x_{(t+1)h - N + n}\, e^{-2\pi i k n / N}\Big|^2 \\
    y_{tm} &= \log \max\Big(\sum_k M_{mk} P_{tk},\ \text{floor}\Big)

Frame :math:`t` reads nothing after its own hop. Before an episode there is silence, :math:`x = 0`.

Axis letters: ``B`` batch, ``S`` samples, ``T`` log-mel frames, ``M`` mel bands, ``F`` frequency
bins, ``R`` bins of the widest band, ``N`` samples of a window, ``P`` samples that are kept, ``K``
tokens, ``D`` width.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vlmreward.backbone.layers import learned, linear
from vlmreward.backbone.state import check_is_first, check_state_shape

_FULL_SCALE = 32767 / 32768  # the highest that 16 bits hold


class AudioError(ValueError):
    """Sound that is not what a front end can read."""


@dataclass(frozen=True)
class LogMelConfig:
    """How sound becomes log-mel frames.

    Attributes:
        sample_rate: Samples per second.
        window: Samples that a frame reads, 25 ms.
        hop: Samples from frame to frame, 10 ms.
        num_mels: Mel bands, from 0 Hz to half the sample rate.
        floor: Smallest power in a band; a full-scale tone has about `(window / 4) ** 2`.

    Raises:
        ValueError: If a number is out of range, or if a band holds no frequency.
    """

    sample_rate: int = 16_000
    window: int = 400
    hop: int = 160
    num_mels: int = 64
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if not 1 <= self.hop <= self.window:
            raise ValueError(
                f"got hop={self.hop} and window={self.window}, expected 1 <= hop <= window"
            )
        if self.sample_rate < 1 or self.num_mels < 1:
            raise ValueError(
                f"got sample_rate={self.sample_rate} and num_mels={self.num_mels}, expected at "
                "least 1"
            )
        if not 0.0 < self.floor < 1.0:
            raise ValueError(f"got floor={self.floor}, expected it between 0 and 1")
        empty = (mel_matrix(self) == 0).all(dim=1).nonzero()
        if len(empty):
            raise ValueError(
                f"got num_mels={self.num_mels} with window={self.window}: band {int(empty[0])} "
                "lies between two frequencies; take fewer bands or a longer window"
            )

    @property
    def num_kept(self) -> int:
        """P: samples before a hop that its frame reads too."""
        return self.window - self.hop


def mel_matrix(config: LogMelConfig) -> Float[Tensor, "M F"]:
    """Weights of the frequencies in each band: triangles of height 1, half overlapping."""
    nyquist = config.sample_rate / 2
    top = 2595 * math.log10(1 + nyquist / 700)
    mels = torch.linspace(0, top, config.num_mels + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mels / 2595) - 1)
    frequencies = torch.arange(config.window // 2 + 1, dtype=torch.float64)
    frequencies = frequencies * config.sample_rate / config.window
    left, centre, right = (corners[first : first + config.num_mels, None] for first in range(3))
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()


def check_waveform(
    waveform: object, config: LogMelConfig, *, sample_rate: int | None = None
) -> Float[Tensor, "B S"]:
    """Return sound unchanged, or say why it is none.

    Args:
        waveform: Expected: mono float32 `[B, S]` in [-1, 1], whole hops of it.
        config: How it is to be read.
        sample_rate: Of the sound, where it is known.

    Raises:
        AudioError: If type, dtype, shape, sample rate or values are others, or if three samples in
            a row are at full scale, as where a recording was clipped.
    """
    if not isinstance(waveform, Tensor):
        raise AudioError(f"expected sound as a torch tensor, got {type(waveform).__name__}")
    if sample_rate is not None and sample_rate != config.sample_rate:
        raise AudioError(
            f"got sound at {sample_rate} Hz, expected {config.sample_rate} Hz: resample it"
        )
    _check_layout(waveform, config.hop)
    if bool(waveform.isnan().any()):
        raise AudioError("sound contains NaN: look at what recorded it")
    loudest = waveform.abs().max().item()
    if loudest > 1:
        raise AudioError(
            f"got samples up to {loudest:.4g}, expected them in [-1, 1]: scale it down"
        )
    full = waveform.abs() >= _FULL_SCALE
    clipped = full[:, 2:] & full[:, 1:-1] & full[:, :-2]
    if bool(clipped.any()):
        row, sample = clipped.nonzero()[0].tolist()
        raise AudioError(
            f"row {row} is clipped from sample {sample} on: three samples or more at full "
            "scale; record it at a lower level"
        )
    return waveform


def _check_layout(waveform: Tensor, hop: int) -> None:
    shape = list(waveform.shape)
    if waveform.dtype != torch.float32:
        remedy = "divide int16 by 32768" if waveform.dtype == torch.int16 else "convert it"
        raise AudioError(f"expected float32 sound, got dtype {waveform.dtype}: {remedy}")
    if waveform.ndim != 2:
        remedy = (
            "add the batch axis with waveform[None]"
            if waveform.ndim == 1
            else "mix the channels with their mean, sound must be mono"
        )
        raise AudioError(f"expected sound of shape [B, S], got {shape}: {remedy}")
    if 0 in shape:
        raise AudioError(f"expected at least one row and one sample, got shape {shape}")
    if shape[1] % hop:
        raise AudioError(
            f"got {shape[1]} samples, expected a multiple of the hop, {hop}: resample sound of "
            f"another sample rate; else keep the remaining {shape[1] % hop} until more have come, "
            "or fill the last hop with zeros"
        )


def log_mel(
    waveform: Tensor, config: LogMelConfig, *, sample_rate: int | None = None
) -> Float[Tensor, "B T M"]:
    """Log-mel frames of whole episodes, one for each hop.

    Args:
        waveform: See `check_waveform`.
        config: How it is read.
        sample_rate: Of the sound, where it is known.

    Raises:
        AudioError: See `check_waveform`.
    """
    checked = check_waveform(waveform, config, sample_rate=sample_rate)
    silence = checked.new_zeros(len(checked), config.num_kept)
    return _frames(torch.cat([silence, checked], dim=1), config)


class StreamingLogMel:
    """The frames of `log_mel`, as the sound comes in.

    What it keeps of a stream, the state, is the caller's: the last samples, which the next frames
    read too.

    Args:
        config: How sound is read.

    Example:
        >>> stream = StreamingLogMel(LogMelConfig())
        >>> state, chunk, is_first = None, torch.zeros(2, 1600), torch.tensor([True, True])
        >>> frames, state = stream.step(chunk, is_first, state)
        >>> frames.shape, state.shape
        (torch.Size([2, 10, 64]), torch.Size([2, 240]))
    """

    def __init__(self, config: LogMelConfig) -> None:
        self.config = config

    def step(
        self,
        chunk: Tensor,
        is_first: Tensor,
        state: Tensor | None,
        *,
        sample_rate: int | None = None,
    ) -> tuple[Float[Tensor, "B T M"], Float[Tensor, "B P"]]:
        """Frames of the next hops, and the next state.

        Args:
            chunk: One hop or more, see `check_waveform`.
            is_first: Rows where an episode begins with this chunk, bool `[B]`.
            state: What the call before returned, `[B, P]`; None for the first one.
            sample_rate: Of the sound, where it is known.

        Raises:
            AudioError: See `check_waveform`.
            StateError: If the state is of another batch or configuration, or flags are not one a
                row.
        """
        checked = check_waveform(chunk, self.config, sample_rate=sample_rate)
        kept = checked.new_zeros(len(checked), self.config.num_kept)
        check_is_first(is_first, len(checked))
        if state is not None:
            check_state_shape("kept samples", state, tuple(kept.shape))
            kept = torch.where(is_first[:, None], kept, state)
        samples = torch.cat([kept, checked], dim=1)
        next_state = samples[:, samples.shape[1] - self.config.num_kept :].clone()
        return _frames(samples, self.config), next_state


def _frames(samples: Float[Tensor, "B S"], config: LogMelConfig) -> Float[Tensor, "B T M"]:
    """Log-mel frames of every window that lies in the samples.

    Bands are added up one frequency at a time: the last bits of a matrix product depend on its
    size, and a stream must give those of the whole.
    """
    window, bins, weights = _filters(config, samples.device)
    spectrum = torch.stft(
        samples,
        n_fft=config.window,
        hop_length=config.hop,
        window=window,
        center=False,
        return_complex=True,
    )
    power = (spectrum.real.square() + spectrum.imag.square()).mT
    bands = torch.zeros_like(power[..., bins[0]])
    for of_band, weight in zip(bins, weights, strict=True):
        bands = bands + power[..., of_band] * weight
    return bands.clamp(min=config.floor).log()


@functools.lru_cache(maxsize=8)
def _filters(
    config: LogMelConfig, device: torch.device
) -> tuple[Float[Tensor, " N"], Int64[Tensor, "R M"], Float[Tensor, "R M"]]:
    """The window, and for each band its bins and their weights, narrow bands filled with 0."""
    matrix = mel_matrix(config)
    num_bins = int((matrix > 0).sum(dim=1).max())
    weights, bins = matrix.topk(num_bins, dim=1)
    window = torch.hann_window(config.window)
    return window.to(device), bins.T.to(device), weights.T.to(device)


class AudioTokens(nn.Module):
    """Projects patches of log-mel frames to tokens, and adds a learned position.

    Tokens lie in time, and within the same time from low to high.

    Args:
        config: How the frames were made.
        num_frames: Log-mel frames of a clip.
        embed_dim: Width of a token.
        generator: Draws the initial weights.
        patch_frames: Frames of a patch; they divide those of the clip.
        patch_mels: Bands of a patch; they divide those of a frame.

    Raises:
        ValueError: If patches do not fill the clip.
    """

    def __init__(
        self,
        config: LogMelConfig,
        num_frames: int,
        embed_dim: int,
        generator: torch.Generator,
        *,
        patch_frames: int = 16,
        patch_mels: int = 8,
    ) -> None:
        super().__init__()
        if num_frames % patch_frames or config.num_mels % patch_mels:
            raise ValueError(
                f"got clips of {num_frames} frames × {config.num_mels} bands and patches of "
                f"{patch_frames} × {patch_mels}, expected patches to divide clips: change "
                "patch_frames or patch_mels, or fill clips with frames of silence"
            )
        self.config = config
        self.num_frames = num_frames
        self.patch = (patch_frames, patch_mels)
        self.num_tokens = (num_frames // patch_frames) * (config.num_mels // patch_mels)
        self.projection = linear(patch_frames * patch_mels, embed_dim, generator)
        self.positions = learned(self.num_tokens, embed_dim, generator=generator)

    def forward(self, frames: Float[Tensor, "B T M"]) -> Float[Tensor, "B K D"]:
        """One token per patch.

        Args:
            frames: From `log_mel` or `StreamingLogMel`.

        Raises:
            ValueError: If there are other numbers of frames or bands.
        """
        if tuple(frames.shape[1:]) != (self.num_frames, self.config.num_mels):
            raise ValueError(
                f"got log-mel frames of shape {list(frames.shape)}, expected [B, "
                f"{self.num_frames}, {self.config.num_mels}]"
            )
        # 0 is the floor, and 1 a power of 1.
        scaled = 1 - frames / math.log(self.config.floor)
        time, mels = self.patch
        shape = (len(frames), self.num_frames // time, time, self.config.num_mels // mels, mels)
        patches = scaled.reshape(shape).transpose(2, 3).flatten(3).flatten(1, 2)
        tokens: Float[Tensor, "B K D"] = self.projection(patches)
        return tokens + self.positions
