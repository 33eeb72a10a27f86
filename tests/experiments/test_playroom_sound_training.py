import torch

from playroom_sound_domain import (
    SoundBatchConfig,
    SoundBatches,
)
from playroom_sound_fusion import ContrastiveFusion, PureBatches, PureSteps
from playroom_sound_memory import ContrastiveMemory, EpisodeBatches, with_memory
from playroom_sound_streams import CONFIG, FRAME_CLIP, PURE, new_steps
from vlmreward import load_encoder
from vlmreward.backbone.files import tokenizer_of
from vlmreward_envs.playroom_sound import GoalKind


def test_steps_are_trained_without_memory_and_memory_without_steps() -> None:
    config = CONFIG
    tokenizer = tokenizer_of(config)
    steps = new_steps(seed=0)
    clip = load_encoder(FRAME_CLIP, device="cpu")
    sentences = ["the person is holding the red ball", "there is nothing beside the person"]
    torch.testing.assert_close(
        steps.backbone.encode_text(tokenizer(sentences)), clip.encode_text(sentences)
    )
    losses = steps(
        SoundBatches(SoundBatchConfig(num_steps=6), config.log_mel, tokenizer, seed=0)(0)
    )
    assert set(losses) == {"image_text", "audio_text", "fusion_text", "episode_text"}
    steps.streams = PURE
    only = SoundBatchConfig(num_steps=6, captions_per_kind=(6, 2, 0, 2))
    batch_of_pure = SoundBatches(only, config.log_mel, tokenizer, seed=0)(0)
    assert GoalKind.SEEN_AND_HEARD not in batch_of_pure.kind.tolist()
    assert set(steps(batch_of_pure)) == {"image_text", "audio_text", "episode_text"}
    torch.stack(list(losses.values())).sum().backward()
    trained = {name for name, p in steps.backbone.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {
        "video", "audio", "zorro", "projections", "text"
    }  # fmt: skip
    assert not any(name.startswith("video.tower") for name in trained)

    backbone = with_memory(steps.backbone, config, seed=1)
    assert torch.equal(backbone.zorro.fusion_tokens, steps.backbone.zorro.fusion_tokens)
    assert not torch.equal(backbone.memory.queries, steps.backbone.memory.queries)
    memory = ContrastiveMemory(backbone, torch.randn(5, config.embed_dim))
    truth = torch.rand(6, 9, 5) < 0.5
    batch = EpisodeBatches(torch.randn(6, 9, 8, 128).half(), truth, 2, 4, seed=0)(0)
    assert batch.described.sum(dim=1).tolist() == [4, 4]
    memory(batch)["episode_text"].backward()
    trained = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {
        "memory", "memory_pool", "memory_projection"
    }  # fmt: skip


def test_other_fusions_begin_as_what_is_known() -> None:
    draws = torch.Generator().manual_seed(0)
    audio, video, text = torch.nn.functional.normalize(
        torch.randn(3, 12, 32, generator=draws), dim=2
    )
    reads = ContrastiveFusion("cross_attention", text, seed=0)
    assert torch.allclose(reads.fuse(audio, video), video, atol=1e-6)
    gates = ContrastiveFusion("gates", text, seed=0)
    fused = gates.fuse(audio.view(3, 4, 32), video.view(3, 4, 32))
    weights = [gates.gates.gates(name, of)[:, None] for name, of in
               (("audio", audio), ("video", video))]  # fmt: skip
    expected = torch.nn.functional.normalize(weights[0] * audio + weights[1] * video, dim=1)
    assert torch.allclose(fused.flatten(0, 1), expected, atol=1e-6)

    truth = torch.rand(12, 12, generator=draws) < 0.3
    batches = PureBatches(PureSteps(audio.half(), video.half(), truth), 5, seed=1)
    batch = batches(3)
    assert torch.equal(batch.audio, batches(3).audio)
    (row,) = (audio.half().float() == batch.audio[2]).all(dim=1).nonzero()[0]
    assert torch.equal(batch.video[2], video.half().float()[row])
    assert torch.equal(batch.is_true[2], truth[row])
    for model in (reads, gates):
        model(batch)["fusion_text"].backward()
        parts = [p for name, p in model.named_parameters() if not name.startswith("objectives")]
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parts)


def test_descriptions_stay_with_their_steps() -> None:
    """Tokens that count steps and episodes, and labels that are that number in binary."""
    number = torch.arange(6 * 9).view(6, 9)
    tokens = number[:, :, None, None].expand(-1, -1, 8, 4).half()
    truth = (number[..., None] >> torch.arange(6)) % 2 == 1
    batch = EpisodeBatches(tokens, truth, 2, 4, seed=3)(5)
    described = batch.tokens[batch.described][:, 0, 0].long()
    assert torch.equal((batch.is_true.long() << torch.arange(6)).sum(dim=1), described)
