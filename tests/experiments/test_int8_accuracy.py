import json

import numpy as np
import pytest

import int8_accuracy
from playroom_domain import LabelledScores
from vlmreward import load_encoder

pytest.importorskip("torchao", reason="int8 quantises with torchao")


def test_it_measures_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(int8_accuracy, "RESULT", tmp_path / "int8.json")
    int8_accuracy.main(frames_per_goal=24, num_frames=12, architecture="ViT-S-32-alt")
    result = json.loads((tmp_path / "int8.json").read_text())
    assert set(result["average_precision"]) > {"seen", "held_out", "put_held_out"}
    for group in result["average_precision"].values():
        low, value, high = (group["difference"][name] for name in ("low", "value", "high"))
        assert low <= value <= high
        assert value == pytest.approx(group["int8"]["value"] - group["fp32"]["value"])
        assert group["fp32"]["value"] > 0.5
    for measures in result["agreement"].values():
        assert 0.99 < measures["cosine_min"] <= measures["cosine_mean"] <= 1 + 1e-6
        assert 0 < measures["rank_correlation_min"] <= measures["rank_correlation_mean"] <= 1
    # 8 bits do change something in both towers.
    assert all(measures["cosine_mean"] < 1 - 1e-7 for measures in result["agreement"].values())
    assert "average precision" in capsys.readouterr().out


def test_equal_precisions_differ_by_nothing():
    encoder = load_encoder("playroom", device="cpu")
    same = {"fp32": encoder, "int8": encoder}
    for group in int8_accuracy.compare_accuracy(same, frames_per_goal=12).values():
        assert group["difference"] == {"value": 0, "low": 0, "high": 0}
    assert int8_accuracy.compare_embeddings(same, 8)["rank_correlation_min"] == 1


def test_goals_with_one_kind_of_label_have_no_average_precision():
    labels = np.array([True, False, True, True, False, False])
    found = LabelledScores(
        labels=labels,
        scores=np.array([0.9, 0.1, 0.5, 0.6, 0.2, 0.3]),
        goal_index=np.array([0, 0, 1, 1, 2, 2]),
        family=np.array(["find"] * 6),
        is_held_out=np.zeros(6, bool),
    )
    assert int8_accuracy.of_each_goal(found) == {0: 1.0}
