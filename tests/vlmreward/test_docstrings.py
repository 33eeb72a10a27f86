import doctest
import importlib

import pytest

MODULES = [
    "vlmreward.goals",
    "vlmreward.encoders.fake",
    "vlmreward.encoders.frame_cache",
    "vlmreward.heads.config",
    "vlmreward.heads.contrast",
    "vlmreward.heads.cosine",
    "vlmreward.heads.goal_baseline",
    "vlmreward.heads.sigmoid",
    "vlmreward.heads.softmax",
    "vlmreward.heads.threshold",
    "vlmreward.reward_model",
    "vlmreward.wrappers.gymnasium",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
