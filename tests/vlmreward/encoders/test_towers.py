import open_clip
import pytest
import timm
import torch

from vlmreward.encoders import build_model
from vlmreward.encoders.towers import PATCH_CONVNETS


def config(name: str) -> dict[str, object]:
    return {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": name,
            "timm_model_pretrained": False,
            "timm_pool": "catavgmax",
            "timm_proj": "",
            "image_size": 96,
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }


@pytest.mark.parametrize("name", PATCH_CONVNETS)
def test_open_clip_builds_every_size(name: str) -> None:
    model = build_model(config(name)).eval()
    assert isinstance(model, open_clip.CustomTextCLIP | open_clip.CLIP)
    with torch.no_grad():
        embeddings = model.encode_image(torch.rand(2, 3, 96, 96))
    assert embeddings.shape == (2, 32)


def test_sizes_grow_in_the_order_of_their_names() -> None:
    sizes = [
        sum(p.numel() for p in timm.create_model(name, num_classes=128).parameters())
        for name in PATCH_CONVNETS
    ]
    assert sizes == sorted(sizes)


def test_there_are_no_pretrained_weights() -> None:
    with pytest.raises(ValueError, match="patch_convnet_xs has no pretrained weights"):
        timm.create_model("patch_convnet_xs", pretrained=True)
