"""Histories labelled with what would have been best."""

import numpy as np
import pytest
import torch

from algdistill.histories import WindowSampler
from algdistill.sources import NoisyOracle, NoisyOracleConfig, optimal_targets
from algdistill.tasks_fake import PixelRoomTasks, PointTasks
from vlmreward_envs.dark_room import DarkRoomConfig, DarkRoomTasks
from vlmreward_envs.grid import Move
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks


def random_histories(tasks, num_episodes=3):
    config = NoisyOracleConfig(num_episodes=num_episodes, final_epsilon=1.0)
    return NoisyOracle(tasks, config, torch.arange(tasks.num_tasks)).train()


def test_labels_are_the_optimal_actions_by_hand_and_inputs_what_was_done():
    # The goal is the left cell of the middle row, (0, 1); everyone starts at (1, 1).
    rooms = DarkRoomTasks(torch.full((30,), 3), DarkRoomConfig(size=3, episode_length=4))
    histories = random_histories(rooms)
    windows = WindowSampler(
        histories,
        window_length=12,
        start_fraction=1.0,
        generator=np.random.default_rng(0),
        targets=optimal_targets(histories, rooms),
    )
    batch = windows.sample(64)
    x, y = batch.steps.obs.unbind(-1)
    on_its_way = (x > 0) & (y == 1)
    assert (batch.actions[on_its_way] == Move.LEFT).all()
    at_goal = (x == 0) & (y == 1)
    assert at_goal.any()
    assert (batch.actions[at_goal] == Move.STAY).all()
    above = (x == 0) & (y == 0)
    assert above.any()
    assert (batch.actions[above] == Move.DOWN).all()
    # What was done is uniform, and led to what is seen next.
    done = {tuple(history.actions) for history in histories}
    seen = {(*row[1:].tolist(),) for row in batch.steps.prev_action}
    assert seen <= {row[:-1] for row in done}
    assert len(seen) > 10


def test_labels_heed_what_is_hidden():
    """With the key, the way is to the door, though the observation is the same."""
    ids = torch.arange(6561)[::131]
    rooms = DarkKeyToDoorTasks(ids, ids)
    histories = NoisyOracle(rooms, NoisyOracleConfig(num_episodes=4), ids).train()
    targets = optimal_targets(histories, rooms)
    for history, target in zip(histories, targets, strict=True):
        np.testing.assert_array_equal(target.actions[150:], history.actions[150:])  # the oracle's
        assert (target.actions[:50] != history.actions[:50]).any()
        np.testing.assert_array_equal(target.rewards, history.rewards)
        assert target.metadata == history.metadata


@pytest.mark.parametrize(
    "tasks",
    [PixelRoomTasks(torch.arange(9)), PointTasks(torch.tensor([[0.9, -0.4], [-0.1, 0.0]]))],
    ids=["pixels", "continuous"],
)
def test_every_kind_of_space(tasks):
    oracle = NoisyOracle(tasks, NoisyOracleConfig(num_episodes=2), torch.arange(tasks.num_tasks))
    histories = oracle.train()
    for history, target in zip(histories, optimal_targets(histories, tasks), strict=True):
        last = slice(tasks.episode_length, None)
        np.testing.assert_array_equal(target.actions[last], history.actions[last])
        assert target.actions.dtype == history.actions.dtype


def test_histories_of_other_tasks_are_refused():
    ids = torch.arange(6)
    rooms = DarkKeyToDoorTasks(ids, ids)
    histories = random_histories(rooms)
    with pytest.raises(ValueError, match="saw at step 0 what the tasks do not show"):
        optimal_targets(histories, DarkKeyToDoorTasks(ids, ids + 100))
    with pytest.raises(ValueError, match="saw at step 50 what the tasks do not show"):
        optimal_targets([history.keep_every(2) for history in histories], rooms)
    with pytest.raises(ValueError, match="got 5 histories, expected one of TaskSpace"):
        optimal_targets(histories[1:], rooms)
    with pytest.raises(ValueError, match=r"histories of \[100, 150\] steps, expected one length"):
        optimal_targets([histories[0].keep_every(2), *histories[1:]], rooms)
