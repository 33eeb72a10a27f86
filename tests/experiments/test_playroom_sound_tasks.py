from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from algdistill.sources import ActorCritic
from algdistill.tasks import BatchedTasks
from playroom_sound_sensors import rates, watch_with_cuts
from playroom_sound_tasks import SOUND_ROOM_STEPS, Sensor, sound_tasks
from trend_online import NUM_TASKS, act, learner_config
from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
from vlmreward.backbone import BackboneConfig, MultimodalBackbone, MultimodalEncoder, tokenizer_of

GOALS = ["there are footsteps", "the person is holding the red ball"]


def episode_rewards() -> RewardModel:
    config = BackboneConfig()
    backbone = MultimodalBackbone(config, torch.Generator().manual_seed(0))
    encoder = MultimodalEncoder(backbone, tokenizer_of(config), name="untrained")
    return RewardModel(encoder, [Goal(goal) for goal in GOALS], CosineHead())


def test_rewards_are_those_of_each_episode_so_far() -> None:
    """By hand: the memory of each room, begun anew with each of its episodes."""
    reward_model = episode_rewards()
    tasks, by_hand = (sound_tasks(3, GOALS, 0, model) for model in (reward_model, None))
    assert isinstance(tasks, BatchedTasks)
    assert torch.equal(tasks.reset(), by_hand.reset())
    encoder = reward_model.encoder
    rows = torch.arange(3).numpy()
    memory = encoder.new_memory(3)

    def sense() -> torch.Tensor:
        rooms = by_hand._rooms
        return encoder.encode_step({"pixels": rooms.render(), "audio": rooms.listen()})

    memory.push(rows, sense())
    generator = torch.Generator().manual_seed(0)
    for step in range(1, SOUND_ROOM_STEPS + 5):
        goals = by_hand._rooms.goal_index.clone()
        actions = torch.randint(0, 7, (3,), generator=generator)
        if step == SOUND_ROOM_STEPS:  # the last step is heard before the room is drawn anew
            rooms = by_hand._rooms
            led_to = rooms.step(actions)
            embedding = memory.push(rows, sense())
            assert led_to.truncated.all()
            rooms.reset(mask=led_to.truncated)
            memory.clear(rows)
            memory.push(rows, sense())
        else:
            by_hand.step(actions)
            embedding = memory.push(rows, sense())
        result = tasks.step(actions)
        expected = reward_model.score_embeddings(embedding, goals).reward
        assert torch.allclose(result.reward, expected, atol=1e-5)
        assert bool(result.truncated.all()) == (step == SOUND_ROOM_STEPS)
        assert not result.terminated.any()


@pytest.mark.parametrize(("fails", "lost"), [("microphone", "audio"), ("camera", "pixels")])
def test_a_sensor_fails_halfway_through_every_episode(
    fails: Sensor, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[set[str]] = []
    reward_model = episode_rewards()
    encode_step = reward_model.encoder.encode_step

    def watched(obs: Mapping[str, Any]) -> torch.Tensor:
        given.append(set(obs))
        return encode_step(obs)

    monkeypatch.setattr(reward_model.encoder, "encode_step", watched)
    tasks = sound_tasks(2, GOALS, 0, reward_model, fails)
    tasks.reset()
    for _ in range(2 * SOUND_ROOM_STEPS):
        tasks.step(torch.zeros(2, dtype=torch.int64))
    half, both = SOUND_ROOM_STEPS // 2, {"pixels", "audio"}
    assert given == 2 * ([both] + half * [both] + half * [both - {lost}]) + [both]


def test_what_is_paid_is_counted_where_sensors_have_failed() -> None:
    """The ground truth pays here, so that all is right; no sensor of it can fail."""
    tasks = sound_tasks(NUM_TASKS, GOALS, 0)
    learner = ActorCritic(tasks, learner_config(64, SOUND_ROOM_STEPS), tasks.task_ids)
    found = watch_with_cuts(learner, lambda fails: sound_tasks(4, GOALS, 0, None, fails))
    assert set(found) == {"cut_none", "cut_microphone", "cut_camera"}
    true = sum(
        int((result.env_reward > 0).sum())
        for result in list(act(learner, sound_tasks(4, GOALS, 0)))[SOUND_ROOM_STEPS // 2 :]
    )
    assert true > 0
    for counts in found.values():
        assert counts.tolist() == [true, 0, true, 4 * SOUND_ROOM_STEPS // 2]


def test_rates_are_of_all_agents_together() -> None:
    counts = [np.array([3, 1, 4, 10]), np.array([1, 0, 4, 5])]
    assert rates(counts) == {"recall": 4 / 8, "false_positives": 1 / 7}
    assert rates([np.array([0, 2, 0, 4])]) == {"recall": None, "false_positives": 0.5}


def test_encoders_of_frames_and_the_ground_truth_pay_too() -> None:
    of_frames = RewardModel(FakeEncoder(), [Goal(goal) for goal in GOALS], CosineHead())
    tasks, truth = sound_tasks(16, GOALS, 1, of_frames), sound_tasks(16, GOALS, 1)
    for tasks_of in (tasks, truth):
        tasks_of.reset()
    walks = torch.tensor([1, 2, 3, 4]).repeat(4)
    paid, true = tasks.step(walks), truth.step(walks)
    assert torch.equal(true.reward, true.env_reward)
    assert torch.equal(paid.env_reward, true.env_reward)
    assert not torch.equal(paid.reward, true.reward)
    assert true.reward.sum() > 0  # somebody whose goal is footsteps has walked


def test_the_goal_is_observed_and_objects_are_told_by_what_it_names() -> None:
    tasks = sound_tasks(16, GOALS, 2)
    obs = tasks.reset()
    goals = tasks.goal_index
    assert torch.equal(obs[:, -2:].argmax(dim=1), goals)
    looks = obs[:, :27].unflatten(1, (3, 9))[..., 5:8]
    assert not looks[goals == 0].any()
    assert looks[goals == 1].any(dim=1)[:, 2].all()  # the red ball is in the room
