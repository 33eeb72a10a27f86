import doctest
import importlib

import pytest

MODULES = [
    "vlmreward_envs.adversarial_bandit.arms",
    "vlmreward_envs.adversarial_bandit.env",
    "vlmreward_envs.adversarial_bandit.tasks",
    "vlmreward_envs.dark_room.env",
    "vlmreward_envs.dark_room.tasks",
    "vlmreward_envs.episodes",
    "vlmreward_envs.key_to_door.env",
    "vlmreward_envs.key_to_door.tasks",
    "vlmreward_envs.watermaze.arena",
    "vlmreward_envs.watermaze.env",
    "vlmreward_envs.watermaze.tasks",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
