from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from algdistill.agents import InContextAgent
from algdistill.evaluation import evaluate_in_context
from algdistill.histories import WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig, load_model
from algdistill.sources import TabularQLearning, TabularQLearningConfig
from algdistill.tasks import TaskSpace
from algdistill.tasks_fake import GridTasks
from algdistill.training import SELECTION_METRIC, Trainer, TrainingConfig
from algdistill.training.objective import Objective

CONFIG = TrainingConfig(
    num_updates=12, batch_size=4, warmup_updates=3, evaluate_every=4, log_every=2
)


class Measure:
    """Returns scripted metrics, one for each evaluation; an exception among them is raised."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def __call__(self, model):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return {SELECTION_METRIC: outcome, "eval/other": 2 * outcome}


def trainer(histories, run_dir, measure, config=CONFIG, *, seed=0, window_length=40):
    generator = torch.Generator().manual_seed(seed)
    model_config = ADTransformerConfig(
        histories[0].space, context_length=40, embed_dim=16, num_layers=2, num_heads=2, mlp_dim=32
    )
    sampler = WindowSampler(
        histories,
        window_length=window_length,
        start_fraction=0.2,
        generator=np.random.default_rng(seed),
    )
    model = ADTransformer(model_config, generator)
    return Trainer(model, sampler, config, run_dir, evaluate=measure, generator=generator)


def test_killed_training_resumes_bit_for_bit(histories, tmp_path):
    through = trainer(histories, tmp_path / "a", Measure(1.0, 2.0, 3.0))
    through.train()
    killed = trainer(histories, tmp_path / "b", Measure(1.0, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    # Another seed: everything random must come from the checkpoint.
    resumed = trainer(histories, tmp_path / "b", Measure(2.0, 3.0), seed=1)
    result = resumed.train()
    expected = through.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert (result.best_metric, result.best_update) == (3.0, 12)


def test_training_again_after_the_end_does_nothing(histories, tmp_path):
    first = trainer(histories, tmp_path, Measure(3.0, 1.0, 1.0)).train()
    assert trainer(histories, tmp_path, Measure()).train() == first


def test_best_model_is_the_one_that_learned_best_in_context(histories, tmp_path):
    seen = []

    def measure(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {SELECTION_METRIC: [1.0, 5.0, 2.0][len(seen) - 1]}

    result = trainer(histories, tmp_path, measure).train()
    assert (result.best_metric, result.best_update) == (5.0, 8)
    best = load_model(result.best_model).state_dict()
    assert all(torch.equal(best[name], seen[1][name]) for name in best)
    assert not torch.equal(best["positions"], seen[2]["positions"])


def test_tensorboard_holds_every_metric_once_after_a_resume(histories, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(histories, tmp_path, Measure(1.0, KeyboardInterrupt())).train()
    trainer(histories, tmp_path, Measure(2.0, 3.0)).train()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/accuracy",
        "train/gradient_norm",
        "train/learning_rate",
        "time/targets_per_second",
        "eval/in_context_return",
        "eval/other",
    }
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8, 10, 12]
    assert [event.value for event in events.Scalars("eval/other")] == [2.0, 4.0, 6.0]


def test_checkpoint_of_other_settings_is_refused(histories, tmp_path):
    trainer(histories, tmp_path, Measure(1.0, 1.0, 1.0)).train()
    with pytest.raises(ValueError, match="other settings"):
        trainer(histories, tmp_path, Measure(), replace(CONFIG, num_updates=20)).train()


def test_what_does_not_fit_together_is_refused(histories, tmp_path):
    run = trainer(histories, tmp_path, Measure())
    other = ADTransformer(
        replace(run.model.config, space=TaskSpace.symbolic((7, 5), 4)),
        torch.Generator().manual_seed(0),
    )
    with pytest.raises(ValueError, match="got histories of TaskSpace"):
        Trainer(
            other, run.sampler, CONFIG, tmp_path, evaluate=Measure(), generator=torch.Generator()
        )
    with pytest.raises(ValueError, match="got windows of 60 steps"):
        trainer(histories, tmp_path, Measure(), window_length=60)
    with pytest.raises(ValueError, match="expected 'eval/in_context_return' among them"):
        trainer(histories, tmp_path, lambda model: {"eval/loss": 1.0}).train()


def test_learning_rate_warms_up_and_follows_a_cosine():
    config = TrainingConfig(
        num_updates=110, warmup_updates=10, learning_rate=1.0, final_learning_rate_fraction=0.1
    )
    rates = [config.learning_rate_at(update) for update in (0, 4, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.55, 0.1])


@pytest.mark.parametrize(
    "setting", [{"num_updates": 0}, {"token_mask_rate": 1.0}, {"label_smoothing": -0.1}]
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        TrainingConfig(**setting)


def test_distilled_agent_improves_in_context_on_tasks_it_never_saw(tmp_path):
    """Two of the eight outer cells of a small room pay; four of the 28 pairs are held out."""
    pairs = torch.combinations(torch.tensor([0, 1, 2, 3, 5, 6, 7, 8]))
    order = torch.randperm(28, generator=torch.Generator().manual_seed(1))

    def tasks(which):
        paid = torch.zeros(len(which), 9).scatter_(1, pairs[which], 1.0)
        return GridTasks(paid, episode_length=8)

    curves = []

    def measure(model):
        agent = InContextAgent(model, drop_length=8)
        generator = torch.Generator().manual_seed(0)
        result = evaluate_in_context(agent, unseen, num_episodes=16, generator=generator)
        curves.append(result.env_returns.mean(axis=0))
        return {SELECTION_METRIC: float(curves[-1][-4:].mean())}

    seen, unseen = tasks(order[4:].repeat(20)), tasks(order[:4].repeat(16))
    source = TabularQLearningConfig(num_episodes=16, exploration_episodes=8)
    sampler = WindowSampler(
        TabularQLearning(seen, source, seen.task_ids).train(),
        window_length=48,
        start_fraction=0.2,
        generator=np.random.default_rng(0),
    )
    generator = torch.Generator().manual_seed(0)
    model_config = ADTransformerConfig(
        sampler.space, context_length=48, embed_dim=32, num_layers=2, num_heads=2, mlp_dim=64
    )
    config = TrainingConfig(
        num_updates=400, batch_size=32, learning_rate=1e-2, warmup_updates=50, evaluate_every=400
    )
    model = ADTransformer(model_config, generator)
    Trainer(model, sampler, config, tmp_path, evaluate=measure, generator=generator).train()
    (curve,) = curves
    first, last = curve[:2].mean(), curve[-4:].mean()
    assert last > 2 * first
    assert last > 0.6 * unseen.optimal_returns().mean().item()


def test_bfloat16_is_what_precision_asks_for_and_close_to_float32(histories, tmp_path):
    losses, weights = {}, {}
    for precision in ("fp32", "bf16"):
        run = trainer(histories, tmp_path / precision, Measure(1.0, 2.0, 3.0))
        objective = Objective(run.model, label_smoothing=0.0, precision=precision)
        assert objective.uses_bfloat16 == (precision == "bf16")
        batch = run.sampler.sample(4)
        masked = torch.zeros(batch.actions.shape, dtype=torch.bool)
        loss, _ = objective(batch, masked, None)
        loss.backward()
        losses[precision] = loss.detach()
        weights[precision] = run.model.blocks[0].query_key_value.weight
    assert losses["bf16"].dtype == weights["bf16"].grad.dtype == torch.float32
    assert losses["bf16"] != losses["fp32"]
    torch.testing.assert_close(losses["bf16"], losses["fp32"], rtol=0.01, atol=0.0)
    similarity = torch.cosine_similarity(
        weights["bf16"].grad.flatten(), weights["fp32"].grad.flatten(), dim=0
    )
    assert similarity > 0.99


def test_processors_compute_in_float32_unless_asked(histories, tmp_path):
    model = trainer(histories, tmp_path, Measure()).model
    assert not Objective(model, label_smoothing=0.0).uses_bfloat16


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision='fp8', expected one of .*'bf16'"):
        TrainingConfig(precision="fp8")
