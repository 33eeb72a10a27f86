from itertools import product

import pytest
import torch

from vlmreward.backbone.properties import (
    PropertyError,
    check_batch_independence,
    check_distinct_positions,
    check_eval_determinism,
    check_gradients,
    check_parameter_count,
)
from vlmreward.backbone.video import (
    ConvTokens,
    ConvTokensConfig,
    TowerTokens,
    TowerTokensConfig,
    TubeletConfig,
    TubeletTokens,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames(time: int = 4, height: int = 16, width: int = 24, batch: int = 2) -> torch.Tensor:
    shape = (batch, time, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws(1))


TUBELETS = TubeletConfig(4, 16, 24, embed_dim=8)
CONV = ConvTokensConfig(4, 16, 48, embed_dim=8, channels=(8, 16, 16), grid=2)


TOWER = TowerTokensConfig(4, 32, 48, embed_dim=8, grid=2, tower="patch_convnet_xs")


def tubelet_tokens() -> TubeletTokens:
    return TubeletTokens(TUBELETS, draws())


def conv_tokens() -> ConvTokens:
    return ConvTokens(CONV, draws())


def tower_tokens() -> TowerTokens:
    """In training mode, with statistics of batches that are no tower's first."""
    module = TowerTokens(TOWER, draws())
    for layer in module.tower.layers:
        layer.norm.running_mean.normal_(generator=draws(2))
        layer.norm.running_var.uniform_(0.5, 2.0, generator=draws(3))
    return module.train()


CLIPS = [
    (tubelet_tokens(), frames()),
    (conv_tokens(), frames(4, 16, 48)),
    (tower_tokens(), frames(4, 32, 48)),
]


@torch.no_grad()
def test_a_tubelet_is_projected_by_itself() -> None:
    """Every box cut out by hand, in the order time, rows, columns."""
    module, clip = tubelet_tokens(), frames()
    tokens = module(clip)
    assert tokens.shape == (2, TUBELETS.num_tokens, 8)
    for token, (time, down, across) in enumerate(product(range(2), range(2), range(3))):
        box = clip[:, 2 * time :, 8 * down :, 8 * across :][:, :2, :8, :8]
        values = (box.double() / 255 * 2 - 1).flatten(1)
        expected = values @ module.projection.weight.double().T + module.positions[token]
        torch.testing.assert_close(tokens[:, token], expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("module", "clip"), CLIPS)
def test_bytes_and_floats_give_the_same_tokens(module, clip) -> None:
    torch.testing.assert_close(module(clip), module(clip / 255), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("module", "clip"), CLIPS)
def test_rows_do_not_see_each_other(module, clip) -> None:
    check_batch_independence(lambda x: module(x["frames"]), {"frames": clip}, generator=draws())
    check_eval_determinism(module, clip)


def test_a_batch_norm_would_be_caught() -> None:
    module = conv_tokens()
    for layer in module.layers:
        layer.norm = torch.nn.BatchNorm2d(layer.conv.out_channels)
    with pytest.raises(PropertyError, match="other rows"):
        check_batch_independence(
            lambda x: module(x["frames"]), {"frames": frames(4, 16, 48)}, generator=draws()
        )


@pytest.mark.parametrize(("module", "clip"), CLIPS[1:])
def test_tokens_of_a_frame_read_that_frame_alone(module, clip) -> None:
    clip = clip / 255
    inputs = {str(time): clip[:, time : time + 1] for time in range(4)}

    def forward(inputs):
        tokens = module(torch.cat(list(inputs.values()), dim=1)).unflatten(1, (4, 4))
        return {str(time): tokens[:, time] for time in range(4)}

    check_gradients(forward, inputs, {name: {name} for name in inputs})


@torch.no_grad()
def test_a_default_frame_becomes_six_by_six_tokens_in_their_places() -> None:
    """A dot changes most the token of the cell in which it lies, row by row."""
    module = ConvTokens(ConvTokensConfig(1), draws())
    empty = torch.zeros(1, 1, 96, 96, 3, dtype=torch.uint8)
    assert module(empty).shape == (1, 36, 128)
    dotted = empty.clone()
    dotted[:, :, 38:42, 70:74] = 255  # row 2, column 4
    change = (module(dotted) - module(empty)).square().sum(dim=-1)
    assert change.argmax() == 2 * 6 + 4


@torch.no_grad()
def test_conv_tokens_pool_mean_and_maximum_of_each_cell() -> None:
    module, clip = conv_tokens(), frames(4, 16, 48)
    features = module.layers((clip.flatten(0, 1) / 127.5 - 1).permute(0, 3, 1, 2))
    assert features.shape == (8, 16, 2, 6)  # an eighth of the frame
    tokens = module(clip).unflatten(1, (4, 2, 2))
    for row, column in product(range(2), range(2)):
        cell = features[:, :, row, 3 * column : 3 * column + 3]
        expected = module.projection(torch.cat([cell.mean(-1), cell.amax(-1)], dim=1))
        expected = expected.unflatten(0, (2, 4)) + module.cell_positions[2 * row + column]
        expected = expected + module.frame_positions
        torch.testing.assert_close(tokens[:, :, row, column], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_tower_is_that_of_the_clip_in_training_too() -> None:
    """Its layers by hand: in evaluation mode, on frames that are normalised as the CLIP's."""
    module, clip = tower_tokens(), frames(4, 32, 48)
    norm = (torch.tensor(values).view(3, 1, 1) for values in (TOWER.mean, TOWER.std))
    images = (clip.flatten(0, 1).permute(0, 3, 1, 2) / 255 - next(norm)) / next(norm)
    for layer in module.tower.layers:
        assert not layer.training
        mean, var = layer.norm.running_mean.clone(), layer.norm.running_var.clone()
        images = layer.conv(images)
        images = torch.nn.functional.batch_norm(images, mean, var, eps=layer.norm.eps).relu()
    assert images.shape == (8, 24, 4, 6)
    tokens = module(clip).unflatten(1, (4, 2, 2))
    for row, column in product(range(2), range(2)):
        cell = images[:, :, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].flatten(2)
        expected = module.projection(torch.cat([cell.mean(-1), cell.amax(-1)], dim=1))
        expected = expected.unflatten(0, (2, 4)) + module.cell_positions[2 * row + column]
        expected = expected + module.frame_positions
        torch.testing.assert_close(tokens[:, :, row, column], expected, atol=1e-5, rtol=0)
    assert torch.equal(module.tower.layers[0].norm.running_mean, tower_mean())


def tower_mean() -> torch.Tensor:
    return torch.empty(4).normal_(generator=draws(2))


def test_a_tower_is_not_trained() -> None:
    module = tower_tokens()
    module(frames(4, 32, 48)).sum().backward()
    trained = {name for name, weights in module.named_parameters() if weights.grad is not None}
    assert trained == {"projection.weight", "projection.bias", "frame_positions", "cell_positions"}


def test_all_positions_differ() -> None:
    check_distinct_positions(tubelet_tokens().positions)
    module = ConvTokens(ConvTokensConfig(8), draws())
    placed = module.frame_positions[:, None] + module.cell_positions
    check_distinct_positions(placed.flatten(0, 1))


def test_weights_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    for config, kind in (
        (TUBELETS, TubeletTokens), (CONV, ConvTokens), (TOWER, TowerTokens)
    ):  # fmt: skip
        one, same = (kind(config, draws(0)).state_dict() for _ in range(2))
        assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(state, torch.get_rng_state())


def test_number_of_parameters() -> None:
    check_parameter_count(tubelet_tokens(), 384 * 8 + 8 + 12 * 8)
    convolutions = 3 * 8 * 64 + 8 * 16 * 9 + 16 * 16 * 9
    norms, projection, positions = 2 * (8 + 16 + 16), 32 * 8 + 8, 4 * 8 + 4 * 8
    check_parameter_count(conv_tokens(), convolutions + norms + projection + positions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 5}, r"tubelet_frames = 2 and num_frames = 5.*one of \[1, 5\]"),
        ({"height": 20}, "tubelet_size = 8 and height = 20"),
        ({"width": 4}, "tubelet_size = 8 and width = 4"),
        ({"tubelet_size": 0}, "tubelet_size = 0"),
    ],
)
def test_tubelets_that_do_not_fill_the_clip_are_refused(settings, message) -> None:
    sizes = {"num_frames": 4, "height": 16, "width": 24}
    with pytest.raises(ValueError, match=message):
        TubeletConfig(**(sizes | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 100}, "the stride = 8 and height = 100"),
        ({"grid": 5}, "grid = 5 and an eighth of height = 12"),
        ({"channels": (32, 60)}, "channels = 60"),
        ({"channels": (32,)}, "at least two layers"),
        ({"num_frames": 0}, "num_frames=0"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ConvTokensConfig(**({"num_frames": 2} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tower": "patch_convent"}, "tower='patch_convent', expected the name of an image tower"),
        ({"tower": "vit_tiny_patch16_224", "height": 224, "width": 224}, "convolutional tower"),
        ({"grid": 5}, "grid = 5 and height of the map = 12"),
        ({"width": 72}, "grid = 6 and width of the map = 9"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\), expected one value for each"),
        ({"std": (0.5, 0.5)}, r"std=\(0.5, 0.5\), expected one value for each"),
        ({"std": (0.5, 0.0, 0.5)}, "values above 0"),
    ],
)
def test_a_tower_that_gives_no_such_tokens_is_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TowerTokens(TowerTokensConfig(**({"num_frames": 1} | settings)), draws())


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (frames(time=2), r"expected .* T, H, W = \[4, 16, 24\]: resize"),
        (frames().float(), r"from 0 to 255, expected them in \[0, 1\]"),
        (frames() / 255 - 0.5, "expected them in"),
        (frames() / 255 * torch.nan, "from nan"),
        (frames().long(), "int64, expected uint8 or floating point"),
    ],
)
def test_other_frames_are_refused(clip, message) -> None:
    with pytest.raises(ValueError, match=message):
        tubelet_tokens()(clip)
