from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vlmreward_envs.playroom_sound import (
    STEP_SAMPLES,
    Event,
    PlayroomSoundConfig,
    PlayroomSoundRooms,
    PlayroomSoundState,
    PlayroomSynthesiser,
    Voice,
    reset_sound_rooms,
)
from vlmreward_envs.playroom_sound.dynamics import SOUND_STEPS, voice_distance
from vlmreward_envs.playroom_sound.synthesis import (
    BELL_PARTIALS,
    EVENT_LEVEL,
    NOISE_LEVEL,
    VOICE_LEVELS,
)

CONFIG = PlayroomSoundConfig()


def one_sound(
    voice: Voice,
    ages: torch.Tensor,
    *,
    variant: int = 0,
    before: int = 0,
    cells: int = 0,
) -> PlayroomSoundState:
    """Rooms, one for each age, in which one object of the ``voice`` sounds for that many steps."""
    num_rooms = len(ages)
    zeros = torch.zeros(num_rooms, dtype=torch.int64)
    state = reset_sound_rooms(CONFIG, zeros, zeros)
    sounds = torch.arange(3) == 0
    corner = torch.zeros_like(state.position)
    cell = torch.tensor([min(cells, 6), max(cells - 6, 0)])
    return replace(
        state,
        position=corner,
        object_cell=cell.expand_as(state.object_cell),
        voice=torch.full_like(state.voice, voice),
        variant=torch.full_like(state.variant, variant),
        sounding_for=torch.where(sounds, ages[:, None], 0),
        steps_left=torch.full_like(state.steps_left, 5),
        heard_from=torch.full_like(state.heard_from, before),
    )


def whole(voice: Voice, num_steps: int, variant: int) -> NDArray[np.float32]:
    """A whole sound of ``num_steps`` steps, with its end."""
    ages = torch.arange(1, num_steps + 1)
    state = one_sound(voice, ages, variant=variant)
    left = torch.where(ages == num_steps, 1, 5)
    state = replace(state, steps_left=left[:, None].expand(-1, 3))
    return PlayroomSynthesiser(CONFIG).voices(state).flatten().numpy()


def by_hand(voice: Voice, num_samples: int, variant: int) -> NDArray[np.float64]:
    """The formula of each voice, at level 1."""
    time = np.arange(num_samples) / 16_000
    pitch = 2 ** (-0.5 + variant / 7)

    def rise(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 - 0.5 * np.cos(np.pi * np.clip(x, 0, 1))

    if voice is Voice.BELL:
        sound = sum(
            weight * np.exp(-time / decay) * np.sin(2 * np.pi * 700 * pitch * ratio * time)
            for ratio, weight, decay in BELL_PARTIALS
        )
        return np.asarray(sound) / sum(w for _, w, _ in BELL_PARTIALS) * rise(time / 0.003)
    if voice is Voice.HUM:
        phase = 2 * np.pi * 110 * pitch * time
        tones = (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)) / 1.75
        swell = 0.75 + 0.25 * np.cos(2 * np.pi * 3 * time)
        return np.asarray(tones * swell * rise(time / 0.02))
    since = np.mod(time, 0.0625)
    gate = rise(since / 0.004) * rise((0.04 - since) / 0.004)
    return np.asarray(np.sin(2 * np.pi * 1800 * pitch * time) * gate)


@pytest.mark.parametrize("voice", Voice)
@pytest.mark.parametrize("variant", [0, 3, 7])
def test_voices_by_hand(voice: Voice, variant: int) -> None:
    num_steps = SOUND_STEPS[voice][1]
    sound = whole(voice, num_steps, variant=variant)
    expected = by_hand(voice, len(sound), variant) * VOICE_LEVELS[voice]
    fade = 160
    np.testing.assert_allclose(sound[:-fade], expected[:-fade], atol=2e-6)
    ending = 0.5 - 0.5 * np.cos(np.pi * np.arange(fade - 1, -1, -1) / fade)
    np.testing.assert_allclose(sound[-fade:], expected[-fade:] * ending, atol=2e-6)


def test_loudness_by_hand_glides_over_the_step() -> None:
    ages = torch.tensor([7])
    listen = PlayroomSynthesiser(CONFIG).voices
    near = listen(one_sound(Voice.HUM, ages))[0]
    moved = listen(one_sound(Voice.HUM, ages, before=3, cells=8))[0]
    glide = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, 1601) / 1600)
    expected = near.numpy() * (4 / 7 + (4 / 12 - 4 / 7) * glide)
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("voice", Voice)
def test_what_is_farther_away_is_quieter_and_what_is_held_loudest(voice: Voice) -> None:
    listen = PlayroomSynthesiser(CONFIG).voices
    power = [
        float(listen(one_sound(voice, torch.tensor([2]), before=d, cells=d)).square().mean())
        for d in range(13)
    ]
    assert all(nearer > farther for nearer, farther in pairwise(power))
    assert power[12] > 20 * NOISE_LEVEL**2 / 3  # still above the noise at the other end


def roughness(sound: NDArray[np.float32], order: int = 8) -> float:
    """How broad-band the sound is at the seams of its steps, against the most it is elsewhere.

    A difference of high order leaves clicks, which are of every frequency, and little of the tones.
    """
    click = np.abs(np.diff(sound.astype(np.float64), order))
    at_seam = np.zeros(len(click), dtype=bool)
    for seam in range(STEP_SAMPLES, len(click), STEP_SAMPLES):
        at_seam[seam - order : seam + order] = True
    return float(click[at_seam].max() / click[~at_seam].max())


@pytest.mark.parametrize("voice", Voice)
@pytest.mark.parametrize("variant", [0, 3, 7])
def test_steps_join_without_a_click(voice: Voice, variant: int) -> None:
    """And the planted faults click: a phase that restarts, an end without a fade, a jump."""
    num_steps = SOUND_STEPS[voice][0]
    sound = whole(voice, num_steps, variant=variant)
    assert roughness(np.pad(sound, STEP_SAMPLES)) < 4
    listen = PlayroomSynthesiser(CONFIG).voices
    restarts = one_sound(voice, torch.full((4,), 2), variant=variant)
    endless = one_sound(voice, torch.arange(1, num_steps + 1), variant=variant)
    jumps = sound.reshape(num_steps, STEP_SAMPLES).copy()
    jumps[1] *= 0.3
    for fault in (listen(restarts).numpy(), listen(endless).numpy(), jumps):
        assert roughness(np.pad(fault.flatten(), STEP_SAMPLES)) > 5


def test_a_walk_among_humming_objects_sounds_without_clicks() -> None:
    """Real episodes; the planted fault is a loudness that does not glide."""
    rooms = PlayroomSoundRooms(12)
    rooms.reset(torch.arange(12))
    rooms.state = replace(rooms.state, voice=torch.full_like(rooms.state.voice, Voice.HUM))
    voices = PlayroomSynthesiser(rooms.config).voices
    steps, faults = [], []
    for action in torch.randint(0, 7, (120, 12), generator=torch.Generator().manual_seed(1)):
        rooms.step(action)
        steps.append(voices(rooms.state))
        faults.append(voices(replace(rooms.state, heard_from=voice_distance(rooms.state))))
    for sound, fault in zip(torch.stack(steps, 1), torch.stack(faults, 1), strict=True):
        assert roughness(sound.flatten().numpy(), order=2) < 1.5
        assert roughness(fault.flatten().numpy(), order=2) > 5


def test_nothing_clips() -> None:
    """Each part stays within its level, and the levels of all that can sound sum to below 1."""
    for voice in Voice:
        for variant in range(8):
            ages = torch.arange(1, 31)
            sound = PlayroomSynthesiser(CONFIG).voices(one_sound(voice, ages, variant=variant))
            assert sound.abs().max() <= VOICE_LEVELS[voice]
    assert sum(VOICE_LEVELS) + EVENT_LEVEL + NOISE_LEVEL < 1
    crowd = PlayroomSoundConfig(num_voiced_objects=5)
    zeros = torch.zeros(30, dtype=torch.int64)
    state = reset_sound_rooms(crowd, zeros, zeros)
    ages = torch.arange(1, 31)[:, None].expand(-1, 5)
    near = replace(
        state,
        object_cell=state.position[:, None].expand_as(state.object_cell),
        voice=torch.tensor([[0, 0, 1, 1, 2]]).expand(30, -1),
        variant=torch.full_like(ages, 3),
        sounding_for=ages,
        steps_left=torch.full_like(ages, 5),
        heard_from=torch.zeros_like(ages),
        event=torch.full_like(zeros, Event.BUMP),
    )
    alone = sum(
        by_hand(v, 48_000, 3) * VOICE_LEVELS[v] for v in (0, 0, 1, 1, 2) for v in [Voice(v)]
    )
    voices = PlayroomSynthesiser(crowd).voices(near).flatten().numpy()
    np.testing.assert_allclose(voices, np.asarray(alone) / 2, atol=1e-5)
    assert PlayroomSynthesiser(crowd)(near).abs().max() < 1


def test_events_by_their_sound() -> None:
    zeros = torch.zeros(64, dtype=torch.int64)
    state = replace(reset_sound_rooms(CONFIG, zeros, zeros), clock=torch.arange(64))
    synthesiser = PlayroomSynthesiser(CONFIG)
    hertz = {}
    for event in Event:
        sound = synthesiser.events(replace(state, event=torch.full_like(zeros, event)))
        if event is Event.NOTHING:
            assert not sound.any()
            continue
        assert sound.abs().amax(dim=1).min() > 0.3 * EVENT_LEVEL
        assert sound.abs().max() <= EVENT_LEVEL
        assert sound[:, [0, -1]].abs().max() < 1e-3
        assert len(torch.unique(sound, dim=0)) == 8
        early, late = (centroid(half) for half in sound.numpy().reshape(64, 2, 800).swapaxes(0, 1))
        hertz[event] = (early.mean(), late.mean())
    assert hertz[Event.PICK_UP][1] > 1.2 * hertz[Event.PICK_UP][0]
    assert hertz[Event.PUT_DOWN][0] > 1.2 * hertz[Event.PUT_DOWN][1]
    assert hertz[Event.BUMP][0] < 200


def centroid(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(sound.shape[-1], 1 / 16_000)
    return np.asarray((power * frequency).sum(-1) / power.sum(-1))


def test_voices_differ_by_ear() -> None:
    """Hums are below bells, most bells below beeps, and no two pitches are alike."""
    spectrum = {
        voice: [float(centroid(whole(voice, 3, variant=variant))) for variant in range(8)]
        for voice in Voice
    }
    assert max(spectrum[Voice.HUM]) < min(spectrum[Voice.BELL])
    assert np.mean(spectrum[Voice.BELL]) < 0.6 * np.mean(spectrum[Voice.BEEP])
    for voice in Voice:
        assert len(set(spectrum[voice])) == 8


def test_silence_is_a_little_noise_that_never_repeats() -> None:
    zeros = torch.zeros(50, dtype=torch.int64)
    state = replace(reset_sound_rooms(CONFIG, zeros, zeros), clock=torch.arange(50))
    sound = PlayroomSynthesiser(CONFIG)(state)
    assert sound.dtype == torch.float32
    assert sound.abs().max() <= NOISE_LEVEL
    assert sound.std() == pytest.approx(NOISE_LEVEL / 3**0.5, rel=0.02)
    likeness = torch.corrcoef(sound) - torch.eye(50)
    assert likeness.abs().max() < 0.15


def test_voices_are_heard_exactly_while_they_sound() -> None:
    rooms = PlayroomSoundRooms(16)
    rooms.reset(torch.arange(16))
    synthesiser = PlayroomSynthesiser(rooms.config)
    for _ in range(60):
        rooms.step(torch.zeros(16, dtype=torch.int64))
        heard = synthesiser.voices(rooms.state).abs().amax(dim=1) > 0
        assert torch.equal(heard, (rooms.state.sounding_for > 0).any(dim=1))
        parts = [synthesiser.voices(rooms.state), synthesiser.noise(rooms.state)]
        assert torch.equal(rooms.listen(), parts[0] + parts[1])


def test_what_objects_look_like_is_not_heard() -> None:
    rooms = PlayroomSoundRooms(16)
    rooms.reset(torch.arange(16))
    for action in torch.randint(0, 7, (30, 16), generator=torch.Generator().manual_seed(0)):
        rooms.step(action)
    state = rooms.state
    repainted = replace(
        state, object_kind=35 - state.object_kind, floor=5 - state.floor, light=255 - state.light
    )
    synthesiser = PlayroomSynthesiser(rooms.config)
    assert torch.equal(synthesiser(state), synthesiser(repainted))
