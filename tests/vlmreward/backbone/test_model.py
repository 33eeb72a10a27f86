"""The whole backbone holds what its parts hold, and a planted bug anywhere in it is found."""

import json
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import nn

from vlmreward import backbone as package
from vlmreward.backbone import model as module
from vlmreward.backbone import zorro as zorro_module
from vlmreward.backbone.audio import LogMelConfig, log_mel
from vlmreward.backbone.combiner import MeanMemory, TransformerCombiner, TTMCombiner
from vlmreward.backbone.model import BackboneConfig, MultimodalBackbone, TextConfig
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_eval_determinism,
    check_gradients,
    check_streaming,
)
from vlmreward.backbone.video import ConvTokensConfig, TowerTokensConfig, TubeletConfig
from vlmreward.backbone.zorro import ZorroConfig

MEMORIES = {"mean": MeanMemory, "transformer": TransformerCombiner, "ttm": TTMCombiner}
WITH_TIME_STAMPS = [
    ("mean", False),
    ("transformer", False),
    ("transformer", True),
    ("ttm", False),
    ("ttm", True),
]
NUM_STEPS = 4
READS = {
    "audio": {"sound"},
    "video": {"frame"},
    "fusion": {"frame", "sound"},
    "episode": {"frame", "sound", "frame_before", "sound_before"},
}
"""What each stream reads of a step and of the step before it in the same episode."""


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=draws(seed))


def small_config(memory="transformer", *, time_stamps=False):
    return BackboneConfig(
        embed_dim=16,
        video=ConvTokensConfig(
            num_frames=1, height=32, width=32, embed_dim=16, channels=(8, 8), grid=2
        ),
        step_samples=800,
        log_mel=LogMelConfig(num_mels=16),
        patch_mels=8,
        zorro=ZorroConfig(embed_dim=16, num_layers=2, num_heads=2, num_fusion_tokens=3),
        memory=memory,
        num_memory_outputs=2,
        time_stamps=time_stamps,
        text=TextConfig(width=16, heads=2, layers=1, context_length=8, vocab_size=50),
    )


def small(memory="transformer", seed=0, *, time_stamps=False):
    return MultimodalBackbone(small_config(memory, time_stamps=time_stamps), draws(seed))


def raw_inputs(batch=3):
    """Frames, log-mel frames of the same steps, and a sentence for each row."""
    pixels = (batch, NUM_STEPS, 32, 32, 3)
    return {
        "frames": torch.randint(0, 256, pixels, generator=draws(2), dtype=torch.uint8),
        "mels": normal(batch, NUM_STEPS, 5, 16, seed=3),
        "sentences": torch.randint(1, 50, (batch, 8), generator=draws(4)),
    }


class Streams(nn.Module):
    """Episodes through everything that a backbone has, to all of its outputs."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, frames, mels, sentences):
        backbone, shape = self.backbone, frames.shape[:2]
        step = backbone.encode_step(
            backbone.video_tokens(frames.flatten(0, 1)), backbone.audio_tokens(mels.flatten(0, 1))
        )
        by_step = {name: stream.unflatten(0, shape) for name, stream in vars(step).items()}
        is_first = torch.zeros(shape, dtype=torch.bool)
        return {
            **by_step,
            "episode": backbone.remember_all(by_step["tokens"], is_first),
            "text": backbone.encode_text(sentences),
        }


def check_purity(backbone, *, forgets=False):
    """Declared gradients of all streams at the second step of an episode."""
    is_first = torch.tensor([[True, forgets]]).expand(2, 2)

    def forward(inputs):
        before, now = (
            backbone.encode_step(
                inputs[f"frame{when}"], backbone.audio_tokens(inputs[f"sound{when}"])
            )
            for when in ("_before", "")
        )
        tokens = torch.stack([before.tokens, now.tokens], dim=1)
        episode = backbone.remember_all(tokens, is_first)[:, 1]
        return {
            **{name: vars(now)[name] for name in READS if name != "episode"},
            "episode": episode,
        }

    inputs = {
        "frame": normal(2, 4, 16, seed=5),
        "frame_before": normal(2, 4, 16, seed=6),
        "sound": normal(2, 5, 16, seed=7),
        "sound_before": normal(2, 5, 16, seed=8),
    }
    check_gradients(forward, inputs, READS)


@pytest.mark.parametrize("memory", MEMORIES)
def test_streams_read_what_is_declared(memory):
    check_purity(small(memory))


right_mask = zorro_module.stream_mask


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stream_mask", lambda streams: right_mask(streams).T),
        ("pool_mask", lambda streams: torch.ones(3, len(streams), dtype=torch.bool)),
    ],
    ids=["transposed", "no pool mask"],
)
def test_a_wrong_mask_is_found(monkeypatch, name, wrong):
    monkeypatch.setattr(zorro_module, name, wrong)
    with pytest.raises(PropertyError, match="declared as read"):
        check_purity(small())


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_that_forgets_is_found(memory):
    with pytest.raises(PropertyError, match=r"'episode' with respect to input '\w+_before' is 0"):
        check_purity(small(memory), forgets=True)


@pytest.mark.parametrize("memory", MEMORIES)
def test_all_outputs_are_unit_vectors_of_one_space(memory):
    outputs = Streams(small(memory))(**raw_inputs())
    assert outputs.pop("tokens").shape == (3, NUM_STEPS, 3, 16)
    for name, output in outputs.items():
        assert output.shape == ((3, 16) if name == "text" else (3, NUM_STEPS, 16))
        assert torch.allclose(output.norm(dim=-1), torch.ones(output.shape[:-1])), name


class OverTheBatch(nn.Module):
    """What a batch norm does."""

    def forward(self, x):
        return x - x.mean(dim=0)


class AlwaysDropping(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


def check_rows(backbone):
    check_batch_independence(
        lambda inputs: Streams(backbone)(**inputs), raw_inputs(), generator=draws()
    )


@pytest.mark.parametrize("memory", MEMORIES)
def test_rows_do_not_see_each_other(memory):
    check_rows(small(memory))


@pytest.mark.parametrize("part", ["zorro.fusion_norm", "video.layers.1.norm", "memory_projection"])
def test_rows_that_see_each_other_are_found(part):
    backbone = small()
    backbone.set_submodule(part, OverTheBatch())
    with pytest.raises(PropertyError, match="of other rows"):
        check_rows(backbone)


@pytest.mark.parametrize("memory", MEMORIES)
def test_evaluation_is_repeatable(memory):
    check_eval_determinism(Streams(small(memory)), *raw_inputs().values())


@pytest.mark.parametrize("part", ["audio.projection", "zorro.fusion_norm", "text.ln_final"])
def test_an_evaluation_that_draws_is_found(part):
    backbone = small()
    backbone.set_submodule(part, nn.Sequential(backbone.get_submodule(part), AlwaysDropping()))
    with pytest.raises(PropertyError, match="two passes in eval mode differ"):
        check_eval_determinism(Streams(backbone), *raw_inputs().values())


def episodes_of_tokens():
    """Fusion tokens, and where episodes begin: two inside the first row, one inside the last."""
    is_first = torch.zeros(3, NUM_STEPS, dtype=torch.bool)
    is_first[:, 0] = is_first[0, 2] = is_first[0, 3] = is_first[2, 3] = True
    return normal(3, NUM_STEPS, 3, 16), is_first


def check_time(backbone):
    is_first = episodes_of_tokens()[1]
    check_causality(
        lambda tokens: backbone.remember_all(tokens, is_first),
        episodes_of_tokens()[0],
        generator=draws(),
    )


@pytest.mark.parametrize(("memory", "time_stamps"), WITH_TIME_STAMPS)
def test_an_episode_does_not_depend_on_what_comes(memory, time_stamps):
    check_time(small(memory, time_stamps=time_stamps))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_that_sees_what_comes_is_found(memory, monkeypatch):
    backbone = small(memory)
    right = backbone.memory.forward
    monkeypatch.setattr(
        backbone.memory,
        "forward",
        lambda tokens, is_first: right(tokens - tokens.mean(dim=1, keepdim=True), is_first),
    )
    with pytest.raises(PropertyError, match="changes outputs before it"):
        check_time(backbone)


def test_no_stream_hears_what_comes():
    """From samples to all streams that hear: a frame of sound reads nothing after its hop."""
    backbone, inputs = small(), raw_inputs(batch=2)

    def forward(samples):
        mels = log_mel(samples.flatten(1), backbone.config.log_mel).unflatten(1, (NUM_STEPS, -1))
        outputs = Streams(backbone)(inputs["frames"], mels, inputs["sentences"])
        return torch.cat([outputs[name] for name in ("audio", "fusion", "episode")], dim=-1)

    samples = torch.rand(2, NUM_STEPS, 800, generator=draws()) - 0.5
    check_causality(forward, samples, generator=draws())
    with pytest.raises(PropertyError, match="changes outputs before it"):
        # Half a window late, as frames that are centred on their hop would be.
        check_causality(
            lambda late: forward(late.flatten(1).roll(-200, 1).view_as(late)),
            samples,
            generator=draws(),
        )


def check_steps(backbone, remember):
    def step(tokens, is_first, state):
        state = backbone.memory.initial_state(len(tokens)) if state is None else state
        return remember(tokens, is_first, state)

    tokens, is_first = episodes_of_tokens()
    check_streaming(backbone.remember_all, step, tokens, is_first, tolerance=1e-6)


@pytest.mark.parametrize(("memory", "time_stamps"), WITH_TIME_STAMPS)
def test_step_by_step_equals_all_at_once_with_resets(memory, time_stamps):
    backbone = small(memory, time_stamps=time_stamps)
    check_steps(backbone, backbone.remember)


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_missed_reset_and_a_lost_state_are_found(memory):
    backbone = small(memory)

    def misses_resets(tokens, is_first, state):
        return backbone.remember(tokens, torch.zeros_like(is_first), state)

    def loses_state(tokens, is_first, state):
        return backbone.remember(tokens, torch.ones_like(is_first), state)

    for wrong, first_wrong in ((misses_resets, 2), (loses_state, 1)):
        with pytest.raises(PropertyError, match=f"step by step, output {first_wrong} "):
            check_steps(backbone, wrong)


def check_mixed_batch(backbone):
    """A batch in which rows lack a modality gives what its rows give alone."""
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    video, audio = normal(3, 4, 16, seed=5), backbone.audio_tokens(normal(3, 5, 16, seed=7))
    spoiled_video, spoiled_audio = video.clone(), audio.clone()
    spoiled_video[2], spoiled_audio[1] = torch.nan, torch.inf  # what is not there is never read
    mixed = backbone.encode_step(spoiled_video, spoiled_audio, has_video, has_audio)
    for row in range(3):
        alone = backbone.encode_step(
            video[row : row + 1] if has_video[row] else None,
            audio[row : row + 1] if has_audio[row] else None,
        )
        for name, expected in vars(alone).items():
            output = vars(mixed)[name][row : row + 1]
            if expected is None:
                assert output.eq(0).all()
            else:
                torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


@torch.no_grad()
def test_rows_may_lack_a_modality(monkeypatch):
    check_mixed_batch(small())
    monkeypatch.setattr(zorro_module, "_is_there", lambda given: None)  # read as zeros
    with pytest.raises(AssertionError):
        check_mixed_batch(small())


def test_gradients_of_a_mixed_batch_are_finite():
    backbone = small()
    mels = normal(3, 5, 16).requires_grad_()
    has_audio = torch.tensor([True, False, True])
    step = backbone.encode_step(normal(3, 4, 16), backbone.audio_tokens(mels), has_audio=has_audio)
    (step.audio[:, 0] + step.fusion[:, 0]).sum().backward()
    assert mels.grad.isfinite().all()
    assert mels.grad.ne(0).flatten(1).any(dim=1).tolist() == [True, False, True]
    used = [weights.grad for weights in backbone.zorro.parameters() if weights.grad is not None]
    assert used
    assert all(gradient.isfinite().all() for gradient in used)


def test_rows_without_anything_are_refused():
    backbone = small()
    nothing = torch.tensor([True, False])
    with pytest.raises(ValueError, match="row 1 has neither audio nor video"):
        backbone.encode_step(normal(2, 4, 16), normal(2, 2, 16), nothing, nothing)
    with pytest.raises(ValueError, match="neither audio nor video tokens"):
        backbone.encode_step(None, None)


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_configured_memory_is_built(memory):
    backbone = small(memory)
    assert type(backbone.memory) is MEMORIES[memory]
    assert backbone.memory.num_outputs == (1 if memory == "mean" else 2)
    assert not backbone.memory.has_time_stamps


def leaves(value):
    """All numbers and words of a configuration, by their places in it."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from ((f"{field.name}.{name}", leaf) for name, leaf in leaves(inner))
        else:
            yield field.name, inner


UNUSUAL = BackboneConfig(
    embed_dim=24,
    video=ConvTokensConfig(
        num_frames=1, height=64, width=32, embed_dim=32, channels=(8, 16), grid=2
    ),
    step_samples=3200,
    log_mel=LogMelConfig(sample_rate=8000, window=240, hop=80, num_mels=16, floor=1e-3),
    patch_frames=4,
    patch_mels=8,
    zorro=ZorroConfig(32, 3, 2, 5, mlp_ratio=2, form="swin", window=4),
    memory="ttm",
    num_memory_outputs=3,
    num_memory_layers=1,
    time_stamps=True,
    text=TextConfig(width=8, heads=2, layers=1, context_length=9, vocab_size=60),
)


def through_json(values):
    return BackboneConfig.from_dict(json.loads(json.dumps(values)))


TOWER = TowerTokensConfig(1, 64, 48, 32, 2, "patch_convnet_s", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    "config", [BackboneConfig(), UNUSUAL, small_config(), replace(UNUSUAL, video=TOWER)]
)
def test_a_configuration_survives_json(config):
    again = through_json(config.to_dict())
    assert again == config
    assert hash(again) == hash(config)


def test_no_part_of_a_configuration_can_be_lost_unseen():
    """Nothing in UNUSUAL is as in the default, so that whatever was left out would differ."""
    usual = dict(leaves(BackboneConfig()))
    same = {name for name, leaf in leaves(UNUSUAL) if leaf == usual[name]}
    assert same == {"video.num_frames"}  # no other number is allowed
    for part, inner in UNUSUAL.to_dict().items():
        rest = {name: value for name, value in UNUSUAL.to_dict().items() if name != part}
        if isinstance(inner, dict):
            with pytest.raises(KeyError, match=part):
                through_json(rest)
        else:
            assert through_json(rest) != UNUSUAL
    with pytest.raises(TypeError, match="memmory"):
        through_json({**UNUSUAL.to_dict(), "memmory": "ttm"})


def test_a_configuration_that_was_read_builds_the_same_model():
    config = small_config("ttm", time_stamps=True)
    states = [
        MultimodalBackbone(either, draws()).state_dict()
        for either in (config, through_json(config.to_dict()))
    ]
    assert_equal(*states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 0}, "embed_dim=0"),
        ({"num_memory_outputs": 0}, "num_memory_outputs=0"),
        ({"num_memory_layers": 0}, "num_memory_layers=0"),
        ({"video": ConvTokensConfig(num_frames=2)}, "got 2 frames a step, expected 1"),
        ({"zorro": ZorroConfig(64)}, "video tokens of width 128 and a Zorro of width 64"),
        ({"step_samples": 1601}, "step_samples=1601, expected a multiple of the hop, 160"),
        ({"step_samples": 0}, "step_samples=0"),
        ({"patch_frames": 3}, "patch_frames=3, expected a divisor of the 10 log-mel frames"),
        ({"patch_mels": 24}, "patch_mels=24, expected a divisor of the 64 mel bands"),
        ({"zorro": ZorroConfig(form="hip")}, "window=16 in the form 'hip' and 36 video tokens"),
        ({"zorro": ZorroConfig(form="hip", window=12)}, "window=12 .* and 8 audio tokens"),
    ],
)
def test_a_wrong_configuration_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**settings)


def test_an_unknown_memory_is_named():
    config = small_config()
    object.__setattr__(config, "memory", "lstm")  # past the annotations, checked in tests only
    with pytest.raises(ValueError, match=r"memory='lstm', expected .*'mean', 'transformer', 'ttm'"):
        config.__post_init__()


def test_groups_that_are_full_are_taken():
    config = BackboneConfig(zorro=ZorroConfig(form="hip", num_layers=2, window=4))
    backbone = MultimodalBackbone(config, draws())
    assert config.num_audio_tokens == backbone.audio.num_tokens == 8
    frames = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    step = backbone.encode_step(
        backbone.video_tokens(frames), backbone.audio_tokens(torch.zeros(1, 10, 64))
    )
    assert step.fusion.isfinite().all()


def test_frames_may_be_cut_into_tubelets():
    video = TubeletConfig(
        num_frames=1, height=32, width=32, embed_dim=16, tubelet_frames=1, tubelet_size=8
    )
    config = replace(small_config(), video=video)
    assert BackboneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    tokens = MultimodalBackbone(config, draws()).video_tokens(raw_inputs()["frames"][:, 0])
    assert tokens.shape == (3, 16, 16)


def assert_equal(state, other):
    assert list(state) == list(other)
    assert [name for name in state if not torch.equal(state[name], other[name])] == []


def check_weights(make):
    """Weights are a function of the given generator alone, and no other one is drawn from."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    state = make(0).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "drew from torch's own generator"
    torch.manual_seed(2)
    assert_equal(state, make(0).state_dict())
    drawn = {name for name, weights in state.items() if weights.unique().numel() > 1}
    other = make(1).state_dict()
    assert [name for name in drawn if torch.equal(state[name], other[name])] == []
    for part in ("video", "audio", "zorro", "projections", "memory_pool", "text"):
        assert any(name.startswith(f"{part}.") for name in drawn), part


@pytest.mark.parametrize("memory", MEMORIES)
def test_weights_come_from_the_generator_alone(memory):
    check_weights(lambda seed: small(memory, seed))


def test_weights_from_another_generator_are_found(monkeypatch):
    text = small_config().text

    def careless(config, generator):
        return module.TextTransformer(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.width,
            heads=text.heads,
            layers=text.layers,
            output_dim=config.embed_dim,
        )

    monkeypatch.setattr(module, "_text_tower", careless)
    with pytest.raises(AssertionError, match="torch's own generator"):
        check_weights(lambda seed: small(seed=seed))


def test_what_the_package_offers_is_sorted_and_there():
    assert package.__all__ == sorted(package.__all__)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    assert not {"PropertyError", "check_gradients"} & set(package.__all__)


def test_no_device_is_seeded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    MultimodalBackbone(small_config(), draws())


def test_a_mean_takes_no_time_stamps():
    with pytest.raises(ValueError, match="a mean has no order"):
        small_config("mean", time_stamps=True)
