import numpy as np
import pytest
import torch

from algdistill.histories import LearningHistory, WindowSampler
from algdistill.models import ADTransformer, ADTransformerConfig
from algdistill.tasks import TaskSpace

SPACE = TaskSpace.symbolic((7, 5), 3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def make_history(rng):
    """Make a history of random content, its episodes of one length cut by a time limit."""

    def make(num_steps=60, task_id=0, episode_length=20):
        rows = np.arange(num_steps)
        return LearningHistory(
            space=SPACE,
            task_id=task_id,
            observations=np.stack(
                [rng.integers(size, size=num_steps) for size in SPACE.observation_sizes], axis=1
            ).astype(np.uint8),
            actions=rng.integers(SPACE.num_actions, size=num_steps).astype(np.uint8),
            rewards=rng.integers(2, size=num_steps).astype(np.float32),
            env_rewards=rng.integers(2, size=num_steps).astype(np.float32),
            terminated=np.zeros(num_steps, bool),
            truncated=rows % episode_length == episode_length - 1,
        )

    return make


@pytest.fixture
def histories(make_history):
    return [make_history(task_id=task_id) for task_id in range(10)]


@pytest.fixture
def sampler(histories):
    return WindowSampler(
        histories, window_length=40, start_fraction=0.2, generator=np.random.default_rng(1)
    )


@pytest.fixture
def make_model():
    """Make a small model whose weights are large enough for every part to matter."""

    def make(space=SPACE, **options):
        shape = {
            "context_length": 40, "embed_dim": 16, "num_layers": 3, "num_heads": 2, "mlp_dim": 32
        }  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        model = ADTransformer(ADTransformerConfig(space, **shape | options), generator)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    return make


@pytest.fixture
def model(make_model):
    return make_model()
