"""In which arithmetic an image tower runs.

Axes: `B` batch, `T` tokens, `D` width of a token.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""Single, the two half precisions, or 8-bit weights and activations in linear layers."""

_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,  # what goes in, and what all but the linear layers compute in
}


def choose_precision(precision: Precision | None, device: torch.device) -> Precision:
    """Returns a precision that a device can do, its own default if None.

    The default is bf16 on a CUDA device that computes in it, fp16 on an older one, and fp32
    everywhere else: a CPU without matrix units for bf16 is slower in it.

    Raises:
        ValueError: If the precision is unknown, or int8 is asked for on anything but a CPU.
    """
    if precision is None:
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if precision not in get_args(Precision):
        raise ValueError(
            f"expected precision to be one of {get_args(Precision)} or None, got {precision!r}"
        )
    if precision == "int8" and device.type != "cpu":
        raise ValueError(
            f"expected a CPU for precision 'int8', got device {str(device)!r}: use 'bf16' or 'fp16'"
        )
    return precision


def set_precision(tower: nn.Module, precision: Precision) -> torch.dtype:
    """Converts an image tower in place, and returns the dtype it takes.

    Raises:
        ImportError: If int8 is asked for and torchao is not installed.
        ValueError: If int8 is asked for and the tower has no linear layers.
    """
    if precision == "int8":
        _quantize(tower)
    else:
        tower.to(_DTYPES[precision])
    return _DTYPES[precision]


def _quantize(tower: nn.Module) -> None:
    try:
        torchao: Any = importlib.import_module("torchao.quantization")
    except ImportError as error:
        raise ImportError(
            "precision 'int8' quantises with torchao, which is not installed: pip install torchao"
        ) from error
    for block in tower.modules():
        if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
            block.attn = _SelfAttention(block.attn)
    # A ResNet's pooling hands the weights of its linear layers to a function that needs floats.
    pooled = {
        layer
        for pool in tower.modules()
        if isinstance(pool, AttentionPool2d)
        for layer in pool.children()
    }
    layers = {module for module in tower.modules() if type(module) is nn.Linear} - pooled
    if not layers:
        raise ValueError(
            "expected an image tower with linear layers for precision 'int8', got a "
            f"{type(tower).__name__}, which is all convolutions: use 'fp32' or 'bf16'"
        )
    # One scale for each token and for each row of a weight: rows of a batch stay independent.
    torchao.quantize_(
        tower,
        torchao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False),
        filter_fn=lambda module, _: module in layers,
    )


class _SelfAttention(nn.Module):
    """`nn.MultiheadAttention` as two linear layers, which can be quantised.

    Args:
        attention: Whose weights to take.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        assert attention.in_proj_weight is not None
        assert attention.batch_first
        self.num_heads = attention.num_heads
        width = attention.embed_dim
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out.weight, self.out.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self,
        query: Float[torch.Tensor, "B T D"],
        key: Float[torch.Tensor, "B T D"],
        value: Float[torch.Tensor, "B T D"],
        *,
        need_weights: bool = False,
        attn_mask: Float[torch.Tensor, "T T"] | None = None,
    ) -> tuple[Float[torch.Tensor, "B T D"], None]:
        """Lets `query` attend to itself, which open_clip's blocks hand over three times."""
        assert key is query
        assert value is query
        assert not need_weights
        heads = self.qkv(query).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out(attended.transpose(1, 2).flatten(2)), None
