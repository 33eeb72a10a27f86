import numpy as np
import pytest
import torch

from vlmreward import CosineHead, Goal, RewardModel
from vlmreward.backbone.audio import AudioError, LogMelConfig, log_mel
from vlmreward.backbone.encoder import MultimodalEncoder
from vlmreward.backbone.model import BackboneConfig, MultimodalBackbone, TextConfig
from vlmreward.backbone.state import StateError
from vlmreward.backbone.video import ConvTokensConfig
from vlmreward.backbone.zorro import ZorroConfig
from vlmreward.encoders import EpisodeEncoder, ImageTextEncoder, MissingModalityError
from vlmreward.encoders.open_clip import build_tokenizer
from vlmreward.frames import FrameError
from vlmreward.reward_stream import RewardStream

NUM_STEPS = 7
GOALS = [Goal("a bell is ringing"), Goal("the person is holding the red ball")]


def small_config(memory="transformer"):
    return BackboneConfig(
        embed_dim=16,
        video=ConvTokensConfig(
            num_frames=1, height=32, width=32, embed_dim=16, channels=(8, 8), grid=2
        ),
        step_samples=800,
        log_mel=LogMelConfig(num_mels=16),
        patch_mels=8,
        zorro=ZorroConfig(embed_dim=16, num_layers=1, num_heads=2, num_fusion_tokens=3),
        memory=memory,
        num_memory_outputs=2,
        text=TextConfig(width=16, heads=2, layers=1, context_length=16),
    )


def make_encoder(stream="episode", memory="transformer", temperatures=None):
    backbone = MultimodalBackbone(small_config(memory), torch.Generator().manual_seed(0))
    text_cfg = {"context_length": 16, "vocab_size": 49408}
    tokenizer = build_tokenizer({"embed_dim": 16, "vision_cfg": {}, "text_cfg": text_cfg})
    return MultimodalEncoder(
        backbone, tokenizer, name="small", stream=stream, temperatures=temperatures
    )


def draw_obs(seed, *shape):
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(0, 256, (*shape, 32, 32, 3), dtype=np.uint8),
        "audio": rng.uniform(-0.5, 0.5, (*shape, 800)).astype(np.float32),
    }


def at(obs, *index):
    return {key: values[index] for key, values in obs.items()}


def offline(encoder, obs):
    """Embeddings of one whole episode `[T, …]` from the backbone's own parts."""
    backbone = encoder.backbone
    num_steps = len(obs["pixels"])
    whole = torch.from_numpy(obs["audio"]).flatten()[None]
    mels = log_mel(whole, backbone.config.log_mel).view(num_steps, -1, 16)
    step = backbone.encode_step(
        backbone.video_tokens(torch.from_numpy(obs["pixels"])), backbone.audio_tokens(mels)
    )
    is_first = torch.arange(num_steps)[None] == 0
    return {**vars(step), "episode": backbone.remember_all(step.tokens[None], is_first)[0]}


def test_it_is_an_encoder_and_remembers():
    encoder = make_encoder()
    assert isinstance(encoder, ImageTextEncoder)
    assert isinstance(encoder, EpisodeEncoder)
    embedding = encoder.encode_obs(draw_obs(0, 3))
    assert embedding.shape == (3, 16)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(3))
    texts = encoder.encode_text(["a bell is ringing", "nothing is humming"])
    assert torch.allclose(texts.norm(dim=1), torch.ones(2))
    assert not any(parameter.requires_grad for parameter in encoder.backbone.parameters())


@pytest.mark.parametrize("memory", ["mean", "transformer", "ttm"])
@pytest.mark.parametrize("stream", ["audio", "video", "fusion", "episode"])
def test_step_by_step_equals_offline_with_resets_in_some_rows(stream, memory):
    encoder = make_encoder(stream, memory)
    episodes = draw_obs(1, 3, NUM_STEPS)
    expected = [offline(encoder, at(episodes, row))[stream] for row in range(3)]
    memory = encoder.new_memory(2)
    # The first environment shows episode 0 and, from its fourth step on, episode 2.
    for step in range(NUM_STEPS):
        if step == 3:
            memory.clear(np.array([0]))
        shown = (0, step) if step < 3 else (2, step - 3)
        obs = {key: np.stack([values[shown], values[1, step]]) for key, values in episodes.items()}
        out = memory.push(np.array([0, 1]), encoder.encode_step(obs))
        assert torch.allclose(out[0], expected[shown[0]][shown[1]], atol=1e-5)
        assert torch.allclose(out[1], expected[1][step], atol=1e-5)


def test_environments_may_step_apart_and_in_any_order():
    encoder = make_encoder()
    episodes = draw_obs(2, 2, NUM_STEPS)
    expected = [offline(encoder, at(episodes, row))["episode"] for row in range(2)]
    memory = encoder.new_memory(2)
    for row in (1, 0):
        for step in range(NUM_STEPS):
            obs = at(episodes, slice(row, row + 1), step)
            out = memory.push(np.array([row]), encoder.encode_step(obs))
            assert torch.allclose(out[0], expected[row][step], atol=1e-5)


@pytest.mark.parametrize(("missing", "other"), [("audio", "pixels"), ("pixels", "audio")])
def test_a_missing_modality_is_absent(missing, other):
    encoder = make_encoder("fusion")
    obs = draw_obs(3, 2)
    without = encoder.encode_obs({other: obs[other]})
    assert torch.equal(without, encoder.encode_obs({other: obs[other], missing: None}))
    assert not torch.allclose(without, encoder.encode_obs(obs), atol=1e-3)
    silent = {other: obs[other], missing: np.zeros_like(obs[missing])}
    assert not torch.allclose(without, encoder.encode_obs(silent), atol=1e-3)  # absent is not 0
    pure = make_encoder("video" if other == "pixels" else "audio")
    assert torch.allclose(pure.encode_obs({other: obs[other]}), pure.encode_obs(obs), atol=1e-6)
    with pytest.raises(MissingModalityError, match=f"add \\['{other}'\\]"):
        pure.encode_obs({missing: obs[missing]})
    with pytest.raises(MissingModalityError, match=r"add \['pixels', 'audio'\]"):
        encoder.encode_obs({"position": np.zeros((2, 2))})
    with pytest.raises(MissingModalityError, match=r"with \[\]: add \['pixels', 'audio'\]"):
        encoder.encode_obs({"pixels": None, "audio": None})


def test_a_reward_stream_pays_for_episodes_and_a_sensor_may_drop_out():
    encoder = make_encoder()
    reward_model = RewardModel(encoder, GOALS, CosineHead())
    stream = RewardStream(reward_model, num_envs=2, goal_index=[0, 1])
    episodes = draw_obs(4, 2, NUM_STEPS)
    stream.start([0, 1], at(episodes, slice(None), 0))
    for step in range(1, NUM_STEPS):
        paid = stream.step(at(episodes, slice(None), step))
    for row in range(2):
        expected = offline(encoder, at(episodes, row))["episode"][-1:]
        score = reward_model.score_embeddings(expected, row).score
        assert paid.score[row] == pytest.approx(float(score), abs=1e-5)
    assert paid.stream == ("episode", "episode")
    by_hand = encoder.new_memory(1)
    for step in range(NUM_STEPS):
        by_hand.push(np.array([0]), encoder.encode_step(at(episodes, slice(1, 2), step)))
    unheard = encoder.encode_step({"pixels": episodes["pixels"][1:, 0]})
    expected = by_hand.push(np.array([0]), unheard)
    deaf = stream.step(
        {"pixels": episodes["pixels"][:, 0]},
        truncated=[True, False],
        started=[0],
        first_obs=at(episodes, slice(0, 1), 0),
    )
    score = reward_model.score_embeddings(expected, 1).score
    assert deaf.score[1] == pytest.approx(float(score), abs=1e-5)
    began = stream.step(at(episodes, slice(None), 1))
    again = offline(encoder, at(episodes, 0, slice(0, 2)))["episode"][1:]
    score = reward_model.score_embeddings(again, 0).score
    assert began.score[0] == pytest.approx(float(score), abs=1e-5)


def test_whichever_sensor_is_there_is_scored_and_named():
    """By hand: fusion where both are there, else the pure stream, each at its own temperature."""
    present = make_encoder("present", temperatures={"audio": 0.2, "video": 0.05, "fusion": 0.1})
    assert isinstance(present, EpisodeEncoder)
    assert present.logit_scale == pytest.approx(20.0)
    assert present.embed_dim == 17
    text = present.encode_text(["a bell is ringing"])
    assert torch.allclose(text.norm(dim=1), torch.ones(1))
    obs = draw_obs(6, 2)
    given = {"fusion": obs, "video": {"pixels": obs["pixels"]}, "audio": {"audio": obs["audio"]}}
    share = {"fusion": 0.5, "video": 1.0, "audio": 0.25}
    memory = present.new_memory(3)
    assert memory.streams == ("", "", "")
    for stream, what in given.items():
        alone = make_encoder(stream)
        expected = alone.encode_obs(what) @ alone.encode_text(["a bell is ringing"]).T
        memory.clear(np.arange(3))
        embedding = memory.push(np.array([2, 0]), present.encode_step(what))
        assert memory.streams == (stream, memory.streams[1], stream)
        assert torch.allclose(embedding.norm(dim=1), torch.ones(2))
        assert torch.allclose(embedding @ text.T, share[stream] * expected, atol=1e-6)


def test_one_batch_may_hold_rows_with_other_sensors():
    encoder = make_encoder("present")
    obs = draw_obs(7, 1)
    whole, deaf = encoder.encode_step(obs), encoder.encode_step({"pixels": obs["pixels"]})
    memory = encoder.new_memory(2)
    both = memory.push(np.array([0, 1]), torch.cat([whole, deaf]))
    assert memory.streams == ("fusion", "video")
    assert torch.allclose(both[:1], encoder.encode_obs(obs), atol=1e-6)
    assert torch.allclose(both[1:], encoder.encode_obs({"pixels": obs["pixels"]}), atol=1e-6)


@pytest.mark.parametrize("wrong", [{}, {"audio": 0.1, "video": 0.1}, {"fusion": 0.0}])
def test_every_stream_that_is_scored_needs_a_temperature(wrong):
    with pytest.raises(ValueError, match=r"positive number for .*'fusion'"):
        make_encoder("present", temperatures=wrong)


def spoiled(key, change):
    obs = draw_obs(5, 2)
    return {**obs, key: change(obs[key])}


@pytest.mark.parametrize(
    ("key", "change", "error", "message"),
    [
        ("audio", lambda a: a * np.nan, AudioError, "NaN"),
        ("audio", lambda a: a * 40, AudioError, r"in \[-1, 1\]"),
        ("audio", np.ones_like, AudioError, "clipped"),
        ("audio", lambda a: a[:, :799], AudioError, r"799 samples a step, expected 800, 0\.05 s"),
        ("audio", lambda a: a[:, :400], AudioError, "0.05 s of sound, it is at 8000 Hz, resample"),
        ("audio", lambda a: np.tile(a, 3), AudioError, "it is at 48000 Hz, resample"),
        ("audio", lambda a: a[:1], AudioError, "got 2 frames and sound of 1 rows"),
        ("audio", lambda a: [a[0], None], AudioError, "as an array of numbers .* got list"),
        ("audio", lambda a: "a bell", AudioError, "as an array of numbers .* got str"),
        ("audio", lambda a: a[..., None], AudioError, "mono"),
        ("audio", lambda a: (a * 32767).astype(np.int16), AudioError, "divide int16"),
        ("audio", lambda a: a[:, :0], AudioError, "0 samples a step"),
        ("pixels", lambda p: p.astype(np.float32), FrameError, "uint8"),
        ("pixels", lambda p: p[:, :16], ValueError, "resize them"),
    ],
)
def test_bad_input_is_named(key, change, error, message):
    with pytest.raises(error, match=message):
        make_encoder().encode_obs(spoiled(key, change))


def test_sound_may_lie_in_memory_as_it_likes():
    encoder, obs = make_encoder("audio"), draw_obs(8, 2)
    expected = encoder.encode_obs(obs)
    frozen = obs["audio"].copy()
    frozen.flags.writeable = False
    backwards = obs["audio"][:, ::-1].copy()[:, ::-1]
    for sound in (frozen, backwards, torch.from_numpy(obs["audio"])):
        assert torch.equal(encoder.encode_obs({"audio": sound}), expected)


def test_it_says_what_sound_it_expects():
    assert make_encoder().sample_rate == 16_000


def test_features_of_another_model_or_batch_are_refused():
    encoder = make_encoder()
    memory = encoder.new_memory(1)
    with pytest.raises(StateError, match="got features of width 3, expected"):
        memory.push(np.array([0]), torch.zeros(1, 3))
    with pytest.raises(StateError, match="features of 2 rows for 1 environments"):
        memory.push(np.array([0]), encoder.encode_step(draw_obs(0, 2)))


def test_sound_of_another_number_of_environments_is_refused():
    """Two channels would be taken for two environments."""
    stream = RewardStream(RewardModel(make_encoder("audio"), GOALS, CosineHead()), num_envs=1)
    stereo = {"audio": draw_obs(0, 2)["audio"]}
    with pytest.raises(ValueError, match="observations of 2 rows, expected 1: one row an environ"):
        stream.start([0], stereo)


def test_a_text_that_is_too_long_is_told_of():
    with pytest.warns(UserWarning, match="'small' reads 16 tokens.*cut off"):
        make_encoder().encode_text(["the bell rang " * 12])
