from dataclasses import replace

import pytest
import torch

from algdistill.sources import ActorCritic, ActorCriticConfig
from algdistill.tasks import BatchedTasks
from trend_online import OnlineDomain, evaluate, watch_rewards
from trend_tasks import (
    ROOMS,
    launcher_tasks,
    observe_phone,
    observe_room,
    playroom_tasks,
)
from vlmreward import Goal, RewardModel, Scores
from vlmreward_envs.launcher import ALL_GOALS, APP_NAMES, LauncherConfig, LauncherPhones
from vlmreward_envs.playroom import PlayroomRooms
from vlmreward_envs.playroom.language import OBJECT_NAMES

LIFT = ["the person is holding the red ball", "the person is holding the blue cup"]


class PaysFor(RewardModel):
    """A reward model that pays where the frame's task is about a goal of its own."""

    def __init__(self, paid_goal: int) -> None:
        self.paid_goal = paid_goal
        self.frames: list[torch.Tensor] = []

    def score(self, obs: torch.Tensor, goal_index: torch.Tensor) -> Scores:
        self.frames.append(obs)
        paid = (goal_index == self.paid_goal).float()
        return Scores(paid, paid, torch.zeros(len(obs), 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: playroom_tasks(8, LIFT, 0, **options),
        lambda **options: launcher_tasks(8, list(ALL_GOALS[:2]), 0, **options),
    ],
)
def test_they_are_tasks_paid_for_their_own_goal(make) -> None:
    reward_model = PaysFor(1)
    tasks = make(reward_model=reward_model)
    assert isinstance(tasks, BatchedTasks)
    obs = tasks.reset()
    assert obs.shape == (8, *tasks.observation_shape)
    goal = tasks.goal_index.clone()
    assert set(goal.tolist()) == {0, 1}
    result = tasks.step(torch.zeros(8, dtype=torch.int64))
    assert torch.equal(result.reward, (goal == 1).float())
    assert torch.equal(result.terminated, goal == 1)
    assert reward_model.frames[0].shape == (8, 96, 96, 3)
    assert not torch.equal(result.obs, result.next_obs)
    stays = make(reward_model=PaysFor(1), ends_when_paid=False)
    stays.reset()
    assert not stays.step(torch.zeros(8, dtype=torch.int64)).terminated.any()
    truth = make()
    truth.reset()
    result = truth.step(torch.zeros(8, dtype=torch.int64))
    assert torch.equal(result.reward, result.env_reward)


def test_a_room_is_observed_by_what_it_has_in_common_with_the_goal() -> None:
    rooms = PlayroomRooms(1, LIFT[0], config=ROOMS)
    kinds = [OBJECT_NAMES.index(name) for name in ("blue ball", "red ball", "red cup")]
    rooms.state = replace(
        rooms.state,
        position=torch.tensor([[3, 3]]),
        object_cell=torch.tensor([[[6, 6], [3, 2], [3, 3]]]),
        object_kind=torch.tensor([kinds]),
        held=torch.tensor([2]),
    )
    (seen,) = observe_room(rooms)
    # In the order of cells: red ball (3, 2), red cup in hand (3, 3), blue ball (6, 6).
    ball, cup, blue = seen[:27].view(3, 9).tolist()
    assert ball == pytest.approx([0, -1 / 6, 0, -1, 1, 1, 1, 1, 0])
    assert cup == pytest.approx([0, 0, 0, 0, 0, 1, 0, 0, 1])
    assert blue == pytest.approx([0.5, 0.5, 1, 1, 0, 0, 1, 0, 0])
    assert seen[27:].tolist() == [0, 0]
    # The number of an object tells nothing.
    order = torch.tensor([1, 0, 2])
    rooms.state = replace(
        rooms.state,
        object_cell=rooms.state.object_cell[:, order],
        object_kind=rooms.state.object_kind[:, order],
    )
    assert torch.equal(observe_room(rooms)[0], seen)


def test_a_phone_is_observed_by_what_its_icons_have_in_common_with_the_goal() -> None:
    phones = LauncherPhones(1, "the Mail app is open", config=LauncherConfig())
    places = torch.full((1, 18), -1)
    places[0, 2], places[0, 4] = APP_NAMES.index("Mail"), 60
    phones.state = replace(phones.state, places=places)
    (seen,) = observe_phone(phones)
    icons = seen[:36].view(9, 4)
    assert icons[2].tolist() == [1, 1, 1, 1]
    assert icons.sum() == 4
    assert seen[36:45].nonzero()[:, 0].tolist() == [4]
    assert seen[45:].tolist() == [0, 0, 0, 0, 1, 0, 0, 1, 0]
    phones.state = replace(phones.state, app=torch.tensor([5]), popup=torch.tensor([3]))
    assert observe_phone(phones)[0, 45:].tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 0]


def test_an_agent_learns_from_the_ground_truth() -> None:
    tasks = playroom_tasks(32, LIFT, 0)
    config = ActorCriticConfig(
        num_episodes=40,
        num_actors=32,
        hidden_size=64,
        rollout_length=16,
        num_epochs=6,
        num_minibatches=4,
        learning_rate=1e-3,
        discount=0.95,
    )
    paid = torch.stack([r.reward for _, _, r in ActorCritic(tasks, config, tasks.task_ids).steps()])
    tenth = len(paid) // 10
    assert paid[-tenth:].mean() > 4 * paid[:tenth].mean()


def test_what_is_paid_wrongly_is_kept() -> None:
    """A reward model that pays the first of two held-out goals always."""
    goals = tuple(Goal(sentence) for sentence in LIFT)
    domain = OnlineDomain(playroom_tasks, goals, goals)
    tasks = playroom_tasks(8, LIFT, 0)
    config = ActorCriticConfig(num_episodes=1, num_actors=8, hidden_size=16)
    learner = ActorCritic(tasks, config, tasks.task_ids)
    found = watch_rewards(domain, learner, 32, PaysFor(0))
    about_first = float((playroom_tasks(32, LIFT, 5_000_000).goal_index == 0).float().mean())
    assert found["test_paid"] == pytest.approx(about_first)
    assert found["test_paid_wrongly"] == pytest.approx(about_first)  # nothing is lifted at once
    assert 0 <= found["test_reached"] < 0.6
    assert found["wrong_frames"].shape == (6, 96, 96, 3)
    assert found["wrong_goals"].tolist() == [0] * 6
    assert evaluate(domain, learner, goals, 32) == pytest.approx(found["test_reached"])
