import math

import pytest
import torch
from torch.nn import functional as F

from vlmreward.backbone.masked_language import (
    NOT_GUESSED,
    MaskingConfig,
    mask_tokens,
    masked_language_loss,
)
from vlmreward.backbone.properties import check_chance_level, check_gradients

PADDING, BEGIN, END, MASK = 0, 48, 49, 50
CONFIG = MaskingConfig(vocab_size=51, mask_token=MASK, special_tokens=(PADDING, BEGIN, END))


def sentences(num_sentences=4000, length=12):
    """Begin, 4 to 9 ordinary tokens, end and padding."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 48, (num_sentences, length), generator=generator)
    lengths = torch.randint(4, 10, (num_sentences, 1), generator=generator)
    places = torch.arange(length)
    tokens[:, 0] = BEGIN
    tokens = torch.where(places == lengths + 1, END, tokens)
    return torch.where(places > lengths + 1, PADDING, tokens)


def masked_with(seed=0, tokens=None, config=CONFIG):
    tokens = sentences() if tokens is None else tokens
    return mask_tokens(tokens, config, torch.Generator().manual_seed(seed))


def share(part, whole):
    """The share, and four standard deviations of an estimate of 15 % to 80 % at least."""
    return part.sum().item() / whole.sum().item(), 4 * math.sqrt(0.25 / whole.sum().item())


def test_shares_are_those_of_the_paper():
    tokens = sentences()
    masked = masked_with()
    is_ordinary = (tokens != PADDING) & (tokens != BEGIN) & (tokens != END)
    guessed = masked.targets != NOT_GUESSED
    hidden = guessed & (masked.tokens == MASK)
    other = guessed & ~hidden & (masked.tokens != tokens)
    kept = guessed & (masked.tokens == tokens)
    # One in 47 of the replacements is the token itself.
    for part, whole, expected in (
        (guessed, is_ordinary, 0.15),
        (hidden, guessed, 0.8),
        (other, guessed, 0.1 * 46 / 47),
        (kept, guessed, 0.1 * 48 / 47),
    ):
        found, tolerance = share(part, whole)
        assert found == pytest.approx(expected, abs=tolerance)


def test_only_ordinary_tokens_are_guessed_and_nothing_else_is_touched():
    tokens, masked = sentences(), masked_with()
    guessed = masked.targets != NOT_GUESSED
    assert torch.equal(masked.targets[guessed], tokens[guessed])
    assert torch.equal(masked.tokens[~guessed], tokens[~guessed])
    assert not set(masked.targets[guessed].tolist()) & {PADDING, BEGIN, END, MASK}


def test_replacements_are_any_ordinary_token_and_none_that_is_special():
    config = MaskingConfig(
        51, MASK, (PADDING, BEGIN, END), rate=1.0, masked_share=0.0, random_share=1.0
    )
    tokens, masked = sentences(), masked_with(config=config)
    replaced = masked.tokens[masked.targets != NOT_GUESSED]
    counts = torch.bincount(replaced, minlength=51).float()
    assert set(counts.nonzero().flatten().tolist()) == set(range(1, 48))
    expected = len(replaced) / 47
    assert (counts[1:48] - expected).abs().max() < 5 * math.sqrt(expected)
    assert torch.equal(masked.tokens != tokens, (masked.tokens != tokens) & (masked.targets >= 0))


def test_tokens_are_chosen_independently_of_their_place_and_of_each_other():
    guessed = (masked_with().targets != NOT_GUESSED).float()
    first, second = guessed[:, 1], guessed[:, 2]  # always ordinary
    for column in (first, second):
        assert column.mean().item() == pytest.approx(0.15, abs=4 * math.sqrt(0.15 * 0.85 / 4000))
    both = (first * second).mean().item()
    assert both == pytest.approx(0.15**2, abs=4 * math.sqrt(0.0225 / 4000))


def test_same_seed_same_choice_and_another_seed_another():
    first, again, other = masked_with(), masked_with(), masked_with(seed=1)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, other.targets)


def test_how_much_is_drawn_depends_on_the_shape_alone():
    states = []
    for tokens in (sentences(8), torch.full((8, 12), PADDING)):
        generator = torch.Generator().manual_seed(0)
        mask_tokens(tokens, CONFIG, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_what_is_given_is_left_as_it_is():
    tokens = sentences()
    masked_with(tokens=tokens)
    assert torch.equal(tokens, sentences())


def test_loss_is_the_mean_over_what_is_guessed():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, NOT_GUESSED, 4], [NOT_GUESSED, 0, NOT_GUESSED]])
    probabilities = logits.softmax(dim=-1)
    expected = -(
        probabilities[0, 0, 1].log() + probabilities[0, 2, 4].log() + probabilities[1, 1, 0].log()
    )
    torch.testing.assert_close(masked_language_loss(logits, targets), expected / 3)


def test_loss_is_log_v_where_nothing_is_known():
    targets = masked_with(tokens=sentences(20)).targets
    check_chance_level(masked_language_loss(torch.zeros(20, 12, 51), targets), 51, tolerance=1e-5)


def test_only_what_is_guessed_has_a_gradient():
    tokens = torch.tensor([[1, NOT_GUESSED]])

    def forward(inputs):
        logits = torch.stack([inputs["guessed"], inputs["shown"]])[None]
        return {"loss": masked_language_loss(logits, tokens)}

    check_gradients(
        forward,
        {"guessed": torch.randn(5), "shown": torch.randn(5)},
        {"loss": {"guessed"}},
    )


def test_a_batch_with_nothing_to_guess_costs_nothing_and_can_be_trained_on():
    logits = torch.randn(2, 3, 5).requires_grad_()
    loss = masked_language_loss(logits, torch.full((2, 3), NOT_GUESSED))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.eq(0).all()


def test_loss_of_half_precision_is_float32():
    logits = torch.randn(2, 3, 5).bfloat16()
    targets = torch.ones(2, 3, dtype=torch.long)
    loss = masked_language_loss(logits, targets)
    assert torch.equal(loss, F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token": 51}, "token 51, expected one of 0 to 50"),
        ({"special_tokens": (-1,)}, "token -1"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"masked_share": 0.95, "random_share": 0.1}, "1 together at most"),
        ({"random_share": -0.1}, "not negative"),
        ({"special_tokens": tuple(range(51))}, "at least one ordinary"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    settings = {"vocab_size": 51, "mask_token": MASK, "special_tokens": (PADDING,)}
    with pytest.raises(ValueError, match=message):
        MaskingConfig(**(settings | changes))


def test_tokens_of_another_vocabulary_are_refused():
    with pytest.raises(ValueError, match="got tokens 3 to 51, expected 0 to 50"):
        masked_with(tokens=torch.tensor([[3, 51]]))
