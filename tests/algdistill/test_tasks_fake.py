from collections import deque

import pytest
import torch

from algdistill.tasks import BatchedTasks, EmbeddedObservations, TaskSpace, flat_observation
from algdistill.tasks_fake import (
    MOVES,
    GridTasks,
    PixelRoomTasks,
    PointTasks,
    dark_room_tasks,
    hidden_object_tasks,
)


def shortest_way(solid, start, goals, size):
    """Breadth-first search, written independently of the tasks."""
    distance = {start: 0}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if cell in goals:
            return distance[cell]
        for dx, dy in MOVES:
            x, y = cell % size + dx, cell // size + dy
            inside = 0 <= x < size and 0 <= y < size
            if inside and not solid[y * size + x] and y * size + x not in distance:
                distance[y * size + x] = distance[cell] + 1
                queue.append(y * size + x)
    raise AssertionError("the goals cannot be reached")


def test_fake_is_a_batch_of_tasks():
    tasks = dark_room_tasks()
    assert isinstance(tasks, BatchedTasks)
    assert TaskSpace.of(tasks) == TaskSpace.symbolic((9, 9), 5)


def test_dark_room_optimum_is_the_analytic_one():
    expected = [min(20, 21 - abs(goal % 9 - 4) - abs(goal // 9 - 4)) for goal in range(81)]
    assert dark_room_tasks().optimal_returns().tolist() == expected
    assert sum(expected) / 81 == pytest.approx(16.543, abs=1e-3)


def test_behaviour_that_does_not_adapt_earns_exactly_its_share_of_the_dark_room():
    tasks = dark_room_tasks()
    tasks.reset()
    generator = torch.Generator().manual_seed(0)
    earned = 0.0
    for _ in range(20):
        action = torch.randint(5, (1,), generator=generator)
        earned += tasks.step(action.expand(81)).env_reward.sum().item()
    assert earned / 81 == pytest.approx(20 / 81)


def test_episode_end_resets_within_the_step():
    tasks = dark_room_tasks(size=3, episode_length=2)
    assert tasks.reset().tolist() == [[1, 1]] * 9
    right = torch.full((9,), 2)
    first = tasks.step(right)
    assert first.obs.tolist() == [[2, 1]] * 9
    assert not first.truncated.any()
    second = tasks.step(torch.full((9,), 4))
    assert second.next_obs.tolist() == [[2, 2]] * 9
    assert second.obs.tolist() == [[1, 1]] * 9
    assert second.truncated.all()
    assert not second.terminated.any()
    assert second.reward.tolist() == [0.0] * 8 + [1.0]
    assert tasks.step(right).obs.tolist() == [[2, 1]] * 9


def test_walls_and_solid_cells_stop_the_agent():
    solid = torch.zeros(1, 9, dtype=torch.bool)
    solid[0, 5] = True
    tasks = GridTasks(torch.zeros(1, 9), solid)
    tasks.reset()
    assert tasks.step(torch.tensor([2])).obs.tolist() == [[1, 1]]
    assert tasks.step(torch.tensor([1])).obs.tolist() == [[0, 1]]
    assert tasks.step(torch.tensor([1])).obs.tolist() == [[0, 1]]


def test_hidden_objects_pay_beside_the_target_and_the_optimum_is_the_shortest_way():
    generator = torch.Generator().manual_seed(0)
    targets = [0, 6, 10, 38]
    tasks = hidden_object_tasks(50, generator, target_cells=targets)
    optimum = tasks.optimal_returns()
    for task in range(50):
        solid, paid = tasks.solid[task].tolist(), tasks.env_cell_rewards[task].bool().tolist()
        assert sum(solid) == 4
        assert not solid[24]
        goals = {cell for cell in range(49) if paid[cell]}
        beside = [
            {cell for cell in range(49)
             if abs(cell % 7 - t % 7) + abs(cell // 7 - t // 7) == 1 and not solid[cell]}
            for t in targets if solid[t]
        ]  # fmt: skip
        assert goals in beside
        distance = shortest_way(solid, 24, goals, 7)
        assert optimum[task].item() == (20 if distance == 0 else 21 - distance)


def test_false_rewards_are_seen_but_are_not_the_truth():
    generator = torch.Generator().manual_seed(0)
    tasks = hidden_object_tasks(400, generator, target_cells=[0], false_reward_rate=0.1)
    mistaken = tasks.cell_rewards.bool() & ~tasks.env_cell_rewards.bool()
    assert mistaken.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (tasks.cell_rewards >= tasks.env_cell_rewards).all()


def test_frames_show_where_the_agent_is_and_nothing_else():
    tasks = PixelRoomTasks(torch.tensor([0, 5]), size=3, episode_length=3)
    symbols = GridTasks(torch.zeros(2, 9), episode_length=3)
    assert isinstance(tasks, BatchedTasks)
    frames, position = tasks.reset(), symbols.reset()
    for _ in range(7):
        for frame, (x, y) in zip(frames, position.tolist(), strict=True):
            expected = torch.zeros(12, 12, 3, dtype=torch.uint8)
            expected[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 255
            assert torch.equal(frame, expected)
        result, expected_result = (t.step(torch.tensor([4, 1])) for t in (tasks, symbols))
        assert torch.equal(result.truncated, expected_result.truncated)
        frames, position = result.obs, expected_result.obs


def test_optimal_actions_earn_the_optimum_in_rooms_of_frames():
    tasks = PixelRoomTasks(torch.arange(25), size=5, episode_length=9)
    tasks.reset()
    earned = sum(tasks.step(tasks.optimal_actions()).env_reward for _ in range(9))
    assert torch.equal(earned, dark_room_tasks(5, 9).optimal_returns())


def test_points_move_are_held_back_and_paid_near_the_goal():
    tasks = PointTasks(torch.tensor([[0.9, 0.0], [-0.5, 0.5]]), episode_length=3, radius=0.2)
    assert isinstance(tasks, BatchedTasks)
    assert tasks.reset().tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, -1.0]] * 2
    first = tasks.step(torch.tensor([[1.0, -0.5], [-1.0, 1.0]]))
    assert first.obs[:, :2].tolist() == [[0.5, -0.25], [-0.5, 0.5]]
    assert first.reward.tolist() == [0.0, 1.0]
    second = tasks.step(torch.tensor([[1.0, 0.5], [-1.0, -1.0]]))
    assert second.reward.tolist() == [1.0, 0.0]
    third = tasks.step(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert third.next_obs[:, :2].tolist() == [[1.0, 0.0], [-0.5, 0.0]]
    assert third.obs[:, :2].tolist() == [[0.0, 0.0]] * 2
    assert third.truncated.all()
    assert not (first.truncated | second.truncated | third.terminated).any()


def test_optimal_actions_lead_points_straight_to_the_goal():
    goals = torch.tensor([[0.9, -0.2], [0.1, 0.05]])
    tasks = PointTasks(goals)
    tasks.reset()
    for _ in range(2):
        result = tasks.step(tasks.optimal_actions())
    assert torch.allclose(result.obs[:, :2], goals)


def test_frames_seen_through_an_encoder():
    calls = []

    def embed(frames):
        calls.append(len(frames))
        return frames.float().mean((1, 2))

    rooms = PixelRoomTasks(torch.tensor([0, 5]), size=3, episode_length=2)
    tasks = EmbeddedObservations(rooms, embed)
    assert isinstance(tasks, BatchedTasks)
    bare = PixelRoomTasks(torch.tensor([0, 5]), size=3, episode_length=2)
    assert torch.equal(tasks.reset(), bare.reset().float().mean((1, 2)))
    for _ in range(3):
        assert torch.equal(tasks.optimal_actions(), bare.optimal_actions())
        result, expected = (t.step(bare.optimal_actions()) for t in (tasks, bare))
        for name in ("obs", "next_obs"):
            assert torch.equal(getattr(result, name), getattr(expected, name).float().mean((1, 2)))
        for name in ("reward", "env_reward", "terminated", "truncated"):
            assert torch.equal(getattr(result, name), getattr(expected, name))
    # One blank frame, the reset, and each step; what an episode ended in, beside.
    assert calls == [1, 2, 2, 2, 2, 2]


def test_what_no_encoder_can_see_is_refused():
    with pytest.raises(ValueError, match="expected Pixels"):
        EmbeddedObservations(dark_room_tasks(3), lambda frames: frames.float())
    with pytest.raises(ValueError, match=r"got embeddings of shape \(1, 12, 12, 3\)"):
        EmbeddedObservations(PixelRoomTasks(torch.tensor([0])), lambda frames: frames.float())


def test_observations_are_numbered_without_collisions():
    obs = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    assert flat_observation(obs, (3, 4)).tolist() == list(range(12))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell_rewards": torch.zeros(1, 16)}, "got 16 cells"),
        ({"cell_rewards": torch.zeros(1, 9), "episode_length": 0}, "episode_length=0"),
        (
            {"cell_rewards": torch.zeros(1, 9), "solid": torch.ones(1, 9, dtype=torch.bool)},
            "free centre",
        ),
    ],
)
def test_bad_tables_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridTasks(**arguments)


@pytest.mark.parametrize("cell", [24, 49, -1])
def test_targets_that_cannot_be_are_refused(cell):
    with pytest.raises(ValueError, match="without the start, 24"):
        hidden_object_tasks(1, torch.Generator(), target_cells=[0, cell])


@pytest.mark.parametrize(("sizes", "actions"), [((), 5), ((0, 3), 5), ((3,), 1)])
def test_bad_spaces_are_refused(sizes, actions):
    with pytest.raises(ValueError, match="expected"):
        TaskSpace.symbolic(sizes, actions)
