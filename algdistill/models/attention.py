r"""What a model looks at: the attention weights that acting never needs to write down.

In each head, with queries :math:`q` and keys :math:`k` of width :math:`K` (Vaswani et al. 2017),
token :math:`t` reads token :math:`s` with the weight

.. math:: w_{ts} = \frac{\exp(q_t \cdot k_s / \sqrt K)}
    {\sum_{s' \le t} \exp(q_t \cdot k_{s'} / \sqrt K)} \quad (s \le t)

Axis letters: ``B`` windows, ``L`` layers, ``H`` heads, ``K`` tokens, as many as time steps where
each has one.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algdistill.models.block import Block
from algdistill.models.transformer import ADTransformer
from algdistill.timesteps import TimestepBatch


@torch.no_grad()
def attention_weights(model: ADTransformer, steps: TimestepBatch) -> Float[Tensor, "B L H K K"]:
    """How much each token of a window reads of every other, in each layer and head.

    ``weights[b, l, h, t]`` sums to 1 and is 0 for tokens after ``t``. Weights say what is read, not
    what is made of it: the residual stream of a token has already mixed in others in the layers
    below.

    Args:
        model: Its weights are not changed.
        steps: What is known at each time step, from the beginning of the context.

    Raises:
        ValueError: If there are more steps than the context holds.

    Example:
        >>> from algdistill.histories import WindowSampler
        >>> from algdistill.models import ADTransformerConfig
        >>> from algdistill.sources import TabularQLearning, TabularQLearningConfig
        >>> from algdistill.tasks_fake import dark_room_tasks
        >>> import numpy as np
        >>> tasks = dark_room_tasks(size=3)
        >>> fleet = TabularQLearning(tasks, TabularQLearningConfig(num_episodes=4), tasks.task_ids)
        >>> windows = WindowSampler(
        ...     fleet.train(),
        ...     window_length=40,
        ...     start_fraction=0.0,
        ...     generator=np.random.default_rng(0),
        ... )
        >>> config = ADTransformerConfig(windows.space, context_length=40)
        >>> model = ADTransformer(config, torch.Generator().manual_seed(0))
        >>> attention_weights(model, windows.sample(8).steps).shape
        torch.Size([8, 4, 4, 40, 40])
    """
    layers: list[Tensor] = []

    def look(block: Block, inputs: tuple[Any, ...]) -> None:
        layers.append(block.attention_weights(inputs[0], model.rotary))

    hooks = [block.register_forward_pre_hook(look) for block in model.blocks]
    try:
        model(steps)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers, dim=1)
