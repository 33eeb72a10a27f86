from dataclasses import replace

import pytest
import torch

from vlmreward import load_encoder
from vlmreward.backbone import (
    BackboneConfig,
    ConvTokensConfig,
    MultimodalBackbone,
    TextConfig,
    TowerTokensConfig,
    start_from_clip,
    tokenizer_of,
)
from vlmreward.encoders import OpenCLIPEncoder, build_model, build_tokenizer

CONFIG = BackboneConfig(embed_dim=256, video=TowerTokensConfig(num_frames=1))
SENTENCES = ["the person is holding the red ball", "a bell is ringing"]


@pytest.fixture(scope="module")
def clip():
    return load_encoder("playroom", device="cpu")


def new_backbone(config=CONFIG):
    return MultimodalBackbone(config, torch.Generator().manual_seed(0))


@torch.no_grad()
def test_frames_and_words_are_as_the_clip_has_them(clip):
    backbone, before = new_backbone(), new_backbone()
    start_from_clip(backbone, clip)
    tokens = tokenizer_of(CONFIG)(SENTENCES)
    torch.testing.assert_close(backbone.encode_text(tokens), clip.encode_text(SENTENCES))
    frames = torch.randint(
        0, 256, (2, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    seen = []
    tower = backbone.video.tower
    hook = tower.layers[-1].register_forward_hook(lambda *args: seen.append(args[-1]))
    backbone.train().video_tokens(frames)
    hook.remove()
    pooled = torch.cat((seen[0].mean(dim=(2, 3)), seen[0].amax(dim=(2, 3))), dim=1)
    embedded = torch.nn.functional.normalize(clip.model.visual.trunk.head(pooled), dim=1)
    torch.testing.assert_close(embedded, clip.encode_obs({"pixels": frames}), atol=1e-5, rtol=0)

    position = backbone.text.positional_embedding
    assert torch.equal(position[clip.context_length :], before.text.positional_embedding[16:])
    assert not any(weights.requires_grad for weights in tower.parameters())
    assert all(weights.requires_grad for weights in backbone.text.parameters())
    for name, weights in before.state_dict().items():
        if not name.startswith(("video.tower", "text")):
            assert torch.equal(weights, backbone.state_dict()[name]), name


def test_a_text_tower_that_is_a_module_of_its_own_is_found():
    config = {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "patch_convnet_xs",
            "timm_model_pretrained": False,
            "timm_pool": "catavgmax",
            "timm_proj": "",
            "image_size": 96,
        },
        "text_cfg": {"context_length": 16, "width": 16, "heads": 2, "layers": 1},
    }
    own = OpenCLIPEncoder(build_model(config), build_tokenizer(config), name="own")
    backbone = new_backbone(
        BackboneConfig(
            embed_dim=32,
            video=TowerTokensConfig(num_frames=1, tower="patch_convnet_xs"),
            text=TextConfig(width=16, heads=2, layers=1, context_length=16),
        )
    )
    start_from_clip(backbone, own)
    with torch.no_grad():
        embedded = backbone.encode_text(tokenizer_of(backbone.config)(SENTENCES))
    torch.testing.assert_close(embedded, own.encode_text(SENTENCES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video": ConvTokensConfig(num_frames=1)}, "read by ConvTokens .*'playroom'.* TimmModel"),
        ({"embed_dim": 128}, r"text tower with text_projection of shape \[64, 128\].*\[64, 256\]"),
        ({"text": TextConfig(context_length=8)}, r"positional_embedding of shape \[8, 64\]"),
        ({"text": TextConfig(layers=3)}, r"resblocks\.2.*'playroom', none"),
        (
            {"video": replace(CONFIG.video, tower="patch_convnet_xs")},
            r"image tower with layers\.0\.conv\.weight of shape \[4, 3, 8, 8\]",
        ),
        (
            {"video": replace(CONFIG.video, height=48, width=48)},
            r"height, width = \(48, 48\).*\(96, 96\)",
        ),
        ({"video": replace(CONFIG.video, mean=(0.5, 0.5, 0.5))}, r"mean = \(0.5, 0.5, 0.5\)"),
        ({"video": replace(CONFIG.video, std=(0.5, 0.5, 0.5))}, r"std = \(0.5, 0.5, 0.5\)"),
    ],
)
def test_towers_of_other_sizes_are_named_and_nothing_is_changed(clip, settings, message):
    backbone, before = (new_backbone(replace(CONFIG, **settings)) for _ in range(2))
    with pytest.raises(ValueError, match=message):
        start_from_clip(backbone, clip)
    for name, weights in before.state_dict().items():
        assert torch.equal(weights, backbone.state_dict()[name]), name
