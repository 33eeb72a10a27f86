"""Makes the sound of Playrooms, thousands at once on any torch device, from their states alone.

Every voice is written down once as a sound of the longest duration; a step plays the part that
follows the steps before, so that the steps of an episode make one sound without seams.

Axis letters: ``B`` rooms, ``S`` samples of a step, ``V`` voices, ``P`` pitches of a voice, ``A``
age of a sound in steps, ``N`` samples.
"""

import functools
import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from vlmreward_envs import counter_rng
from vlmreward_envs.playroom_sound.dynamics import (
    NUM_VARIANTS,
    SOUND_STEPS,
    Event,
    PlayroomSoundConfig,
    PlayroomSoundState,
    voice_distance,
)
from vlmreward_envs.playroom_sound.language import Voice

SAMPLE_RATE = 16_000
STEP_SAMPLES = 1_600

# Together below 1, so that nothing clips when everything is heard from nearby at once.
VOICE_LEVELS = (0.35, 0.25, 0.2)
EVENT_LEVEL = 0.15
NOISE_LEVEL = 0.005
HALF_LOUDNESS_CELLS = 4.0

BELL_HERTZ, HUM_HERTZ, BEEP_HERTZ = 700.0, 110.0, 1_800.0
# Of each partial of a bell: frequency ratio, weight, and seconds in which it decays to 1/e.
BELL_PARTIALS = (
    (0.5, 0.3, 0.6),
    (1.0, 0.5, 0.45),
    (1.2, 0.4, 0.35),
    (1.5, 0.2, 0.3),
    (2.0, 0.6, 0.2),
    (2.67, 0.3, 0.12),
)
HUM_WEIGHTS = (1.0, 0.5, 0.25)
HUM_MODULATION_HERTZ, HUM_MODULATION_DEPTH = 3.0, 0.5
BEEP_PERIOD, BEEP_ON, BEEP_EDGE = 0.0625, 0.04, 0.004
_BELL_ATTACK, _HUM_ATTACK = 0.003, 0.02
_RELEASE = 0.01

# Streams of a room's sound seed; the dynamics has others.
_NOISE_STREAM, _EVENT_STREAM = 16, 17


class PlayroomSynthesiser:
    """Makes what is heard during one step of the rooms of a configuration.

    The sound is mono, 16 kHz, 0.1 s a step: the sum of the voices that sound, of what the person's
    action sounds like, and of a little noise. A voice at a distance of d cells is heard at
    1 / (1 + d / 4) of its loudness, which glides over the step when the person moves.

    Args:
        config: The rooms' configuration.
        device: Where to synthesise.

    Example:
        >>> config = PlayroomSoundConfig()
        >>> state = reset_sound_rooms(config, torch.arange(2), torch.zeros(2, dtype=torch.long))
        >>> PlayroomSynthesiser(config)(state).shape
        torch.Size([2, 1600])
    """

    def __init__(self, config: PlayroomSoundConfig, device: torch.device | str = "cpu") -> None:
        share = -(-config.num_voiced_objects // len(Voice))  # objects that may have the same voice
        levels = torch.tensor(VOICE_LEVELS) / share
        self._voices = (_voice_bank() * levels[:, None, None, None]).to(device)
        self._events = (_event_bank() * EVENT_LEVEL).to(device)
        sample = torch.arange(1, STEP_SAMPLES + 1)
        self._glide = _smooth_rise(sample / STEP_SAMPLES).to(device)
        seconds_left = (STEP_SAMPLES - sample) / SAMPLE_RATE
        self._release = _smooth_rise(seconds_left / _RELEASE).to(device)

    def __call__(self, state: PlayroomSoundState) -> Float[Tensor, "B S"]:
        """Return what is heard in every room, each sample in [-1, 1]."""
        return self.voices(state) + self.events(state) + self.noise(state)

    def voices(self, state: PlayroomSoundState) -> Float[Tensor, "B S"]:
        """Return the sound of the objects alone."""
        sound = torch.zeros(len(state), STEP_SAMPLES, device=state.voice.device)
        before, now = _loudness(state.heard_from), _loudness(voice_distance(state))
        ends = state.steps_left == 1
        for index in range(state.voice.shape[1]):
            rows = state.sounding_for[:, index].nonzero()[:, 0]
            part = self._voices[
                state.voice[rows, index],
                state.variant[rows, index],
                state.sounding_for[rows, index] - 1,
            ]
            start, end = before[rows, index, None], now[rows, index, None]
            part = part * (start + (end - start) * self._glide)
            part = torch.where(ends[rows, index, None], part * self._release, part)
            sound[rows] += part
        return sound

    def events(self, state: PlayroomSoundState) -> Float[Tensor, "B S"]:
        """Return the sound of the person's action alone."""
        stream = counter_rng.fold(counter_rng.fold(state.sound_seed, _EVENT_STREAM), state.clock)
        variant = counter_rng.integers(stream, 1, 0, NUM_VARIANTS)[:, 0]
        return self._events[state.event, variant]

    def noise(self, state: PlayroomSoundState) -> Float[Tensor, "B S"]:
        """Return the noise floor alone."""
        stream = counter_rng.fold(counter_rng.fold(state.sound_seed, _NOISE_STREAM), state.clock)
        return (2 * counter_rng.uniform(stream, STEP_SAMPLES) - 1) * NOISE_LEVEL


def _loudness(distance: Tensor) -> Tensor:
    return 1 / (1 + distance / HALF_LOUDNESS_CELLS)


def pitches(hertz: float) -> Float64[Tensor, " P"]:
    """Return the frequencies of the variants of a sound, from half an octave below to above."""
    return hertz * 2 ** torch.linspace(-0.5, 0.5, NUM_VARIANTS, dtype=torch.float64)


def _smooth_rise(time: Tensor) -> Tensor:
    """Rise from 0 at ``time`` 0 to 1 at 1, and stay."""
    return (1 - torch.cos(math.pi * time.clamp(0, 1))) / 2


def _tone(hertz: Tensor, time: Float64[Tensor, " N"]) -> Float64[Tensor, "P N"]:
    return torch.sin(2 * math.pi * hertz[:, None] * time)


def _bell(time: Float64[Tensor, " N"]) -> Float64[Tensor, "P N"]:
    """Struck at time 0: inharmonic partials, the higher the sooner gone."""
    total = sum(weight for _, weight, _ in BELL_PARTIALS)
    partials = [
        weight / total * torch.exp(-time / decay) * _tone(ratio * pitches(BELL_HERTZ), time)
        for ratio, weight, decay in BELL_PARTIALS
    ]
    return torch.stack(partials).sum(dim=0) * _smooth_rise(time / _BELL_ATTACK)


def _hum(time: Float64[Tensor, " N"]) -> Float64[Tensor, "P N"]:
    """A low tone and two overtones, slowly swelling and ebbing."""
    overtones = [
        weight / sum(HUM_WEIGHTS) * _tone(number * pitches(HUM_HERTZ), time)
        for number, weight in enumerate(HUM_WEIGHTS, start=1)
    ]
    ebb = (1 - torch.cos(2 * math.pi * HUM_MODULATION_HERTZ * time)) / 2
    swell = (1 - HUM_MODULATION_DEPTH * ebb) * _smooth_rise(time / _HUM_ATTACK)
    return torch.stack(overtones).sum(dim=0) * swell


def _beep(time: Float64[Tensor, " N"]) -> Float64[Tensor, "P N"]:
    """Bursts of one pure tone."""
    since = time % BEEP_PERIOD
    gate = _smooth_rise(since / BEEP_EDGE) * _smooth_rise((BEEP_ON - since) / BEEP_EDGE)
    return _tone(pitches(BEEP_HERTZ), time) * gate


@functools.cache
def _voice_bank() -> Float[Tensor, "V P A S"]:
    """Write every voice down, in every pitch, at peak 1 or less."""
    longest = max(most for _, most in SOUND_STEPS)
    time = torch.arange(longest * STEP_SAMPLES, dtype=torch.float64) / SAMPLE_RATE
    bank = torch.stack((_bell(time), _hum(time), _beep(time))).float()  # in Voice's order
    return bank.view(len(Voice), NUM_VARIANTS, longest, STEP_SAMPLES)


@functools.cache
def _event_bank() -> Float[Tensor, "G P S"]:
    """Write the sound of every event down (``G`` events), silent at both ends of the step."""
    time = torch.arange(STEP_SAMPLES, dtype=torch.float64) / SAMPLE_RATE
    seconds = STEP_SAMPLES / SAMPLE_RATE
    window = torch.sin(math.pi * time / seconds) ** 2
    noise = 2 * counter_rng.uniform(torch.arange(NUM_VARIANTS), STEP_SAMPLES).double() - 1
    dull = functional.avg_pool1d(noise[:, None], 15, stride=1, padding=7)[:, 0]
    step = dull / dull.abs().amax(dim=1, keepdim=True) * window**8
    thud = _tone(pitches(90.0), time) * torch.exp(-time / 0.03) * (1 - time / seconds)
    rise = time + time**2 / seconds  # a tone that ends three times as high as it begins
    fall = 3 * time - time**2 / seconds
    sounds = {
        Event.NOTHING: torch.zeros_like(step),
        Event.FOOTSTEP: step,
        Event.BUMP: thud,
        Event.PICK_UP: _tone(pitches(400.0), rise) * window,
        Event.PUT_DOWN: _tone(pitches(400.0), fall) * window,
    }
    return torch.stack([sounds[event] for event in Event]).float()
