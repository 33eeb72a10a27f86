"""What every `ImageTextEncoder` promises, inherited by one class of tests per encoder."""

import numpy as np
import pytest
import torch

from vlmreward import (
    FakeEncoder,
    FrameError,
    ImageTextEncoder,
    MissingModalityError,
    OpenCLIPEncoder,
)
from vlmreward.encoders import build_model, build_tokenizer

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
FAMILIES = {
    "vit": TINY,
    "resnet": {
        **TINY,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    },
    "timm": {
        **TINY,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_convnext",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
    },
    "patch_convnet": {
        **TINY,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "patch_convnet",
            "timm_pool": "catavgmax",
            "timm_proj": "",
            "image_size": 96,
        },
    },
    "coca": {
        **TINY,
        "custom_text": True,
        "vision_cfg": {
            **TINY["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 24,
            "heads": 2,
            "layers": 1,
        },
    },
}


class EncoderContract:
    """Inherit, and give an `encoder` fixture."""

    tolerance = 1e-5

    def frames(self, num=7, size=(40, 48)):
        return np.random.default_rng(0).integers(0, 256, (num, *size, 3), dtype=np.uint8)

    def test_follows_the_protocol(self, encoder):
        assert isinstance(encoder, ImageTextEncoder)
        assert isinstance(encoder.name, str)
        assert "pixels" in encoder.modalities
        assert encoder.logit_scale > 0
        assert encoder.logit_bias is None or isinstance(encoder.logit_bias, float)
        assert encoder.context_length > 0

    def test_embeddings_are_unit_vectors_of_the_stated_width(self, encoder):
        embedding = encoder.encode_obs({"pixels": self.frames()})
        texts = encoder.encode_text(["a red room", "a dog"])
        assert embedding.shape == (7, encoder.embed_dim)
        assert texts.shape == (2, encoder.embed_dim)
        for rows in (embedding, texts):
            assert rows.dtype == torch.float32
            assert rows.device == encoder.device
            assert not rows.requires_grad
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))

    def test_embeddings_differ(self, encoder):
        embedding = encoder.encode_obs({"pixels": self.frames()})
        texts = encoder.encode_text(["a red room", "a blue dog"])
        assert (embedding[0] - embedding[1]).abs().max() > 1e-4
        assert (texts[0] - texts[1]).abs().max() > 1e-4

    @pytest.mark.parametrize("chunk", [1, 3, 7])
    def test_results_do_not_depend_on_how_the_batch_was_split(self, encoder, chunk):
        frames = self.frames()
        whole = encoder.encode_obs({"pixels": frames})
        parts = [
            encoder.encode_obs({"pixels": frames[start : start + chunk]})
            for start in range(0, len(frames), chunk)
        ]
        torch.testing.assert_close(torch.cat(parts), whole, atol=self.tolerance, rtol=0)

    @pytest.mark.parametrize("size", [(1, 1), (5, 9), (32, 32), (97, 33)])
    def test_frames_of_any_size_are_read(self, encoder, size):
        embedding = encoder.encode_obs({"pixels": self.frames(2, size)})
        assert embedding.shape == (2, encoder.embed_dim)
        assert bool(embedding.isfinite().all())

    def test_arrays_and_tensors_are_the_same(self, encoder):
        frames = self.frames(2)
        from_array = encoder.encode_obs({"pixels": frames})
        from_tensor = encoder.encode_obs({"pixels": torch.from_numpy(frames)})
        assert torch.equal(from_array, from_tensor)

    def test_other_keys_are_ignored(self, encoder):
        frames = self.frames(2)
        alone = encoder.encode_obs({"pixels": frames})
        beside = encoder.encode_obs({"pixels": frames, "position": np.zeros((2, 2))})
        assert torch.equal(alone, beside)

    def test_the_same_text_has_the_same_embedding(self, encoder):
        first = encoder.encode_text(["a dog"])
        again = encoder.encode_text(["a red room", "a dog"])[1:]
        torch.testing.assert_close(first, again, atol=self.tolerance, rtol=0)

    def test_global_generators_are_left_alone(self, encoder):
        before = torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        encoder.encode_obs({"pixels": self.frames(2)})
        encoder.encode_text(["a text that nobody has asked for"])
        assert torch.equal(before[0], torch.random.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002

    def test_bad_observations_are_refused(self, encoder):
        with pytest.raises(MissingModalityError, match=r"got an observation with \['state'\]"):
            encoder.encode_obs({"state": np.zeros((2, 3))})
        with pytest.raises(FrameError, match="add the batch axis"):
            encoder.encode_obs({"pixels": self.frames()[0]})
        with pytest.raises(FrameError, match="size zero"):
            encoder.encode_obs({"pixels": self.frames(0)})
        with pytest.raises(FrameError, match="dtype float64"):
            encoder.encode_obs({"pixels": self.frames() / 255})

    @pytest.mark.parametrize("texts", [[], [""], ["a", "  "]])
    def test_texts_without_words_are_refused(self, encoder, texts):
        with pytest.raises(ValueError, match="expected"):
            encoder.encode_text(texts)


class TestFakeEncoder(EncoderContract):
    tolerance = 0.0

    @pytest.fixture
    def encoder(self):
        return FakeEncoder()


@pytest.mark.parametrize("family", FAMILIES, scope="class")
class TestOpenCLIPEncoder(EncoderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls, family):
        model = build_model(FAMILIES[family])
        tokenizer = build_tokenizer(FAMILIES[family])
        return OpenCLIPEncoder(model, tokenizer, name=family, batch_size=4)
