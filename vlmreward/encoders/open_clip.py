"""Any open_clip model as an `ImageTextEncoder`.

Axes: `B` batch, `N` texts, `D` width of the embedding, `S T` height and width of the model's input.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.factory import load_checkpoint, load_state_dict
from open_clip.model import set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch.nn.functional import normalize

from vlmreward.encoders import towers  # noqa: F401 (makes our image towers known to timm)
from vlmreward.encoders.base import check_texts, require_modalities
from vlmreward.encoders.cache import TextEmbeddingCache
from vlmreward.encoders.compilation import compile_tower
from vlmreward.encoders.precision import Precision, choose_precision, set_precision
from vlmreward.encoders.preprocess import Preprocessor
from vlmreward.frames import PIXELS, check_frames, to_tensor
from vlmreward.heads import Head

Tokenizer = Callable[..., Int[torch.Tensor, "N K"]]
"""Texts, and optionally how many tokens (`context_length`), to padded token ids."""


class CheckpointError(ValueError):
    """A file of weights that cannot be read, or that belongs to another model."""


class OpenCLIPEncoder:
    """A frozen open_clip model with its own preprocessing and tokenizer.

    `load_encoder` makes one from a name. Use the class itself for a model that exists already; it
    is put into evaluation mode, its parameters stop requiring gradients and its image tower is
    converted, so hand a copy of a model that is still in training.

    Frames are embedded in `precision`; texts, each embedded once, in the model's own. Embeddings
    are float32 unit vectors in every precision, and only in fp32 do they agree to 1e-5 however a
    batch is split.

    Args:
        model: An open_clip model (CLIP, CustomTextCLIP or CoCa), on the device to use.
        tokenizer: The model's own.
        name: What to call it in records of a run.
        batch_size: How many frames, or texts, go through the model at once, at most: 64 on a CPU,
            whose caches hold no more, and 256 elsewhere, if None.
        precision: Of the image tower. If None, bf16 on a CUDA device that computes in it, fp16 on
            an older one, fp32 everywhere else. int8 is for CPUs and needs torchao.
        compile: Whether to compile the image tower with `torch.compile`, here and now. On a CPU it
            pays for int8, not for fp32; see the page on speed. Set the number of threads before.
        calibrated_head: The head that was measured for this model.
        training: How the weights were made, for the record.

    Raises:
        ValueError: If the batch size is not positive, if the precision is unknown, or if it is int8
            and the model is not on a CPU or has no linear layers.
        ImportError: If the precision is int8 and torchao is not installed.
        RuntimeError: If the tower cannot be compiled, as where there is no C++ compiler.
    """

    modalities = (PIXELS,)

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str,
        batch_size: int | None = None,
        precision: Precision | None = None,
        compile: bool = False,
        calibrated_head: Head | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"expected a positive batch_size, got {batch_size}")
        self.model = cast(Any, model.eval().requires_grad_(False))
        self.tokenizer = cast(Any, tokenizer)
        self.name = name
        self.calibrated_head = calibrated_head
        self.training = dict(training or {})
        self.preprocess = Preprocessor.from_open_clip(self.model.visual.preprocess_cfg)
        self.device: torch.device = self.model.logit_scale.device
        self.batch_size = batch_size or (64 if self.device.type == "cpu" else 256)
        self.precision = choose_precision(precision, self.device)
        self._dtype = set_precision(self.model.visual, self.precision)
        if compile:
            blank = torch.zeros(2, *self.preprocess.size, 3, dtype=torch.uint8)
            compile_tower(self.model.visual, self._prepare(blank))
        self.logit_scale = float(self.model.logit_scale.exp())
        bias = getattr(self.model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias)
        self.context_length = int(self.tokenizer.context_length)
        self._text_embeddings = TextEmbeddingCache(self._encode_new_texts)
        self.embed_dim = self.encode_text(["a"]).shape[1]

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B D"]:
        """Embeds frames of any one size; see `ImageTextEncoder`."""
        require_modalities(obs, self)
        frames = check_frames(obs[PIXELS])
        chunks = range(0, len(frames), self.batch_size)
        with torch.no_grad():
            return torch.cat([self._encode(frames[i : i + self.batch_size]) for i in chunks])

    def encode_text(self, texts: Sequence[str]) -> Float[torch.Tensor, "N D"]:
        """Embeds texts, each once in the life of this encoder; see `ImageTextEncoder`."""
        return self._text_embeddings(check_texts(texts))

    def _encode(self, frames: Any) -> Float[torch.Tensor, "B D"]:
        # Scaled to unit length after the cast: a unit vector in half precision is not one in full.
        return normalize(self.model.encode_image(self._prepare(frames)).float(), dim=1)

    def _prepare(self, frames: Any) -> Float[torch.Tensor, "B 3 S T"]:
        return self.preprocess(to_tensor(frames, self.device)).to(self._dtype)

    def _encode_new_texts(self, texts: list[str]) -> Float[torch.Tensor, "N D"]:
        warn_where_truncated(texts, self.tokenizer, self.context_length, self.name)
        tokens = self.tokenizer(texts).to(self.device)
        with torch.no_grad():
            chunks = tokens.split(self.batch_size)
            return torch.cat([self.model.encode_text(x, normalize=True) for x in chunks])


def warn_where_truncated(
    texts: list[str], tokenizer: Tokenizer, context_length: int, encoder_name: str
) -> None:
    """Warns of every text that has more tokens than are read."""
    short = tokenizer(texts)
    # With room for twice as many tokens, a text that fits is the same text with more padding.
    long = tokenizer(texts, context_length=2 * context_length)
    changed = (short != long[:, :context_length]).any(dim=1)
    for text, truncated in zip(texts, changed.tolist(), strict=True):
        if truncated:
            warnings.warn(
                f"encoder {encoder_name!r} reads {context_length} tokens; the rest of this "
                f"prompt is cut off, shorten it: {text!r}",
                UserWarning,
                stacklevel=2,
            )


def build_model(
    model_cfg: Mapping[str, Any],
    *,
    preprocess_cfg: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> torch.nn.Module:
    """Builds an open_clip model with random weights from its configuration.

    Nothing is registered with open_clip and the global random generator stays as it is.

    Args:
        model_cfg: What open_clip's own `model_configs/*.json` hold: `embed_dim`, `vision_cfg`,
            `text_cfg` and so on.
        preprocess_cfg: Where its preprocessing differs from open_clip's defaults.
        seed: Of the random weights.

    Raises:
        ValueError: If the configuration lacks one of its three main entries.
    """
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in model_cfg]
    if missing:
        raise ValueError(f"expected an open_clip model configuration, got one without {missing}")
    cfg = copy.deepcopy(dict(model_cfg))
    is_hf_text = "hf_model_name" in cfg["text_cfg"]
    if is_hf_text:
        cfg["text_cfg"]["hf_model_pretrained"] = False
    model_class: Any = open_clip.CLIP
    if cfg.pop("custom_text", False) or is_hf_text:
        model_class = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not the devices' as well
        model: Any = model_class(**cfg)
    merged = merge_preprocess_dict(PreprocessCfg(), {"size": model.visual.image_size})
    set_model_preprocess_cfg(model, merge_preprocess_dict(merged, dict(preprocess_cfg or {})))
    return cast(torch.nn.Module, model)


def build_tokenizer(model_cfg: Mapping[str, Any]) -> Tokenizer:
    """Builds the tokenizer that a model configuration names (open_clip's byte pairs if none)."""
    text_cfg = model_cfg["text_cfg"]
    kwargs = dict(text_cfg.get("tokenizer_kwargs") or {})
    context_length = text_cfg.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    hf_name = text_cfg.get("hf_tokenizer_name")
    if hf_name:
        mode = text_cfg.get("tokenizer_mode")
        tokenizer: Any = open_clip.HFTokenizer(
            hf_name, context_length=context_length, tokenizer_mode=mode, **kwargs
        )
    else:
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length, **kwargs)
    return cast(Tokenizer, tokenizer)


def load_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Loads a local checkpoint, safetensors or a torch file of tensors, into a model.

    Raises:
        CheckpointError: If the file is missing or damaged, holds more than tensors, or does not
            fit the model; the message then names keys and shapes.
    """
    state = read_weights(path)
    try:
        load_checkpoint(model, str(path), strict=True, weights_only=True)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise misfit(path, model, state) from error


def read_weights(path: str | Path) -> Mapping[str, Any]:
    """Reads a file of weights, safetensors or a torch file of tensors.

    Raises:
        CheckpointError: If it is missing or damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint file, found none at {path}")
    try:
        state: Mapping[str, Any] = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # every reader behind it has its own exceptions
        raise CheckpointError(
            f"cannot read {path} as a safetensors file or as a torch file that holds tensors only "
            f"({error}): it may be damaged or cut short; save or download it again"
        ) from error
    return state


def misfit(path: str | Path, model: torch.nn.Module, state: Mapping[str, Any]) -> CheckpointError:
    """Returns the error that says how a file's weights differ from a model's."""
    return CheckpointError(
        f"{path} does not fit the model: {_difference(model.state_dict(), state)}. Load it with "
        "the architecture that it was trained with"
    )


def _difference(expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    shapes = [
        f"{key} (got {list(got[key].shape)}, expected {list(expected[key].shape)})"
        for key in expected
        if key in got and got[key].shape != expected[key].shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in got],
        "unexpected": [key for key in got if key not in expected],
        "of another shape": shapes,
    }
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
        for kind, keys in kinds.items()
        if keys
    )
