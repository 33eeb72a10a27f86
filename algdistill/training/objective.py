"""The loss of one process's share of a batch, in the precision that suits its device.

Axis letters: ``B`` windows, ``T`` time steps.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from algdistill.histories.pool import WindowBatch
from algdistill.models.transformer import ADTransformer
from algdistill.training.loss import action_loss


class Objective(nn.Module):
    """`action_loss` of a model: one module for what averages gradients over processes to wrap.

    In bfloat16, only products of matrices and, on GPUs, attention are: weights, their gradients and
    the loss are float32. The model itself, as agents use it, is left as it is.

    Args:
        model: What is trained.
        label_smoothing: See `action_loss`.
        precision: See `TrainingConfig`.
    """

    def __init__(
        self, model: ADTransformer, label_smoothing: float, precision: str | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self._precision = precision

    @property
    def uses_bfloat16(self) -> bool:
        """Whether the model computes in bfloat16."""
        if self._precision is not None:
            return self._precision == "bf16"
        return self.model.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )

    def forward(
        self,
        batch: WindowBatch,
        masked: Bool[Tensor, "B T"],
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Loss and accuracy over the steps that are not masked.

        Args:
            batch: Windows, on the model's device.
            masked: Steps that are hidden.
            generator: Draws what is dropped out.
        """
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.uses_bfloat16):
            outputs = self.model(batch.steps, masked, generator=generator)
        return action_loss(outputs.float(), batch.actions, masked, self.label_smoothing)
