import math

import numpy as np
import pytest
import torch
from scipy import stats

from algdistill.sources import UCB1, ThompsonSampling, ThompsonSamplingConfig, UCB1Config
from algdistill.sources.beta_sampling import DRAWS_PER_SAMPLE, sample_beta
from algdistill.sources.random_streams import stream_origins
from algdistill.tasks import StepResult
from algdistill.tasks_fake import dark_room_tasks
from vlmreward_envs.adversarial_bandit import AdversarialBanditTasks, draw_arm_probabilities

BOTH = pytest.mark.parametrize(
    ("kind", "config"), [(UCB1, UCB1Config()), (ThompsonSampling, ThompsonSamplingConfig())]
)


class FixedArms:
    """Arms that always pay the same."""

    observation_sizes = (1,)
    device = torch.device("cpu")

    def __init__(self, pays, num_tasks=1, episode_length=8):
        self.pays = torch.tensor(pays)
        self.num_tasks, self.num_actions = num_tasks, len(pays)
        self.episode_length = episode_length
        self.task_ids = torch.arange(num_tasks)

    def reset(self):
        return torch.zeros(self.num_tasks, 1, dtype=torch.long)

    def step(self, actions):
        obs, reward = self.reset(), self.pays[actions]
        never = torch.zeros(self.num_tasks, dtype=torch.bool)
        return StepResult(obs, obs, reward, reward, terminated=never, truncated=never)


def adversarial(num_tasks, probabilities=None):
    ids = torch.arange(num_tasks)
    if probabilities is None:
        probabilities = draw_arm_probabilities(ids)
    return AdversarialBanditTasks(ids, ids, probabilities)


def test_ucb_pulls_as_computed_by_hand():
    # The first arm always pays 1, the second 0. After both were pulled (n = 2), the second's bound
    # sqrt(2 ln n) first exceeds the first's, 1 + sqrt(2 ln n / (n - 1)), at n = 6:
    # n = 5: 1.794 < 1.897; n = 6: 1.893 > 1.847. Then, n = 7: 1 + .882 > 1.395.
    histories = UCB1(FixedArms([1.0, 0.0], 20), UCB1Config(), torch.arange(20)).train()
    for history in histories:
        assert sorted(history.actions[:2]) == [0, 1]
        assert history.actions[2:].tolist() == [0, 0, 0, 0, 1, 0]


def test_ucb_pulls_the_largest_bound_recomputed_from_its_history():
    tasks = adversarial(30)
    config = UCB1Config(exploration=0.7)
    for history in UCB1(tasks, config, torch.arange(30)).train():
        pulls, paid = np.zeros(10), np.zeros(10)
        for row, (arm, reward) in enumerate(zip(history.actions, history.rewards, strict=True)):
            if row >= 10:
                bounds = paid / pulls + np.sqrt(config.exploration * math.log(row) / pulls)
                assert bounds[arm] >= bounds.max() - 1e-5
            pulls[arm] += 1
            paid[arm] += reward


def test_ucb_pulls_each_arm_once_first_in_an_order_of_its_own():
    actions = np.stack(
        [h.actions for h in UCB1(adversarial(200), UCB1Config(), torch.arange(200)).train()]
    )
    assert (np.sort(actions[:, :10], axis=1) == np.arange(10)).all()
    first = np.bincount(actions[:, 0], minlength=10)
    assert first.min() >= 5  # 20 expected of each
    assert first.max() <= 40


def pseudo_regret(histories, probabilities):
    """What each trial's arm is worth less than the best, [learner, trial]."""
    worth = probabilities.numpy()
    pulled = np.stack([history.actions for history in histories]).astype(int)
    return worth.max(axis=1, keepdims=True) - np.take_along_axis(worth, pulled, axis=1)


def test_regret_of_ucb_grows_like_the_logarithm():
    probabilities = torch.full((100, 10), 0.1)
    probabilities[torch.arange(100), torch.arange(100) % 10] = 0.9
    histories = UCB1(adversarial(100, probabilities), UCB1Config(16), torch.arange(100)).train()
    total = pseudo_regret(histories, probabilities).mean(axis=0).cumsum()
    uniform = 0.9 * 0.8 * 1600
    assert total[-1] < uniform / 4
    # Every doubling adds the same to a logarithm, and twice as much as the last to a line.
    doublings = np.diff(total[[199, 399, 799, 1599]])
    assert (doublings > 0).all()
    assert (doublings[1:] / doublings[:-1] < 1.4).all()
    # Lai and Robbins (1985): asymptotically nobody consistent does better than this slope.
    divergence = 0.1 * math.log(0.1 / 0.9) + 0.9 * math.log(0.9 / 0.1)
    assert doublings[-1] > 9 * 0.8 / divergence * math.log(2)


def test_thompson_sampling_is_better_than_ucb_and_ucb_than_chance():
    probabilities = draw_arm_probabilities(torch.arange(300))
    seeds = torch.arange(300)
    ucb, thompson = (
        pseudo_regret(kind(adversarial(300), config, seeds).train(), probabilities).sum(axis=1)
        for kind, config in ((UCB1, UCB1Config()), (ThompsonSampling, ThompsonSamplingConfig()))
    )
    chance = 100 * (probabilities.amax(dim=1) - probabilities.mean(dim=1)).mean().item()
    assert thompson.mean() < 0.8 * ucb.mean()
    assert ucb.mean() < 0.9 * chance
    assert thompson.mean() < 0.5 * chance


@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (1, 6), (30, 2), (51, 51)])
def test_beta_samples_are_distributed_as_they_should_be(alpha, beta):
    count = 5000
    samples = sample_beta(
        torch.full((count,), float(alpha), dtype=torch.float64),
        torch.full((count,), float(beta), dtype=torch.float64),
        stream_origins(torch.arange(count)),
        torch.full((count,), 12),
    )
    assert stats.kstest(samples.numpy(), stats.beta(alpha, beta).cdf).pvalue > 0.01


def test_beta_samples_do_not_depend_on_what_is_drawn_beside_them():
    count = 3000
    alpha, beta = (1.0 + torch.arange(count).double() % modulus for modulus in (7, 40))
    origins, first = stream_origins(torch.arange(count)), DRAWS_PER_SAMPLE * torch.arange(count)
    whole = sample_beta(alpha, beta, origins, first)
    part = slice(1701, 1800)
    alone = sample_beta(alpha[part], beta[part], origins[part], first[part])
    assert torch.allclose(alone, whole[part], rtol=1e-12, atol=0.0)
    assert len(whole.unique()) == count


def test_thompson_sampling_pulls_the_largest_sample_of_what_its_history_says():
    (history,) = ThompsonSampling(
        adversarial(1), ThompsonSamplingConfig(), torch.tensor([5])
    ).train()
    alpha, beta = torch.ones(2, 10, dtype=torch.float64)
    origins = stream_origins(torch.tensor([5])).repeat(10)
    for row, (arm, reward) in enumerate(zip(history.actions, history.rewards, strict=True)):
        first = (row * 10 + torch.arange(10)) * DRAWS_PER_SAMPLE
        assert sample_beta(alpha, beta, origins, first).argmax() == arm
        alpha[arm] += reward
        beta[arm] += 1 - reward


@BOTH
def test_episodes_go_on_where_the_last_one_ended(kind, config):
    tasks = adversarial(100)
    longer = kind(tasks, type(config)(num_episodes=3), torch.arange(100)).train()
    returns = np.stack([history.episode_returns for history in longer]).mean(axis=0)
    assert returns[0] + 5 < returns[1] < returns[2]


@BOTH
def test_tasks_with_several_states_are_refused(kind, config):
    with pytest.raises(ValueError, match=r"observation_sizes=\(3, 3\), expected a single state"):
        kind(dark_room_tasks(size=3), config, torch.arange(9))


def test_rewards_the_algorithm_is_not_made_for_are_refused():
    with pytest.raises(ValueError, match=r"from 1\.5 to 1\.5, expected 0 to 1: rescale"):
        UCB1(FixedArms([1.5, 1.5]), UCB1Config(), torch.arange(1)).train()
    with pytest.raises(ValueError, match="expected each 0 or 1: use UCB1"):
        ThompsonSampling(FixedArms([0.5, 0.5]), ThompsonSamplingConfig(), torch.arange(1)).train()
    with pytest.raises(ValueError, match=r"exploration=0\.0"):
        UCB1Config(exploration=0.0)
