import numpy as np
import pytest
import torch

from algdistill.tasks import BatchedTasks
from hidden_goals import (
    EPISODE_LENGTH,
    NUM_MOVES,
    ROOM_CONFIG,
    HiddenGoalRooms,
    HiddenGoalTasks,
    draw_rooms,
)
from playroom_domain import NAMED_KINDS, family_goals
from vlmreward import RewardModel, load_encoder
from vlmreward_envs.playroom import Family, PlayroomRenderer, step_rooms

CELLS = [0, 8, 16, 30, 41]


@pytest.fixture(scope="module")
def reward_model() -> RewardModel:
    goals = family_goals(Family.FIND, np.random.default_rng(0))
    return RewardModel(load_encoder("playroom", device="cpu"), goals)


@pytest.fixture(scope="module")
def rooms(reward_model: RewardModel) -> HiddenGoalRooms:
    return draw_rooms(12, CELLS, NAMED_KINDS, reward_model, np.random.default_rng(0))


def test_hidden_objects_stand_where_they_may(rooms: HiddenGoalRooms) -> None:
    target = rooms.state.object_cell[:, 0]
    assert set((target[:, 1] * 7 + target[:, 0]).tolist()) <= set(CELLS)
    assert torch.equal(rooms.state.object_kind[:, 0], rooms.goal[:, 1])
    assert set(rooms.goal[:, 1].tolist()) <= set(NAMED_KINDS)


def test_rewards_are_those_of_the_frame_the_action_led_to(
    rooms: HiddenGoalRooms, reward_model: RewardModel
) -> None:
    """Walk, draw each frame, score it by hand: the table says the same."""
    tasks = HiddenGoalTasks(rooms)
    renderer = PlayroomRenderer(ROOM_CONFIG)
    obs = tasks.reset()
    assert torch.equal(obs, torch.full((12, 2), 3))
    state = rooms.state
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        actions = torch.randint(0, NUM_MOVES, (12,), generator=generator)
        result = tasks.step(actions)
        state = step_rooms(ROOM_CONFIG, state, actions)
        assert torch.equal(result.next_obs, state.position)
        probability = reward_model.score(renderer(state), rooms.goal[:, 1]).score
        clear = (probability - reward_model.head.threshold).abs() > 1e-4
        assert clear.any()
        paid = probability > reward_model.head.threshold
        assert torch.equal(result.reward[clear], paid[clear].float())


def test_episodes_end_together_and_start_in_the_middle(rooms: HiddenGoalRooms) -> None:
    tasks = HiddenGoalTasks(rooms)
    assert isinstance(tasks, BatchedTasks)
    tasks.reset()
    left = torch.ones(12, dtype=torch.int64)
    for step in range(2 * EPISODE_LENGTH):
        result = tasks.step(left)
        is_last = (step + 1) % EPISODE_LENGTH == 0
        assert bool(result.truncated.all()) is bool(result.truncated.any()) is is_last
        assert not result.terminated.any()
        assert torch.equal(result.obs, torch.full((12, 2), 3)) is is_last


def test_optimum_equals_value_iteration(rooms: HiddenGoalRooms) -> None:
    """The breadth-first bound equals dynamic programming over the real dynamics."""
    num_cells = ROOM_CONFIG.grid_size**2
    for room in range(12):
        cell = torch.arange(num_cells)
        state = rooms.state[torch.full((num_cells,), room)]
        position = torch.stack((cell % 7, cell // 7), dim=1)
        standing = type(state)(**{**vars(state), "position": position})
        next_cell = []
        for action in range(NUM_MOVES):
            moved = step_rooms(ROOM_CONFIG, standing, torch.full((num_cells,), action)).position
            next_cell.append(moved[:, 1] * 7 + moved[:, 0])
        value = torch.zeros(num_cells)
        for _ in range(EPISODE_LENGTH):
            arrival = torch.stack([(rooms.env_rewards[room] + value)[cells] for cells in next_cell])
            value = arrival.amax(dim=0)
        assert value[3 * 7 + 3] == rooms.optimum[room]


def test_rooms_survive_the_disk(rooms: HiddenGoalRooms) -> None:
    again = HiddenGoalRooms.from_arrays(rooms.to_arrays())
    assert torch.equal(again.rewards, rooms.rewards)
    assert torch.equal(again.state.object_cell, rooms.state.object_cell)
    assert torch.equal(again.optimum, rooms.optimum)
