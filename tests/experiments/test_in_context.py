"""The common experiment of learning in context, end to end in Dark Room and in bandits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ablations
import adversarial_bandit
import dark_room
import dark_room_hard
import in_context_learning
import in_context_overview
import key_to_door
import prompting
import watermaze
from algdistill.agents import RandomAgent
from algdistill.models import load_model
from algdistill.sources import TabularQLearning
from algdistill.spaces import Embedding
from algdistill.tasks import TaskSpace
from in_context_learning import Options, run_experiment
from in_context_summary import Results, blocks, summarise
from in_context_task import Method, Split, split_at_random
from run_folder import RunFolder
from vlmreward_envs.watermaze.first_person import draw_views
from watermaze_encoder import place_cells, place_encoder, random_states, train_place_encoder

TASKS = {
    task.name: task
    for task in (dark_room.TASK, dark_room_hard.TASK, key_to_door.TASK, watermaze.TASK)
}

RESULTS = Path(dark_room.__file__).parent / "results"


def test_an_experiment_ends_with_a_report_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Options(preset="debug", seeds=(0, 1), methods=("ad",))
    run = run_experiment(dark_room.TASK, options)
    assert "AD of Q-learning" in (run / "report.html").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary["in_context"]["returns"]) == 6
    assert len(summary["source"]["returns"]) == dark_room.Q_LEARNING.num_episodes
    assert summary["seeds"] == [0, 1]
    assert set(summary["methods"]) == {"ad"}

    stages = {file: file.stat().st_mtime_ns for file in run.rglob("*.npz")}
    assert {str(file.relative_to(run).with_suffix("")) for file in stages} == {"random"} | {
        f"ad/{stage}_{seed}" for stage in ("histories", "distil", "returns") for seed in (0, 1)
    } | {"ad/source"}
    assert set(summary["seconds"]) == {
        str(file.relative_to(run).with_suffix("")) for file in stages
    }
    run_experiment(dark_room.TASK, options)
    assert {file: file.stat().st_mtime_ns for file in stages} == stages

    # Another method joins what is there; each is reported with the seeds that it has.
    run_experiment(dark_room.TASK, replace(options, seeds=(2,), methods=("search",)))
    found = json.loads((run / "summary.json").read_text())["methods"]
    assert {name: method["seeds"] for name, method in found.items()} == {
        "search": [2], "ad": [0, 1],
    }  # fmt: skip
    assert found["ad"] == summary["methods"]["ad"]


def test_an_unknown_method_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"methods \['dqn'\], expected some of \['search', 'ad'"):
        run_experiment(dark_room.TASK, Options(methods=("dqn",)))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_task_is_both_trained_on_and_reported(task):
    parts = [set(getattr(task.split, part).tolist()) for part in ("train", "validation", "test")]
    assert all(parts)
    assert not (parts[0] & parts[1])
    assert not (parts[0] & parts[2])
    assert not (parts[1] & parts[2])


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_learners_and_evaluations_have_streams_of_their_own(task):
    method = next(iter(task.methods.values()))
    seeds = [task.training_tasks(method, seed)[1] for seed in (0, 1)]
    assert len(torch.cat(seeds).unique()) == 2 * len(seeds[0])
    tasks = task.test_tasks(task.split.test, 3)
    assert tasks.task_ids.tolist() == task.split.test.repeat_interleave(3).tolist()


def test_a_task_id_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        Split(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([1]))
    split = split_at_random(81, 6, 10)
    assert [len(split.train), len(split.validation), len(split.test)] == [65, 6, 10]


def test_a_method_keeps_the_episodes_it_names():
    source, config = TabularQLearning, dark_room.Q_LEARNING
    tasks, seeds = dark_room.make_tasks(torch.tensor([3]), torch.tensor([0])), torch.tensor([5])
    (whole,) = source(tasks, config, seeds).train()

    def kept(**which):
        method = Method("", source, config, 1, dark_room.TRAINING, **which)
        return method.histories(tasks, seeds)[0]

    last = kept(last_episodes=10)
    np.testing.assert_array_equal(last.actions, whole.actions[-200:])
    np.testing.assert_array_equal(last.episode_returns, whole.episode_returns[-10:])
    every = kept(keep_every=4)
    np.testing.assert_array_equal(every.episode_returns, whole.episode_returns[::4])


def test_a_summary_says_what_the_returns_say(tmp_path):
    episodes = np.arange(1.0, 101.0)
    rising = np.stack([episodes, episodes])[:, :] / 10
    task = replace(dark_room.TASK, methods={"ad": dark_room.TASK.methods["ad"]})
    arrays = {"test": rising, "train": rising + 1, "greedy": rising * 0}
    results = Results(
        task,
        {("ad", 0): arrays, ("ad", 1): arrays},
        sources={"ad": {"test": rising[:, :60] / 2, "optimum": np.array([8.0, 12.0])}},
        random={"test": np.zeros((2, 100))},
    )
    folders = {"ad": RunFolder(tmp_path / "ad", task.settings_of("ad"))}
    summary = summarise(RunFolder(tmp_path, task.settings("full")), folders, results)
    found = summary["methods"]["ad"]
    assert summary["optimum"] == 10.0
    assert found["episodes_41_50"]["value"] == pytest.approx(4.55)
    assert found["episodes_91_100"]["value"] == pytest.approx(9.55)
    assert found["of_seeds"]["episodes_91_100"] == pytest.approx([9.55, 9.55])
    assert found["greedy"]["episodes_91_100"] == 0.0
    assert found["last_over_first"]["value"] == pytest.approx(9.55 / 0.3, abs=1e-4)
    assert found["train_test_gap"] == pytest.approx(1.0)
    assert found["area_under_curve"]["value"] == pytest.approx(0.505)
    # Eight is the mean of episodes 79 to 81.
    assert found["episodes_to_80_percent_of_optimum"]["value"] == 81
    assert found["source"]["episodes_to_80_percent_of_optimum"]["value"] == 61
    assert summary["in_context"]["returns"] == pytest.approx((episodes / 10).tolist())


def test_blocks_of_episodes():
    assert list(blocks(100).values()) == [(1, 5), (41, 50), (91, 100)]
    assert list(blocks(6).values()) == [(1, 1), (3, 3), (6, 6)]


def test_regret_by_hand():
    bandits = adversarial_bandit.make_tasks(torch.arange(2), torch.arange(2))
    pays = bandits.arm_probabilities
    actions = torch.stack([pays.argmax(dim=1), pays.argmin(dim=1)], dim=1)
    regret = adversarial_bandit.regret_of(bandits, actions)
    np.testing.assert_array_equal(regret[:, 0], 0.0)
    np.testing.assert_allclose(regret[:, 1], pays.amax(dim=1) - pays.amin(dim=1))


def test_random_pulls_have_the_regret_of_the_mean_arm():
    bandits = adversarial_bandit.make_tasks(torch.arange(500), torch.arange(500), "test")
    pays = bandits.arm_probabilities
    regret = adversarial_bandit.play(RandomAgent(TaskSpace.of(bandits)), bandits, seed=0)
    expected = (pays.amax(dim=1) - pays.mean(dim=1)).mean().item()
    assert regret.shape == (500, 100)
    assert regret.mean() == pytest.approx(expected, abs=0.01)


def test_the_bandit_experiment_ends_with_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = adversarial_bandit.run(Options(preset="debug", seeds=(0,), methods=("ad",)))
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["regret"]) == {"test", "train"}
    assert set(summary["regret"]["test"]) == {
        "UCB1", "Thompson sampling", "random actions", "AD of UCB1", "AD of UCB1, greedy",
    }  # fmt: skip
    assert "UCB1" in (run / "report.html").read_text()
    pays = summary["in_context"]["returns"]
    regret = summary["regret"]["test"]["AD of UCB1"]["value"]
    assert len(pays) == 100
    assert sum(pays) == pytest.approx(100 * summary["optimum"] - regret, abs=0.02)
    assert summary["no_adaptation"] == pytest.approx(0.5409, abs=1e-4)
    assert summary["source"]["returns"][0] < summary["source"]["returns"][-1]


def test_prompts_are_whole_episodes_on_the_way():
    assert [prompting.prompt_end(progress, 60, 4) for progress in (0.05, 0.5, 0.95, 1.0)] == [
        4, 30, 57, 60,
    ]  # fmt: skip


def test_prompting_a_finished_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prompting, "NUM_EPISODES", 10)
    with pytest.raises(SystemExit, match="no finished models"):
        prompting.main(prompting.Options())
    options = Options(preset="debug", seeds=(0,), methods=("ad",), summarise=False)
    run_experiment(dark_room.TASK, options)
    folder = prompting.main(prompting.Options(repeats=1))
    found = json.loads((folder / "summary.json").read_text())["methods"]
    assert set(found) == {"ad"}
    prompts = [found["ad"][f"{progress:.2f}"]["prompt"] for progress in prompting.PROGRESS]
    assert prompts[0] < prompts[-1]  # sources learn
    assert (folder / "prompting.png").read_bytes()[:4] == b"\x89PNG"


def test_ablations_change_one_thing_and_train_the_common_point_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = {name: (*ablations.AXES[name][:2], values) for name, values in (
        ("context_length", (40, 80)), ("token_mask", (0.3,)),
    )}  # fmt: skip
    monkeypatch.setattr(ablations, "AXES", short)
    folder = ablations.main(ablations.AblationOptions(tuple(short), preset="debug"))
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "common", "context_length_40",
    }  # fmt: skip
    found = json.loads((folder / "summary.json").read_text())["axes"]
    assert found["context_length"]["80"] == found["token_mask"]["0.3"]
    assert set(found["context_length"]) == {"40", "80"}
    assert (folder / "ablations.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("axis", ablations.COMMON)
def test_the_common_point_of_an_axis_is_that_of_all(axis):
    _, variant, values = ablations.AXES[axis]
    assert ablations.COMMON[axis] in values
    same, other = variant(ablations.COMMON[axis]), ablations.AXES["token_mask"][1](0.3)
    assert same.model == other.model
    assert same.methods["search"].training == other.methods["search"].training
    counts = [task.methods["search"].histories_per_task for task in (same, other)]
    assert counts[0] == counts[1]
    assert same.split.train.tolist() == other.split.train.tolist()


def test_an_unknown_axis_is_refused():
    with pytest.raises(ValueError, match=r"axes \['colour'\]"):
        ablations.main(ablations.AblationOptions(("colour",)))


def test_the_overview_draws_what_there_is():
    curve = {"returns": [0.0, 1.0, 2.0], "low": [0.0, 0.5, 1.0], "high": [1.0, 2.0, 3.0]}
    summary = {
        "methods": {"ad": {"title": "AD", "curve": curve}},
        "source": curve,
        "optimum": 4.0,
        "no_adaptation": 0.5,
    }
    picture = in_context_overview.curves_by_environment({"One": summary, "Two": summary})
    assert picture[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="no results"):
        in_context_overview.curves_by_environment({})


@pytest.mark.parametrize("name", [name for name in TASKS if (RESULTS / f"{name}.json").exists()])
def test_committed_results_say_how_they_were_made(name):
    task, found = TASKS[name], json.loads((RESULTS / f"{name}.json").read_text())
    assert found["command"].startswith(f"python experiments/{name}.py")
    assert found["versions"]["torch"]
    assert sum(found["seconds"].values()) > 60
    assert len(found["in_context"]["returns"]) == task.num_episodes
    assert found["no_adaptation"] == task.no_adaptation
    assert found["tasks"]["test"] == len(task.split.test)
    for method in found["methods"].values():
        assert all(len(of_seed) == len(method["seeds"]) for of_seed in method["of_seeds"].values())
        interval = method["area_under_curve"]
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_committed_regret_is_what_the_pulls_say():
    found = json.loads((RESULTS / "adversarial_bandit.json").read_text())
    assert found["seeds"] == [0, 1, 2]
    for name, curve in (("AD of UCB1", found["in_context"]), ("UCB1", found["source"])):
        assert len(curve["returns"]) == 100
        lost = 100 * found["optimum"] - sum(curve["returns"])
        assert lost == pytest.approx(found["regret"]["test"][name]["value"], abs=0.05)


def test_an_encoder_learns_where_it_is_and_tells_it_from_a_frame_alone():
    found = train_place_encoder(300)
    assert found["position_error"] < 1.0  # who always says the middle is 3.2 m off
    assert found["heading_accuracy"] > 0.4  # of sixteen
    encoder = place_encoder(found)
    frames = draw_views(*random_states(70, torch.Generator().manual_seed(2)))
    embedded = encoder.embed(frames)
    assert embedded.shape == (70, len(place_cells()) + 16)
    torch.testing.assert_close(embedded.sum(dim=1), torch.full((70,), 2.0))
    assert torch.allclose(embedded[65:], encoder.embed(frames[65:]), atol=1e-5)


def test_watermaze_ends_with_a_report_from_embeddings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(in_context_learning, "_VALIDATION_EPISODES", 2)
    options = watermaze.WatermazeOptions(preset="debug", seeds=(0,), methods=("search",))
    run = watermaze.main(options)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["optimum"] == 1.0
    assert summary["source"]["returns"][0] < summary["source"]["returns"][-1]
    assert "AD of a search" in (run / "report.html").read_text()
    model = load_model(run / "search" / "distil_0" / "best.safetensors")
    assert model.config.space.observations == Embedding(len(place_cells()) + 16)
