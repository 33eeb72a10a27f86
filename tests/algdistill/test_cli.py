"""The four commands, from a shell's point of view, and what they say of bad input."""

import configparser
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from algdistill import cli
from algdistill.cli import collecting
from algdistill.cli.named_tasks import NamedTasks, parse_ids, random_streams
from algdistill.histories import HistoryStore
from algdistill.models import ADTransformerConfig, load_model
from algdistill.sources import TabularQLearning, TabularQLearningConfig
from vlmreward_envs.dark_room import DarkRoomTasks
from vlmreward_envs.key_to_door import DarkKeyToDoorTasks

ROOMS = "vlmreward_envs.dark_room:DarkRoomTasks"
SOURCE = ("q-learning", "--num-episodes", 4, "--initial-value", 1, "--exploration-episodes", 0)
SMALL = (
    "--context-length", 40, "--num-updates", 4, "--batch-size", 4, "--evaluate-every", 2,
    "--log-every", 2, "--num-layers", 1, "--embed-dim", 16, "--num-heads", 2,
    "--validation-episodes", 2, "--validation-repeats", 2,
)  # fmt: skip


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["algdistill", *map(str, arguments)])
        cli.main()


def collect(store, task_ids="0:6", *options, tasks=ROOMS, source=SOURCE):
    run(
        "collect", store, "--tasks", tasks, "--task-ids", task_ids,
        "--histories-per-task", 2, *options, *source,
    )  # fmt: skip


def train(store, folder, task_ids="70:72", *options, tasks=ROOMS):
    run("train", store, folder, "--tasks", tasks, "--task-ids", task_ids, *SMALL, *options)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "store"
    collect(path)
    return path


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    train(store, folder)
    return folder


def test_collected_histories_are_those_of_the_source(store):
    histories = HistoryStore.open(store).read()
    assert [history.task_id for history in histories] == [*range(6), *range(6)]
    streams = random_streams(0, collecting.COLLECTING, 12, "cpu")
    config = TabularQLearningConfig(num_episodes=4, initial_value=1.0, exploration_episodes=0)
    fleet = TabularQLearning(DarkRoomTasks(torch.arange(6).repeat(2)), config, streams)
    for found, expected in zip(histories, fleet.train(), strict=True):
        assert np.array_equal(found.actions, expected.actions)
        assert np.array_equal(found.rewards, expected.rewards)
    assert not np.array_equal(histories[0].actions, histories[6].actions)
    metadata = histories[0].metadata
    assert metadata["source_algorithm"] == "tabular_q_learning"
    assert (metadata["tasks"], metadata["task_ids"], metadata["seed"]) == (ROOMS, "0:6", 0)


def test_a_killed_collection_goes_on_where_it_was(store, tmp_path, monkeypatch):
    class Killed(TabularQLearning):
        num_trained = 0

        def train(self):
            Killed.num_trained += 1
            if Killed.num_trained == 3:
                raise KeyboardInterrupt
            return super().train()

    monkeypatch.setitem(collecting._SOURCES, TabularQLearningConfig, Killed)
    again = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        collect(again, "0:6", "--learners-at-once", 5)
    assert len(HistoryStore.open(again)) == 10
    collect(again, "0:6", "--learners-at-once", 5)
    for found, expected in zip(
        HistoryStore.open(again).read(), HistoryStore.open(store).read(), strict=True
    ):
        assert found.task_id == expected.task_id
        assert np.array_equal(found.actions, expected.actions)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (("noisy-oracle", "--num-episodes", 2), "noisy_oracle"),
        (("goal-search", "--num-episodes", 2), "goal_search"),
        (("actor-critic", "--num-episodes", 1, "--num-actors", 2), "actor_critic"),
        (("deep-q-learning", "--num-episodes", 3), "deep_q_learning"),
    ],
)
def test_other_sources_are_named(tmp_path, source, name):
    collect(tmp_path / "store", "3,5", source=source)
    histories = HistoryStore.open(tmp_path / "store").read()
    assert histories[0].metadata["source_algorithm"] == name
    # Both tasks of an actor-critic are the same room.
    together = [3, 3, 5, 5] if name == "actor_critic" else [3, 5, 3, 5]
    assert [history.task_id for history in histories] == together


@pytest.mark.parametrize("source", ["ucb1", "thompson-sampling"])
def test_bandits_are_made_by_a_function_of_the_present_folder(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / f"bandits_for_{source.replace('-', '_')}.py").write_text(
        "from vlmreward_envs.adversarial_bandit import (\n"
        "    AdversarialBanditTasks, draw_arm_probabilities,\n"
        ")\n"
        "def make(ids, streams):\n"
        "    return AdversarialBanditTasks(ids, streams, draw_arm_probabilities(ids))\n"
    )
    tasks = f"bandits_for_{source.replace('-', '_')}:make"
    collect(tmp_path / "store", "0:3", tasks=tasks, source=(source,))
    first = HistoryStore.open(tmp_path / "store").read()[0]
    assert first.metadata["source_algorithm"] == source.replace("-", "_")
    assert first.space.num_actions == 10


def test_inspect_reports_and_draws(store, tmp_path, capsys):
    run("inspect", store, "--context-length", 40, "--json", "--figure", tmp_path / "report.png")
    quality = json.loads(capsys.readouterr().out)
    assert (quality["num_histories"], quality["num_tasks"]) == (12, 6)
    assert quality["episodes_per_context"] == 2
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    run("inspect", store, "--context-length", 20, "--keep-every", 2)
    assert "every 2nd episode" in capsys.readouterr().out


def test_training_leaves_a_model_a_summary_and_events(store, trained):
    summary = json.loads((trained / "summary.json").read_text())
    model = load_model(trained / summary["best_model"])
    assert ADTransformerConfig.from_dict(summary["model"]) == model.config
    assert (model.config.context_length, model.config.embed_dim) == (40, 16)
    assert summary["train_task_ids"] == list(range(6))
    assert summary["training"]["num_updates"] == 4
    events = EventAccumulator(str(trained))
    events.Reload()
    measured = [event.value for event in events.Scalars("eval/in_context_return")]
    assert max(measured) == pytest.approx(summary["eval/in_context_return"])
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4]


def test_training_again_changes_nothing(store, trained):
    before = {path: path.read_bytes() for path in trained.glob("*.*") if "events" not in path.name}
    train(store, trained)
    assert {path: path.read_bytes() for path in before} == before


def test_training_from_blocks_and_with_other_shapes(store, tmp_path, capsys):
    train(
        store, tmp_path / "run", "4:6", "--num-blocks", 1, "--positions", "rotary",
        "--tokens-per-step", 3, "--norm", "post",
    )  # fmt: skip
    model = load_model(tmp_path / "run" / "best.safetensors")
    assert (model.config.positions, model.config.tokens_per_step) == ("rotary", 3)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'run' / 'best.safetensors'}: return ")
    said = " ".join(printed.err.split())
    assert "validation tasks [4, 5] are among those trained on" in said


def test_evaluate_counts_every_block_beside_random(trained, capsys):
    command = (
        "evaluate", trained, "--tasks", ROOMS, "--task-ids", "4:8", "--num-episodes", 5,
        "--episodes-per-block", 2, "--repeats", 3,
    )  # fmt: skip
    run(*command, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((trained / "evaluation.json").read_text())
    assert found["blocks"] == ["1-2", "3-4", "5-5"]
    assert found["among_those_trained_on"] == [4, 5]
    for name in ("agent", "random"):
        curve, blocks = found[name]["return_by_episode"], found[name]["return_by_block"]
        values = curve["value"]
        assert blocks["value"] == pytest.approx(
            [np.mean(values[:2]), np.mean(values[2:4]), values[4]], abs=1e-6
        )
        assert all(
            low <= value <= high
            for low, value, high in zip(blocks["low"], blocks["value"], blocks["high"], strict=True)
        )
    assert found["agent"]["return_by_episode"] != found["random"]["return_by_episode"]
    assert (trained / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    run(*command)
    shown = " ".join(capsys.readouterr().out.split())  # titles wrap where a path is long
    assert "4 tasks, 2 of them trained on" in shown
    assert all(block in shown for block in found["blocks"])


@pytest.mark.parametrize(
    ("tasks", "task_ids", "message"),
    [
        ("vlmreward_envs.dark_room", "0:2", "expected module:callable"),
        ("no_such_module:Tasks", "0:2", "there is no module 'no_such_module'"),
        ("vlmreward_envs.no_such:Tasks", "0:2", "there is no module 'vlmreward_envs.no_such'"),
        ("vlmreward_envs.dark_room:DarkRoomTask", "0:2", "did you mean 'DarkRoomTasks'"),
        ("vlmreward_envs.dark_room:DARK_ROOM", "0:2", "no such callable"),
        ("vlmreward_envs.adversarial_bandit:AdversarialBanditTasks", "0:2", "write a function"),
        ("builtins:print", "0:2", "expected a callable of task ids"),
        ("builtins:len", "0:2", "got a int from builtins:len"),
        (ROOMS, "80:82", "got task ids from 80 to 81, expected 0..80"),
        (ROOMS, "0-2", "expected numbers and ranges"),
        (ROOMS, "2:2", "expected numbers and ranges"),
        (ROOMS, "0:3,2", r"that name \[2\] twice"),
    ],
)
def test_bad_tasks_end_in_one_line(tmp_path, tasks, task_ids, message):
    with pytest.raises(SystemExit, match=message):
        collect(tmp_path / "store", task_ids, tasks=tasks)
    assert not (tmp_path / "store").exists()


def test_what_a_named_module_lacks_is_not_blamed_on_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tasks_without_their_needs.py").write_text("import not_installed_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        collect(tmp_path / "store", tasks="tasks_without_their_needs:make")


def test_bad_folders_and_settings_end_in_one_line(store, trained, tmp_path):
    with pytest.raises(SystemExit, match="exists and is complete"):
        collect(store)
    with pytest.raises(SystemExit, match="histories of other settings"):
        collect(store, "0:7")
    with pytest.raises(SystemExit, match="exists, but not as a whole store"):
        collect(trained)
    with pytest.raises(SystemExit, match="got histories_per_task=2, expected a multiple of 3"):
        collect(tmp_path / "store", source=("actor-critic", "--num-actors", 3))
    with pytest.raises(SystemExit, match="got seed=-1, expected 0"):
        collect(tmp_path / "store", "0:6", "--seed", -1)
    with pytest.raises(SystemExit, match="no history store at"):
        run("inspect", tmp_path / "none", "--context-length", 40)
    with pytest.raises(SystemExit, match="longer than every history"):
        run("inspect", store, "--context-length", 4000)
    with pytest.raises(SystemExit, match=r"run with other settings \(windows\)"):
        train(store, trained, "70:72", "--start-fraction", 0.5)
    with pytest.raises(SystemExit, match=r"expected those of .*store"):
        train(store, tmp_path / "run", tasks="vlmreward_envs.watermaze:WatermazeTasks")
    with pytest.raises(SystemExit, match=r"no checkpoint at .*: train a model first"):
        run("evaluate", tmp_path / "none", "--tasks", ROOMS, "--task-ids", "0:2")
    with pytest.raises(SystemExit, match="got an agent for"):
        run(
            "evaluate", trained, "--tasks", "vlmreward_envs.watermaze:WatermazeTasks",
            "--task-ids", "0:2",
        )  # fmt: skip


def test_a_device_that_is_not_there_ends_in_one_line(store, trained, tmp_path):
    message = "got device='gpu', expected cpu, or one that this machine has"
    with pytest.raises(SystemExit, match=message):
        collect(tmp_path / "store", "0:6", "--device", "gpu")
    with pytest.raises(SystemExit, match=message):
        train(store, tmp_path / "run", "70:72", "--device", "gpu")
    with pytest.raises(SystemExit, match=message):
        run("evaluate", trained, "--tasks", ROOMS, "--task-ids", "0:2", "--device", "gpu")


def test_seeds_are_given_where_they_are_asked_for():
    ids, streams = torch.tensor([3, 5]), random_streams(1, collecting.COLLECTING, 2, "cpu")
    made = NamedTasks("vlmreward_envs.key_to_door:DarkKeyToDoorTasks", "3,5").make(ids, streams)
    assert torch.equal(made.reset(), DarkKeyToDoorTasks(ids, streams).reset())
    # The second argument of Dark Rooms is no seed, and has a default.
    assert NamedTasks(ROOMS, "3,5").make(ids, streams).config == DarkRoomTasks(ids).config


def test_streams_are_apart():
    streams = torch.cat(
        [random_streams(seed, purpose, 3, "cpu") for seed in range(3) for purpose in range(3)]
    )
    assert len(streams.unique()) == 27
    assert random_streams(2**20 - 1, 2, 2, "cpu").min() > 0


def test_ids_are_read_in_the_order_they_are_written():
    assert parse_ids("7,0:3") == [7, 0, 1, 2]


def test_the_command_is_installed(capsys):
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    assert "algdistill = algdistill.cli:main" in scripts
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("collect", "inspect", "train", "evaluate"))
