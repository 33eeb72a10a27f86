import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from algdistill.models import (
    ADTransformer,
    ADTransformerConfig,
    CheckpointError,
    KeyValueCache,
    TimestepEncoder,
    load_model,
    save_model,
)
from algdistill.tasks import TaskSpace
from algdistill.training import action_loss


def with_step(steps, index, **changes):
    """The same windows with one time step changed."""
    fields = {}
    for name in ("obs", "prev_action", "prev_reward", "episode_start"):
        fields[name] = getattr(steps, name).clone()
    for name, value in changes.items():
        fields[name][:, index] = value
    return replace(steps, **fields)


def test_token_is_the_sum_of_its_parts(sampler):
    encoder = TimestepEncoder(sampler.space, 8, torch.Generator().manual_seed(0))
    steps = sampler.sample(4).steps
    tokens = encoder(steps)
    obs, none = steps.obs[1, 0], sampler.space.num_actions
    first = steps.prev_action[1, 0].item()
    # Rows of the table: 7 values, 5 values, 3 actions and "none", no episode start, episode start.
    rows = [obs[0].item(), 7 + obs[1].item(), 12 + first, 16 + int(steps.episode_start[1, 0])]
    expected = encoder.table[rows].sum(0) + steps.prev_reward[1, 0] * encoder.reward
    assert torch.allclose(tokens[1, 0], expected)
    assert first <= none
    assert encoder.table.shape == (18, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"obs": torch.tensor([6, 0])},
        {"prev_action": 2},
        {"prev_action": 3},
        {"prev_reward": 5.0},
        {"episode_start": True},
    ],
)
def test_every_input_matters_and_nothing_leaks_backwards(model, sampler, change):
    steps = with_step(
        sampler.sample(3).steps, 25, obs=0, prev_action=0, prev_reward=0.0, episode_start=False
    )
    before, after = model(steps), model(with_step(steps, 25, **change))
    assert torch.equal(before[:, :25], after[:, :25])
    assert ((before - after)[:, 25:].abs().amax(dim=(0, 2)) > 1e-6).all()


def test_order_matters(model, sampler):
    steps = sampler.sample(2).steps
    order = torch.arange(40)
    order[[3, 4]] = order[[4, 3]]
    shuffled = replace(steps, **{
        name: getattr(steps, name)[:, order]
        for name in ("obs", "prev_action", "prev_reward", "episode_start")
    })  # fmt: skip
    assert not torch.allclose(model(steps)[:, -1], model(shuffled)[:, -1], atol=1e-4)


def test_masked_step_hides_its_content_but_not_its_place(model, sampler):
    steps = sampler.sample(2).steps
    masked = torch.zeros(2, 40, dtype=torch.bool)
    masked[:, 10] = True
    changed = with_step(steps, 10, obs=torch.tensor([6, 4]), prev_reward=9.0)
    assert torch.equal(model(steps, masked), model(changed, masked))
    assert not torch.allclose(model(steps, masked), model(steps), atol=1e-4)


def test_attention_equals_the_formula(model, sampler):
    """One block recomputed with explicit softmax attention."""
    steps = sampler.sample(2).steps
    block = model.blocks[0]
    hidden = model.encoder(steps) + model.positions
    normed = block.attention_norm(hidden)
    query, key, value = block.query_key_value(normed).chunk(3, dim=-1)
    heads = []
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        scores = query[..., part] @ key[..., part].mT / 8**0.5
        scores = scores.masked_fill(torch.ones(40, 40).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ value[..., part])
    after = hidden + block.attention_out(torch.cat(heads, dim=-1))
    expected = after + block.mlp_out(
        F.gelu(block.mlp_in(block.mlp_norm(after)), approximate="tanh")
    )
    assert torch.allclose(block(hidden, None), expected, atol=1e-5)


@pytest.mark.parametrize("prefilled", [0, 1, 13])
def test_cache_equals_full_recomputation(model, sampler, prefilled):
    steps = sampler.sample(3).steps
    cache = KeyValueCache(model.config, 3, model.device)
    pieces = [model(steps[slice(prefilled)], cache=cache)] if prefilled else []
    pieces += [model(steps[slice(t, t + 1)], cache=cache) for t in range(prefilled, 40)]
    assert torch.allclose(torch.cat(pieces, dim=1), model(steps), atol=1e-5)


def test_cache_and_context_have_their_limits(model, sampler):
    steps = sampler.sample(3).steps
    cache = KeyValueCache(model.config, 3, model.device)
    model(steps[slice(30)], cache=cache)
    with pytest.raises(ValueError, match="got 5 steps for a cache that holds 30"):
        model(steps[slice(5)], cache=cache)
    small = ADTransformer(replace(model.config, context_length=39), torch.Generator())
    with pytest.raises(ValueError, match="got 40 time steps, expected at most context_length=39"):
        small(steps)


def test_loss_trains_every_visible_position_and_no_other(model, sampler):
    batch = sampler.sample(2)
    masked = torch.zeros(2, 40, dtype=torch.bool)
    masked[0, 5:20] = True
    logits = model(batch.steps, masked).detach().requires_grad_()
    loss, accuracy = action_loss(logits, batch.actions, masked)
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, ~masked)
    by_hand, hits = [], []
    for row in range(2):
        for step in range(40):
            if not masked[row, step]:
                chosen = batch.actions[row, step]
                by_hand.append(-logits[row, step].log_softmax(-1)[chosen].item())
                hits.append(bool(logits[row, step].argmax() == chosen))
    assert loss.item() == pytest.approx(sum(by_hand) / 65, rel=1e-5)
    assert accuracy.item() == pytest.approx(sum(hits) / 65, rel=1e-5)


def test_untrained_model_is_at_chance(sampler):
    config = ADTransformerConfig(sampler.space, context_length=40)
    model = ADTransformer(config, torch.Generator().manual_seed(0))
    batch = sampler.sample(8)
    unmasked = torch.zeros_like(batch.actions, dtype=torch.bool)
    loss, _ = action_loss(model(batch.steps), batch.actions, unmasked)
    assert loss.item() == pytest.approx(math.log(3), abs=0.05)


def test_same_generator_same_weights(model):
    first, second = (
        ADTransformer(model.config, torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_saved_model_is_the_same_model(model, sampler, tmp_path):
    save_model(model, tmp_path / "deep" / "model.safetensors")
    loaded = load_model(tmp_path / "deep" / "model.safetensors")
    assert loaded.config == model.config
    steps = sampler.sample(2).steps
    assert torch.equal(loaded(steps), model(steps))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.safetensors"]


def test_checkpoint_that_does_not_fit_is_named(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"]) | {"mlp_dim": 48}
    weights = dict(model.state_dict())
    del weights["mask_token"]
    save_file(weights, path, metadata | {"config": json.dumps(config)})
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    assert "blocks.0.mlp_in.weight (got (32, 16), expected (48, 16))" in str(error.value)
    assert "mask_token (got None, expected (16,))" in str(error.value)


def test_files_that_hold_no_model_are_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="train a model first"):
        load_model(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="has format None"):
        load_model(path)
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_model(path)


@pytest.mark.parametrize(
    "change", [{"context_length": 0}, {"num_layers": 0}, {"embed_dim": 30, "num_heads": 4}]
)
def test_bad_shapes_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        ADTransformerConfig(TaskSpace.symbolic((3,), 2), **change)
