import json
from pathlib import Path

import pytest
import torch

import playroom_sound_encoder
from playroom_domain import HELD_OUT_NAMES
from playroom_sound_domain import STREAMS, SoundBatch, SoundBatchConfig, SoundBatches
from playroom_sound_encoder import ContrastiveBackbone, SoundEncoderOptions
from vlmreward.backbone.audio import LogMelConfig
from vlmreward.backbone.model import BackboneConfig
from vlmreward.encoders import build_tokenizer

CONFIG = SoundBatchConfig(
    num_steps=6,
    num_episodes=2,
    episode_length=5,
    described_per_episode=3,
    captions_per_step=50,
    near_misses_per_caption=3,
)


class Words:
    """A tokenizer that can be read back: one number a sentence."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        self.sentences = list(sentences)
        return torch.arange(len(sentences))[:, None]


@pytest.fixture(scope="module")
def drawn() -> tuple[SoundBatch, list[str]]:
    words = Words()
    batch = SoundBatches(CONFIG, LogMelConfig(), words, seed=0)(3)
    return batch, words.sentences


def test_a_batch_is_a_function_of_its_step() -> None:
    first, second = (SoundBatches(CONFIG, LogMelConfig(), Words(), seed=0) for _ in range(2))
    again = second(1)
    for name, value in vars(first(1)).items():
        other = getattr(again, name)
        pairs = [(value, other)] if isinstance(value, torch.Tensor) else [
            (value[stream], other[stream]) for stream in value
        ]  # fmt: skip
        assert all(torch.equal(*pair) for pair in pairs), name
    assert not torch.equal(first(2).frames, again.frames)


def test_steps_and_episodes_have_frames_and_sound(drawn: tuple[SoundBatch, list[str]]) -> None:
    batch, _ = drawn
    assert batch.frames.shape == (6, 96, 96, 3)
    assert batch.log_mel.shape == (6, 10, 64)
    assert batch.episode_frames.shape == (2, 5, 96, 96, 3)
    assert batch.episode_log_mel.shape == (2, 5, 10, 64)
    assert batch.described.shape == (6,)
    assert sorted(set((batch.described // 5).tolist())) == [0, 1]


def test_streams_are_told_what_they_can_know(drawn: tuple[SoundBatch, list[str]]) -> None:
    batch, sentences = drawn
    assert len(set(sentences)) == len(sentences)
    assert not any(name in sentence for sentence in sentences for name in HELD_OUT_NAMES)
    for stream in STREAMS:
        is_true, is_text = batch.is_true[stream], batch.is_text[stream]
        assert is_true.shape == (6, len(sentences))
        assert is_true.any(dim=1).all()
        assert not (is_true & ~is_text).any()
        assert (is_text & ~is_true).any()  # there is something to contrast with
    of = {s: {sentences[i] for i in batch.is_text[s].nonzero()[:, 0]} for s in STREAMS}
    assert not any("while" in text or "ringing" in text for text in of["video"])
    assert not any("person" in text for text in of["audio"])
    assert any("while" in text for text in of["fusion"])
    assert any("before" in text or " has rung" in text for text in of["episode"])
    # What is heard is true of the same steps, by whichever stream it is said.
    shared = batch.is_text["audio"] & batch.is_text["fusion"]
    assert shared.any()
    assert torch.equal(batch.is_true["audio"][:, shared], batch.is_true["fusion"][:, shared])


def test_episodes_train_their_memory_and_not_the_encoder_of_steps() -> None:
    config = BackboneConfig()
    text_cfg = {"context_length": config.text.context_length, "vocab_size": 49408}
    tokenizer = build_tokenizer({"text_cfg": text_cfg, "vision_cfg": {}, "embed_dim": 1})
    batch = SoundBatches(CONFIG, config.log_mel, tokenizer, seed=0)(0)
    model = ContrastiveBackbone(config, seed=0)
    losses = model(batch)
    assert set(losses) == {
        "image_text", "audio_text", "audio_video", "fusion_text", "episode_text",
    }  # fmt: skip
    losses["episode_text"].backward()
    backbone = model.backbone
    assert all(p.grad is None for p in (*backbone.zorro.parameters(), *backbone.video.parameters()))
    for part in (backbone.memory, backbone.memory_pool, backbone.memory_projection, backbone.text):
        assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())


def test_the_whole_of_it_and_its_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = SoundEncoderOptions(preset="debug", num_threads=1, memory="ttm")
    run_dir = playroom_sound_encoder.main(options)
    summary = json.loads((run_dir / "summary.json").read_text())
    found = summary["average_precision"]
    assert len(found) == 3 + 3 + 2 + 2
    assert all(0 < value <= 1 for value in found.values())
    assert summary["config"]["memory"] == "ttm"
    assert (run_dir / "model.safetensors").exists()
    (run_dir / "summary.json").unlink()
    playroom_sound_encoder.main(options)
    assert json.loads((run_dir / "summary.json").read_text())["average_precision"] == found
