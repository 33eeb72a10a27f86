import doctest
import importlib

import pytest

MODULES = [
    "vlmreward.backbone.audio",
    "vlmreward.backbone.combiner",
    "vlmreward.backbone.latents",
    "vlmreward.backbone.masked_language",
    "vlmreward.backbone.model",
    "vlmreward.backbone.objectives",
    "vlmreward.backbone.properties",
    "vlmreward.backbone.streams",
    "vlmreward.backbone.training",
    "vlmreward.backbone.zorro",
    "vlmreward.capture",
    "vlmreward.drift",
    "vlmreward.evaluation.bootstrap",
    "vlmreward.evaluation.calibrated_head",
    "vlmreward.evaluation.epic",
    "vlmreward.evaluation.grid",
    "vlmreward.evaluation.normalization",
    "vlmreward.evaluation.reliability",
    "vlmreward.evaluation.returns",
    "vlmreward.evaluation.roc",
    "vlmreward.evaluation.similarities",
    "vlmreward.evaluation.temperature",
    "vlmreward.goals",
    "vlmreward.encoders.fake",
    "vlmreward.encoders.frame_cache",
    "vlmreward.heads.config",
    "vlmreward.heads.contrast",
    "vlmreward.heads.cosine",
    "vlmreward.heads.goal_baseline",
    "vlmreward.heads.normalized",
    "vlmreward.heads.sigmoid",
    "vlmreward.heads.softmax",
    "vlmreward.heads.threshold",
    "vlmreward.monitor",
    "vlmreward.prompts",
    "vlmreward.relabel.episodes",
    "vlmreward.relabel.files",
    "vlmreward.renderers",
    "vlmreward.reward_model",
    "vlmreward.reward_stream",
    "vlmreward.timing",
    "vlmreward.wrappers.capture",
    "vlmreward.wrappers.deferred",
    "vlmreward.wrappers.dm_env",
    "vlmreward.wrappers.gymnasium",
    "vlmreward.wrappers.sb3_deferred",
    "vlmreward.wrappers.sb3_monitor",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
