import json

import numpy as np
import pytest
import torch

from vlmreward import CosineHead, Goal, RewardModel, SoftmaxHead, ThresholdHead, load_encoder
from vlmreward.backbone import (
    BackboneConfig,
    ConvTokensConfig,
    MultimodalBackbone,
    TextConfig,
    ZorroConfig,
    load_backbone,
    save_backbone,
    shipped_backbones,
)
from vlmreward.encoders.open_clip import CheckpointError

HEAD = ThresholdHead(SoftmaxHead(0.05), 0.4)
TEMPERATURES = {"audio": 0.1, "video": 0.05, "fusion": 0.02, "episode": 0.04}


def small_backbone(memory="transformer", seed=0):
    config = BackboneConfig(
        embed_dim=16,
        video=ConvTokensConfig(
            num_frames=1, height=32, width=32, embed_dim=16, channels=(8, 8), grid=2
        ),
        zorro=ZorroConfig(embed_dim=16, num_layers=1, num_heads=2),
        memory=memory,
        text=TextConfig(width=16, heads=2, layers=1),
    )
    return MultimodalBackbone(config, torch.Generator().manual_seed(seed))


def obs():
    rng = np.random.default_rng(0)
    return {
        "pixels": rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8),
        "audio": rng.uniform(-0.5, 0.5, (3, 1600)).astype(np.float32),
    }


@pytest.mark.parametrize("memory", ["mean", "transformer", "ttm"])
@pytest.mark.parametrize("stream", ["episode", "present", "audio"])
def test_a_saved_backbone_scores_as_before(tmp_path, memory, stream):
    backbone = small_backbone(memory)
    for weights in backbone.parameters():  # as they are stored
        weights.data = weights.data.half().float() if weights.ndim >= 2 else weights.data
    card = save_backbone(
        backbone,
        tmp_path / "small",
        temperatures=TEMPERATURES,
        heads={"episode": HEAD},
        training={"seed": 3},
    )
    loaded = load_backbone(card, stream=stream, device="cpu")
    assert load_backbone(str(card), stream=stream, device="cpu").name == loaded.name == "small"
    assert loaded.training == {"seed": 3}
    assert loaded.calibrated_head == (HEAD if stream == "episode" else None)
    assert loaded.logit_scale == pytest.approx({"episode": 25, "present": 50, "audio": 10}[stream])
    assert loaded.backbone.config == backbone.config
    before = {name: value.clone() for name, value in backbone.eval().state_dict().items()}
    for name, value in loaded.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    goal = Goal("a bell is ringing")
    assert RewardModel(loaded, goal, CosineHead())(obs()).shape == (3,)


def test_its_calibrated_head_is_used(tmp_path):
    card = save_backbone(small_backbone(), tmp_path / "small", heads={"episode": HEAD})
    goal = Goal("a bell is ringing", negative_prompts=["no bell is ringing"])
    reward_model = RewardModel(load_backbone(str(card), device="cpu"), goal)
    assert reward_model.head == HEAD


def test_unknown_names_and_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown backbone 'playroom_sond'"):
        load_backbone("playroom_sond")
    with pytest.raises(CheckpointError, match="found none at"):
        load_backbone(str(tmp_path / "nothing.json"))
    card = save_backbone(small_backbone(), tmp_path / "small")
    with pytest.raises(
        CheckpointError, match=r"no encoder saved by save_encoder: it lacks .*model"
    ):
        load_encoder(str(card))
    written = json.loads(card.read_text())
    card.write_text(json.dumps({**written, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        load_backbone(str(card))
    card.write_text(json.dumps({key: written[key] for key in ("format", "backbone")}))
    with pytest.raises(CheckpointError, match=r"save_backbone: it lacks \['temperatures'"):
        load_backbone(str(card))


def test_weights_of_another_backbone_do_not_fit(tmp_path):
    card = save_backbone(small_backbone("transformer"), tmp_path / "one")
    other = save_backbone(small_backbone("ttm"), tmp_path / "two")
    other.with_suffix(".safetensors").replace(card.with_suffix(".safetensors"))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_backbone(str(card))


def test_nothing_is_shipped_that_cannot_be_loaded():
    for name in shipped_backbones():
        assert load_backbone(name, device="cpu").name == name
