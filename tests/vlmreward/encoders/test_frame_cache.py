import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from vlmreward import FakeEncoder, Goal, RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.encoders import (
    CachedEncoder,
    CacheStatistics,
    OpenCLIPEncoder,
    build_model,
    build_tokenizer,
)
from vlmreward.encoders.base import require_modalities

from .test_contract import TINY, EncoderContract

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


class CountingEncoder(FakeEncoder):
    """A fake encoder that writes down how many rows each call had."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def encode_obs(self, obs):
        embedding = super().encode_obs(obs)
        self.rows.append(len(embedding))
        return embedding


class SoundEncoder(CountingEncoder):
    """Sees and hears; a sound is any array of numbers."""

    modalities = ("pixels", "audio")

    def encode_obs(self, obs):
        require_modalities(obs, self)
        heard = torch.as_tensor(np.asarray(obs["audio"], dtype=np.float64)).reshape(
            len(obs["audio"]), -1
        )
        seen = super().encode_obs(obs)
        return normalize(seen + heard.sum(dim=1, keepdim=True).float(), dim=1)


def encode(encoder, *rows):
    return encoder.encode_obs({"pixels": FRAMES[list(rows)]})


class TestContractAroundFake(EncoderContract):
    tolerance = 0.0

    @pytest.fixture
    def encoder(self):
        return CachedEncoder(FakeEncoder(), max_frames=4)


class TestContractAroundOpenCLIP(EncoderContract):
    @pytest.fixture
    def encoder(self):
        inner = OpenCLIPEncoder(build_model(TINY), build_tokenizer(TINY), name="tiny", batch_size=4)
        return CachedEncoder(inner)


def test_what_does_not_depend_on_frames_is_the_inner_encoders():
    head = ThresholdHead(SoftmaxHead(temperature=0.5), threshold=0.8)
    inner = FakeEncoder(logit_scale=7.0, calibrated_head=head)
    encoder = CachedEncoder(inner)
    for name in ("name", "modalities", "embed_dim", "device", "logit_scale", "context_length"):
        assert getattr(encoder, name) == getattr(inner, name)
    assert encoder.calibrated_head is head
    assert torch.equal(encoder.encode_text(["a red room"]), inner.encode_text(["a red room"]))


def test_a_frame_is_encoded_once_in_a_batch_and_ever_after():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner)
    encode(encoder, 0, 1, 0, 0)
    assert inner.rows == [2]
    encode(encoder, 1, 2, 0, 2, 1)
    assert inner.rows == [2, 1]
    encode(encoder, 2, 1, 0)
    assert inner.rows == [2, 1]  # no forward pass at all
    assert encoder.statistics == CacheStatistics(
        hits=9, misses=3, evictions=0, num_frames=3, max_frames=100_000
    )
    assert encoder.statistics.hit_rate == 0.75


def test_rows_are_bit_for_bit_those_first_computed():
    # A float model's rows depend in the last bits on what else is in the batch; the cache's do not.
    inner = OpenCLIPEncoder(build_model(TINY), build_tokenizer(TINY), name="tiny")
    encoder = CachedEncoder(inner)
    first = encode(encoder, *range(12))
    assert torch.equal(first, encode(inner, *range(12)))
    order = RNG.permutation(12)
    assert torch.equal(encode(encoder, *order), first[order])
    assert torch.equal(encode(encoder, 5), first[5:6])


def test_what_a_caller_does_to_a_result_stays_with_the_caller():
    encoder = CachedEncoder(FakeEncoder())
    for _ in range(2):
        encode(encoder, 0, 1).zero_()
    assert torch.equal(encode(encoder, 0, 1), encode(FakeEncoder(), 0, 1))


def test_the_longest_unused_goes_first():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner, max_frames=3)
    encode(encoder, 0, 1, 2)
    encode(encoder, 0)  # now 1 is the longest unused
    encode(encoder, 3)
    encode(encoder, 0, 2, 3)
    assert inner.rows == [3, 1]
    encode(encoder, 1)
    assert inner.rows == [3, 1, 1]
    assert encoder.statistics.evictions == 2


def test_a_batch_larger_than_the_cache_is_answered_in_full():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner, max_frames=2)
    rows = [0, 1, *range(12), 0]
    encode(encoder, 0, 1)
    assert torch.equal(encode(encoder, *rows), encode(FakeEncoder(), *rows))
    assert encoder.statistics.num_frames == 2
    encode(encoder, 10, 11)
    assert inner.rows == [2, 10]


def test_forgetting():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner)
    encode(encoder, 0, 1)
    encoder.clear()
    assert encoder.statistics.num_frames == 0
    assert torch.equal(encode(encoder, 1, 0, 1), encode(FakeEncoder(), 1, 0, 1))
    assert inner.rows == [2, 2]


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8), min_size=1, max_size=8),
    max_frames=st.integers(1, 12),
    as_tensor=st.booleans(),
)
def test_cached_is_uncached_whatever_repeats(batches, max_frames, as_tensor):
    inner = CountingEncoder()
    encoder = CachedEncoder(inner, max_frames=max_frames)
    for batch in batches:
        frames = FRAMES[batch]
        obs = {"pixels": torch.from_numpy(frames) if as_tensor else frames}
        assert torch.equal(encoder.encode_obs(obs), FakeEncoder().encode_obs(obs))
        assert encoder.statistics.num_frames <= max_frames
    statistics = encoder.statistics
    assert statistics.misses == sum(inner.rows)
    assert statistics.hits + statistics.misses == sum(map(len, batches))
    assert statistics.misses - statistics.evictions == statistics.num_frames
    if max_frames == 12:
        assert statistics.misses == len({row for batch in batches for row in batch})


def test_equal_bytes_of_another_shape_are_another_frame():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner)
    wide = FRAMES[:1]
    tall = wide.reshape(1, 8, 6, 3)
    assert torch.equal(encoder.encode_obs({"pixels": wide}), inner.encode_obs({"pixels": wide}))
    assert torch.equal(encoder.encode_obs({"pixels": tall}), inner.encode_obs({"pixels": tall}))
    assert encoder.statistics.misses == 2


def test_equal_bytes_of_another_dtype_are_another_sound():
    encoder = CachedEncoder(SoundEncoder())
    numbers = np.array([[1.0, 2.0]], dtype=np.float32)
    sounds = [numbers, numbers.view(np.int32), numbers.view(np.int64), numbers.astype(">f4")]
    sounds.append(numbers.byteswap())
    for audio in sounds:
        obs = {"pixels": FRAMES[:1], "audio": audio}
        assert torch.equal(encoder.encode_obs(obs), SoundEncoder().encode_obs(obs))
    assert encoder.statistics.misses == len(sounds)


def test_every_modality_that_is_read_counts_and_no_other():
    inner = SoundEncoder()
    encoder = CachedEncoder(inner)
    pixels, audio = FRAMES[[0, 0, 1, 0]], np.array([1.0, 2.0, 1.0, 1.0])
    encoder.encode_obs({"pixels": pixels, "audio": audio})
    assert inner.rows == [3]
    encoder.encode_obs({"pixels": pixels, "audio": audio, "position": np.arange(4)})
    assert inner.rows == [3]
    with pytest.raises(ValueError, match=r"equally many rows.*'audio': \[3\]"):
        encoder.encode_obs({"pixels": pixels, "audio": audio[:3]})
    with pytest.raises(TypeError, match=r"'audio' as a batched NumPy array.*got list"):
        encoder.encode_obs({"pixels": pixels, "audio": [1.0]})


def test_views_count_by_what_they_show():
    encoder = CachedEncoder(FakeEncoder())
    encode(encoder, *range(12))
    flipped = FRAMES[:, ::-1]
    for pixels in (FRAMES[::-1], torch.from_numpy(FRAMES).permute(0, 2, 1, 3).transpose(1, 2)):
        encoder.encode_obs({"pixels": pixels})
    assert encoder.statistics.misses == 12
    frozen = FRAMES.copy()
    frozen.flags.writeable = False
    encoder.encode_obs({"pixels": frozen})
    assert encoder.statistics.misses == 12
    encoder.encode_obs({"pixels": flipped})
    assert encoder.statistics.misses == 24


def test_another_hash_will_do():
    used = []

    def digest(content):
        used.append(len(content))
        return bytes(content)[:4].ljust(4)

    encode(CachedEncoder(FakeEncoder(), digest=digest), 0, 1)
    assert used[1:] == [FRAMES[0].nbytes] * 2


def test_a_failed_batch_leaves_the_cache_as_it_was():
    encoder = CachedEncoder(FakeEncoder())
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode_obs({"pixels": FRAMES.astype(float)})
    assert encoder.statistics == CacheStatistics(0, 0, 0, 0, 100_000)
    assert encoder.statistics.hit_rate == 0


def test_a_cache_holds_something():
    with pytest.raises(ValueError, match="positive max_frames, got 0"):
        CachedEncoder(FakeEncoder(), max_frames=0)


def test_reward_models_share_a_cache():
    inner = CountingEncoder()
    encoder = CachedEncoder(inner)
    head = ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    goals = [Goal("a red room", ["a green room"]), Goal("a green room", ["a red room"])]
    for goal in goals:
        cached, plain = (RewardModel(each, goal, head) for each in (encoder, FakeEncoder()))
        assert torch.equal(cached(FRAMES), plain(FRAMES))
    assert inner.rows == [12]
