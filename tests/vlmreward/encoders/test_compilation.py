"""Compiled image towers: what torch.compile must not change, and what it needs.

All but one test leave out code generation, which takes a C++ compiler half a minute: the backend
"aot_eager" traces, specialises and recompiles as the real one does.
"""

import copy
import inspect
import shutil

import numpy as np
import pytest
import torch
import torch._inductor.config
from safetensors.torch import load_file

from vlmreward import OpenCLIPEncoder, load_encoder, save_encoder
from vlmreward.encoders import build_model, build_tokenizer
from vlmreward.encoders.precision import _SelfAttention
from vlmreward.encoders.towers import PatchConvNet, _ConvNorm

from .test_contract import FAMILIES, TINY

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8)
COMPILER = torch._inductor.config.cpp.cxx[1]


@pytest.fixture(autouse=True)
def _start_without_programs():
    # Programs belong to a tower's class: torch keeps eight, and then stops compiling.
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced_only(monkeypatch):
    # torch.compile cannot look into the run-time checks of the tests, which users do not have.
    for module in (PatchConvNet, _ConvNorm, _SelfAttention):
        monkeypatch.setattr(module, "forward", inspect.unwrap(module.forward))
    torch.compiler.set_default_backend("aot_eager")
    yield
    torch.compiler.set_default_backend(None)


def make(cfg=TINY, **kwargs):
    return OpenCLIPEncoder(build_model(cfg), build_tokenizer(cfg), name="tiny", **kwargs)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("family", "precision"),
    [
        ("vit", "fp32"),
        ("coca", "fp32"),
        ("patch_convnet", "fp32"),
        ("vit", "bf16"),
        ("vit", "int8"),
    ],
)
def test_embeddings_stay_the_same_and_ragged_batches_compile_nothing(family, precision):
    if precision == "int8":
        pytest.importorskip("torchao", reason="int8 quantises with torchao")
    plain, compiled = (
        make(FAMILIES[family], precision=precision, compile=compile) for compile in (False, True)
    )
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    with torch.compiler.set_stance("fail_on_recompile"):
        for num in (6, 5, 2, 3):
            got, expected = (x.encode_obs({"pixels": FRAMES[:num]}) for x in (compiled, plain))
            torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)
        with pytest.raises(RuntimeError, match="recompile"):  # so the stance does forbid it
            compiled.encode_obs({"pixels": FRAMES[:1]})
    one, expected = (x.encode_obs({"pixels": FRAMES[:1]}) for x in (compiled, plain))
    torch.testing.assert_close(one, expected, atol=tolerance, rtol=0)


@pytest.mark.usefixtures("traced_only")
def test_a_compiled_encoder_is_saved_and_copied_like_any_other(tmp_path):
    plain, compiled = make(), make(compile=True)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    first, second = (
        load_file(save_encoder(encoder.model, TINY, tmp_path / name).with_suffix(".safetensors"))
        for encoder, name in ((plain, "plain"), (compiled, "compiled"))
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    expected = plain.encode_obs({"pixels": FRAMES})
    torch.testing.assert_close(
        copy.deepcopy(compiled).encode_obs({"pixels": FRAMES}), expected, atol=1e-5, rtol=0
    )
    again = load_encoder(str(tmp_path / "compiled.json"), device="cpu", compile=True)
    # Matrices went through half precision.
    torch.testing.assert_close(again.encode_obs({"pixels": FRAMES}), expected, atol=2e-3, rtol=0)


def test_without_a_compiler_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(RuntimeError, match=r"a VisionTransformer on 'cpu' .*No working C\+\+"),
    ):
        make(compile=True)


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"no C++ compiler ({COMPILER})")
@pytest.mark.timeout(900)  # a compiler on a busy machine
def test_generated_code_computes_the_same():
    plain, compiled = make(), make(compile=True)
    for num in (6, 5):
        got, expected = (x.encode_obs({"pixels": FRAMES[:num]}) for x in (compiled, plain))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
