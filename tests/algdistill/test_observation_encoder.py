import pytest
import torch

from algdistill.models import FrameEncoderConfig
from algdistill.models.observation_encoder import EmbeddingEncoder, FrameEncoder
from algdistill.spaces import Embedding, Pixels

SMALL = FrameEncoderConfig(channels=(4, 6), linear_dim=8)


def make(sides=(9, 14), config=SMALL, seed=0):
    return FrameEncoder(Pixels(*sides), config, 5, torch.Generator().manual_seed(seed))


def frames(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, shape, generator=generator).to(torch.uint8)


@pytest.mark.parametrize("sides", [(1, 1), (1, 17), (12, 12), (72, 96), (9, 14)])
@pytest.mark.parametrize("config", [SMALL, FrameEncoderConfig()], ids=["small", "default"])
def test_frames_of_any_size_are_embedded(sides, config):
    encoder = make(sides, config)
    assert encoder(frames(2, 3, *sides, 3)).shape == (2, 3, 5)


def test_each_frame_is_embedded_by_itself():
    encoder, shown = make(), frames(4, 3, 9, 14, 3)
    together = encoder(shown)
    assert torch.allclose(encoder(shown[2:3, 1:2])[0, 0], together[2, 1], atol=1e-6)
    assert (together.flatten(0, 1).std(0) > 0).all()


@pytest.mark.parametrize("pixel", [(0, 0, 0), (8, 13, 2), (4, 7, 1)])
def test_every_corner_and_channel_of_a_frame_matters(pixel):
    encoder = make(config=FrameEncoderConfig(channels=(16, 16), linear_dim=32))
    shown = frames(1, 1, 9, 14, 3)
    changed = shown.clone()
    changed[0, 0][pixel] = 255 - changed[0, 0][pixel] // 2
    assert not torch.allclose(encoder(shown), encoder(changed), atol=1e-7)


def test_paper_has_the_papers_shape():
    weights = make((72, 96), FrameEncoderConfig.paper()).state_dict()
    assert weights["blocks.0.weight"].shape == (128, 3, 5, 5)
    assert weights["blocks.6.weight"].shape == (128, 128, 5, 5)
    assert "blocks.9.weight" not in weights
    assert weights["hidden.weight"].shape == (256, 128 * 2 * 2)


def test_same_generator_same_weights_and_no_other_randomness_left():
    first, again, other = (make(seed=seed).state_dict() for seed in (0, 0, 1))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name.endswith("weight") and not name.startswith("norm"):
            assert not torch.equal(value, other[name]), name


def test_embeddings_are_normalised_and_mapped():
    encoder = EmbeddingEncoder(Embedding(6), 5, torch.Generator().manual_seed(0))
    obs = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
    centred = obs - obs.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = normed @ encoder.out.weight.T + encoder.out.bias
    assert torch.allclose(encoder(obs), expected, atol=1e-6)
    assert torch.allclose(encoder(30.0 * obs), encoder(obs), atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"channels": ()}, r"channels=\(\)"),
        ({"channels": (4, 0)}, r"channels=\(4, 0\)"),
        ({"linear_dim": 0}, "linear_dim=0"),
        ({"kernel_size": 4}, "kernel_size=4"),
    ],
)
def test_bad_shapes_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        FrameEncoderConfig(**setting)
