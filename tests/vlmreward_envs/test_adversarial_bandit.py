import numpy as np
import pytest
import torch
from scipy import stats

from vlmreward_envs.adversarial_bandit import (
    EPISODE_LENGTH,
    NUM_ARMS,
    ODD_RATE,
    AdversarialBanditTasks,
    draw_arm_probabilities,
    no_adaptation_return,
)

MANY = torch.arange(100_000)


def bandits(probabilities, seeds=None):
    task_ids = torch.arange(len(probabilities))
    return AdversarialBanditTasks(task_ids, task_ids if seeds is None else seeds, probabilities)


def test_sizes_are_the_papers():
    assert (NUM_ARMS, EPISODE_LENGTH) == (10, 100)
    assert dict(ODD_RATE) == {"train": 0.95, "test": 0.05}
    tasks = bandits(draw_arm_probabilities(torch.arange(3)))
    assert (tasks.num_actions, tasks.episode_length, tasks.observation_sizes) == (10, 100, (1,))


@pytest.mark.parametrize(("split", "odd_rate"), [("train", 0.95), ("test", 0.05)])
def test_best_arm_is_odd_as_often_as_the_split_says(split, odd_rate):
    best = draw_arm_probabilities(MANY, split).argmax(dim=1)
    counts = torch.bincount(best, minlength=10)
    is_odd = torch.arange(10) % 2 == 1
    expected = torch.where(is_odd, odd_rate / 5, (1 - odd_rate) / 5) * len(MANY)
    # Chi-squared with 9 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < stats.chi2.ppf(1 - 1e-4, 9)


def test_arms_pay_as_uniform_numbers_do_whatever_the_split():
    train, test = (draw_arm_probabilities(MANY[:20_000], split).numpy() for split in ODD_RATE)
    # The same ten numbers; only their places differ.
    assert np.array_equal(np.sort(train, axis=1), np.sort(test, axis=1))
    assert stats.kstest(train.ravel(), "uniform").pvalue > 1e-3
    largest = stats.kstest(train.max(axis=1), lambda value: value**10)
    assert largest.pvalue > 1e-3


def test_only_the_largest_number_changes_places():
    probabilities = draw_arm_probabilities(MANY[:1000]).numpy()
    opposite = draw_arm_probabilities(MANY[:1000], "test").numpy()
    assert ((probabilities != opposite).sum(axis=1) <= 3).all()


def test_optimum_and_no_adaptation_agree_with_many_tasks():
    tables = {split: draw_arm_probabilities(MANY, split) for split in ODD_RATE}
    by_arm = {split: 100 * table.double().mean(dim=0) for split, table in tables.items()}
    for acting, likelier in (("train", 1), ("test", 0)):
        for paid_in in ODD_RATE:
            # A fixed arm of the likelier kind; the mean of 100,000 tasks has a deviation of 0.1.
            expected = [no_adaptation_return(acting, paid_in)] * 5
            assert by_arm[paid_in][likelier::2].tolist() == pytest.approx(expected, abs=0.5)
        assert no_adaptation_return(acting) > by_arm[acting][1 - likelier :: 2].max()
    optimum = bandits(tables["train"]).optimal_returns()
    assert optimum.double().mean().item() == pytest.approx(1000 / 11, abs=0.15)


def test_a_uniform_choice_earns_half_in_both_splits():
    for split in ODD_RATE:
        assert 100 * draw_arm_probabilities(MANY, split).mean() == pytest.approx(50.0, abs=0.2)


def test_trials_pay_with_the_probability_of_the_arm():
    probabilities = torch.linspace(0.0, 1.0, 10).expand(2000, 10)
    for arm in (0, 4, 9):
        tasks = bandits(probabilities)
        rewards = torch.stack(
            [tasks.step(torch.full((2000,), arm)).reward for _ in range(EPISODE_LENGTH)]
        )
        assert set(rewards.unique().tolist()) <= {0.0, 1.0}
        # 200,000 trials: a deviation of at most 0.0011.
        assert rewards.mean().item() == pytest.approx(arm / 9, abs=0.005)
        # Trials of one task, and tasks of one trial, are independent: binomial variances.
        spread = (arm / 9) * (1 - arm / 9)
        assert rewards.sum(dim=0).var().item() == pytest.approx(100 * spread, rel=0.2)
        assert rewards.sum(dim=1).var().item() == pytest.approx(2000 * spread, rel=0.6)


def test_optimal_returns_are_earned_by_the_best_arm():
    tasks = bandits(draw_arm_probabilities(torch.arange(2000)))
    best = tasks.arm_probabilities.argmax(dim=1)
    returns = sum(tasks.step(best).reward for _ in range(EPISODE_LENGTH))
    surplus = (returns - tasks.optimal_returns()) / 100
    assert abs(surplus.mean().item()) < 0.004
    assert torch.equal(tasks.optimal_returns(), 100 * tasks.arm_probabilities.amax(dim=1))


def test_luck_differs_between_episodes_and_seeds_and_not_by_task_id():
    half = torch.full((2, 10), 0.5)
    pull = torch.zeros(2, dtype=torch.int64)
    tasks = bandits(half, seeds=torch.tensor([5, 5]))
    rewards = torch.stack([tasks.step(pull).reward for _ in range(200)])
    assert torch.equal(rewards[:, 0], rewards[:, 1])
    assert not torch.equal(rewards[:100], rewards[100:])
    other = bandits(half, seeds=torch.tensor([5, 6]))
    others = torch.stack([other.step(pull).reward for _ in range(200)])
    assert torch.equal(others[:, 0], rewards[:, 0])
    assert not torch.equal(others[:, 1], rewards[:, 1])


def test_other_readings_of_the_paper_fit_in():
    """A single arm that pays, always: what is odd about a bandit is its table."""
    tasks = bandits(torch.eye(10))
    assert tasks.step(torch.arange(10)).reward.tolist() == [1.0] * 10
    assert tasks.step(torch.arange(10).flip(0)).reward.tolist() == [0.0] * 10


def test_bad_bandits_are_refused():
    one = torch.tensor([0])
    with pytest.raises(ValueError, match="split='val', expected one of"):
        draw_arm_probabilities(one, "val")
    with pytest.raises(ValueError, match=r"shape \(1, 9\), expected \(1, 10\)"):
        AdversarialBanditTasks(one, one, torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        AdversarialBanditTasks(one, one, torch.full((1, 10), 1.5))
    with pytest.raises(ValueError, match=r"seeds of shape \(2,\)"):
        AdversarialBanditTasks(one, torch.tensor([0, 1]), torch.zeros(1, 10))
