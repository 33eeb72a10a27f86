import json
import math
from dataclasses import replace
from itertools import accumulate

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
from algdistill.models.block import RotaryPositions, dropped
from algdistill.tasks import TaskSpace
from algdistill.training import action_loss

OPTIONS = {
    "default": {},
    "post-norm": {"norm": "post"},
    "rotary": {"positions": "rotary"},
    "three tokens": {"tokens_per_step": 3},
    "dropout": {"dropout": 0.2},
    "paper": {"norm": "post", "tokens_per_step": 3, "dropout": 0.1},
    "rotary, three tokens": {"positions": "rotary", "tokens_per_step": 3},
}


@pytest.fixture(params=OPTIONS)
def any_model(request, make_model):
    """A model of each option, and of some together."""
    return make_model(**OPTIONS[request.param])


def with_step(steps, index, **changes):
    """The same windows with one time step changed."""
    fields = {}
    for name in ("obs", "prev_action", "prev_reward", "episode_start"):
        fields[name] = getattr(steps, name).clone()
    for name, value in changes.items():
        fields[name][:, index] = value
    return replace(steps, **fields)


def test_token_is_the_sum_of_its_parts(sampler):
    config = ADTransformerConfig(sampler.space, embed_dim=8, num_heads=2)
    encoder = TimestepEncoder(config, torch.Generator().manual_seed(0))
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
def test_every_input_matters_and_nothing_leaks_backwards(any_model, sampler, change):
    model = any_model
    steps = with_step(
        sampler.sample(3).steps, 25, obs=0, prev_action=0, prev_reward=0.0, episode_start=False
    )
    before, after = model(steps), model(with_step(steps, 25, **change))
    assert torch.equal(before[:, :25], after[:, :25])
    assert ((before - after)[:, 25:].abs().amax(dim=(0, 2)) > 1e-6).all()


@pytest.mark.parametrize("step", [0, 17, 39])
def test_loss_of_a_step_sees_nothing_after_it(any_model, sampler, step):
    batch = sampler.sample(2)
    tokens = any_model.encode(batch.steps).detach().requires_grad_()
    outputs = any_model.predict(tokens, generator=torch.Generator().manual_seed(0))
    others = torch.ones(2, 40, dtype=torch.bool)
    others[:, step] = False
    action_loss(outputs, batch.actions, others)[0].backward()
    influence = tokens.grad.abs().sum((0, 2)).unflatten(0, (40, -1)).sum(1)
    assert (influence[: step + 1] > 0).all()
    assert (influence[step + 1 :] == 0).all()


def test_order_matters(any_model, sampler):
    model = any_model
    steps = sampler.sample(2).steps
    order = torch.arange(40)
    order[[3, 4]] = order[[4, 3]]
    shuffled = replace(steps, **{
        name: getattr(steps, name)[:, order]
        for name in ("obs", "prev_action", "prev_reward", "episode_start")
    })  # fmt: skip
    assert not torch.allclose(model(steps)[:, -1], model(shuffled)[:, -1], atol=1e-4)


def test_masked_step_hides_its_content_but_not_its_place(any_model, sampler):
    model = any_model
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
    expected = after + block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(after))))
    assert torch.allclose(block(hidden, None), expected, atol=1e-5)


def test_post_norm_equals_the_formula(make_model, sampler):
    """Two blocks and the head recomputed from the parts, attention as tested above."""
    model = make_model(norm="post", num_layers=2)
    assert not any(name.startswith("final_norm") for name in model.state_dict())
    steps = sampler.sample(2).steps
    hidden = model.encoder(steps) + model.positions
    for block in model.blocks:
        query, key, value = (
            part.unflatten(-1, (2, 8)).transpose(1, 2)
            for part in block.query_key_value(hidden).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        attended = block.attention_out(attended.transpose(1, 2).flatten(2))
        hidden = block.attention_norm(hidden + attended)
        expanded = block.mlp_out(F.gelu(block.mlp_in(hidden)))
        hidden = block.mlp_norm(hidden + expanded)
    assert torch.allclose(model.action_head(hidden), model(steps), atol=1e-5)


def test_rotary_positions_turn_complex_numbers():
    vectors = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    turned = RotaryPositions(12, 8)(vectors, 7)
    numbers = torch.complex(vectors[..., :4], vectors[..., 4:])
    angles = torch.outer(torch.arange(7, 12), 10_000 ** (-torch.arange(4) / 4))
    expected = numbers * torch.polar(torch.ones(5, 4), angles)
    assert torch.allclose(turned, torch.cat([expected.real, expected.imag], dim=-1), atol=1e-5)


def test_rotary_products_depend_on_distance_only(make_model):
    rotary = RotaryPositions(40, 8)
    query, key = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    near, far, further = (
        (rotary(query, first + gap) * rotary(key, first)).sum()
        for first, gap in ((0, 3), (30, 3), (30, 4))
    )
    assert near == pytest.approx(far.item(), abs=1e-5)
    assert abs(far - further) > 1e-2
    assert "positions" not in make_model(positions="rotary").state_dict()


def test_three_tokens_are_action_reward_and_observation(sampler):
    config = ADTransformerConfig(sampler.space, embed_dim=8, num_heads=2, tokens_per_step=3)
    encoder = TimestepEncoder(config, torch.Generator().manual_seed(0))
    steps = sampler.sample(4).steps
    action, reward, observation = encoder(steps).unflatten(1, (-1, 3))[1, 9]
    table, kinds = encoder.table, encoder.kinds
    x, y = steps.obs[1, 9].tolist()
    start = int(steps.episode_start[1, 9])
    assert torch.allclose(action, table[12 + steps.prev_action[1, 9]] + kinds[0])
    assert torch.allclose(reward, steps.prev_reward[1, 9] * encoder.reward + kinds[1])
    assert torch.allclose(observation, table[x] + table[7 + y] + table[16 + start] + kinds[2])


def test_action_is_read_from_the_observation_token(make_model, sampler):
    model = make_model(tokens_per_step=3)
    tokens = model.encode(sampler.sample(1).steps)
    whole = model.predict(tokens)
    for step in (0, 20, 39):
        cut = torch.cat([tokens[:, : 3 * step + 3], torch.zeros(1, 117 - 3 * step, 16)], dim=1)
        assert torch.allclose(model.predict(cut)[:, step], whole[:, step], atol=1e-5)
        cut[:, 3 * step + 2] = 0.0
        assert not torch.allclose(model.predict(cut)[:, step], whole[:, step], atol=1e-3)


def test_dropout_zeroes_a_share_and_keeps_the_mean():
    ones = torch.ones(100_000)
    values = dropped(ones, 0.2, torch.Generator().manual_seed(0))
    assert values.unique().tolist() == [0.0, 1.25]
    assert (values == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert dropped(ones, 0.2, None) is ones


def test_dropout_is_drawn_from_its_generator_alone(make_model, model, sampler):
    steps = sampler.sample(2).steps
    dropping = make_model(dropout=0.2)
    torch.manual_seed(0)
    unmoved = torch.get_rng_state()
    first, again, other = (
        dropping(steps, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), unmoved)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert torch.equal(dropping(steps), model(steps))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(model(steps, generator=generator), model(steps))
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


@pytest.mark.parametrize("pieces", [[1] * 40, [13] + [1] * 27, [5, 1, 20, 14], [40]])
def test_cache_equals_full_recomputation(any_model, sampler, pieces):
    steps = sampler.sample(3).steps
    cache = KeyValueCache(any_model.config, 3, any_model.device)
    ends = list(accumulate(pieces))
    outputs = [
        any_model(steps[slice(end - length, end)], cache=cache)
        for end, length in zip(ends, pieces, strict=True)
    ]
    assert torch.allclose(torch.cat(outputs, dim=1), any_model(steps), atol=1e-5)


def test_context_has_its_limit(any_model, sampler):
    steps = sampler.sample(3).steps
    cache = KeyValueCache(any_model.config, 3, any_model.device)
    any_model(steps[slice(30)], cache=cache)
    with pytest.raises(ValueError, match="got 41 time steps, expected at most context_length=40"):
        any_model(steps[slice(11)], cache=cache)
    small = ADTransformer(replace(any_model.config, context_length=39), torch.Generator())
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


def test_saved_model_is_the_same_model(any_model, sampler, tmp_path):
    model = any_model
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


def test_model_saved_before_there_were_options_is_the_default_one(model, sampler, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    known = ("space", "context_length", "embed_dim", "num_layers", "num_heads", "mlp_dim")
    config = json.loads(metadata["config"])
    config = {name: config[name] for name in known}
    save_file(model.state_dict(), path, metadata | {"config": json.dumps(config)})
    steps = sampler.sample(2).steps
    assert torch.equal(load_model(path)(steps), model(steps))


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
    "change",
    [
        {"context_length": 0},
        {"num_layers": 0},
        {"embed_dim": 30, "num_heads": 4},
        {"embed_dim": 12, "num_heads": 4, "positions": "rotary"},
        {"norm": "batch"},
        {"positions": "sinusoidal"},
        {"tokens_per_step": 2},
        {"dropout": 1.0},
    ],
)
def test_bad_shapes_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        ADTransformerConfig(TaskSpace.symbolic((3,), 2), **change)


def test_paper_has_the_papers_shape():
    space = TaskSpace.symbolic((9, 9), 5)
    config = ADTransformerConfig.paper(space, context_length=80)
    weights = ADTransformer(config, torch.Generator().manual_seed(0)).state_dict()
    assert weights["positions"].shape == (240, 64)
    assert weights["blocks.3.mlp_in.weight"].shape == (2048, 64)
    assert "blocks.4.mlp_in.weight" not in weights
    assert (config.norm, config.num_heads, config.dropout) == ("post", 4, 0.1)
