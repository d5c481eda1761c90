"""Clean speech in; the same as it is often heard, out: under music, voices or noise, in a room, over a telephone.

All take and return (L,) float32 at 16 kHz, always add the same, and move nothing in time.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from model.media import SAMPLE_RATE

Sound = np.ndarray
"""(L,) float32 at 16 kHz."""

TELEPHONE_HZ = 300, 3400
ROOM_S, DECAY_S, ECHO_DB = 0.6, 0.07, 3.0
"""How long a room is heard, how fast it dies away, and by how much its tail is louder than what comes straight."""

BEAT_S = 0.5
CHORD = 1.0, 1.26, 1.5, 2.0
"""Of a root and a major third, a fifth and an octave above it."""


def with_noise(sound: Sound, snr_db: float) -> Sound:
    """White noise added, ``snr_db`` below the mean power of the sound."""
    return _added(sound, np.random.default_rng(0).normal(0, 1, len(sound)), snr_db)


def with_music(sound: Sound, snr_db: float) -> Sound:
    """Chords and a beat added, twice a second."""
    chance = np.random.default_rng(1)
    time_s = np.arange(round(BEAT_S * SAMPLE_RATE)) / SAMPLE_RATE
    beats = [_chord(time_s, chance) + _drum(time_s, chance) for _ in range(len(sound) // len(time_s) + 1)]
    return _added(sound, np.concatenate(beats)[: len(sound)], snr_db)


def with_voices(sound: Sound, snr_db: float) -> Sound:
    """Two voices added: the same one, played backwards, and that again a third of the sound later."""
    backwards = sound[::-1]
    return _added(sound, backwards + np.roll(backwards, len(sound) // 3), snr_db)


def in_a_room(sound: Sound) -> Sound:
    """With a decaying tail of noise as its echo (reverberation time about 0.5 s)."""
    if not len(sound):
        return sound
    time_s = np.arange(round(ROOM_S * SAMPLE_RATE)) / SAMPLE_RATE
    tail = np.random.default_rng(2).normal(0, 1, len(time_s)) * np.exp(-time_s / DECAY_S)
    echo = tail * 10 ** (ECHO_DB / 20) / np.sqrt((tail**2).sum())
    echo[0] = 1.0
    return fftconvolve(sound, echo)[: len(sound)].astype(np.float32)


def by_telephone(sound: Sound) -> Sound:
    """The band of a telephone alone."""
    band = butter(4, TELEPHONE_HZ, "band", fs=SAMPLE_RATE, output="sos")
    return sosfilt(band, sound).astype(np.float32) if len(sound) else sound


WORSE: Mapping[str, Callable[[Sound], Sound]] = {
    "music, 5 dB below": partial(with_music, snr_db=5.0),
    "other voices, as loud": partial(with_voices, snr_db=0.0),
    "white noise, 5 dB below": partial(with_noise, snr_db=5.0),
    "in a room": in_a_room,
    "by telephone": by_telephone,
}
"""How sound is heard in video that nobody tampered with; others are as loud where people interrupt each other."""


def _added(sound: Sound, other: Sound, snr_db: float) -> Sound:
    power, its_power = np.mean(sound**2) if len(sound) else 0.0, np.mean(other**2) if len(other) else 0.0
    share = np.sqrt(power / its_power) * 10 ** (-snr_db / 20) if its_power else 0.0
    return (sound + share * other).astype(np.float32)


def _chord(time_s: np.ndarray, chance: np.random.Generator) -> Sound:
    root_hz = 110 * 2 ** (chance.integers(12) / 12)
    return sum(np.sin(2 * np.pi * root_hz * ratio * time_s) / ratio for ratio in CHORD) * np.exp(-2 * time_s)


def _drum(time_s: np.ndarray, chance: np.random.Generator) -> Sound:
    return chance.normal(0, 1, len(time_s)) * np.exp(-30 * time_s)
