"""Local checkpoints of every kind of open_clip model, loaded as a pretrained one is, and scored."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file

from vlmreward import ContrastHead, Goal, RewardModel, SigmoidHead, load_encoder
from vlmreward.encoders import build_model

from .test_contract import FAMILIES, TINY

SIGLIP = {
    **TINY,
    "custom_text": True,
    "init_logit_bias": -10.0,
    "vision_cfg": {
        "timm_model_name": "test_vit",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 160,
    },
    "embed_dim": 64,
    "text_cfg": {
        **TINY["text_cfg"],
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
# open_clip gives names with "siglip" in them a tokenizer that is to be had on the hub only.
KINDS = {kind: FAMILIES[kind] for kind in ("vit", "resnet", "timm", "coca")} | {"sigmoid": SIGLIP}
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)


@pytest.fixture
def architecture(request, tmp_path, monkeypatch):
    """An architecture that open_clip knows by name for the length of a test."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    config = KINDS[request.param]
    path = tmp_path / f"tiny-{request.param}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    model = build_model(config, seed=7)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    return path.stem, file, model


@pytest.mark.parametrize("architecture", KINDS, indirect=True)
def test_a_saved_checkpoint_is_loaded_and_scored(architecture):
    name, file, model = architecture
    encoder = load_encoder(name, checkpoint=file, device="cpu")
    goal = Goal("a red room", ["a blue room", "a dog"])
    scores = RewardModel(encoder, goal, ContrastHead()).score(FRAMES)
    pixels = encoder.preprocess(torch.from_numpy(FRAMES))
    tokens = open_clip.get_tokenizer(name)(["a red room", "a blue room", "a dog"])
    with torch.no_grad():
        seen = model.eval().encode_image(pixels, normalize=True)
        cosines = seen @ model.encode_text(tokens, normalize=True).T
    torch.testing.assert_close(scores.embedding, seen)
    torch.testing.assert_close(
        scores.score, cosines[:, 0] - cosines[:, 1:].mean(dim=1), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("architecture", ["sigmoid"], indirect=True)
def test_a_siglip_brings_its_own_scale_and_bias(architecture):
    name, file, model = architecture
    encoder = load_encoder(name, checkpoint=file, device="cpu")
    assert encoder.logit_bias == -10.0
    head = SigmoidHead(encoder.logit_scale, encoder.logit_bias)
    scores = RewardModel(encoder, Goal("a red room"), head).score(FRAMES)
    with torch.no_grad():
        pixels = encoder.preprocess(torch.from_numpy(FRAMES))
        logits = model.eval().get_logits(pixels, open_clip.get_tokenizer(name)(["a red room"]))[0]
    torch.testing.assert_close(scores.score, logits[:, 0].sigmoid(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("architecture", ["vit"], indirect=True)
def test_a_softmax_model_has_no_bias(architecture):
    name, file, _ = architecture
    assert load_encoder(name, checkpoint=file, device="cpu").logit_bias is None


@pytest.mark.parametrize(
    ("name", "mean", "resize_mode", "interpolation"),
    [
        ("ViT-B-16-SigLIP", 0.5, "squash", "bicubic"),
        ("MobileCLIP-S1", 0.0, "shortest", "bilinear"),
        ("ViT-B-32", 0.48145466, "shortest", "bicubic"),
    ],
)
def test_frames_are_prepared_as_for_the_published_weights(
    name, mean, resize_mode, interpolation, monkeypatch
):
    built = {}

    def build(config, *, preprocess_cfg=None, seed=0):
        built.update(preprocess_cfg)
        raise StopIteration

    monkeypatch.setattr("vlmreward.encoders.zoo.build_model", build)
    with pytest.raises(StopIteration):
        load_encoder(name, checkpoint="weights.safetensors", device="cpu")
    assert built["mean"][0] == mean
    assert (built["resize_mode"], built["interpolation"]) == (resize_mode, interpolation)
