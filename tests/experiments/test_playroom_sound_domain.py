import numpy as np
import pytest
import torch

from playroom_domain import HELD_OUT_NAMES
from playroom_sound_domain import (
    GOALS_OF_KIND,
    IS_HELD_OUT,
    SENTENCES,
    SoundBatch,
    SoundBatchConfig,
    SoundBatches,
    draw_episodes,
    sound_goals,
)
from vlmreward.backbone.audio import LogMelConfig
from vlmreward_envs.playroom_sound import (
    GoalKind,
    PlayroomSoundRooms,
    all_goals,
    goal_reached,
    goal_tensor,
)

CONFIG = SoundBatchConfig(
    num_steps=6, captions_per_kind=(50, 50, 50, 50), near_misses_per_caption=3
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
        assert torch.equal(value, getattr(again, name)), name
    assert not torch.equal(first(2).frames, again.frames)


def test_steps_have_frames_sound_and_sentences_of_every_kind(
    drawn: tuple[SoundBatch, list[str]],
) -> None:
    batch, sentences = drawn
    assert batch.frames.shape == (6, 96, 96, 3)
    assert batch.log_mel.shape == (6, 10, 64)
    assert batch.is_true.shape == (6, len(sentences))
    assert len(set(sentences)) == len(sentences)
    assert not any(name in sentence for sentence in sentences for name in HELD_OUT_NAMES)
    for kind in GoalKind:
        of_kind = batch.is_true[:, batch.kind == kind]
        assert of_kind.any(dim=1).sum() >= 5  # who stands beside nothing may have nothing joint
        assert (~of_kind).any()
    kinds = dict(zip(sentences, batch.kind.tolist(), strict=True))
    assert all((" while " in text) == (kind == GoalKind.SEEN_AND_HEARD)
               for text, kind in kinds.items())  # fmt: skip
    assert all(kind == GoalKind.TOLD for text, kind in kinds.items() if " before " in text)


def test_episodes_are_labelled_with_the_truth_of_every_sentence() -> None:
    episodes = draw_episodes(PlayroomSoundRooms(3), 40, LogMelConfig(), np.random.default_rng(0))
    again = draw_episodes(PlayroomSoundRooms(3), 40, LogMelConfig(), np.random.default_rng(0))
    assert episodes.frames.shape == (3, 40, 96, 96, 3)
    assert episodes.log_mel.shape == (3, 40, 10, 64)
    assert episodes.is_true.shape == (3, 40, len(SENTENCES))
    assert torch.equal(episodes.is_true, again.is_true)
    assert {kind: len(goals) for kind, goals in GOALS_OF_KIND.items()} == {
        kind: len(all_goals(kind)) for kind in GoalKind
    }
    assert int(IS_HELD_OUT.sum()) == 6 * (2 + 2 * 3)
    seen, heard = (GOALS_OF_KIND[kind] for kind in (GoalKind.SEEN, GoalKind.HEARD))
    both = episodes.is_true[..., GOALS_OF_KIND[GoalKind.SEEN_AND_HEARD]].unflatten(2, (-1, 3))
    expected = episodes.is_true[..., seen, None] & episodes.is_true[..., None, heard[:3]]
    assert torch.equal(both, expected)


def test_labels_are_the_ground_truth_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal by goal, as the environment tells it of the states that were drawn."""
    states = []
    roll = draw_episodes.__globals__["roll"]

    def remembered(*args: object) -> object:
        for state in roll(*args):
            states.append(state)
            yield state

    monkeypatch.setitem(draw_episodes.__globals__, "roll", remembered)
    episodes = draw_episodes(PlayroomSoundRooms(4), 60, LogMelConfig(), np.random.default_rng(1))
    num_true = 0
    for kind in GoalKind:
        rows = goal_tensor(all_goals(kind), torch.device("cpu"))
        for column, row in zip(GOALS_OF_KIND[kind], rows, strict=True):
            for time in (0, 20, 59):
                reached = goal_reached(states[time], row.expand(4, -1))
                assert torch.equal(episodes.is_true[:, time, column], reached)
                num_true += int(reached.sum())
    assert num_true > 10


def test_goals_have_what_holds_in_their_place() -> None:
    heard, told = (sound_goals(kind) for kind in (GoalKind.HEARD, GoalKind.TOLD))
    assert heard[0].negative_prompts == ("no bell is ringing",)
    twice = next(goal for goal in told if goal.prompts[0] == "a bell has rung twice")
    assert "no bell has rung" in twice.negative_prompts
    assert len(twice.negative_prompts) == 4
    assert [goal.prompts[0] for goal in sound_goals(GoalKind.SEEN)] == [
        goal.sentence for goal in all_goals(GoalKind.SEEN)
    ]
    with pytest.raises(ValueError, match="seen, heard or told"):
        sound_goals(GoalKind.SEEN_AND_HEARD)
