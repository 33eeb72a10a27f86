"""Importing a library must be cheap and change nothing."""

import functools
import subprocess
import sys

import pytest

PACKAGES = ["vlmreward", "algdistill", "vlmreward_envs"]
OPTIONAL_OR_SLOW = {"stable_baselines3", "matplotlib", "tensorboard", "minigrid"}


@functools.cache
def import_report(package):
    """Import in a fresh interpreter; return the loaded modules and what the import changed."""
    code = f"""
import random, sys
import numpy as np, torch
state = lambda: [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]
before = state()
import {package}
print(*(["random-state"] if state() != before else []))
print(*(["accelerator"] if torch.cuda.is_initialized() else []))
print(*sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    random_state, accelerator, modules = result.stdout.split("\n")[:3]
    return set(modules.split()), random_state + accelerator


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_leaves_optional_and_slow_ones_alone(package):
    modules, _ = import_report(package)
    assert package in modules
    assert modules & OPTIONAL_OR_SLOW == set()
    assert "vlmreward.backbone" not in modules


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_do_not_load_each_other(package):
    modules, _ = import_report(package)
    assert modules & set(PACKAGES) == {package}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_draws_no_random_number_and_starts_no_accelerator(package):
    _, changes = import_report(package)
    assert changes == ""
