import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vlmreward.backbone.objectives import (
    ContrastiveObjectives,
    ObjectivesConfig,
    Pair,
    PairConfig,
    StreamEmbeddings,
    StreamTexts,
    info_nce,
    siglip,
)
from vlmreward.backbone.properties import PropertyError, check_chance_level, check_gradients

OFF = PairConfig(weight=0.0)
ALL_OFF = dict.fromkeys(
    ("image_text", "audio_text", "audio_video", "fusion_text", "episode_text"), OFF
)


def unit_vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(shape, generator=generator), dim=-1)


def only(**pairs):
    return ObjectivesConfig(**(ALL_OFF | pairs))


@st.composite
def any_pairs(draw):
    num_rows, num_columns = draw(st.integers(1, 5)), draw(st.integers(1, 6))

    def flags(number):
        return torch.tensor(draw(st.lists(st.booleans(), min_size=number, max_size=number)))

    return Pair(
        unit_vectors(num_rows, 3, seed=draw(st.integers(0, 99))),
        unit_vectors(num_columns, 3, seed=draw(st.integers(100, 199))),
        flags(num_rows * num_columns).reshape(num_rows, num_columns),
        flags(num_rows),
        flags(num_columns),
    )


def loop_info_nce(pair, scale):
    """The same in plain Python, from the definition."""
    first, second, is_true = pair.first.tolist(), pair.second.tolist(), pair.is_true.tolist()
    rows = [i for i, here in enumerate(pair.has_first.tolist()) if here]
    columns = [j for j, here in enumerate(pair.has_second.tolist()) if here]

    def score(i, j):
        return math.exp(scale * sum(x * y for x, y in zip(first[i], second[j], strict=True)))

    def mean(values):
        return sum(values) / len(values) if values else 0.0

    def one_way(anchors, others, true, score):
        of_anchor = []
        for a in anchors:
            negatives = sum(score(a, o) for o in others if not true(a, o))
            terms = [
                -math.log(score(a, o) / (score(a, o) + negatives)) for o in others if true(a, o)
            ]
            if terms:
                of_anchor.append(mean(terms))
        return mean(of_anchor)

    forth = one_way(rows, columns, lambda i, j: is_true[i][j], score)
    back = one_way(columns, rows, lambda j, i: is_true[i][j], lambda j, i: score(i, j))
    return (forth + back) / 2


def loop_siglip(pair, scale, bias):
    similarity = (pair.first @ pair.second.T).tolist()
    rows = [i for i, here in enumerate(pair.has_first.tolist()) if here]
    columns = [j for j, here in enumerate(pair.has_second.tolist()) if here]
    total = 0.0
    for i in rows:
        for j in columns:
            z = 1 if pair.is_true[i, j] else -1
            total -= math.log(1 / (1 + math.exp(-z * (scale * similarity[i][j] + bias))))
    return total / len(rows) if rows and columns else 0.0


@settings(max_examples=40)
@given(any_pairs(), st.floats(1.0, 15.0))
def test_info_nce_is_its_definition(pair, scale):
    loss = info_nce(pair, torch.tensor(scale))
    assert loss.item() == pytest.approx(loop_info_nce(pair, scale), abs=1e-5, rel=1e-4)


@settings(max_examples=40)
@given(any_pairs(), st.floats(1.0, 15.0), st.floats(-10.0, 2.0))
def test_siglip_is_its_definition(pair, scale, bias):
    loss = siglip(pair, torch.tensor(scale), torch.tensor(bias))
    assert loss.item() == pytest.approx(loop_siglip(pair, scale, bias), abs=1e-5, rel=1e-4)


def test_with_one_positive_a_row_info_nce_is_cross_entropy():
    first, second = unit_vectors(6, 4), unit_vectors(6, 4, seed=1)
    logits = 7.0 * first @ second.T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    loss = info_nce(Pair(first, second, torch.eye(6).bool()), torch.tensor(7.0))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("number", [2, 7, 64])
def test_info_nce_of_equal_vectors_is_log_n(number):
    same = unit_vectors(1, 4).expand(number, 4)
    pair = Pair(same, same, torch.eye(number).bool())
    check_chance_level(info_nce(pair, torch.tensor(20.0)), number, tolerance=1e-5)
    with pytest.raises(PropertyError):
        check_chance_level(info_nce(pair, torch.tensor(20.0)), number + 1, tolerance=1e-5)


def test_equal_captions_are_positives_of_both_rows():
    # Rows 0 and 1 show the same: with the truth a perfect model has no loss, by row alone it has.
    seen = torch.eye(3)[[0, 0, 1]]
    by_row = info_nce(Pair(seen, seen, torch.eye(3).bool()), torch.tensor(100.0))
    truth = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    by_truth = info_nce(Pair(seen, seen, truth), torch.tensor(100.0))
    assert by_row.item() == pytest.approx(math.log(2) * 2 / 3)
    assert by_truth.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_missing_rows_are_as_if_not_there(loss):
    def loss_of(pair):
        if loss == "info_nce":
            return info_nce(pair, torch.tensor(5.0))
        return siglip(pair, torch.tensor(5.0), torch.tensor(-2.0))

    truth = torch.eye(5).bool()
    truth[1, 2] = True
    has_first = torch.tensor([True, True, False, True, True])
    has_second = torch.tensor([True, False, True, True, True])
    first, second = unit_vectors(5, 3), unit_vectors(5, 3, seed=1)
    alone = loss_of(Pair(first[has_first], second[has_second], truth[has_first][:, has_second]))
    first[2], second[1] = math.nan, math.nan
    first.requires_grad_(), second.requires_grad_()
    masked = loss_of(Pair(first, second, truth, has_first, has_second))
    masked.backward()
    torch.testing.assert_close(masked, alone)
    for vectors, missing in ((first, 2), (second, 1)):
        assert vectors.grad.isfinite().all()
        assert vectors.grad[missing].eq(0).all()
        assert vectors.grad.abs().sum(dim=1).gt(0).sum() == 4


def test_a_batch_without_a_true_pair_costs_nothing_and_can_be_trained_on():
    first = unit_vectors(3, 4).requires_grad_()
    loss = info_nce(Pair(first, unit_vectors(2, 4), torch.zeros(3, 2).bool()), torch.tensor(5.0))
    loss.backward()
    assert loss.item() == 0.0
    assert first.grad.eq(0).all()


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_losses_are_float32_in_mixed_precision(loss):
    pair = Pair(unit_vectors(8, 16), unit_vectors(8, 16, seed=1), torch.eye(8).bool())
    scale, bias = torch.tensor(30.0), torch.tensor(-3.0)
    arguments = (pair, scale) if loss == "info_nce" else (pair, scale, bias)
    function = info_nce if loss == "info_nce" else siglip
    with torch.autocast("cpu", torch.bfloat16):
        mixed = function(*arguments)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, function(*arguments))


def batch_of(streams=("audio", "video", "fusion", "episode"), num_rows=4, num_texts=6):
    truth = torch.zeros(num_rows, num_texts, dtype=torch.bool)
    truth[torch.arange(num_rows), torch.arange(num_rows)] = True
    vectors = {name: unit_vectors(num_rows, 8, seed=i) for i, name in enumerate(streams)}
    texts = {name: unit_vectors(num_texts, 8, seed=50 + i) for i, name in enumerate(streams)}
    return (
        {name: StreamEmbeddings(vectors[name]) for name in streams},
        {name: StreamTexts(texts[name], truth) for name in streams},
    )


def test_each_loss_is_its_pair_times_its_weight_with_a_scale_of_its_own():
    config = ObjectivesConfig(
        image_text=PairConfig(weight=2.0, temperature=0.1),
        audio_text=PairConfig(temperature=0.2),
        audio_video=PairConfig(weight=0.5, temperature=0.5),
        fusion_text=PairConfig(loss="siglip", temperature=0.1, bias=-4.0),
        episode_text=PairConfig(weight=3.0, temperature=1.0),
    )
    streams, texts = batch_of()
    losses = ContrastiveObjectives(config)(streams, texts)

    def pair(name):
        return Pair(streams[name].vectors, texts[name].vectors, texts[name].is_true)

    sounds = Pair(streams["audio"].vectors, streams["video"].vectors, torch.eye(4).bool())
    expected = {
        "image_text": 2 * info_nce(pair("video"), torch.tensor(10.0)),
        "audio_text": info_nce(pair("audio"), torch.tensor(5.0)),
        "audio_video": 0.5 * info_nce(sounds, torch.tensor(2.0)),
        "fusion_text": siglip(pair("fusion"), torch.tensor(10.0), torch.tensor(-4.0)),
        "episode_text": 3 * info_nce(pair("episode"), torch.tensor(1.0)),
    }
    assert list(losses) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)


def loss_function(config, truth=None):
    objectives = ContrastiveObjectives(config)
    truth = torch.eye(4).bool() if truth is None else truth

    def forward(inputs):
        unit = {name: F.normalize(vectors, dim=1) for name, vectors in inputs.items()}
        seen = {name: StreamEmbeddings(unit[name]) for name in unit if not name.endswith("_text")}
        told = {name: StreamTexts(unit[f"{name}_text"], truth) for name in seen}
        return objectives(seen, told)

    return forward


def inputs_of():
    names = ("audio", "video", "fusion", "episode")
    names = (*names, *(f"{name}_text" for name in names))
    return {name: unit_vectors(4, 8, seed=i) for i, name in enumerate(names)}


READS = {
    "image_text": {"video", "video_text"},
    "audio_text": {"audio", "audio_text"},
    "audio_video": {"audio", "video"},
    "fusion_text": {"fusion", "fusion_text"},
    "episode_text": {"episode", "episode_text"},
}


def test_each_loss_trains_its_own_two_sides():
    check_gradients(loss_function(ObjectivesConfig()), inputs_of(), READS)


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
@pytest.mark.parametrize(("side", "trained"), [("first", "video"), ("second", "audio")])
def test_a_target_is_not_trained(loss, side, trained):
    # A bias at which the sigmoids are not flat.
    config = only(audio_video=PairConfig(loss=loss, bias=0.0, stop_gradient=side))
    check_gradients(loss_function(config), inputs_of(), {"audio_video": {trained}})
    with pytest.raises(PropertyError):
        check_gradients(
            loss_function(only(audio_video=PairConfig(loss=loss, bias=0.0))),
            inputs_of(),
            {"audio_video": {trained}},
        )


def test_pairs_that_are_off_cost_no_parameter():
    objectives = ContrastiveObjectives(only(image_text=PairConfig(loss="siglip")))
    assert set(objectives.state_dict()) == {"log_scales.image_text", "biases.image_text"}
    assert list(objectives(*batch_of())) == ["image_text"]


def test_streams_that_are_not_given_are_left_out():
    objectives = ContrastiveObjectives(ObjectivesConfig())
    assert set(objectives(*batch_of(("video",)))) == {"image_text"}
    streams, texts = batch_of(("audio", "video"))
    assert set(objectives(streams, {"video": texts["video"]})) == {"image_text", "audio_video"}


def test_moments_that_sound_the_same_are_positives():
    objectives = ContrastiveObjectives(only(audio_video=PairConfig(temperature=0.1)))
    streams, texts = batch_of()
    same = torch.eye(4).bool()
    same[0, 1] = same[1, 0] = True
    pair = Pair(streams["audio"].vectors, streams["video"].vectors, same)
    loss = objectives(streams, texts, same)["audio_video"]
    torch.testing.assert_close(loss, info_nce(pair, torch.tensor(10.0)))
    assert not torch.allclose(loss, objectives(streams, texts)["audio_video"])


def test_rows_without_a_sound_are_left_out_of_its_losses_alone():
    objectives = ContrastiveObjectives(ObjectivesConfig())
    streams, texts = batch_of()
    has_audio = torch.tensor([True, False, True, True])
    audio = StreamEmbeddings(streams["audio"].vectors, has_audio)
    masked = objectives(streams | {"audio": audio}, texts)
    whole = objectives(streams, texts)
    pair = Pair(audio.vectors, streams["video"].vectors, torch.eye(4).bool(), has_audio)
    torch.testing.assert_close(masked["audio_video"], info_nce(pair, torch.tensor(1 / 0.07)))
    changed = {name for name in whole if not torch.equal(masked[name], whole[name])}
    assert changed == {"audio_text", "audio_video"}


def test_the_scale_stays_within_its_bounds_and_can_come_back():
    objectives = ContrastiveObjectives(only(image_text=PairConfig()))
    parameter = objectives.log_scales["image_text"]
    for outside, scale in ((9.0, 100.0), (-3.0, 1.0)):
        parameter.data.fill_(outside)
        objectives(*batch_of())["image_text"].backward()
        assert parameter.exp().item() == pytest.approx(scale)
        assert parameter.grad.item() != 0.0
        parameter.grad = None


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_both_losses_bring_true_pairs_together(loss):
    config = only(image_text=PairConfig(loss=loss, temperature=0.1))
    forward = loss_function(config)
    inputs = {name: tensor.clone().requires_grad_() for name, tensor in inputs_of().items()}
    optimizer = torch.optim.Adam(inputs.values(), lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        forward(inputs)["image_text"].backward()
        optimizer.step()
    video, text = (F.normalize(inputs[name], dim=1) for name in ("video", "video_text"))
    similarities = video @ text.T
    false = similarities[~torch.eye(4).bool()]
    assert similarities.diagonal().min() > false.max() + 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.eye(2), torch.eye(3), torch.eye(2, 3).bool()), "vectors of width 2 and 3"),
        ((torch.eye(2), torch.eye(2), torch.eye(3).bool()), r"is_true of shape \[3, 3\]"),
        (
            (torch.eye(2), torch.eye(2), torch.eye(2).bool(), torch.ones(3).bool()),
            r"presence of shape \[3\], expected \[2\]",
        ),
    ],
)
def test_pairs_that_do_not_fit_are_refused(arguments, message):
    # Past the annotations, which are checked in tests only.
    pair = object.__new__(Pair)
    names = ("first", "second", "is_true", "has_first", "has_second")
    padded = (*arguments, *(None,) * (5 - len(arguments)))
    for name, value in zip(names, padded, strict=True):
        object.__setattr__(pair, name, value)
    with pytest.raises(ValueError, match=message):
        pair.__post_init__()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "weight=-1.0"),
        ({"loss": "triplet"}, "triplet"),
        ({"temperature": 0.001}, "temperature=0.001"),
        ({"stop_gradient": "third"}, "third"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):  # annotations are checked in tests
        PairConfig(**changes)


def test_nothing_to_do_is_an_error():
    with pytest.raises(ValueError, match="weight 0 for every pair"):
        ObjectivesConfig(**ALL_OFF)
    objectives = ContrastiveObjectives(only(audio_text=PairConfig()))
    with pytest.raises(ValueError, match="at least one pair that is on"):
        objectives(*batch_of(("video",)))
    with pytest.raises(ValueError, match="stream 'sound', expected one of"):
        objectives(*batch_of(("sound",)))
