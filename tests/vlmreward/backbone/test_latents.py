from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlmreward.backbone import latents
from vlmreward.backbone.latents import (
    CausalLatentModel,
    LatentConfig,
    Latents,
    block_causal_mask,
    cut_chunks,
    episode_starts,
    latent_loss,
)
from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_causality,
    check_distinct_positions,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
    check_streaming,
)
from vlmreward.backbone.state import StateError

CONFIG = LatentConfig(
    embed_dim=8, tokens_per_chunk=3, context_chunks=6, num_layers=2, num_heads=2, mlp_dim=16
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    return CausalLatentModel(CONFIG, seeded())


@pytest.fixture
def features():
    return torch.randn(3, 6, 3, 8, generator=seeded(1))


@pytest.fixture
def is_first():
    first = torch.zeros(3, 6, dtype=torch.bool)
    first[:, 0] = True
    first[0, 3] = first[2, 1] = first[2, 5] = True
    return first


def everything(outputs):
    return torch.cat([outputs.latents, outputs.present, outputs.next], dim=-1)


def causality(model, features, is_first):
    check_causality(
        lambda inputs: everything(model(inputs, is_first)), features, generator=seeded(2)
    )


def independence(model, features, is_first):
    check_batch_independence(
        lambda inputs: model(inputs["features"], inputs["is_first"]),
        {"features": features, "is_first": is_first},
        generator=seeded(3),
    )


def streaming(model, features, is_first):
    def step(chunk, first, state):
        made, state = model.step(chunk, first, state)
        return everything(made)[:, 0], state

    check_streaming(
        lambda inputs, first: everything(model(inputs, first)),
        step,
        features,
        is_first,
        tolerance=1e-5,
    )


def check_chunk_sees_itself_and_the_past(model, features, is_first):
    """Every latent of the second chunk of row 1 reads every feature up to it."""
    features = features.clone().requires_grad_()
    outputs = model(features, is_first).latents[1, 1]
    for latent in outputs:
        weighted = (latent * torch.arange(1.0, 9.0)).sum()
        (gradient,) = torch.autograd.grad(weighted, features, retain_graph=True)
        size = gradient.abs().sum(dim=-1)
        assert (size[1, :2] > 0).all()
        assert (size[1, 2:] == 0).all()
        assert (size[[0, 2]] == 0).all()


def check_episodes_alone(model, features):
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    is_first[:, 4] = True
    none = torch.zeros_like(is_first)
    together = everything(model(features, is_first))
    for chunks in (slice(0, 4), slice(4, 6)):
        alone = everything(model(features[:, chunks], none[:, chunks]))
        assert torch.allclose(together[:, chunks], alone, atol=1e-5)


def check_no_gradient_into_targets(loss, predicted, features, is_first):
    fields = {"present": predicted.present, "next": predicted.next}

    def forward(inputs):
        made = replace(predicted, present=inputs["present"], next=inputs["next"])
        return loss(made, inputs["features"], is_first)

    inputs = {**fields, "features": features}
    check_gradients(forward, inputs, {"present": {"present"}, "next": {"next"}})


def test_holds_the_properties(model, features, is_first):
    causality(model, features, is_first)
    independence(model, features, is_first)
    streaming(model, features, is_first)
    check_eval_determinism(model, features, is_first)
    check_chunk_sees_itself_and_the_past(model, features, is_first)
    check_episodes_alone(model, features)
    check_distinct_positions(model.token_positions)


@pytest.mark.parametrize("context_chunks", [1, 2, 6])
def test_mask_equals_its_definition(is_first, context_chunks):
    mask = block_causal_mask(episode_starts(is_first), 3, context_chunks)
    assert mask.shape == (3, 18, 18)
    for row in range(3):
        for query in range(18):
            for key in range(18):
                later, earlier = query // 3, key // 3
                is_past = later - context_chunks < earlier <= later
                is_same_episode = not is_first[row, earlier + 1 : later + 1].any()
                assert mask[row, query, key] == (is_past and is_same_episode)


def test_episodes_start_where_they_are_said_to(is_first):
    assert episode_starts(is_first).tolist() == [
        [0, 0, 0, 3, 3, 3],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 5],
    ]
    assert episode_starts(torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0, 0, 0]]


def test_any_number_of_chunks(model):
    count = sum(parameter.numel() for parameter in model.parameters())
    for num_chunks in (1, 6, 7, 20):  # the context is six
        features = torch.randn(3, num_chunks, 3, 8, generator=seeded(4))
        outputs = model(features, torch.zeros(3, num_chunks, dtype=torch.bool))
        for made in (outputs.latents, outputs.present, outputs.next):
            assert made.shape == (3, num_chunks, 3, 8)
    check_parameter_count(model, count)


@pytest.mark.parametrize("context_chunks", [1, 2, 4])
def test_streaming_goes_on_beyond_the_context(context_chunks):
    model = CausalLatentModel(replace(CONFIG, context_chunks=context_chunks), seeded())
    features = torch.randn(2, 13, 3, 8, generator=seeded(5))
    is_first = torch.zeros(2, 13, dtype=torch.bool)
    is_first[0, 9] = is_first[1, 2] = True
    streaming(model, features, is_first)
    causality(model, features, is_first)
    one_layer = CausalLatentModel(
        replace(CONFIG, context_chunks=context_chunks, num_layers=1), seeded()
    )
    moved = features.clone()
    moved[1, 12 - context_chunks] += 1.0  # just out of sight of the last chunk
    before, after = (one_layer(inputs, is_first).latents[1, 12] for inputs in (features, moved))
    assert torch.equal(before, after)


def test_cost_of_a_step_does_not_grow(model):
    state, none, costs = None, torch.zeros(3, dtype=torch.bool), set()
    for _ in range(9):
        with FlopCounterMode(display=False) as counter:
            _, state = model.step(torch.randn(3, 3, 8, generator=seeded(6)), none, state)
        costs.add((counter.get_total_flops(), *(kept.shape for kept in state.kept)))
    assert len(costs) == 1


def test_a_broken_episode_does_not_outlive_its_end(model, features):
    first, none = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    _, state = model.step(features[:, 0] * torch.nan, none, None)
    made, state = model.step(features[:, 1], first, state)
    made, _ = model.step(features[:, 2], none, state)
    assert everything(made).isfinite().all()


class NeverForgets(CausalLatentModel):
    """Its steps of a new episode still look at the one before."""

    def step(self, features, is_first, state):
        return super().step(features, torch.zeros_like(is_first), state)


def test_steps_that_forget_to_forget_are_caught(features, is_first):
    with pytest.raises(PropertyError):
        streaming(NeverForgets(CONFIG, seeded()), features, is_first)


def test_a_state_of_another_model_or_batch_is_refused(model, features):
    none = torch.zeros(3, dtype=torch.bool)
    other = CausalLatentModel(replace(CONFIG, context_chunks=2), seeded())
    deeper = CausalLatentModel(replace(CONFIG, num_layers=3), seeded())
    for state, message in [
        (model.initial_state(1), "of another batch"),
        (other.initial_state(3), "of another model"),
        (deeper.initial_state(3), "3 layers, expected 2"),
    ]:
        with pytest.raises(StateError, match=message):
            model.step(features[:, 0], none, state)
    with pytest.raises(StateError, match="one flag for each row"):
        model.step(features[:, 0], none[:1], None)


def test_losses_equal_their_definition(model, features, is_first):
    predicted = model(features, is_first)
    losses = latent_loss(predicted, features, is_first)
    present, following = [], []
    for row in range(3):
        for chunk in range(6):
            errors = predicted.present[row, chunk] - features[row, chunk]
            present.append((errors**2).mean().item())
            if chunk < 5 and not is_first[row, chunk + 1]:
                errors = predicted.next[row, chunk] - features[row, chunk + 1]
                following.append((errors**2).mean().item())
    assert len(following) == 12
    assert losses["present"].item() == pytest.approx(sum(present) / 18, rel=1e-5)
    assert losses["next"].item() == pytest.approx(sum(following) / 12, rel=1e-5)


def test_who_knows_the_next_chunk_loses_nothing(features, is_first):
    knowing = Latents(features, present=features, next=features.roll(-1, dims=1))
    losses = latent_loss(knowing, features, is_first)
    assert losses == {"present": 0.0, "next": 0.0}
    late = replace(knowing, next=features)
    assert latent_loss(late, features, is_first)["next"] > 1.0


def test_nothing_to_predict_is_no_loss(features):
    only_starts = torch.ones(3, 6, dtype=torch.bool)
    wrong = Latents(features, features + 1, features + 1)
    assert latent_loss(wrong, features, only_starts)["next"] == 0.0
    first = Latents(features[:, :1], features[:, :1], features[:, :1])
    assert latent_loss(first, features[:, :1], only_starts[:, :1])["next"] == 0.0


def test_targets_have_no_gradient(model, features, is_first):
    predicted = model(features, is_first)
    check_no_gradient_into_targets(latent_loss, predicted, features, is_first)
    features.requires_grad_()
    sum(latent_loss(model(features, is_first), features, is_first).values()).backward()
    assert features.grad.abs().max() > 0  # as inputs they have one


def test_bugs_in_the_mask_are_caught(model, features, is_first, monkeypatch):
    def of_masks(change):
        def masked(starts, num_tokens, context_chunks):
            return change(block_causal_mask(starts, num_tokens, context_chunks))

        monkeypatch.setattr(latents, "block_causal_mask", masked)

    of_masks(torch.ones_like)
    with pytest.raises(PropertyError, match="before it"):
        causality(model, features, is_first)
    of_masks(lambda mask: mask.mT)
    with pytest.raises(PropertyError, match="before it"):
        causality(model, features, is_first)
    of_masks(torch.tril)  # causal over tokens, not over chunks
    with pytest.raises(AssertionError):
        check_chunk_sees_itself_and_the_past(model, features, is_first)
    of_masks(lambda mask: torch.ones_like(mask).tril(2))
    with pytest.raises(PropertyError):
        streaming(model, features, is_first)


def test_episodes_that_are_not_parted_are_caught(model, features, is_first, monkeypatch):
    monkeypatch.setattr(latents, "episode_starts", lambda is_first: 0 * is_first.long())
    with pytest.raises(AssertionError):
        check_episodes_alone(model, features)
    with pytest.raises(PropertyError, match="step by step"):
        streaming(model, features, is_first)


def test_targets_with_a_gradient_are_caught(model, features, is_first, monkeypatch):
    def leaky_loss(predicted, features, is_first):
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "detach", lambda tensor: tensor)
            return latent_loss(predicted, features, is_first)

    predicted = model(features, is_first)
    with pytest.raises(PropertyError, match="'features'"):
        check_no_gradient_into_targets(leaky_loss, predicted, features, is_first)


def test_learns_what_comes_next():
    """Chunks of which each is the one before with its numbers moved on by one."""
    model = CausalLatentModel(CONFIG, seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    generator, none = seeded(7), torch.zeros(16, 4, dtype=torch.bool)
    losses = []
    for _ in range(160):
        first = torch.randn(16, 3, 8, generator=generator)
        features = torch.stack([first.roll(chunk, dims=-1) for chunk in range(4)], dim=1)
        loss = latent_loss(model(features, none), features, none)
        optimizer.zero_grad()
        sum(loss.values()).backward()
        optimizer.step()
        losses.append((loss["present"].item(), loss["next"].item()))
    for name in range(2):  # 1 is the error of whoever always says 0
        assert sum(loss[name] for loss in losses[-10:]) / 10 < 0.35


def test_same_seed_same_weights_and_no_global_draw(features, is_first):
    before = torch.get_rng_state()
    one, other = CausalLatentModel(CONFIG, seeded()), CausalLatentModel(CONFIG, seeded())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(everything(one(features, is_first)), everything(other(features, is_first)))


def test_wrong_sizes_raise(model, features, is_first):
    with pytest.raises(ValueError, match="got chunks of 2 tokens"):
        model(features[:, :, :2], is_first)
    with pytest.raises(ValueError, match="got chunks of 2 tokens"):
        model.step(features[:, 0, :2], is_first[:, 0], None)
    with pytest.raises(ValueError, match="context_chunks=0"):
        LatentConfig(context_chunks=0)
    with pytest.raises(ValueError, match="embed_dim=9, expected an even number"):
        LatentConfig(embed_dim=9)
    with pytest.raises(ValueError, match="num_heads=3"):
        CausalLatentModel(LatentConfig(num_heads=3), seeded())


def test_frames_and_sound_are_cut_into_the_same_steps():
    frames, sound = torch.arange(24).view(2, 6, 2, 1), torch.arange(12).view(2, 6)
    seen, heard = cut_chunks(frames, 3), cut_chunks(sound, 3)
    assert seen.shape == (2, 2, 3, 2, 1)
    assert heard.shape == (2, 2, 3)
    for step in range(6):
        assert torch.equal(seen[:, step // 3, step % 3], frames[:, step])
        assert torch.equal(heard[:, step // 3, step % 3], sound[:, step])


@pytest.mark.parametrize("chunk_length", [4, 7, 0])
def test_chunks_that_do_not_divide_an_episode_are_refused(chunk_length):
    message = f"episodes of 6 steps and chunks of {chunk_length}, expected chunks to divide"
    with pytest.raises(ValueError, match=message):
        cut_chunks(torch.zeros(2, 6), chunk_length)
