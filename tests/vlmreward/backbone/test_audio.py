import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmreward.backbone import audio as module
from vlmreward.backbone.audio import (
    AudioError,
    AudioTokens,
    LogMelConfig,
    StreamingLogMel,
    check_waveform,
    log_mel,
    mel_matrix,
)
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_distinct_positions,
    check_parameter_count,
    check_streaming,
)
from vlmreward.backbone.state import StateError

CONFIG = LogMelConfig()
HOP = CONFIG.hop


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sound(num_hops: int, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return 1.8 * torch.rand(batch, num_hops * HOP, generator=draws(seed)) - 0.9


def by_hand(waveform: np.ndarray) -> np.ndarray:
    """One row, frame by frame and band by band, in double precision and without an FFT."""
    samples = np.concatenate([np.zeros(240), waveform.astype(np.float64)])
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(201), n) / 400)
    corners = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2840.023, 66)]
    rows = []
    for start in range(0, len(samples) - 399, 160):
        power = np.abs(fourier @ (window * samples[start : start + 400])) ** 2
        bands = []
        for left, centre, right in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for k, value in enumerate(power):
                frequency = 40 * k
                if left < frequency <= centre:
                    total += value * (frequency - left) / (centre - left)
                elif centre < frequency < right:
                    total += value * (right - frequency) / (right - centre)
            bands.append(math.log(max(total, CONFIG.floor)))
        rows.append(bands)
    return np.array(rows)


def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_equals_the_definition() -> None:
    waveform = sound(5)
    waveform[1, 300:] *= 1e-4  # down to the floor
    frames = log_mel(waveform, CONFIG)
    assert frames.shape == (2, 5, 64)
    for row in range(2):
        np.testing.assert_allclose(frames[row], by_hand(waveform[row].numpy()), atol=1e-3)
    assert frames[1].min().item() == pytest.approx(math.log(CONFIG.floor))


def test_a_tone_is_loudest_in_its_band_and_as_loud_as_documented() -> None:
    time = torch.arange(4 * HOP) / CONFIG.sample_rate
    for band in (10, 30, 50):
        top = 2595 * math.log10(1 + 8000 / 700)
        frequency = 700 * (10 ** ((band + 1) * top / 65 / 2595) - 1)
        frequency = 40 * round(frequency / 40)
        frames = log_mel(torch.sin(2 * torch.pi * frequency * time)[None] * 0.999, CONFIG)
        assert abs(int(frames[0, -1].argmax()) - band) <= 1
        assert frames[0, -1].max().item() == pytest.approx(math.log(100**2), abs=1.0)


@pytest.mark.parametrize("num_mels", [8, 40, 64])
def test_bands_cover_every_frequency_between_the_outer_centres_once(num_mels) -> None:
    matrix = mel_matrix(LogMelConfig(num_mels=num_mels))
    assert matrix.shape == (num_mels, 201)
    assert matrix.max() <= 1
    assert (matrix.sum(dim=1) > 0).all()
    inner = slice(int(matrix[0].argmax()) + 1, int(matrix[-1].argmax()))
    torch.testing.assert_close(matrix.sum(dim=0)[inner], torch.ones(201)[inner])


def test_only_the_past_is_heard() -> None:
    waveform = sound(6).unflatten(1, (6, HOP))
    check_causality(lambda hops: log_mel(hops.flatten(1), CONFIG), waveform, generator=draws())
    check_batch_independence(
        lambda x: log_mel(x["sound"], CONFIG), {"sound": sound(6)}, generator=draws()
    )


def test_a_centred_transform_would_be_caught(monkeypatch) -> None:
    right = torch.stft

    def centred(samples, center, **settings):
        return right(samples, center=True, **settings)[..., 2:]

    waveform = sound(6).unflatten(1, (6, HOP))
    monkeypatch.setattr(torch, "stft", centred)
    with pytest.raises(PropertyError, match="outputs before it"):
        check_causality(
            lambda hops: log_mel(hops.flatten(1), CONFIG)[:, :6], waveform, generator=draws()
        )


def episodes_apart(waveform: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
    """The offline frames of every episode by itself, `[B, chunks, frames, mels]`."""
    rows = []
    for chunks, first in zip(waveform, is_first, strict=True):
        starts = sorted({0, *first.nonzero()[:, 0].tolist()})
        ends = [*starts[1:], len(chunks)]
        parts = [
            log_mel(chunks[start:end].reshape(1, -1), CONFIG)[0]
            for start, end in zip(starts, ends, strict=True)
        ]
        rows.append(torch.cat(parts))
    return torch.stack(rows).unflatten(1, (waveform.shape[1], -1))


IS_FIRST = torch.zeros(3, 8, dtype=torch.bool)
IS_FIRST[1, 3] = IS_FIRST[2, 0] = IS_FIRST[2, 5] = IS_FIRST[2, 6] = True


@pytest.mark.parametrize("hops_per_chunk", [1, 2, 3, 10])
def test_a_stream_gives_the_offline_frames_bitwise(hops_per_chunk) -> None:
    chunks = sound(8 * hops_per_chunk, batch=3).unflatten(1, (8, -1))
    check_streaming(episodes_apart, StreamingLogMel(CONFIG).step, chunks, IS_FIRST, tolerance=0.0)


def test_a_stream_that_never_resets_would_be_caught() -> None:
    stream = StreamingLogMel(CONFIG)

    def step(chunk, is_first, state):
        return stream.step(chunk, torch.zeros_like(is_first), state)

    with pytest.raises(PropertyError, match="output 3"):
        check_streaming(
            episodes_apart, step, sound(8, batch=3).unflatten(1, (8, -1)), IS_FIRST, tolerance=0.0
        )


def test_adding_up_bands_by_frequency_equals_a_matrix_product() -> None:
    waveform = sound(8)
    windows = torch.cat([torch.zeros(2, 240), waveform], dim=1).unfold(1, 400, HOP)
    spectrum = torch.fft.rfft((windows * torch.hann_window(400)).double())
    bands = spectrum.abs().square() @ mel_matrix(CONFIG).double().T
    expected = bands.clamp(min=CONFIG.floor).log().float()
    torch.testing.assert_close(log_mel(waveform, CONFIG), expected, atol=1e-4, rtol=0)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 1000))
def test_any_split_into_hops_gives_the_same_frames(split, seed) -> None:
    waveform = sound(sum(split), seed=seed)
    stream, state, parts = StreamingLogMel(CONFIG), None, []
    for chunk in waveform.split([hops * HOP for hops in split], dim=1):
        frames, state = stream.step(chunk, torch.zeros(2, dtype=torch.bool), state)
        parts.append(frames)
    assert torch.equal(torch.cat(parts, dim=1), log_mel(waveform, CONFIG))


def test_the_state_is_the_callers() -> None:
    stream, is_first = StreamingLogMel(CONFIG), torch.zeros(2, dtype=torch.bool)
    _, state = stream.step(sound(1), is_first, None)
    kept = state.clone()
    one, _ = stream.step(sound(3, seed=2), is_first, state)
    again, _ = stream.step(sound(3, seed=2), is_first, state)
    assert torch.equal(one, again)
    assert torch.equal(state, kept)
    assert state.untyped_storage().nbytes() == 4 * 2 * 240


def test_hops_as_long_as_windows_keep_nothing() -> None:
    config = LogMelConfig(hop=400)
    frames, state = StreamingLogMel(config).step(sound(5), torch.ones(2, dtype=torch.bool), None)
    assert frames.shape == (2, 2, 64)
    assert state.shape == (2, 0)


def changed(index, value) -> torch.Tensor:
    waveform = sound(2)
    waveform[index] = value
    return waveform


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        ((sound(2) * 32767).short(), r"int16: divide int16 by 32768"),
        (sound(2).double(), "float64: convert it"),
        (sound(2)[0], r"got \[320\]: add the batch axis"),
        (sound(2)[..., None].expand(-1, -1, 2), "must be mono"),
        (sound(2)[:, :0], r"at least one row and one sample, got shape \[2, 0\]"),
        (sound(2)[:0], "at least one row"),
        (
            sound(2)[:, :200],
            r"got 200 samples, expected a multiple of the hop, 160: .* keep .* 40 ",
        ),
        (changed((1, 7), torch.nan), "contains NaN"),
        (changed((1, 7), -1.5), r"samples up to 1\.5, expected them in \[-1, 1\]"),
        (changed((1, 7), torch.inf), "samples up to inf"),
        (changed((1, slice(7, 10)), 1.0), "row 1 is clipped from sample 7 on"),
        (changed((0, slice(317, 320)), -1.0), "row 0 is clipped from sample 317 on"),
    ],
)
def test_what_is_no_sound_is_refused(waveform, message) -> None:
    with pytest.raises(AudioError, match=message):
        log_mel(waveform, CONFIG)
    with pytest.raises(AudioError, match=message):
        StreamingLogMel(CONFIG).step(waveform, torch.zeros(2, dtype=torch.bool), None)


@pytest.mark.parametrize("full", [32767, -32768])
def test_what_was_clipped_in_16_bits_is_clipped_as_floats_too(full: int) -> None:
    recorded = (sound(2) * 32767).short()
    recorded[1, 7:10] = full
    with pytest.raises(AudioError, match="row 1 is clipped from sample 7 on"):
        check_waveform(recorded.float() / 32768, CONFIG)


def test_samples_kept_of_another_batch_are_refused() -> None:
    stream, none = StreamingLogMel(CONFIG), torch.zeros(2, dtype=torch.bool)
    _, state = stream.step(sound(2), none, None)
    with pytest.raises(StateError, match=r"kept samples of shape \[1, 240\], expected \[2, 240\]"):
        stream.step(sound(2), none, state[:1])
    with pytest.raises(StateError, match=r"shape \[2, 239\].* of another model"):
        stream.step(sound(2), none, state[:, 1:])
    with pytest.raises(StateError, match="one flag for each row"):
        stream.step(sound(2), none[:1], state)


def test_an_array_is_refused() -> None:
    with pytest.raises(AudioError, match="as a torch tensor, got ndarray"):
        check_waveform(sound(2).numpy(), CONFIG)


def test_two_samples_at_full_scale_are_no_clipping() -> None:
    assert log_mel(changed((1, slice(7, 9)), 1.0), CONFIG).isfinite().all()


def test_another_sample_rate_is_refused() -> None:
    log_mel(sound(2), CONFIG, sample_rate=16_000)
    with pytest.raises(AudioError, match="got sound at 44100 Hz, expected 16000 Hz: resample"):
        log_mel(sound(2), CONFIG, sample_rate=44_100)
    none = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(AudioError, match="got sound at 8000 Hz, expected 16000 Hz"):
        StreamingLogMel(CONFIG).step(sound(2), none, None, sample_rate=8_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hop": 401}, "expected 1 <= hop <= window"),
        ({"hop": 0}, "expected 1 <= hop"),
        ({"num_mels": 0}, "num_mels=0"),
        ({"floor": 0.0}, "floor=0.0"),
        ({"num_mels": 128}, "lies between two frequencies; take fewer bands"),
    ],
)
def test_impossible_settings_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        LogMelConfig(**settings)


class TestTokens:
    module = AudioTokens(CONFIG, 32, 8, draws())

    @torch.no_grad()
    def test_a_patch_is_projected_by_itself(self) -> None:
        frames = log_mel(sound(32), CONFIG)
        tokens = self.module(frames)
        assert tokens.shape == (2, self.module.num_tokens, 8) == (2, 16, 8)
        for token in range(16):
            time, low = 16 * (token // 8), 8 * (token % 8)
            patch = 1 + frames[:, time : time + 16, low : low + 8] / -math.log(CONFIG.floor)
            expected = self.module.projection(patch.flatten(1)) + self.module.positions[token]
            torch.testing.assert_close(tokens[:, token], expected, atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_silence_is_its_positions(self) -> None:
        silence = log_mel(torch.zeros(1, 32 * HOP), CONFIG)
        torch.testing.assert_close(self.module(silence)[0], self.module.positions)

    def test_positions_and_parameters(self) -> None:
        check_distinct_positions(self.module.positions)
        check_parameter_count(self.module, 128 * 8 + 8 + 16 * 8)

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"30 frames × 64 bands and patches of 16 × 8"):
            AudioTokens(CONFIG, 30, 8, draws())
        with pytest.raises(ValueError, match=r"\[2, 16, 64\], expected \[B, 32, 64\]"):
            self.module(torch.zeros(2, 16, 64))
