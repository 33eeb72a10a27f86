import itertools
import math

import pytest
import torch

from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_chance_level,
    check_distinct_positions,
    check_eval_determinism,
    check_gradients,
)
from vlmreward.backbone.text_decoder import TextDecoder, TextDecoderConfig

START, END, VOCABULARY = 0, 1, 5
CONFIG = TextDecoderConfig(
    vocab_size=VOCABULARY,
    start_token=START,
    end_token=END,
    max_tokens=7,
    embed_dim=8,
    num_layers=2,
    num_heads=2,
    mlp_dim=16,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_large_weights(cls=TextDecoder, config=CONFIG):
    """A decoder that is far from saying all tokens alike."""
    decoder = cls(config, seeded())
    with torch.no_grad():
        for parameter in (decoder.vocabulary, decoder.positions):
            parameter.normal_(generator=seeded(1))
    return decoder


@pytest.fixture
def decoder():
    return with_large_weights()


@pytest.fixture
def text():
    return torch.tensor([[0, 3, 2, 4, 1], [0, 4, 1, 2, 2], [0, 2, 3, 2, 3]])


@pytest.fixture
def context():
    return torch.randn(3, 4, 8, generator=seeded(2))


class SeesTheFuture(TextDecoder):
    """Each token is told the one after it."""

    def forward(self, text, context, context_mask=None):
        logits = super().forward(text, context, context_mask)
        return logits + self.final_norm(self.vocabulary[text.roll(-1, dims=1)]) @ self.vocabulary.T


class SeesItsOwnTokenOnly(TextDecoder):
    """Blind to what was seen."""

    def forward(self, text, context, context_mask=None):
        return super().forward(text, torch.ones_like(context), context_mask)


class IgnoresTheMask(TextDecoder):
    """Reads what is not there."""

    def forward(self, text, context, context_mask=None):
        return super().forward(text, context)


class MixesTheBatch(TextDecoder):
    """The rows share their context."""

    def forward(self, text, context, context_mask=None):
        return super().forward(text, context.roll(1, dims=0), context_mask)


class CountsPadding(TextDecoder):
    """Every text is taken to be as long as the longest, and padding to be text."""

    def _is_predicted(self, text):
        return torch.ones_like(text[:, 1:], dtype=torch.bool)


class CountsNoEnd(TextDecoder):
    """The end token is not predicted."""

    def _is_predicted(self, text):
        return super()._is_predicted(text) & (text[:, 1:] != END)


class NoPrior(TextDecoder):
    """The score is what it should be compared with."""

    def goal_score(self, text, context, context_mask=None):
        return self.goal_log_likelihood(text, context, context_mask)


def causality(decoder, text, context):
    def forward(following):
        start = torch.full_like(following[:, :1], START)
        return decoder(torch.cat([start, following], dim=1), context)[:, 1:]

    check_causality(forward, text[:, 1:], generator=seeded(3))


def independence(decoder, text, context):
    check_batch_independence(
        lambda inputs: decoder(text, inputs["context"]), {"context": context}, generator=seeded(3)
    )


def check_reads_what_is_there(decoder, text, context):
    """And nothing else; with nothing there, nothing."""

    def forward(inputs):
        both = torch.cat([inputs["there"], inputs["not there"]], dim=1)
        mask = torch.tensor([[True] * 4 + [False] * 4]).expand(3, 8)
        return {"some": decoder(text, both, mask), "none": decoder(text, both, mask & False)}

    inputs = {"there": context, "not there": context.flip(0)}
    check_gradients(forward, inputs, {"some": {"there"}, "none": set()})
    nonsense = forward({**inputs, "not there": torch.full_like(context, torch.nan)})
    assert nonsense["some"].isfinite().all()


def check_all_texts_have_probability_one(decoder, context):
    """Every text that ends within four tokens, and every one that is cut off there."""
    words, total = [token for token in range(VOCABULARY) if token != END], 0.0
    for length in range(5):
        texts = [[START, *middle, END] for middle in itertools.product(words, repeat=length)]
        if length == 4:
            texts = [text[:-1] for text in texts]
        rows = torch.tensor(texts)
        seen = context[:1].expand(len(rows), -1, -1)
        total += decoder.log_likelihoods(rows, seen).sum(dim=1).exp().sum().item()
    assert total == pytest.approx(1.0, abs=1e-4)


def check_padding_says_nothing(decoder, text, context):
    other = text.clone()
    other[1, 3:] = torch.tensor([4, 0])
    for rows in (text[1:2, :3], other[1:2]):
        expected = decoder.goal_log_likelihood(text, context)[1]
        assert torch.allclose(decoder.goal_log_likelihood(rows, context[1:2])[0], expected)


def check_score_is_a_difference(decoder, text, context):
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    without = decoder.goal_log_likelihood(text, torch.zeros_like(context), nothing)
    expected = decoder.goal_log_likelihood(text, context) - without
    assert torch.allclose(decoder.goal_score(text, context), expected, atol=1e-6)
    assert torch.equal(decoder.goal_score(text, context, nothing), torch.zeros(3))


def test_holds_the_properties(decoder, text, context):
    causality(decoder, text, context)
    independence(decoder, text, context)
    check_reads_what_is_there(decoder, text, context)
    check_eval_determinism(decoder, text, context)
    check_distinct_positions(decoder.positions)
    check_all_texts_have_probability_one(decoder, context)
    check_padding_says_nothing(decoder, text, context)
    check_score_is_a_difference(decoder, text, context)


def test_block_equals_the_formula(decoder, text, context):
    hidden = decoder.vocabulary[text] + decoder.positions[:5]
    seen = torch.nn.functional.layer_norm(context, (8,))
    for block in decoder.blocks:
        read = torch.nn.functional.layer_norm(hidden, (8,))
        tokens = [
            block.text_attention(read[:, place : place + 1], read[:, : place + 1])
            for place in range(5)
        ]
        hidden = hidden + torch.cat(tokens, dim=1)
        read = torch.nn.functional.layer_norm(hidden, (8,))
        hidden = hidden + block.cross_attention(read, seen)
        hidden = hidden + block.mlp(torch.nn.functional.layer_norm(hidden, (8,)))
    expected = torch.nn.functional.layer_norm(hidden, (8,)) @ decoder.vocabulary.T
    assert torch.allclose(decoder(text, context), expected, atol=1e-4)


def test_log_likelihoods_equal_their_definition(decoder, text, context):
    logits = decoder(text, context).detach().double()
    found = decoder.log_likelihoods(text, context)
    means = decoder.goal_log_likelihood(text, context)
    for row, length in enumerate((4, 2, 4)):
        of_row = []
        for place in range(length):
            exponentials = logits[row, place].exp()
            following = text[row, place + 1]
            of_row.append(math.log(exponentials[following] / exponentials.sum()))
            assert found[row, place].item() == pytest.approx(of_row[-1], abs=1e-4)
        assert found[row, length:].eq(0).all()
        assert means[row].item() == pytest.approx(sum(of_row) / length, abs=1e-4)


def test_empty_context_has_finite_gradients(decoder, text, context):
    mask = torch.tensor([[False] * 4, [True] * 4, [True, False, True, False]])
    (-decoder.goal_log_likelihood(text, context, mask).mean()).backward()
    for parameter in decoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_first_loss_is_that_of_guessing(text, context):
    loss = -TextDecoder(CONFIG, seeded()).goal_log_likelihood(text, context).mean()
    check_chance_level(loss, VOCABULARY, tolerance=0.1)


def test_bugs_are_caught(text, context):
    with pytest.raises(PropertyError, match="before it"):
        causality(with_large_weights(SeesTheFuture), text, context)
    with pytest.raises(PropertyError, match="other rows"):
        independence(with_large_weights(MixesTheBatch), text, context)
    with pytest.raises(PropertyError, match="declared as read"):
        check_reads_what_is_there(with_large_weights(SeesItsOwnTokenOnly), text, context)
    with pytest.raises(PropertyError, match="not declared as read"):
        check_reads_what_is_there(with_large_weights(IgnoresTheMask), text, context)
    with pytest.raises(AssertionError):
        check_all_texts_have_probability_one(with_large_weights(CountsNoEnd), context)
    with pytest.raises(AssertionError):
        check_padding_says_nothing(with_large_weights(CountsPadding), text, context)
    for bug in (NoPrior, IgnoresTheMask):
        with pytest.raises(AssertionError):
            check_score_is_a_difference(with_large_weights(bug), text, context)


def test_generates_the_likeliest_token_after_the_likeliest(decoder, context):
    found = decoder.generate(context)
    for row in range(3):
        text = [START]
        while text[-1] != END and len(text) < CONFIG.max_tokens:
            logits = decoder(torch.tensor([text]), context[row : row + 1])[0, -1]
            text.append(logits.tolist().index(max(logits.tolist())))
        text += [END] * (found.shape[1] - len(text))
        assert found[row].tolist() == text


def test_texts_that_have_ended_are_filled_up(monkeypatch, decoder, context):
    """Row 0 ends at once, row 1 after two words, row 2 never."""
    length = torch.tensor([0, 2, 99])

    def logits(text, context, context_mask=None):
        following = torch.where(text.shape[1] > length[: len(text)], END, 3)
        return torch.nn.functional.one_hot(following, VOCABULARY).float()[:, None]

    monkeypatch.setattr(decoder, "forward", logits)
    assert decoder.generate(context).tolist() == [
        [0, 1, 1, 1, 1, 1, 1],
        [0, 3, 3, 1, 1, 1, 1],
        [0, 3, 3, 3, 3, 3, 3],
    ]
    assert decoder.generate(context[:2]).tolist() == [[0, 1, 1, 1], [0, 3, 3, 1]]


def test_learns_which_goal_was_seen_though_one_is_rare():
    """Nine of ten times the first goal is seen: it stays likelier, and is not scored higher."""
    config = TextDecoderConfig(
        VOCABULARY, START, END, max_tokens=4, embed_dim=16, num_layers=1, mlp_dim=32
    )
    decoder, generator = TextDecoder(config, seeded()), seeded(4)
    goals = torch.tensor([[START, 2, 3, END], [START, 4, END, END]])
    seen = torch.randn(2, 2, 16, generator=generator)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    for _ in range(100):
        shown = (torch.rand(32, generator=generator) < 0.1).long()
        is_there = (torch.rand(32, generator=generator) < 0.8)[:, None].expand(-1, 2)
        noisy = seen[shown] + 0.1 * torch.randn(32, 2, 16, generator=generator)
        loss = -decoder.goal_log_likelihood(goals[shown], noisy, is_there).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        nothing = torch.zeros(2, 2, dtype=torch.bool)
        common, rare = decoder.goal_log_likelihood(goals, seen, nothing)
        assert common > rare + 0.3
        assert (decoder.goal_score(goals, seen) > 0).all()
        assert (decoder.goal_score(goals, seen.flip(0)) < -0.3).all()
        assert decoder.generate(seen).tolist() == goals.tolist()


def test_same_seed_same_weights_and_no_global_draw(text, context):
    before = torch.get_rng_state()
    one, other = TextDecoder(CONFIG, seeded()), TextDecoder(CONFIG, seeded())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one(text, context), other(text, context))


def test_wrong_inputs_raise(decoder, text, context):
    long = torch.zeros(3, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="got texts of 8 tokens, expected at most max_tokens=7"):
        decoder(long, context)
    with pytest.raises(ValueError, match=r"start with \[2, 3, 4\], expected start_token=0"):
        decoder(text[:, 1:], context)
    with pytest.raises(ValueError, match="without tokens"):
        decoder(text, context[:, :0])
    with pytest.raises(ValueError, match="got texts of 1 tokens"):
        decoder.goal_score(text[:, :1], context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers=0"),
        ({"max_tokens": 1}, "max_tokens=1"),
        ({"end_token": 0}, "start_token=0 and end_token=0"),
        ({"end_token": 5}, "0 up to 4"),
    ],
)
def test_wrong_configs_raise(options, message):
    values = {"vocab_size": 5, "start_token": 0, "end_token": 1} | options
    with pytest.raises(ValueError, match=message):
        TextDecoderConfig(**values)
