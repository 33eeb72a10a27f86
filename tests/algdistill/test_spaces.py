import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from algdistill.spaces import Continuous, Discrete, Embedding, Pixels, Symbolic
from algdistill.task_space import TaskSpace

SPACES = [
    TaskSpace.symbolic((9, 300), 5),
    TaskSpace(Pixels(72, 96), Discrete(8)),
    TaskSpace(Embedding(16), Continuous(2)),
]


@pytest.mark.parametrize("space", SPACES)
def test_a_space_survives_json(space):
    assert TaskSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_stored_types_are_the_smallest_lossless_ones():
    assert Symbolic((256,)).stored_dtype == np.uint8
    assert Symbolic((2, 257)).stored_dtype == np.uint16
    assert Discrete(256).stored_dtype == np.uint8
    assert Pixels(2, 2).stored_dtype == np.uint8
    assert Embedding(3).stored_dtype == Continuous(3).stored_dtype == np.float32


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ({"observation_sizes": (9, 300), "num_actions": 5}, SPACES[0]),
        (
            {
                "observation_shape": (72, 96, 3),
                "observation_dtype": torch.uint8,
                "num_actions": 8,
            },
            SPACES[1],
        ),
        (
            {"observation_shape": (16,), "observation_dtype": torch.float32, "action_dim": 2},
            SPACES[2],
        ),
    ],
)
def test_spaces_are_read_off_tasks(tasks, expected):
    assert TaskSpace.of(SimpleNamespace(**tasks)) == expected


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"num_actions": 5}, "observation_shape=None"),
        ({"observation_sizes": (3,)}, "neither `num_actions` nor `action_dim`"),
        (
            {"observation_shape": (4,), "observation_dtype": torch.uint8, "num_actions": 5},
            r"observation_shape=\(4,\)",
        ),
    ],
)
def test_tasks_that_do_not_say_are_refused(tasks, message):
    with pytest.raises(TypeError, match=message):
        TaskSpace.of(SimpleNamespace(**tasks))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Symbolic(()), "expected one size"),
        (lambda: Symbolic((3, 0)), "expected one size"),
        (lambda: Pixels(0, 3), "0x3"),
        (lambda: Embedding(0), "width 0"),
        (lambda: Discrete(1), "num_actions=1"),
        (lambda: Continuous(0), "0 components"),
        (lambda: TaskSpace.from_dict({"observations": {"kind": "sound"}}), "'sound'"),
    ],
)
def test_bad_spaces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("space", "inside", "outside"),
    [
        (Symbolic((3, 5)), [[2, 4]], [[2, 5]]),
        (Symbolic((3, 5)), [[0, 0]], [[-1, 0]]),
        (Discrete(4), [3], [4]),
        (Continuous(2), [[-1.0, 1.0]], [[0.0, 1.01]]),
        (Continuous(1), [[0.5]], [[float("nan")]]),
        (Embedding(2), [[1e6, -1e6]], [[float("inf"), 0.0]]),
        (Pixels(1, 1), np.array([[[[255, 0, 0]]]], np.uint8), [[[[0, 0, 0]]]]),
    ],
)
def test_values_outside_are_refused(space, inside, outside):
    space.check(np.asarray(inside))
    with pytest.raises(ValueError, match="expected"):
        space.check(np.asarray(outside))


def test_other_kinds_of_numbers_are_named():
    space = SPACES[2]
    with pytest.raises(TypeError, match="expected discrete actions"):
        _ = space.num_actions
    with pytest.raises(TypeError, match="expected symbolic observations"):
        _ = space.observation_sizes


def test_no_previous_action():
    assert Discrete(5).none(2, 3).tolist() == [[5] * 3] * 2
    assert Continuous(2).none(1, 2).tolist() == [[[0.0, 0.0]] * 2]
