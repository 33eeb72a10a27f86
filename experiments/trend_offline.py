"""The offline part of the scaling trend: one encoder on fixed, labelled trajectories of a domain.

Axis letters: ``M`` frames, ``G`` goals.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from launcher_domain import FORMS, launcher_goals
from run_folder import Arrays
from trend_domains import Domain, LabelledTrajectories, verb_sentence
from trend_scores import (
    FALSE_POSITIVE_RATE,
    OTHER_FALSE_POSITIVE_RATES,
    calibrated_threshold,
    embed,
    goal_scores,
    reward_model_of,
)
from vlmreward import (
    CosineHead,
    Goal,
    GoalBaselineHead,
    Head,
    ImageTextEncoder,
    RewardModel,
    SoftmaxHead,
)
from vlmreward.evaluation import average_precision, epic_distance, reliability_curve
from vlmreward_envs.launcher.language import NO_APP_OPEN
from vlmreward_envs.playroom.language import HOLDING_NOTHING

Statistic = Callable[[NDArray[np.bool_], NDArray[np.float64]], float]

CALIBRATION_SEED, TEST_SEED = 4_000_001, 4_000_002
NUM_NEGATIVES = (1, 4, 16)
OTHER_RATES = {f"_{rate:g}": rate for rate in OTHER_FALSE_POSITIVE_RATES}
"""By what their numbers' names end with."""
_NEGATIVES_SEED = 4_000_003
_BASELINES = {"playroom": HOLDING_NOTHING, "launcher": NO_APP_OPEN}


def draw_labelled(
    domain: Domain, num_episodes: int
) -> tuple[LabelledTrajectories, LabelledTrajectories]:
    """Draw the trajectories to calibrate on and those to test on: the same for every encoder."""
    calibration, test = (
        domain.draw(num_episodes, np.random.default_rng(seed))
        for seed in (CALIBRATION_SEED, TEST_SEED)
    )
    return calibration, test


def measure_offline(
    encoder: ImageTextEncoder,
    domain: Domain,
    calibration: LabelledTrajectories,
    test: LabelledTrajectories,
) -> Arrays:
    """Score labelled trajectories in every way that is compared.

    Returns:
        ``held_out_scores``, of goals held out, ``[M, G]``: probabilities by the softmax over all
        negatives; ``threshold``, calibrated on other trajectories; and for every goal ``[G]``, NaN
        where no frame achieves it: ``ap``, ``epic`` and ``ece`` of these scores, ``recall`` and
        ``false_positives`` at the threshold, and with ``_<rate>`` at thresholds calibrated to other
        rates; and ``ap_<variant>`` of each variant of `variants`.
    """
    embeddings = embed(encoder, test.frames)
    reward_model = reward_model_of(encoder, domain)
    scores = goal_scores(reward_model, embeddings)
    calibration_scores = goal_scores(reward_model, embed(encoder, calibration.frames))
    labels = test.labels
    found: Arrays = {
        "held_out_scores": scores[:, domain.is_held_out].astype(np.float32),
        "threshold": np.array(calibrated_threshold(calibration.labels, calibration_scores)),
        "ap": of_each_goal(average_precision, labels, scores),
        "epic": of_each_goal(lambda label, score: epic_distance(score, label), labels, scores),
        "ece": of_each_goal(_calibration_error, labels, scores),
    }
    for suffix, rate in {"": FALSE_POSITIVE_RATE, **OTHER_RATES}.items():
        paid = scores > calibrated_threshold(calibration.labels, calibration_scores, rate)
        found[f"recall{suffix}"] = (paid & labels).sum(axis=0) / np.maximum(labels.sum(axis=0), 1)
        found[f"false_positives{suffix}"] = (paid & ~labels).sum(axis=0) / (~labels).sum(axis=0)
    for name, (goals, head) in variants(encoder, domain).items():
        other = goal_scores(RewardModel(encoder, goals, head), embeddings)
        found[f"ap_{name}"] = of_each_goal(average_precision, labels, other)
    return found


def _calibration_error(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return reliability_curve(labels, scores).expected_calibration_error


def of_each_goal(
    statistic: Statistic, labels: NDArray[np.bool_], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute a statistic of labels and scores for each goal, NaN where no frame achieves it."""
    return np.array(
        [
            statistic(labels[:, goal], scores[:, goal]) if labels[:, goal].any() else np.nan
            for goal in range(labels.shape[1])
        ]
    )


def variants(
    encoder: ImageTextEncoder, domain: Domain
) -> Mapping[str, tuple[tuple[Goal, ...], Head]]:
    """Return what is compared with the softmax over all negatives: goals, and a head, by name.

    ``negatives_<n>``: as many of them, drawn once for each goal. ``cosine`` and ``goal_baseline``
    (Rocamonde et al. 2024, with α = ½): other heads. ``form_<name>``: other words.
    """
    softmax = SoftmaxHead(1 / encoder.logit_scale)
    rng = np.random.default_rng(_NEGATIVES_SEED)
    with_baseline = tuple(
        Goal(goal.prompts, baseline_prompts=_BASELINES[domain.name]) for goal in domain.goals
    )
    found: dict[str, tuple[tuple[Goal, ...], Head]] = {
        "cosine": (domain.goals, CosineHead()),
        "goal_baseline": (with_baseline, GoalBaselineHead(0.5)),
    }
    for number in NUM_NEGATIVES:
        drawn = tuple(
            Goal(
                goal.prompts,
                negative_prompts=rng.permutation(goal.negative_prompts)[:number].tolist(),
            )
            for goal in domain.goals
        )
        found[f"negatives_{number}"] = (drawn, softmax)
    for name, goals in _in_other_words(domain).items():
        found[f"form_{name}"] = (goals, softmax)
    return found


def _in_other_words(domain: Domain) -> dict[str, tuple[Goal, ...]]:
    if domain.name == "launcher":
        return {name: launcher_goals(form) for name, form in FORMS.items() if name != "state"}
    verbs = [_as_verb(goal.prompts[0]) for goal in domain.goals]
    return {
        "verb": tuple(
            Goal(verb, negative_prompts=[text for text in dict.fromkeys(verbs) if text != verb])
            for verb in verbs
        )
    }


def _as_verb(sentence: str) -> str:
    verb = verb_sentence(sentence)
    assert verb is not None
    return verb
