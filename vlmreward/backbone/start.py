"""A backbone that begins with what a CLIP knows of frames and words.

As other models that hear do (Guzhov et al. 2021, "AudioCLIP", `arXiv 2106.13043
<https://arxiv.org/abs/2106.13043>`_): the towers of a CLIP go on to be trained with a third
modality, here the text tower alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlmreward.backbone.model import MultimodalBackbone
from vlmreward.backbone.video import TowerTokens
from vlmreward.encoders.open_clip import OpenCLIPEncoder

_POSITIONS = "positional_embedding"


def start_from_clip(backbone: MultimodalBackbone, clip: OpenCLIPEncoder) -> None:
    """Give a backbone the image tower and the text tower of a CLIP, in place.

    What comes after the image tower's map of features, and positions of tokens beyond those that
    the CLIP reads, stay as they are.

    Args:
        backbone: Its ``config.video`` is a `TowerTokensConfig` with the CLIP's image tower, and
            ``config.text`` and ``config.embed_dim`` are the CLIP's; its texts may be longer.
        clip: A CLIP whose image tower is one of timm's and whose text tower is open_clip's own.

    Raises:
        ValueError: If it is not made of such towers, or sizes differ; nothing is changed then.
    """
    video = backbone.video
    trunk = getattr(clip.model.visual, "trunk", None)
    if not isinstance(video, TowerTokens) or trunk is None:
        raise ValueError(
            f"got frames read by {type(video).__name__} and the CLIP {clip.name!r} whose image "
            f"tower is {type(clip.model.visual).__name__}, expected TowerTokens and a tower of "
            "timm's: set config.video to a TowerTokensConfig that names it"
        )
    config, reads = video.config, clip.preprocess
    for name, own, of_clip in (
        ("height, width", (config.height, config.width), reads.size),
        ("mean", config.mean, reads.mean),
        ("std", config.std, reads.std),
    ):
        if tuple(own) != tuple(of_clip):
            raise ValueError(
                f"got {name} = {own}, expected those of the CLIP {clip.name!r}, {of_clip}: set "
                "them in config.video"
            )
    image = _fitting("image tower", video.tower, trunk.state_dict(), clip.name)
    text = _fitting("text tower", backbone.text, _text_weights(clip.model), clip.name)
    video.tower.load_state_dict(image)
    backbone.text.load_state_dict(text)


def _text_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the text tower's, which in open_clip's CLIP has no module of its own."""
    tower = getattr(model, "text", model)
    return dict(tower.state_dict())


def _fitting(
    tower_name: str, tower: nn.Module, given: Mapping[str, Tensor], clip_name: str
) -> dict[str, Tensor]:
    """Return a tower's weights with those of a CLIP in their places."""
    fitted = {}
    for name, own in tower.state_dict().items():
        weights = given.get(name)
        if weights is not None and name == _POSITIONS and len(weights) < len(own):
            weights = torch.cat([weights, own[len(weights) :].to(weights)])
        if weights is None or weights.shape != own.shape:
            found = "none" if weights is None else list(weights.shape)
            raise ValueError(
                f"got a {tower_name} with {name} of shape {list(own.shape)}, expected the shape in "
                f"the CLIP {clip_name!r}, {found}: configure the backbone's towers as the CLIP's"
            )
        fitted[name] = weights
    return fitted
