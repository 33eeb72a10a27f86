import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "algdistill.agents.in_context_agent",
        "algdistill.agents.loop_detector",
        "algdistill.gymnasium_tasks",
        "algdistill.histories.quality",
        "algdistill.histories.store",
        "algdistill.histories.store_windows",
        "algdistill.models.config",
        "algdistill.sources.actor_critic",
        "algdistill.sources.tabular_q_learning",
        "algdistill.tasks",
    ],
)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
