"""The common experiment of language tasks, end to end on CartPole, and what every task must be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import babyai
import cartpole
import humanoid
import language_rewards
import mountain_car
from in_domain_encoder import DrawnOnce
from language_rewards import Options, Sizes, run_experiment
from language_summary import choose_head
from language_task import LabelledFrames
from reward_agents import make_envs
from vlmreward import CosineHead, FakeEncoder, RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.heads import GoalBaselineHead
from vlmreward.pretraining import CaptionedFrames

TASKS = {task.name: task for task in (cartpole.TASK, mountain_car.TASK, babyai.TASK)}
TINY = Sizes(
    encoder_steps=1,
    encoder_frames=32,
    labelled_frames=64,
    agent_steps=400,
    agent_seeds=1,
    evaluation_episodes=2,
)


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


def test_an_experiment_ends_with_a_report_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(language_rewards, "DEBUG", TINY)
    task = replace(cartpole.TASK, num_envs=2)
    options = Options(preset="debug", algorithms=("a2c",))
    report = run_experiment(task, options, cartpole.FULL)
    assert "pole vertically upright" in report.read_text()
    summary = json.loads((report.parent / "summary.json").read_text())
    assert set(summary["agents"]["a2c"]) == {"vlm", "env"}
    assert len(summary["agents"]["a2c"]["vlm"]["of_seeds"]) == 1
    assert 0 <= summary["agents"]["random"] <= cartpole.EPISODE_STEPS
    assert summary["head"]["kind"] in ("cosine", "goal_baseline")

    stages = {file: file.stat().st_mtime_ns for file in report.parent.glob("*.npz")}
    assert {file.stem for file in stages} == {
        "encoder", "offline", "agent_a2c_vlm_0", "agent_a2c_env_0", "random",
    }  # fmt: skip
    run_experiment(task, options, cartpole.FULL)
    assert {file: file.stat().st_mtime_ns for file in stages} == stages


def test_an_unknown_algorithm_is_refused_by_name():
    with pytest.raises(ValueError, match=r"\['trpo'\].*\['dqn', 'a2c'\]"):
        run_experiment(cartpole.TASK, Options(algorithms=("trpo",)), cartpole.FULL)


def test_captions_are_a_function_of_the_generator_and_never_both_true_and_false(task):
    drawn = [task.captions(48, np.random.default_rng(3)) for _ in range(2)]
    assert torch.equal(drawn[0].frames, drawn[1].frames)
    assert drawn[0].captions == drawn[1].captions
    assert len({frame.numpy().tobytes() for frame in drawn[0].frames}) > 20
    for true, wrong in zip(drawn[0].captions, drawn[0].near_misses, strict=True):
        assert not set(true) & {text for texts in wrong for text in texts}


def test_the_goals_sentence_is_a_caption_of_frames_that_are_labelled_a_success(task):
    # CartPole's sentence says "vertically", which is narrower than what CartPole pays for.
    drawn = task.captions(256, np.random.default_rng(4))
    labels = task.labelled(256, np.random.default_rng(4))
    assert 0 < labels.success.mean() < 1
    said = {text for true in drawn.captions for text in true}
    assert any(goal.prompts[0] in said for goal in task.goals)
    assert np.array_equal(labels.env_reward, labels.success)


def test_mountain_car_and_its_sentence_agree_frame_by_frame():
    drawn = mountain_car.captions(128, np.random.default_rng(5))
    labels = mountain_car.labelled(128, np.random.default_rng(5))
    assert np.array_equal(drawn.frames.numpy(), labels.frames)
    said = [mountain_car.GOAL.prompts[0] in true for true in drawn.captions]
    assert said == labels.success.tolist()


def test_a_cartpole_that_fell_goes_on_without_pay():
    env = cartpole.make_env()
    env.reset(seed=0)
    rewards = []
    for step in range(cartpole.EPISODE_STEPS):
        _, reward, terminated, truncated, _ = env.step(1)
        rewards.append(reward)
        assert not terminated
        assert truncated == (step == cartpole.EPISODE_STEPS - 1)
    assert rewards[:5] == [1.0] * 5
    assert rewards[-1] == 0.0


@pytest.mark.parametrize("ends", [False, True])
def test_babyai_pays_while_the_agent_faces_its_object_and_ends_if_asked(ends):
    env = babyai.make_env(ends)
    rng = np.random.default_rng(0)
    rewards = []
    for seed in range(20):
        _, info = env.reset(seed=seed)
        wanted = info["mission"].removeprefix("go to ").split(" ", 1)[1]
        for _ in range(babyai.EPISODE_STEPS):
            _, reward, terminated, truncated, _ = env.step(int(rng.integers(3)))
            rewards.append(reward)
            assert reward == float(babyai.faced(env.unwrapped) == wanted)
            assert terminated == (ends and reward == 1.0)
            if terminated or truncated:
                break
    assert 0.0 < np.mean(rewards) < 1.0


def test_a_binary_task_told_its_goal_by_the_environment_is_scored_for_that_goal():
    task = replace(babyai.TASK, num_envs=3)
    reward_model = RewardModel(
        FakeEncoder(), task.goals, ThresholdHead(SoftmaxHead(temperature=0.1), threshold=0.5)
    )
    envs = make_envs(task, reward_model, seed=0, ends_by="vlm")
    envs.reset()
    missions = [info["mission"] for info in envs.reset_infos]
    told = [task.goals[index].prompts for index in envs.goal_index]
    assert all(mission in prompts for mission, prompts in zip(missions, told, strict=True))
    envs.close()


def test_the_head_is_chosen_on_calibration_frames_alone():
    truth = np.array([0.0, 0.0, 1.0, 1.0] * 50)
    heads = {"cosine": CosineHead(), "goal_baseline_1.0": GoalBaselineHead(1.0)}
    offline = {
        "calibration_env_reward": truth,
        "calibration_score_cosine": -truth,
        "calibration_score_goal_baseline_1.0": truth,
        "test_score_cosine": truth,
        "test_score_goal_baseline_1.0": -truth,
    }
    assert choose_head(heads, offline, binary=False) == GoalBaselineHead(1.0)

    rng = np.random.default_rng(0)
    scores = rng.random(2000)
    offline = {
        "calibration_success": np.arange(2000) % 2 == 0,
        "calibration_score_softmax": scores,
    }
    head = choose_head({"softmax": SoftmaxHead(0.1)}, offline, binary=True)
    assert isinstance(head, ThresholdHead)
    assert np.mean(scores[1::2] > head.threshold) <= 0.005


def test_frames_drawn_once_give_the_batch_that_the_generator_says():
    calls = []

    def source(num_frames, rng):
        calls.append(num_frames)
        values = rng.integers(256, size=num_frames, dtype=np.uint8)
        frames = torch.from_numpy(values)[:, None, None, None].expand(-1, 2, 2, 3)
        return CaptionedFrames(frames, [[f"grey {v}"] for v in values], [[[]] for _ in values])

    drawn = DrawnOnce(source, 300)
    first = drawn(40, np.random.default_rng(1))
    second = drawn(40, np.random.default_rng(1))
    assert calls == [256, 44]  # once
    assert torch.equal(first.frames, second.frames)
    for frame, (text,) in zip(first.frames, first.captions, strict=True):
        assert text == f"grey {int(frame[0, 0, 0])}"


def test_labelled_frames_of_different_lengths_are_refused():
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match="one row of each"):
        LabelledFrames(frames, np.zeros(3, int), np.zeros(2), np.zeros(3, bool))


def test_the_humanoid_is_named_by_the_height_of_its_torso():
    assert humanoid._PROMPTS[humanoid._posture(1.4)] == humanoid.GOAL.prompts[0]
    assert humanoid._PROMPTS[humanoid._posture(0.99)] == "a humanoid robot falling over"
    assert humanoid._PROMPTS[humanoid._posture(0.05)] == "a humanoid robot lying on the ground"


@pytest.mark.parametrize(
    "name", ["cartpole", "mountain_car", "humanoid", "dm_control_reacher", "babyai"]
)
def test_committed_results_say_how_they_were_made_and_the_truth_beside_them(name):
    results = Path(language_rewards.__file__).parent / "results"
    found = json.loads((results / f"{name}.json").read_text())
    assert found["command"] == f"python experiments/{name}.py"
    assert found["versions"]["torch"]
    assert "cores" in found["machine"]
    assert sum(found["seconds"].values()) > 60
    assert np.isfinite(found["agents"]["random"])
    for algorithm in found["settings"]["algorithms"]:
        for paid_by in ("vlm", "env"):
            agent = found["agents"][algorithm][paid_by]
            assert len(agent["of_seeds"]) == found["settings"]["sizes"]["agent_seeds"]
            interval = agent["interquartile_mean"]
            assert interval["low"] <= interval["value"] <= interval["high"]
