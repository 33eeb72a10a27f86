import importlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlmreward import OpenCLIPEncoder, load_encoder, save_encoder
from vlmreward.encoders import build_model, build_tokenizer
from vlmreward.encoders.precision import choose_precision, set_precision

from .test_contract import FAMILIES, TINY, EncoderContract

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8)
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LOWEST_COSINE = {"bf16": 0.999, "fp16": 0.9999, "int8": 0.999}  # to fp32, on random weights


def make(precision, cfg=TINY, **kwargs):
    return OpenCLIPEncoder(
        build_model(cfg), build_tokenizer(cfg), name="tiny", precision=precision, **kwargs
    )


def need(precision):
    if precision == "int8":
        pytest.importorskip("torchao", reason="int8 quantises with torchao")


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"], scope="class")
class TestContract(EncoderContract):
    tolerance = 1e-2

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls, precision):
        need(precision)
        return make(precision, batch_size=4)


@pytest.mark.parametrize("family", ["vit", "resnet", "timm", "coca"])
@pytest.mark.parametrize("precision", LOWEST_COSINE)
def test_embeddings_are_close_to_those_of_fp32(precision, family):
    need(precision)
    if (precision, family) == ("int8", "resnet"):
        with pytest.raises(ValueError, match="got a ModifiedResNet, which is all convolutions"):
            make(precision, FAMILIES[family])
        return
    full, low = (make(kind, FAMILIES[family]) for kind in ("fp32", precision))
    got, expected = (encoder.encode_obs({"pixels": FRAMES}) for encoder in (low, full))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.norm(dim=1), torch.ones(6), atol=1e-6, rtol=0)
    assert (got * expected).sum(dim=1).min() > LOWEST_COSINE[precision]
    # Texts are embedded once, so their tower stays as it was.
    assert torch.equal(low.encode_text(["a dog"]), full.encode_text(["a dog"]))
    assert low.logit_scale == full.logit_scale


def test_int8_attention_is_open_clips_own_before_it_is_quantised(monkeypatch):
    class NoQuantisation:
        @staticmethod
        def quantize_(tower, config, filter_fn):
            del config
            names = [name for name, module in tower.named_modules() if filter_fn(module, name)]
            assert {name.rsplit(".")[-1] for name in names} == {"qkv", "out", "c_fc", "c_proj"}

        @staticmethod
        def Int8DynamicActivationInt8WeightConfig(set_inductor_config):  # noqa: N802
            assert not set_inductor_config

    cfg = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": 3, "head_width": 8}}
    full = make("fp32", cfg)
    monkeypatch.setattr(importlib, "import_module", lambda name: NoQuantisation)
    split = make("int8", cfg)
    torch.testing.assert_close(
        split.encode_obs({"pixels": FRAMES}), full.encode_obs({"pixels": FRAMES})
    )


def test_int8_without_torchao_says_what_to_install(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match="pip install torchao"):
        make("int8")


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_the_default_on_cuda_is_what_the_device_computes_in(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_precision(None, CUDA) == expected


def test_the_default_elsewhere_is_single_precision():
    assert choose_precision(None, CPU) == choose_precision(None, torch.device("mps")) == "fp32"
    encoder = make(None)
    assert encoder.precision == "fp32"
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}


def test_what_was_asked_for_is_done():
    encoder = make("bf16")
    assert encoder.precision == "bf16"
    assert {parameter.dtype for parameter in encoder.model.visual.parameters()} == {torch.bfloat16}
    assert encoder.model.logit_scale.dtype == torch.float32
    assert set_precision(torch.nn.Linear(2, 2), "fp16") == torch.float16


def test_impossible_precisions_are_refused():
    # Under the run-time checks of the tests, a wrong literal is a TypeError already.
    with pytest.raises((ValueError, TypeError), match="fp8"):
        choose_precision("fp8", CPU)
    with pytest.raises(ValueError, match=r"expected a CPU for .*'int8', got device 'cuda:0'"):
        choose_precision("int8", CUDA)


def test_encoders_by_name_take_a_precision(tmp_path):
    model = build_model(TINY)
    path = str(save_encoder(model, TINY, tmp_path / "tiny"))
    loaded = load_encoder(path, device="cpu", precision="bf16")
    assert loaded.precision == "bf16"
    named = load_encoder("ViT-S-32-alt", pretrained="random", device="cpu", precision="bf16")
    assert named.precision == "bf16"
    # A file is the same whichever precision it is loaded in: that is only for running it.
    assert load_file(tmp_path / "tiny.safetensors")["logit_scale"].dtype == torch.float32


@pytest.mark.parametrize(("given", "expected"), [(None, 64), (7, 7)])
def test_a_cpu_takes_fewer_frames_at_once(given, expected):
    assert make(None, batch_size=given).batch_size == expected


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_something(batch_size):
    with pytest.raises(ValueError, match=f"positive batch_size, got {batch_size}"):
        make(None, batch_size=batch_size)
