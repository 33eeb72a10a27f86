import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import playroom_sound
import playroom_sound_encoder
import playroom_sound_in_context
from playroom_domain import HELD_OUT_NAMES
from playroom_sound import GROUPS, SoundOptions
from playroom_sound_accuracy import best_single, difference, goal_precision, interval, table
from playroom_sound_calibration import (
    FALSE_POSITIVE_RATE,
    choose_threshold,
    pooled_similarities,
    present_head,
    present_scores,
)
from playroom_sound_domain import (
    GOALS_OF_KIND,
    IS_HELD_OUT,
    SENTENCES,
    SoundBatch,
    SoundBatchConfig,
    SoundBatches,
    draw_episodes,
    sound_goals,
)
from playroom_sound_dropout import measure_dropout
from playroom_sound_encoder import SoundEncoderOptions
from playroom_sound_fusion import ContrastiveFusion, PureBatches, PureSteps
from playroom_sound_in_context import SoundInContextOptions, sound_task_sets
from playroom_sound_memory import ContrastiveMemory, EpisodeBatches, with_memory
from playroom_sound_presets import PRESETS
from playroom_sound_stages import train_steps
from playroom_sound_streams import PURE, ContrastiveSteps
from playroom_sound_tasks import SOUND_ROOM_STEPS
from run_folder import RunFolder
from vlmreward import RewardModel, SoftmaxHead, ThresholdHead
from vlmreward.backbone import MultimodalEncoder, load_backbone
from vlmreward.backbone.audio import LogMelConfig
from vlmreward.backbone.files import tokenizer_of
from vlmreward.backbone.model import BackboneConfig
from vlmreward_envs.playroom import Action
from vlmreward_envs.playroom_sound import GoalKind, all_goals, goal_reached, goal_tensor

ENCODER = SoundEncoderOptions(preset="debug", num_threads=1, memories=("mean", "ttm"), workers=0)
CONFIG = SoundBatchConfig(
    num_steps=6, captions_per_kind=(50, 50, 50, 50), near_misses_per_caption=3
)


class Words:
    """A tokenizer that can be read back: one number a sentence."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        self.sentences = list(sentences)
        return torch.arange(len(sentences))[:, None]


@pytest.fixture(scope="module")
def drawn() -> tuple[SoundBatch, list[str]]:
    words = Words()
    batch = SoundBatches(CONFIG, LogMelConfig(), words, seed=0)(3)
    return batch, words.sentences


def test_a_batch_is_a_function_of_its_step() -> None:
    first, second = (SoundBatches(CONFIG, LogMelConfig(), Words(), seed=0) for _ in range(2))
    again = second(1)
    for name, value in vars(first(1)).items():
        assert torch.equal(value, getattr(again, name)), name
    assert not torch.equal(first(2).frames, again.frames)


def test_steps_have_frames_sound_and_sentences_of_every_kind(
    drawn: tuple[SoundBatch, list[str]],
) -> None:
    batch, sentences = drawn
    assert batch.frames.shape == (6, 96, 96, 3)
    assert batch.log_mel.shape == (6, 10, 64)
    assert batch.is_true.shape == (6, len(sentences))
    assert len(set(sentences)) == len(sentences)
    assert not any(name in sentence for sentence in sentences for name in HELD_OUT_NAMES)
    for kind in GoalKind:
        of_kind = batch.is_true[:, batch.kind == kind]
        assert of_kind.any(dim=1).sum() >= 5  # who stands beside nothing may have nothing joint
        assert (~of_kind).any()
    kinds = dict(zip(sentences, batch.kind.tolist(), strict=True))
    assert all((" while " in text) == (kind == GoalKind.SEEN_AND_HEARD)
               for text, kind in kinds.items())  # fmt: skip
    assert all(kind == GoalKind.TOLD for text, kind in kinds.items() if " before " in text)


def test_episodes_are_labelled_with_the_truth_of_every_sentence() -> None:
    episodes = draw_episodes(3, 40, LogMelConfig(), np.random.default_rng(0))
    again = draw_episodes(3, 40, LogMelConfig(), np.random.default_rng(0))
    assert episodes.frames.shape == (3, 40, 96, 96, 3)
    assert episodes.log_mel.shape == (3, 40, 10, 64)
    assert episodes.is_true.shape == (3, 40, len(SENTENCES))
    assert torch.equal(episodes.is_true, again.is_true)
    assert {kind: len(goals) for kind, goals in GOALS_OF_KIND.items()} == {
        kind: len(all_goals(kind)) for kind in GoalKind
    }
    assert int(IS_HELD_OUT.sum()) == 6 * (2 + 2 * 3)
    seen, heard = (GOALS_OF_KIND[kind] for kind in (GoalKind.SEEN, GoalKind.HEARD))
    both = episodes.is_true[..., GOALS_OF_KIND[GoalKind.SEEN_AND_HEARD]].unflatten(2, (-1, 3))
    expected = episodes.is_true[..., seen, None] & episodes.is_true[..., None, heard[:3]]
    assert torch.equal(both, expected)


def test_labels_are_the_ground_truth_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal by goal, as the environment tells it of the states that were drawn."""
    states = []
    roll = draw_episodes.__globals__["roll"]

    def remembered(*args: object) -> object:
        for state in roll(*args):
            states.append(state)
            yield state

    monkeypatch.setitem(draw_episodes.__globals__, "roll", remembered)
    episodes = draw_episodes(4, 60, LogMelConfig(), np.random.default_rng(1))
    num_true = 0
    for kind in GoalKind:
        rows = goal_tensor(all_goals(kind), torch.device("cpu"))
        for column, row in zip(GOALS_OF_KIND[kind], rows, strict=True):
            for time in (0, 20, 59):
                reached = goal_reached(states[time], row.expand(4, -1))
                assert torch.equal(episodes.is_true[:, time, column], reached)
                num_true += int(reached.sum())
    assert num_true > 10


def test_steps_are_trained_without_memory_and_memory_without_steps() -> None:
    config = BackboneConfig()
    tokenizer = tokenizer_of(config)
    steps = ContrastiveSteps(config, seed=0)
    losses = steps(SoundBatches(CONFIG, config.log_mel, tokenizer, seed=0)(0))
    assert set(losses) == {"image_text", "audio_text", "fusion_text", "episode_text"}
    steps.streams = PURE
    only = SoundBatchConfig(num_steps=6, captions_per_kind=(6, 2, 0, 2))
    batch_of_pure = SoundBatches(only, config.log_mel, tokenizer, seed=0)(0)
    assert GoalKind.SEEN_AND_HEARD not in batch_of_pure.kind.tolist()
    assert set(steps(batch_of_pure)) == {"image_text", "audio_text", "episode_text"}
    torch.stack(list(losses.values())).sum().backward()
    trained = {name for name, p in steps.backbone.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {
        "video", "audio", "zorro", "projections", "text"
    }  # fmt: skip

    backbone = with_memory(steps.backbone, config, seed=1)
    assert torch.equal(backbone.zorro.fusion_tokens, steps.backbone.zorro.fusion_tokens)
    assert not torch.equal(backbone.memory.queries, steps.backbone.memory.queries)
    memory = ContrastiveMemory(backbone, torch.randn(5, config.embed_dim))
    truth = torch.rand(6, 9, 5) < 0.5
    batch = EpisodeBatches(torch.randn(6, 9, 8, 128).half(), truth, 2, 4, seed=0)(0)
    assert batch.described.sum(dim=1).tolist() == [4, 4]
    memory(batch)["episode_text"].backward()
    trained = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {
        "memory", "memory_pool", "memory_projection"
    }  # fmt: skip


def test_other_fusions_begin_as_what_is_known() -> None:
    draws = torch.Generator().manual_seed(0)
    audio, video, text = torch.nn.functional.normalize(
        torch.randn(3, 12, 32, generator=draws), dim=2
    )
    reads = ContrastiveFusion("cross_attention", text, seed=0)
    assert torch.allclose(reads.fuse(audio, video), video, atol=1e-6)
    gates = ContrastiveFusion("gates", text, seed=0)
    fused = gates.fuse(audio.view(3, 4, 32), video.view(3, 4, 32))
    weights = [gates.gates.gates(name, of)[:, None] for name, of in
               (("audio", audio), ("video", video))]  # fmt: skip
    expected = torch.nn.functional.normalize(weights[0] * audio + weights[1] * video, dim=1)
    assert torch.allclose(fused.flatten(0, 1), expected, atol=1e-6)

    truth = torch.rand(12, 12, generator=draws) < 0.3
    batches = PureBatches(PureSteps(audio.half(), video.half(), truth), 5, seed=1)
    batch = batches(3)
    assert torch.equal(batch.audio, batches(3).audio)
    (row,) = (audio.half().float() == batch.audio[2]).all(dim=1).nonzero()[0]
    assert torch.equal(batch.video[2], video.half().float()[row])
    assert torch.equal(batch.is_true[2], truth[row])
    for model in (reads, gates):
        model(batch)["fusion_text"].backward()
        parts = [p for name, p in model.named_parameters() if not name.startswith("objectives")]
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parts)


def test_descriptions_stay_with_their_steps() -> None:
    """Tokens that count steps and episodes, and labels that are that number in binary."""
    number = torch.arange(6 * 9).view(6, 9)
    tokens = number[:, :, None, None].expand(-1, -1, 8, 4).half()
    truth = (number[..., None] >> torch.arange(6)) % 2 == 1
    batch = EpisodeBatches(tokens, truth, 2, 4, seed=3)(5)
    described = batch.tokens[batch.described][:, 0, 0].long()
    assert torch.equal((batch.is_true.long() << torch.arange(6)).sum(dim=1), described)


def test_precision_is_of_a_goals_own_sentence() -> None:
    is_true = torch.zeros(1, 4, len(SENTENCES), dtype=torch.bool)
    ringing = SENTENCES.index("a bell is ringing")
    is_true[0, :2, ringing] = True
    text = torch.eye(len(SENTENCES))
    embedded = torch.zeros(1, 4, len(SENTENCES))
    embedded[0, :, ringing] = torch.tensor([0.9, 0.2, 0.5, 0.1])
    found = goal_precision(is_true, embedded, text)
    assert found[ringing] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(np.delete(found, ringing)).all()
    assert np.isnan(goal_precision(is_true, embedded, text, [GoalKind.SEEN])).all()


def made_up_precision(values: dict[GoalKind, float]) -> np.ndarray:
    """The same for all goals of a kind; NaN for the others."""
    found = np.full(len(SENTENCES), np.nan)
    for kind, value in values.items():
        found[GOALS_OF_KIND[kind]] = value
    return found


def test_what_is_better_than_what_and_how_surely() -> None:
    told = [made_up_precision({GoalKind.TOLD: value}) for value in (0.8, 0.9)]
    mean = [made_up_precision({GoalKind.TOLD: value}) for value in (0.5, 0.5, 0.5)]
    found = difference(told, mean, [GoalKind.TOLD])
    assert found["value"] == pytest.approx(0.35)
    assert (found["low"], found["high"]) == (pytest.approx(0.3), pytest.approx(0.4))
    rows = table({"ttm": told, "mean": mean})
    assert set(rows["ttm"]) == {"told"}
    assert rows["ttm"]["told"]["value"] == pytest.approx(0.85)
    goals = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert interval(goals)["low"] == 0.0
    assert interval(goals, goals)["value"] == 0.0
    assert interval(goals, goals)["high"] == 0.0  # goals are drawn together


def test_the_best_single_stream_is_chosen_kind_by_kind() -> None:
    seen, heard = GoalKind.SEEN, GoalKind.HEARD
    streams = {
        "video": made_up_precision({seen: 0.9, heard: 0.2}),
        "audio": made_up_precision({seen: 0.1, heard: 0.7}),
    }
    best = best_single(streams, [seen, heard])
    assert np.array_equal(best, made_up_precision({seen: 0.9, heard: 0.7}), equal_nan=True)


class OneVectorASentence(MultimodalEncoder):
    """Sentences at right angles to each other and to the last direction."""

    known = tuple(
        dict.fromkeys(
            text
            for kind in (GoalKind.HEARD, GoalKind.SEEN)
            for goal in sound_goals(kind)
            for text in (goal.prompts[0], *goal.negative_prompts)
        )
    )

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([self.known.index(text) for text in texts])
        return torch.nn.functional.one_hot(rows, self.embed_dim).float()


def test_a_threshold_keeps_its_distance_where_scores_are_without_an_error() -> None:
    labels = np.array([False, False, False, True, True])
    assert choose_threshold(np.array([0.0, 0.1, 0.2, 0.8, 0.9]), labels) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    scores, labels = rng.random(10_000), rng.random(10_000) < 0.2
    paid = scores > choose_threshold(scores, labels)
    assert paid[~labels].mean() == pytest.approx(FALSE_POSITIVE_RATE, abs=2e-4)


def test_a_cut_sensor_changes_no_reward_once_scales_are_calibrated() -> None:
    """Sound alone has half the cosines of both together, and knows as much."""
    backbone = ContrastiveSteps(BackboneConfig(), seed=0).backbone
    make = partial(OneVectorASentence, backbone, Words(), name="made up", stream="present")
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(100, len(SENTENCES), dtype=torch.bool)
    heard, seen = GOALS_OF_KIND[GoalKind.HEARD], GOALS_OF_KIND[GoalKind.SEEN]
    truth[:, heard] = torch.rand(100, len(heard), generator=rng) < 0.3
    truth[torch.arange(100), seen[torch.randint(len(seen), (100,), generator=rng)]] = True
    temperatures = {"fusion": 0.08, "video": 0.08, "audio": 0.04}
    encoder = make(temperatures=temperatures)
    texts = encoder.encode_text(
        [SENTENCES[goal] for goal in (*seen, *heard)]
        + [goal.negative_prompts[0] for goal in sound_goals(GoalKind.HEARD)]
    )[:, :128]
    said = torch.cat([truth[:, seen], truth[:, heard], ~truth[:, heard]], dim=1).float()
    said += 0.2 * torch.randn(said.shape, generator=rng)
    fusion = torch.nn.functional.normalize(said @ texts, dim=1)
    embedded = {"fusion": fusion, "video": fusion, "audio": 0.5 * fusion}

    goals = sound_goals(GoalKind.HEARD)
    both = present_scores(encoder, fusion, "fusion", goals)
    assert torch.allclose(present_scores(encoder, 0.5 * fusion, "audio", goals), both, atol=1e-5)
    head = present_head(encoder, embedded, truth)
    false = ~truth[:, seen].T.flatten()
    is_paid = head.reward(present_scores(encoder, fusion, "video", sound_goals(GoalKind.SEEN))) > 0
    assert is_paid[false].float().mean() < 0.02

    sure = ThresholdHead(SoftmaxHead(0.08), 0.95)
    encoder = make(
        temperatures=temperatures, calibrated_head=ThresholdHead(SoftmaxHead(0.04), 0.95)
    )
    cut = measure_dropout(encoder, embedded, truth, sure)
    assert cut["camera"]["calibrated"]["changed"] == 0.0
    assert cut["camera"]["not_calibrated"]["recall"] > 0.7
    assert cut["camera"]["not_calibrated"]["recall_cut"] < 0.1
    assert cut["microphone"]["not_calibrated"]["changed"] == 0.0
    labels = truth[:, heard].T.flatten()
    assert cut["camera"]["calibrated"]["recall"] == pytest.approx(
        float((both > 0.95)[labels].float().mean())
    )
    with pytest.raises(ValueError, match="no head"):
        measure_dropout(make(temperatures=temperatures), embedded, truth, sure)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs are kept, and an encoder has been trained in little time."""
    path = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        playroom_sound_encoder.main(ENCODER)
        yield path


def test_the_whole_of_the_encoder_and_its_resumption(folder: Path) -> None:
    run_dir = folder / "runs" / ENCODER.run_name
    summary = json.loads((run_dir / "summary.json").read_text())
    found = summary["average_precision"]
    streams = {"audio", "video", "fusion", "frame CLIP", "chance"}
    assert set(found) == streams | {"gates", "cross_attention", "mean", "ttm"}
    for rows in found.values():
        for kind in ("heard", "told", "seen", "seen_held_out"):
            assert 0 < rows[kind]["low"] <= rows[kind]["value"] <= rows[kind]["high"] <= 1
    assert set(summary["heard"]["a bell is ringing"]) == set(found)
    assert set(summary["differences"]) == {
        "video_minus_frame_clip_seen", "fusion_minus_best_single", "ttm_minus_mean_told",
        "fusion_minus_gates", "fusion_minus_cross_attention",
    }  # fmt: skip
    assert 0 <= summary["dropout"]["microphone calibrated changed"] <= 1
    for name in ("pure", "steps", "mean_0", "ttm_0"):
        assert (run_dir / name / "model.safetensors").exists()
    saved = load_backbone(str(run_dir / "ttm_0_backbone.json"), stream="present", device="cpu")
    assert saved.calibrated_head is not None
    assert saved.training["average_precision"]["ap_told_episode"] == pytest.approx(
        found["ttm"]["told"]["value"]
    )
    assert saved.backbone.config.memory == "ttm"
    for lost in ("summary.json", "memory_ttm_0.npz", "precision.npz"):
        (run_dir / lost).unlink()
    playroom_sound_encoder.main(ENCODER)
    again = json.loads((run_dir / "summary.json").read_text())
    for name in ("average_precision", "differences", "dropout"):
        assert again[name] == summary[name]


def test_streams_can_be_those_of_a_saved_backbone(folder: Path) -> None:
    name = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    saved = load_backbone(name, stream="video", device="cpu")
    steps = train_steps(
        RunFolder(Path("elsewhere"), PRESETS["debug"]), replace(ENCODER, streams=name)
    )
    assert not (folder / "elsewhere" / "pure").exists()
    assert steps.objectives.logit_scale("image_text").item() == pytest.approx(saved.logit_scale)
    for key, weights in steps.backbone.state_dict().items():
        assert torch.equal(weights, saved.backbone.state_dict()[key]), key


def test_the_whole_of_the_agents(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playroom_sound, "GROUPS", {"told": playroom_sound.GROUPS["told"]})
    backbone = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    options = SoundOptions(backbone, seeds=(0,), preset="debug", workers=0)
    run_dir = playroom_sound.main(options)
    summary = json.loads((run_dir / "summary.json").read_text())
    for group, goals in playroom_sound.GROUPS.items():
        found = summary["groups"][group]
        assert found["goals"] == list(goals)
        for payer in playroom_sound.PAYERS:
            (returns,) = found[payer]["returns"]
            assert len(returns) == len(goals)
            assert all(0 <= value <= SOUND_ROOM_STEPS for value in returns)
        if (share := found["backbone"]["share"]) is None:  # the true reward taught nothing either
            assert not np.any(found["true reward"]["returns"])
            continue
        assert share["low"] <= share["value"] <= share["high"]
    kept = (run_dir / "told_backbone_0.npz").stat().st_mtime_ns
    playroom_sound.main(options)
    assert (run_dir / "told_backbone_0.npz").stat().st_mtime_ns == kept


def test_shares_are_of_what_the_truth_teaches() -> None:
    truth = np.array([[10.0, 4.0], [20.0, 4.0]])
    half = playroom_sound.share(np.array([[15.0, 2.0], [15.0, 2.0]]), truth)
    assert half["value"] == pytest.approx(0.75)
    assert half["low"] == pytest.approx((15 / 20 + 0.5) / 2)
    assert half["high"] == pytest.approx((15 / 10 + 0.5) / 2)
    assert playroom_sound.share(truth, truth)["value"] == 1.0


def test_pooled_similarities_are_those_of_each_goal() -> None:
    backbone = ContrastiveSteps(BackboneConfig(), seed=0).backbone
    tokenizer = tokenizer_of(backbone.config)
    encoder = MultimodalEncoder(backbone, tokenizer, name="untrained", stream="fusion")
    goals = (*sound_goals(GoalKind.HEARD)[:2], *sound_goals(GoalKind.TOLD)[:1])
    vectors = torch.nn.functional.normalize(torch.randn(4, 128), dim=1)
    pooled = pooled_similarities(encoder, vectors, goals)
    scores = SoftmaxHead(0.1).score(pooled)
    reward_model = RewardModel(encoder, goals, SoftmaxHead(0.1))
    expected = [reward_model.score_embeddings(vectors, goal).score for goal in range(3)]
    assert torch.allclose(scores, torch.cat(expected), atol=1e-6)


def test_goals_have_what_holds_in_their_place() -> None:
    heard, told = (sound_goals(kind) for kind in (GoalKind.HEARD, GoalKind.TOLD))
    assert heard[0].negative_prompts == ("no bell is ringing",)
    twice = next(goal for goal in told if goal.prompts[0] == "a bell has rung twice")
    assert "no bell has rung" in twice.negative_prompts
    assert len(twice.negative_prompts) == 4
    assert [goal.prompts[0] for goal in sound_goals(GoalKind.SEEN)] == [
        goal.sentence for goal in all_goals(GoalKind.SEEN)
    ]
    with pytest.raises(ValueError, match="seen, heard or told"):
        sound_goals(GoalKind.SEEN_AND_HEARD)


def test_the_wanted_sound_stays_and_episodes_of_it_are_learned_in_context(folder: Path) -> None:
    settings = playroom_sound_in_context.PRESETS["debug"]
    tasks = sound_task_sets(settings, None)("train", first_task_id=7)
    assert tasks.task_ids.tolist() == [7, 8, 9, 10]
    obs = tasks.reset()
    bump = GROUPS["heard"].index("there is a bump")
    room = int((tasks.goal_index == bump).nonzero())
    num_paid = []
    for _ in range(3 * tasks.episode_length):
        assert tasks.goal_index.tolist() == [0, 1, 2, 3]
        assert obs.shape == (4, 3)
        result = tasks.step(torch.full((4,), int(Action.LEFT)))
        obs = result.obs
        num_paid.append(float(result.reward[room]))
    first, *others = (sum(of) for of in np.split(np.array(num_paid), 3))
    assert first > 10  # walks to the wall, or into something, and on
    assert others == [first, first]  # the room is the same

    backbone = f"runs/{ENCODER.run_name}/ttm_0_backbone.json"
    options = SoundInContextOptions(backbone, seeds=(0,), preset="debug")
    run_dir = playroom_sound_in_context.main(options)
    summary = json.loads((run_dir / "summary.json").read_text())
    for name in ("backbone", "true reward", "random"):
        found = summary["true_return"][name]
        assert len(found["curve"]) == settings.num_episodes
        assert set(found["last_episodes_of_goals"]) == set(GROUPS["heard"])
        last = found["last_episodes"]
        assert 0 <= last["low"] <= last["value"] <= last["high"] <= tasks.episode_length
    assert (run_dir / "in_context.png").stat().st_size > 5_000
    kept = (run_dir / "backbone" / "sources.npz").stat().st_mtime_ns
    playroom_sound_in_context.main(options)
    assert (run_dir / "backbone" / "sources.npz").stat().st_mtime_ns == kept
