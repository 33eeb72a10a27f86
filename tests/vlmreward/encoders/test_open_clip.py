import json
import logging
import warnings

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmreward import (
    CheckpointError,
    OpenCLIPEncoder,
    SoftmaxHead,
    ThresholdHead,
    load_encoder,
    save_encoder,
)
from vlmreward.encoders import build_model, build_tokenizer, shipped_encoders
from vlmreward.encoders.cache import TextEmbeddingCache
from vlmreward.encoders.open_clip import load_weights

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return build_model(TINY, preprocess_cfg={"resize_mode": "squash", "mean": (0.5, 0.4, 0.3)})


@pytest.fixture(scope="module")
def encoder(model):
    return OpenCLIPEncoder(model, build_tokenizer(TINY), name="tiny")


@pytest.fixture
def saved(model, tmp_path):
    head = ThresholdHead(SoftmaxHead(temperature=0.07), threshold=0.6)
    return save_encoder(model, TINY, tmp_path / "run/tiny", head=head, training={"seed": 3})


def test_equals_open_clips_own_path(model, encoder):
    # Frames of the model's own size, so that resizing plays no part.
    frames = FRAMES[:, :32, :32]
    normalised = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    normalised = (normalised - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / std
    texts = ["a red room", "a dog"]
    with torch.no_grad():
        image_logits, _ = model.get_logits(normalised, build_tokenizer(TINY)(texts))
    cosine = encoder.encode_obs({"pixels": frames}) @ encoder.encode_text(texts).T
    torch.testing.assert_close(encoder.logit_scale * cosine, image_logits, atol=1e-4, rtol=0)


def test_the_logit_scale_is_no_logarithm(encoder):
    # open_clip starts at log(1 / .07).
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


def test_a_model_in_training_is_put_into_evaluation_mode():
    model = build_model({**TINY, "vision_cfg": {**TINY["vision_cfg"], "patch_dropout": 0.5}})
    model.train()
    encoder = OpenCLIPEncoder(model, build_tokenizer(TINY), name="tiny")
    first, second = (encoder.encode_obs({"pixels": FRAMES}) for _ in range(2))
    assert torch.equal(first, second)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (build_model(TINY, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.text_projection, again.text_projection)
    assert not torch.equal(first.text_projection, other.text_projection)


def test_building_a_model_registers_nothing_and_keeps_the_configuration():
    known, cfg = open_clip.list_models(), json.loads(json.dumps(TINY))
    build_model(cfg)
    assert open_clip.list_models() == known
    assert cfg == TINY
    with pytest.raises(ValueError, match=r"without \['text_cfg'\]"):
        build_model({key: TINY[key] for key in ("embed_dim", "vision_cfg")})


def test_a_prompt_beyond_the_context_warns_once():
    encoder = OpenCLIPEncoder(build_model(TINY), build_tokenizer(TINY), name="tiny")
    # Start and end take two of the twelve tokens.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_text([" ".join(["dog"] * 10)])
    too_long = " ".join(["dog"] * 11)
    with pytest.warns(UserWarning, match="reads 12 tokens.*cut off.*dog dog") as record:
        encoder.encode_text(["a dog", too_long])
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_text([too_long])


def test_texts_are_embedded_once_by_the_exact_string():
    asked = []

    def encode(texts):
        asked.append(texts)
        return torch.tensor([[float(len(text))] for text in texts])

    cache = TextEmbeddingCache(encode)
    assert cache(["ab", "c", "ab"]).tolist() == [[2.0], [1.0], [2.0]]
    assert cache(["c", "Ab"]).tolist() == [[1.0], [2.0]]
    assert asked == [["ab", "c"], ["Ab"]]
    assert len(cache) == 3


def test_an_encoder_comes_back_as_it_was_saved(saved, encoder):
    loaded = load_encoder(str(saved), device="cpu")
    assert loaded.name == "tiny"
    assert loaded.calibrated_head == ThresholdHead(SoftmaxHead(temperature=0.07), threshold=0.6)
    assert loaded.training == {"seed": 3}
    assert loaded.preprocess == encoder.preprocess
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert loaded.logit_scale == encoder.logit_scale
    for got, expected in (
        (loaded.encode_obs({"pixels": FRAMES}), encoder.encode_obs({"pixels": FRAMES})),
        (loaded.encode_text(["a dog"]), encoder.encode_text(["a dog"])),
    ):
        # Matrices went through half precision.
        torch.testing.assert_close(got, expected, atol=2e-3, rtol=0)


def test_matrices_are_stored_in_half_precision_and_nothing_is_left_over(saved):
    stored = load_file(saved.with_suffix(".safetensors"))
    assert stored["text_projection"].dtype == torch.float16
    assert stored["ln_final.weight"].dtype == torch.float32
    assert sorted(path.name for path in saved.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_saving_what_was_loaded_changes_nothing(saved, tmp_path):
    loaded = load_encoder(str(saved), device="cpu")
    again = save_encoder(loaded.model, TINY, tmp_path / "again.json", head=loaded.calibrated_head)
    first, second = (load_file(path.with_suffix(".safetensors")) for path in (saved, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_architecture_with_a_local_checkpoint(tmp_path):
    name = "ViT-S-32-alt"
    theirs = build_model(open_clip.get_model_config(name), seed=5)
    state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    pixels = {"pixels": FRAMES}
    expected = OpenCLIPEncoder(theirs, open_clip.get_tokenizer(name), name="x").encode_obs(pixels)
    for file in ("weights.safetensors", "weights.pt"):
        encoder = load_encoder(name, checkpoint=tmp_path / file, device="cpu")
        assert encoder.name == f"{name}/{file}"
        assert torch.equal(encoder.encode_obs(pixels), expected)


def test_random_weights_are_to_be_had_by_name_only():
    encoder = load_encoder("ViT-S-32-alt", pretrained="random", device="cpu", batch_size=2)
    assert encoder.name == "ViT-S-32-alt/random"
    assert encoder.encode_obs({"pixels": FRAMES}).shape == (3, encoder.embed_dim)
    with pytest.raises(ValueError, match=r"got neither: its tags are .*'random' gives random"):
        load_encoder("ViT-S-32-alt")
    with pytest.raises(ValueError, match="got both"):
        load_encoder("ViT-S-32-alt", pretrained="random", checkpoint="x.safetensors")


@pytest.mark.parametrize(
    ("name", "nearest"), [("ViT-B-33", "'ViT-B-32'"), ("vit-l-14", "'ViT-L-14'"), ("RN500", "RN50")]
)
def test_an_unknown_model_suggests_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"unknown encoder '{name}'. Did you mean .*{nearest}"):
        load_encoder(name)


def test_who_asks_for_a_backbone_is_told_how_to_load_it():
    with pytest.raises(ValueError, match=r"is a backbone: .*load_backbone\('playroom_sound'\)"):
        load_encoder("playroom_sound")


def test_an_unknown_tag_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown weights 'opneai'.* Did you mean 'openai'"):
        load_encoder("ViT-B-32", pretrained="opneai")


def test_encoders_with_weights_of_their_own_take_no_others(saved):
    with pytest.raises(ValueError, match="brings its own weights"):
        load_encoder(str(saved), pretrained="openai")


def test_a_checkpoint_of_another_model_names_keys_and_shapes(tmp_path, saved):
    other = build_model({**TINY, "embed_dim": 16})
    with pytest.raises(
        CheckpointError, match=r"another shape: .*text_projection \(got \[32, 24\], expected \[32,"
    ):
        load_weights(other, saved.with_suffix(".safetensors"))
    save_file({"stranger": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: .*; 1 unexpected: stranger"):
        load_weights(other, tmp_path / "other.safetensors")


def test_damaged_and_missing_checkpoints_are_refused(saved, tmp_path):
    weights = saved.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load_encoder(str(saved), device="cpu")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"found none at .*tiny.safetensors"):
        load_encoder(str(saved), device="cpu")
    torch.save({"state_dict": logging.getLogger()}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match="holds tensors only"):
        load_weights(build_model(TINY), tmp_path / "code.pt")


def test_files_that_save_encoder_did_not_write_are_refused(tmp_path):
    for content, message in (
        ("{", "no encoder saved by save_encoder"),
        ("[]", "no encoder saved by save_encoder"),
        ('{"model_cfg": {}}', r"it lacks \['format', 'preprocess_cfg'"),
        (
            '{"format": 99, "model_cfg": {}, "preprocess_cfg": {}, "head": null, "training": {}}',
            "format 99, this version reads",
        ),
    ):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            load_encoder(str(tmp_path / "x.json"))
    with pytest.raises(CheckpointError, match="found none"):
        load_encoder(str(tmp_path / "absent.json"))


@pytest.mark.parametrize("name", shipped_encoders())
def test_shipped_encoders_load(name):
    encoder = load_encoder(name, device="cpu")
    if encoder.calibrated_head is None:  # of several domains, each with a threshold of its own
        thresholds = [found["threshold"] for found in encoder.training["domains"].values()]
        assert len(thresholds) > 1
        assert all(0 < threshold < 1 for threshold in thresholds)
    assert encoder.training
    assert encoder.encode_obs({"pixels": FRAMES}).shape == (3, encoder.embed_dim)


def test_the_playrooms_encoder_brings_its_head():
    assert load_encoder("playroom", device="cpu").calibrated_head is not None


def test_without_a_network_a_checkpoint_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", fails)
    message = r"'laion2b_s34b_b79k' of 'ViT-B-32' .*no route to host.*pass the file as `checkpoint`"
    with pytest.raises(CheckpointError, match=message):
        load_encoder("ViT-B-32", pretrained="laion2b_s34b_b79k", device="cpu")
