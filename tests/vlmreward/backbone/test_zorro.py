import doctest

import pytest
import torch

from vlmreward.backbone import zorro as module
from vlmreward.backbone.layers import AttentionPool
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
)
from vlmreward.backbone.streams import Stream
from vlmreward.backbone.zorro import Zorro, ZorroConfig

FORMS = ("vit", "swin", "hip")
PURE = {
    "audio": {"audio"},
    "video": {"video"},
    "fusion": {"audio", "video", "learned"},
    "fusion_tokens": {"audio", "video", "learned"},
}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(length: int, seed: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=draws(seed))


AUDIO, VIDEO = tokens(8, 1), tokens(12, 2)


def small(form: str = "vit", seed: int = 0) -> Zorro:
    config = ZorroConfig(
        embed_dim=16, num_layers=4, num_heads=2, num_fusion_tokens=3, form=form, window=4
    )
    return Zorro(config, draws(seed))


def outputs(model: Zorro):
    """Named outputs of a model, the learned fusion tokens being an input."""

    def forward(inputs):
        learned = {"fusion_tokens": inputs["learned"]}
        both = {"audio": inputs["audio"], "video": inputs["video"]}
        return vars(torch.func.functional_call(model, learned, kwargs=both, args=()))

    return forward


def check_purity(model: Zorro) -> None:
    inputs = {"audio": AUDIO, "video": VIDEO, "learned": model.fusion_tokens}
    check_gradients(outputs(model), inputs, PURE)


def test_examples_in_docstrings_run() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("form", FORMS)
def test_pure_streams_read_neither_each_other_nor_fusion(form) -> None:
    check_purity(small(form))


def transposed(streams):
    return right_mask(streams).T


def forgets_the_pool(streams):
    return torch.ones(len(Stream), len(streams), dtype=torch.bool)


def compares_with_the_wrong_side(streams):
    own = torch.arange(len(Stream))[:, None] == streams
    return (own | streams) == Stream.FUSION


right_mask = module.stream_mask


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stream_mask", transposed),
        ("stream_mask", lambda streams: right_mask(streams) | True),
        ("pool_mask", forgets_the_pool),
        ("pool_mask", compares_with_the_wrong_side),
    ],
    ids=["transposed", "no mask", "no pool mask", "precedence"],
)
def test_a_wrong_mask_is_caught(monkeypatch, name, wrong) -> None:
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(PropertyError, match="declared as read"):
        check_purity(small())


def test_groups_across_modalities_are_caught(monkeypatch) -> None:
    """Twelve tokens and eight lie as three groups and two; moved by one, a group has both."""
    model = small("hip")
    right = model.groups.forward
    monkeypatch.setattr(
        model.groups, "forward", lambda pure, counts: right(pure.roll(1, dims=1), counts)
    )
    with pytest.raises(PropertyError):
        check_purity(model)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_other_content_in_one_modality_leaves_the_other_bitwise(form) -> None:
    model = small(form)
    before, after = model(AUDIO, VIDEO), model(AUDIO, 5 * tokens(12, 3))
    assert torch.equal(before.audio, after.audio)
    assert not torch.equal(before.video, after.video)
    assert not torch.equal(before.fusion, after.fusion)
    after = model(5 * tokens(8, 3), VIDEO)
    assert torch.equal(before.video, after.video)
    assert not torch.equal(before.audio, after.audio)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_without_one_modality_the_other_is_the_same(form) -> None:
    model, audio, video = small(form).double(), AUDIO.double(), VIDEO.double()
    both, heard, seen = model(audio, video), model(audio, None), model(None, video)
    torch.testing.assert_close(heard.audio, both.audio, atol=1e-12, rtol=0)
    torch.testing.assert_close(seen.video, both.video, atol=1e-12, rtol=0)
    assert heard.video is None
    assert seen.audio is None
    assert heard.fusion_tokens.shape == seen.fusion_tokens.shape == (3, 3, 16)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_a_mixed_batch_gives_what_its_rows_give_alone(form) -> None:
    model = small(form).double()
    audio, video = AUDIO.double(), VIDEO.double()
    has_audio, has_video = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    audio[1], video[2] = torch.nan, torch.inf  # what is not there is never read
    mixed = model(audio, video, has_audio, has_video)
    for row in range(3):
        alone = model(
            audio[row : row + 1] if has_audio[row] else None,
            video[row : row + 1] if has_video[row] else None,
        )
        for name, expected in vars(alone).items():
            output = getattr(mixed, name)[row : row + 1]
            if expected is None:
                assert output.eq(0).all()
            else:
                torch.testing.assert_close(output, expected, atol=1e-12, rtol=0)


@torch.no_grad()
def test_one_modality_may_be_missing_in_some_rows_only() -> None:
    model = small()
    has_video = torch.tensor([True, True, False])
    mixed, whole = model(AUDIO, VIDEO, has_video=has_video), model(AUDIO, VIDEO)
    torch.testing.assert_close(mixed.audio, whole.audio, atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed.fusion[:2], whole.fusion[:2], atol=1e-6, rtol=0)
    assert mixed.video[2].eq(0).all()


def test_gradients_of_a_mixed_batch_are_finite() -> None:
    model = small()
    audio = AUDIO.clone()
    audio[1] = torch.nan
    audio.requires_grad_()
    output = model(audio, VIDEO, has_audio=torch.tensor([True, False, True]))
    sum(values.square().sum() for values in vars(output).values()).backward()
    assert audio.grad[1].eq(0).all()
    assert audio.grad[0].ne(0).any()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_rows_do_not_see_each_other_and_eval_is_repeatable(form) -> None:
    model = small(form)
    inputs = {"audio": AUDIO, "video": VIDEO}
    check_batch_independence(lambda x: model(**x), inputs, generator=draws())
    check_eval_determinism(model, AUDIO, VIDEO)


@torch.no_grad()
def test_modalities_are_told_apart() -> None:
    """The same tokens as sound and as video: the blocks are shared, the outputs are not equal."""
    output = small()(AUDIO, AUDIO)
    model = small()
    model.modality.zero_()
    queries = model.pool.attention.queries
    queries[Stream.VIDEO] = queries[Stream.AUDIO]
    same = model(AUDIO, AUDIO)
    torch.testing.assert_close(same.audio, same.video, atol=1e-6, rtol=0)
    assert not torch.allclose(output.audio, output.video, atol=1e-3)


def test_swin_reads_no_further_than_its_windows() -> None:
    """Windows 0–3 and 4–7, then 0–1, 2–5 and 6–7: what two layers can carry to each token."""
    config = ZorroConfig(16, num_layers=2, num_heads=2, form="swin", window=4)
    model = Zorro(config, draws())
    hidden = []
    model.blocks[-1].register_forward_hook(lambda _module, _inputs, output: hidden.append(output))

    def forward(inputs):
        model(torch.cat(list(inputs.values()), dim=1), None)
        return {str(place): hidden[-1][:, place] for place in (0, 2, 7)}

    inputs = {"first": AUDIO[:, :4], "second": AUDIO[:, 4:]}
    reads = {"0": {"first"}, "2": {"first", "second"}, "7": {"second"}}
    check_gradients(forward, inputs, reads)


def test_forms_differ_in_size_as_designed() -> None:
    width, mlp = 16, 64
    block = 4 * width + 4 * (width * width + width) + 2 * width * mlp + mlp + width
    pool = 2 * width + 4 * (width * width + width)
    stream_pool = pool + 3 * width + 2 * width + width * width + width
    rest = 2 * width + 3 * width + 2 * width + stream_pool
    check_parameter_count(small("vit"), 4 * block + rest)
    check_parameter_count(small("swin"), 4 * block + rest)
    check_parameter_count(small("hip"), 4 * block + rest + pool + 2 * width)
    assert isinstance(small("hip").groups.pool, AttentionPool)


def test_the_size_that_was_planned_for() -> None:
    assert sum(p.numel() for p in Zorro(ZorroConfig(), draws()).parameters()) < 1_000_000


def test_the_same_seed_gives_the_same_model() -> None:
    one, same, other = small(seed=0), small(seed=0), small(seed=1)
    assert torch.equal(one(AUDIO, VIDEO).fusion, same(AUDIO, VIDEO).fusion)
    assert not torch.equal(one(AUDIO, VIDEO).fusion, other(AUDIO, VIDEO).fusion)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(value) -> None:
    video = VIDEO.clone()
    video[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"video tokens contain NaN.*has_video"):
        small()(AUDIO, video)
    with pytest.raises(ValueError, match="video tokens"):
        small()(AUDIO, video, has_video=torch.tensor([False, True, True]))


def test_rows_without_anything_are_refused() -> None:
    first, last = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    with pytest.raises(ValueError, match="neither audio nor video"):
        small()(None, None)
    with pytest.raises(ValueError, match="row 2 has neither"):
        small()(AUDIO, VIDEO, first, last)
    with pytest.raises(ValueError, match="row 1 has neither"):
        small()(AUDIO, None, has_audio=first)
    with pytest.raises(ValueError, match="row 2 has neither"):
        small()(None, VIDEO, has_video=last)
    with pytest.raises(ValueError, match="got has_video without video tokens"):
        small()(AUDIO, None, has_video=first)


def test_groups_must_be_full() -> None:
    with pytest.raises(ValueError, match="got 7 audio tokens, expected a multiple of window=4"):
        small("hip")(AUDIO[:, :7], VIDEO)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 0}, "num_layers=0"),
        ({"num_heads": 3}, "divides the width"),
        ({"form": "vat"}, "form='vat'"),
        ({"window": 5}, "an even number"),
        ({"form": "hip", "num_layers": 1}, "at least 2"),
    ],
)
def test_impossible_settings_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ZorroConfig(**settings)
