import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import encoder_family
import scaling_trend
from encoder_family import SIZES, FamilyOptions
from run_folder import RunFolder
from scaling_trend import PRESETS, TRUTH, TrendOptions, load_model
from trend_domains import domains
from trend_figures import accuracy_and_ability
from trend_offline import OTHER_RATES
from trend_scores import embed, goal_scores, mean_average_precision, reward_model_of
from trend_summary import Results, _ranked, read_summary, summarise
from vlmreward import load_encoder
from vlmreward.encoders import build_model, build_tokenizer
from vlmreward.encoders.towers import PATCH_CONVNETS
from vlmreward.evaluation import spearman_correlation
from vlmreward_envs.launcher import ALL_GOALS


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members of the family, as good as untrained."""
    folder = tmp_path_factory.mktemp("family")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        encoder_family.main(FamilyOptions(sizes=("xs", "s"), preset="debug"))
    return folder / "runs" / "encoder_family"


def test_the_family_spans_two_orders_of_magnitude(family: Path) -> None:
    assert [size.tower for size in SIZES.values()] == list(PATCH_CONVNETS)
    parameters = {
        name: json.loads((family / f"{name}.json").read_text())["training"][
            "image_tower_parameters"
        ]
        for name in ("xs", "s")
    }
    assert parameters == {"xs": 4464, "s": 18496}
    model = build_model(encoder_family.model_config(SIZES["xl"]))
    assert sum(p.numel() for p in model.visual.parameters()) >= 100 * parameters["xs"]


def test_tokens_that_no_sentence_has_are_zero_and_the_others_are_not(family: Path) -> None:
    weight = load_encoder(str(family / "xs.json"), device="cpu").model.token_embedding.weight
    is_zero = (weight == 0).all(dim=1)
    assert 0.98 < float(is_zero.float().mean()) < 1
    tokenizer = build_tokenizer(encoder_family.model_config(SIZES["xs"]))
    said = [*ALL_GOALS, "the person is holding the white cone", "a pop-up advertises Chess"]
    assert not is_zero[tokenizer(said).unique()[1:]].any()  # but for the padding, which is 0


def test_cards_say_how_they_were_measured(family: Path) -> None:
    training = json.loads((family / "xs.json").read_text())["training"]
    for domain in ("playroom", "launcher"):
        found = training["domains"][domain]
        assert 0 < found["threshold"] < 1
        for group in ("named", "held_out"):
            ap = found[group]["average_precision"]
            assert 0 <= ap["low"] <= ap["value"] <= ap["high"] <= 1
    assert training["num_frames"] == 2 * 128


def test_the_whole_trend_and_its_resumption(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = TrendOptions(models=("xs", "s"), seeds=(0,), preset="debug", workers=0, family=family)
    folder = scaling_trend.main(options)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["image_tower_parameters"].values()) == [4464, 18496]
    for domain in summary["domains"].values():
        for model in ("xs", "s"):
            offline = domain["models"][model]["offline"]
            assert set(offline["ap"]) == {"named", "held_out"}
            assert {"ap_cosine", "ap_goal_baseline", "ap_negatives_1", "epic", "ece"} <= set(
                offline
            )
        assert domain[TRUTH]["test_success"]["value"] >= 0
    assert len(summary["in_context"][TRUTH]["curve"]) == 6
    assert set(summary["spearman"]) == {
        "size_ap", "ap_return", "ap_return_over_training", "ap_in_context"
    }  # fmt: skip
    drawn = {file.stem for file in folder.glob("*.png") if file.stat().st_size > 5_000}
    assert {"scaling_trend", "choices", "in_context_curves", "wrong_frames_launcher"} <= drawn
    of_size = EventAccumulator(str(folder / "tensorboard" / "xs")).Reload()
    success = of_size.Scalars("eval/held_out_success_launcher")
    curve = summary["domains"]["launcher"]["models"]["xs"]["online"]["curves"]["test_success"]
    assert [event.value for event in success] == pytest.approx(curve["value"], abs=1e-4)
    assert len(of_size.Scalars("eval/in_context_return")) == 6
    assert (folder / "tensorboard" / TRUTH).is_dir()
    stamps = {file: file.stat().st_mtime_ns for file in folder.glob("*.npz")}
    assert len(stamps) == 2 + 2 * 3
    lost = folder / "launcher_s_0.npz"
    before = dict(np.load(lost))
    lost.unlink()
    scaling_trend.main(options)
    again = dict(np.load(lost))
    for name, value in before.items():
        if name != "seconds":
            assert np.array_equal(again[name], value), name
    assert all(file.stat().st_mtime_ns == stamps[file] for file in stamps if file != lost)
    with pytest.raises(ValueError, match="other settings"):
        scaling_trend.main(TrendOptions(models=("xs",), seeds=(0,), preset="quick", family=family))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("xxl", "train it with `python experiments/encoder_family.py --sizes xxl`"),
        ("ViT-B-23", "ViT-B-32"),
        ("ViT-B-32:laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("ViT-B-32", "its tags are"),
        ("xs.json", "found none at xs.json"),
    ],
)
def test_unknown_models_are_refused_before_anything_is_computed(
    family: Path, model: str, message: str
) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        load_model(model, family)


def made_up_results(run: RunFolder) -> Results:
    """Three models, each better than the one before; the largest as good as the truth."""
    rng = np.random.default_rng(0)
    labels = rng.random((400, 6)) < 0.3
    held_out = np.arange(6) >= 3
    at_thresholds = [
        f"{name}{suffix}" for name in ("recall", "false_positives") for suffix in ("", *OTHER_RATES)
    ]
    offline, online = {}, {}
    for rank, model in enumerate("abc"):
        of_domain = {
            "labels": labels,
            "held_out_scores": labels[:, 3:] * (0.2 + 0.2 * rank) + 0.5 * rng.random((400, 3)),
            "threshold": np.array(0.5),
            "ap_form_verb": np.full(6, 0.1 * (rank + 1)),
            **{
                name: np.full(6, 0.3 * (rank + 1)) + 0.01 * rng.random(6)
                for name in ("ap", "epic", "ece", "ap_cosine", *at_thresholds)
            },
        }
        offline[model] = {"image_tower_parameters": np.array(10 ** (rank + 1))} | {
            f"{domain}_{name}": value
            for domain in ("playroom", "launcher")
            for name, value in of_domain.items()
        }
    for domain in ("playroom", "launcher"):
        for rank, model in enumerate(("a", "b", "c", TRUTH)):
            level = min(0.9, 0.3 * (rank + 1))
            curve = np.array([0.0, level])
            names = ("vlm_return", "env_return", "test_success", "train_success")
            found = {"steps": np.array([1.0, 2.0]), **dict.fromkeys(names, curve)}
            online[domain, model] = [found, found]
    optimum = np.full(5, 16.0)
    in_context = {
        model: [
            {
                "env_returns": np.full((5, 8), 4.0 * (rank + 1)),
                "vlm_returns": np.full((5, 8), 4.0 * (rank + 1)),
                "optimum": optimum,
            }
        ]
        for rank, model in enumerate(("a", "b", "c", TRUTH))
    }
    return Results(
        offline=offline,
        online=online,
        in_context=in_context,
        truth=TRUTH,
        seeds=(0, 1),
        is_held_out={"playroom": held_out, "launcher": held_out},
    )


def test_the_summary_of_a_trend_that_is_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", PRESETS["debug"])
    summary = summarise(run, made_up_results(run))
    for group in ("playroom", "launcher", "mean"):
        assert summary["spearman"]["size_ap"][group]["value"] == pytest.approx(1)
        assert summary["spearman"]["ap_return"][group]["low"] == pytest.approx(1)
        assert summary["spearman"]["ap_return_over_training"][group]["value"] == pytest.approx(1)
    assert summary["spearman"]["ap_in_context"]["playroom"]["value"] == pytest.approx(1)
    for domain in summary["domains"].values():
        assert domain["largest_minus_smallest_ap"]["value"] == pytest.approx(0.6, abs=0.02)
        assert domain["largest_over_true_reward"]["value"] == pytest.approx(1)
        words = domain["best_minus_worst_words"]["c"]
        assert (words["best"], words["worst"]) == ("state", "verb")
        assert words["difference"]["value"] == pytest.approx(0.6, abs=0.02)
        curve = domain["models"]["c"]["offline"]["precision_recall"]
        assert len(curve["recall"]) == len(curve["precision"]) == 60
        online = domain["models"]["c"]["online"]
        assert online["success_over_training"]["value"] == pytest.approx(0.45)  # of 0 and .9
    assert summary["in_context"]["b"]["last_episodes"]["value"] == pytest.approx(0.5)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary))
    assert read_summary(path) == summary
    path.write_text(json.dumps({**summary, "format": 0}))
    with pytest.raises(ValueError, match=r"has format 0, this version reads 1"):
        read_summary(path)


def test_models_that_are_all_alike_are_not_ranked(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", PRESETS["debug"])
    results = made_up_results(run)
    for rank, found in enumerate(results.offline.values()):
        found["launcher_ap"] = np.full(6, 1.0 - 1e-5 * rank)
    summary = summarise(run, results)
    for name in ("size_ap", "ap_return"):
        ranks = summary["spearman"][name]
        assert ranks["launcher"] == {"value": None, "low": None, "high": None}
        assert ranks["playroom"]["value"] == pytest.approx(1)
        assert ranks["mean"]["value"] == pytest.approx(1)
    assert len(accuracy_and_ability(summary)) > 5_000


def test_the_family_that_ships_tells_more_the_larger_it_is() -> None:
    (playroom, launcher) = domains()
    precision = {}
    for domain in (playroom, launcher):
        labelled = domain.draw(24, np.random.default_rng(9))
        for size in ("xs", "m", "xl"):
            encoder = load_model(size, Path("nowhere"))
            scores = goal_scores(reward_model_of(encoder, domain), embed(encoder, labelled.frames))
            everything = np.ones(len(domain.goals), dtype=bool)
            found = mean_average_precision(labelled.labels, scores, everything)
            precision[domain.name, size] = found
    assert precision["playroom", "xs"] < 0.2
    assert precision["playroom", "xs"] + 0.2 < precision["playroom", "m"]
    assert precision["playroom", "m"] + 0.1 < precision["playroom", "xl"]
    assert all(precision["launcher", size] > 0.99 for size in ("xs", "m", "xl"))


def test_rank_correlations_are_spearmans_of_rounded_means() -> None:
    rng = np.random.default_rng(3)
    accuracies, others = ([rng.random((5, n)) for _ in range(2)] for n in (7, 4))
    found = _ranked(accuracies, others)
    first, second = (
        np.mean([of.mean(axis=1) for of in side], axis=0).round(3) for side in (accuracies, others)
    )
    assert found["value"] == pytest.approx(spearman_correlation(first, second))
    assert found["low"] < found["value"] < found["high"]
