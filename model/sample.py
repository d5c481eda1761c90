"""Make a video of a talking face and its voice, with a known audio-video offset, from nothing but a photograph.

The voice is a formant synthesiser babbling random syllables; the articulation that shapes its sound also moves
the mouth of a public-domain portrait, so picture and sound agree as they do in real speech. Run as
``python -m model.sample --out talk.mp4 --offset-ms 200``.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import sosfilt

# --------------------------------------------------------------------------------------------------------------
# Voice
# --------------------------------------------------------------------------------------------------------------

TRACK_HZ = 1000  # rate of every articulation track; phone durations below are therefore in ms
PITCH_HZ = 185.0  # mean fundamental of the voice
UPPER_FORMANTS_HZ = (5000.0, 6000.0, 7000.0)  # fixed; they give the spectrum above F4 its natural level
BANDWIDTHS_HZ = np.array([80.0, 100.0, 150.0, 220.0, 300.0, 400.0, 500.0])
LOUDNESS = 0.1  # of the synthesiser's own scale: about -20 dBFS
ROOM_NOISE = 3e-4  # never digital silence


class Phone(NamedTuple):
    """Targets of the articulators and of the sound sources, held for ``ms`` milliseconds.

    ``opening`` < 0 presses the lips together, so that the smoothed track stays closed. ``voice``, ``breath``
    and ``hiss`` are relative amplitudes of the vocal folds, of the noise at them, and of the noise at a
    constriction, which is a band of ``band`` Hz around ``centre`` Hz.
    """

    ms: float
    opening: float
    width: float
    f1: float = 500.0
    f2: float = 1600.0
    f3: float = 2750.0
    f4: float = 4000.0
    voice: float = 0.0
    breath: float = 0.0
    hiss: float = 0.0
    centre: float = 3000.0
    band: float = 2000.0
    pitch: float = PITCH_HZ


# How slowly each target is approached: standard deviation, in ms, of the Gaussian that smooths its track.
INERTIA = Phone(
    ms=0, opening=28, width=36, f1=14, f2=16, f3=16, f4=16, voice=8, breath=5, hiss=4, centre=5, band=5, pitch=40
)

VOWELS = {
    "a": Phone(150, 1.00, 0.50, 850, 1250, 2800, 4000, voice=1.0),
    "e": Phone(140, 0.60, 0.75, 560, 2250, 2950, 4100, voice=1.0),
    "i": Phone(130, 0.30, 1.00, 320, 2700, 3300, 4200, voice=1.0),
    "o": Phone(150, 0.58, 0.18, 560, 950, 2700, 3900, voice=1.0),
    "u": Phone(140, 0.25, 0.00, 370, 900, 2650, 3900, voice=1.0),
}

CONSONANTS = {
    "p": (
        Phone(75, -0.6, 0.45, 300, 900, 2400),
        Phone(10, 0.15, 0.45, 350, 950, 2400, hiss=0.25, centre=1200, band=2500),
        Phone(25, 0.35, 0.45, 450, 1100, 2500, breath=0.35),
    ),
    "b": (
        Phone(70, -0.6, 0.45, 250, 900, 2400, voice=0.12),
        Phone(8, 0.15, 0.45, 350, 950, 2400, voice=0.4, hiss=0.2, centre=1200, band=2500),
    ),
    "m": (Phone(80, -0.6, 0.45, 270, 1100, 2300, voice=0.35),),
    "t": (
        Phone(65, 0.12, 0.55, 300, 1800, 2900),
        Phone(12, 0.15, 0.55, 350, 1800, 2900, hiss=0.5, centre=4500, band=3000),
        Phone(25, 0.30, 0.50, 450, 1800, 2900, breath=0.35),
    ),
    "k": (
        Phone(65, 0.20, 0.50, 300, 1900, 2500),
        Phone(16, 0.22, 0.50, 350, 1900, 2500, hiss=0.5, centre=2000, band=1200),
        Phone(25, 0.35, 0.50, 450, 1800, 2500, breath=0.35),
    ),
    "s": (Phone(105, 0.10, 0.70, 320, 1750, 2800, hiss=0.5, centre=6000, band=2000),),
    "f": (Phone(100, 0.04, 0.50, 320, 1150, 2500, hiss=0.22, centre=4500, band=6000),),
    "sh": (Phone(105, 0.18, 0.20, 320, 1850, 2600, hiss=0.5, centre=3400, band=1600),),
}


@dataclass(frozen=True)
class Speech:
    """A voice and the movement of the mouth that made it.

    ``waveform``: float32 (samples,) in [-1, 1] at ``rate`` Hz. ``opening`` and ``width``: float (tracks,) in
    [0, 1] at TRACK_HZ; 0 is closed lips and a rounded mouth, 1 a wide open and a spread one.
    """

    rate: int
    waveform: np.ndarray
    opening: np.ndarray
    width: np.ndarray

    def mouth(self, time_s: float) -> tuple[float, float]:
        """Opening and width of the mouth at a time in seconds."""
        steps = np.arange(len(self.opening)) / TRACK_HZ
        return float(np.interp(time_s, steps, self.opening)), float(np.interp(time_s, steps, self.width))


def speech(seconds: float, rate: int = 48_000, seed: int = 0) -> Speech:
    """Babble: phrases of random consonant-vowel syllables, about four a second, with short pauses between.

    The same seed gives the same speech.
    """
    rng = np.random.default_rng(seed)
    tracks = _articulation(seconds, rng)
    opening, width = (np.clip(track, 0.0, 1.0) for track in (tracks.opening, tracks.width))
    return Speech(rate, _synthesise(tracks, rate, rng), opening, width)


def _articulation(seconds: float, rng: np.random.Generator) -> Phone:
    """One smooth track per field of Phone, float (TRACK_HZ * seconds,)."""
    length = math.ceil(seconds * TRACK_HZ) + 1
    phones = [_pause(rng)]
    while sum(phone.ms for phone in phones) < length:
        phones += [*_phrase(rng), _pause(rng)]
    targets = np.array(phones)
    steps = np.repeat(targets, np.round(targets[:, 0]).astype(int), axis=0)[:length]
    return Phone(0, *(gaussian_filter1d(steps[:, i], INERTIA[i], mode="nearest") for i in range(1, len(INERTIA))))


def _pause(rng: np.random.Generator) -> Phone:
    return Phone(rng.uniform(200, 500), -0.1, 0.45)


def _phrase(rng: np.random.Generator) -> list[Phone]:
    """Phones of five to nine syllables; the pitch falls through them and the last vowel is drawn out."""
    count = int(rng.integers(5, 10))
    phones = []
    for i in range(count):
        pitch = PITCH_HZ * (1.12 - 0.25 * i / count) * rng.uniform(0.94, 1.08)
        stress = rng.uniform(0.75, 1.0)
        vowel = VOWELS[rng.choice(list(VOWELS))]
        vowel = vowel._replace(
            ms=vowel.ms * rng.uniform(0.8, 1.2) * (1.5 if i == count - 1 else 1.0),
            opening=vowel.opening * stress,
            voice=vowel.voice * stress,
        )
        onset = CONSONANTS[rng.choice(list(CONSONANTS))]
        phones += [phone._replace(pitch=pitch) for phone in (*onset, vowel)]
    return phones


def _synthesise(tracks: Phone, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Source-filter synthesis: folds and breath through the formants, plus the hiss of the constriction."""
    edges = np.round(np.arange(len(tracks.voice) + 1) * rate / TRACK_HZ).astype(int)
    at = np.arange(edges[-1]) * TRACK_HZ / rate
    voice, breath, hiss = (
        np.interp(at, np.arange(len(track)), track) for track in (tracks.voice, tracks.breath, tracks.hiss)
    )
    noise = rng.standard_normal((3, len(at))) * np.sqrt(rate / 16_000)  # the same level per Hz at any rate
    folds = _glottis(np.interp(at, np.arange(len(tracks.pitch)), tracks.pitch), rate, rng)
    source = voice * (folds + 0.03 * noise[0]) + 0.5 * breath * noise[0]
    rushing = hiss * (noise[1] - np.roll(noise[1], 2))  # nothing at 0 Hz
    sound = _filter(_formants(tracks, rate), source, edges) + _filter(_band(tracks, rate), rushing, edges)
    return np.tanh(LOUDNESS * sound + ROOM_NOISE * noise[2]).astype(np.float32)


def _glottis(pitch: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Derivative of Rosenberg's glottal flow, its pitch (Hz, one value a sample) jittered by about 1 %."""
    jitter = gaussian_filter1d(rng.standard_normal(len(pitch)), rate / 400)
    phase = np.cumsum(pitch * (1 + 0.01 * jitter / jitter.std()) / rate) % 1.0
    rising = 0.5 - 0.5 * np.cos(np.pi * phase / 0.4)
    falling = np.cos(0.5 * np.pi * (phase - 0.4) / 0.16)
    flow = np.where(phase < 0.4, rising, np.where(phase < 0.56, falling, 0.0))
    return np.diff(flow, prepend=0.0) * rate / 1000


def _formants(tracks: Phone, rate: int) -> np.ndarray:
    """Klatt's resonators in cascade, each of unit gain at 0 Hz: second-order sections (tracks, 7, 6)."""
    moving = np.stack([tracks.f1, tracks.f2, tracks.f3, tracks.f4], axis=1)
    fixed = np.broadcast_to(UPPER_FORMANTS_HZ, (len(moving), len(UPPER_FORMANTS_HZ)))
    poles = _poles(np.concatenate([moving, fixed], axis=1), BANDWIDTHS_HZ, rate)
    return _resonators(poles.sum(axis=-1), poles)


def _band(tracks: Phone, rate: int) -> np.ndarray:
    """One resonator for the hiss, of about unit gain at its centre: second-order sections (tracks, 1, 6)."""
    poles = _poles(tracks.centre, tracks.band, rate)[:, None]
    return _resonators(0.5 * (1 - poles[..., 2]), poles)


def _poles(centre: np.ndarray, band: np.ndarray, rate: int) -> np.ndarray:
    """Denominators (..., 3) of two-pole resonators at ``centre`` with a bandwidth of ``band``, in Hz."""
    radius = np.broadcast_to(np.exp(-np.pi * band / rate), centre.shape)
    return np.stack([np.ones_like(radius), -2 * radius * np.cos(2 * np.pi * centre / rate), radius**2], axis=-1)


def _resonators(gain: np.ndarray, poles: np.ndarray) -> np.ndarray:
    return np.concatenate([gain[..., None], np.zeros((*gain.shape, 2)), poles], axis=-1)


def _filter(sections: np.ndarray, source: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Filter each block ``edges[i]:edges[i + 1]`` of the source by the resonators ``sections[i]``.

    From block to block it keeps each resonator's last two outputs; to keep scipy's state, which is scaled by
    the old poles, would click.
    """
    last, before = np.zeros((2, sections.shape[1]))
    blocks = []
    for section, start, end in zip(sections, edges, edges[1:]):
        a1, a2 = section[:, 4], section[:, 5]
        state = np.stack([-a1 * last - a2 * before, -a2 * last], axis=1)
        block, state = sosfilt(section, source[start:end], zi=state)
        last = -state[:, 1] / a2
        before = -(state[:, 0] + a1 * last) / a2
        blocks.append(block)
    return np.concatenate(blocks)


# --------------------------------------------------------------------------------------------------------------
# Face
# --------------------------------------------------------------------------------------------------------------

# FaceMesh landmark numbers.
MOUTH_CORNERS = (61, 291)
INNER_LIPS = (191, 80, 81, 82, 13, 312, 311, 310, 415, 324, 318, 402, 317, 14, 87, 178, 88, 95)
NOSE_BASE, CHIN, FOREHEAD = 2, 152, 10
EYES = ((33, 133, 159, 145), (362, 263, 386, 374))  # corners, upper lid, lower lid

# Lengths in half mouth widths: how far each part moves at opening 1, and how far the jaw reaches sideways.
LIP_DROP, LIP_RAISE, CORNER_DROP, JAW_DROP, JAW_REACH = 0.54, 0.10, 0.14, 0.42, 2.4
NARROWEST, WIDEST = 0.66, 1.10  # mouth width at width 0 and 1, relative to the photograph's

CAVITY_RGB = np.array([42, 16, 15], np.float32)
TONGUE_RGB = np.array([128, 58, 54], np.float32)
TEETH_RGB = np.array([178, 152, 132], np.float32)


class Pose(NamedTuple):
    """Where the head is: moved by ``x``, ``y`` (pixels of the photograph), turned by ``angle`` (radians)."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0


def portrait() -> np.ndarray:
    """Photograph of Grace Hopper that ships with matplotlib (US Navy, public domain): uint8 RGB (600, 512, 3)."""
    data = resources.files("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    picture = cv2.imdecode(np.frombuffer(data.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def landmarks(photo: np.ndarray) -> np.ndarray:
    """FaceMesh of the one face in an RGB photograph: float (468, 2), x and y in pixels."""
    import mediapipe  # here, for it is slow to import

    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True) as mesh:
        faces = mesh.process(photo).multi_face_landmarks
    if not faces:
        raise ValueError("no face in the photograph")
    return np.array([(p.x, p.y) for p in faces[0].landmark]) * photo.shape[1::-1]


class TalkingFace:
    """Draws a portrait with its mouth, eyes and head moved.

    ``photo``: uint8 RGB with one frontal face, mouth closed. ``size``: width and height of the frames in pixels,
    filled by the photograph as far as its shape allows, the face kept inside; None is the photograph's own.
    """

    def __init__(self, photo: np.ndarray, size: tuple[int, int] | None = None) -> None:
        points = landmarks(photo)
        self.size = size or (photo.shape[1], photo.shape[0])
        self._photo = photo
        self._mouth = _Mouth(photo, points)
        self._eyes = _Eyes(photo, points)
        self._head = _Head(photo, points, self.size)

    def draw(self, opening: float, width: float, blink: float = 0.0, pose: Pose = Pose()) -> np.ndarray:
        """One frame, uint8 RGB (height, width, 3); opening, width and blink in [0, 1]."""
        picture = self._photo.copy()
        self._mouth.draw(picture, opening, width)
        self._eyes.draw(picture, blink)
        return self._head.draw(picture, pose)


class _Mouth:
    """The mouth and jaw, in coordinates u (right) and v (down) from the mouth's centre, in half mouth widths."""

    def __init__(self, photo: np.ndarray, points: np.ndarray) -> None:
        corners = points[list(MOUTH_CORNERS)]
        self._photo = photo
        self._centre = corners.mean(axis=0)
        self._right = (corners[1] - corners[0]) / 2
        self._down = self._right[::-1] * (-1, 1)
        self._unit = float(np.hypot(*self._right))  # pixels

        self._seam = self._lip_line(self._uv(points[list(INNER_LIPS)]))
        (_, self._nose), (_, self._chin) = self._uv(points[[NOSE_BASE, CHIN]])

        reach = self._unit * 2.5 * self._chin  # beyond it nothing moves
        limits = photo.shape[1::-1]
        low = np.clip(self._centre - reach, 0, limits).astype(int)
        high = np.clip(self._centre + reach, 0, limits).astype(int)
        self._box = np.s_[low[1] : high[1], low[0] : high[0]]
        pixels = np.stack(np.meshgrid(*map(np.arange, low, high)), axis=-1)
        self._u, self._v = np.moveaxis(self._uv(pixels), -1, 0).astype(np.float32)

    def _uv(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels - self._centre) @ np.stack([self._right, self._down], axis=1) / self._unit**2

    def _sample(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The photograph at (u, v), RGB of their shape."""
        x, y = (
            (centre + u * right + v * down).astype(np.float32)
            for centre, right, down in zip(self._centre, self._right, self._down)
        )
        return cv2.remap(self._photo, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def _lip_line(self, lips: np.ndarray) -> np.polynomial.Polynomial:
        """Where closed lips meet, v of u: the darkest line near the landmarks (n, 2), which are rough there."""
        rough = np.polynomial.Polynomial.fit(*lips.T, deg=2)
        u, step = np.meshgrid(np.linspace(-0.95, 0.95, 77), np.linspace(-0.05, 0.15, 41))
        dark = cv2.GaussianBlur(self._sample(u, rough(u) + step).sum(axis=-1, dtype=np.float32), (0, 0), 3)
        line = np.take_along_axis(rough(u) + step, dark.argmin(axis=0)[None], axis=0)[0]
        return np.polynomial.Polynomial.fit(u[0], line, deg=4)

    def draw(self, picture: np.ndarray, opening: float, width: float) -> None:
        """Repaint the lower face in place, every pixel from where in the photograph its skin comes from."""
        scale = NARROWEST + (WIDEST - NARROWEST) * width
        near = np.exp(-0.5 * self._u**2 - 0.5 * (self._v / 0.8) ** 2)
        u = self._u * (1 + (1 / scale - 1) * near)
        seam = self._seam(np.clip(u, -1, 1)).astype(np.float32)
        lens = np.clip(1 - u**2, 0, None) ** 0.65
        sag = CORNER_DROP * u**2 * np.exp(1 - u**2)  # deepest at the corners
        lower, upper, jaw = (
            opening * shift
            for shift in (
                LIP_DROP * lens + sag,
                sag - LIP_RAISE * lens,
                JAW_DROP * np.cos(0.5 * np.pi * np.clip(u / JAW_REACH, -1, 1)) ** 2,
            )
        )
        below = self._v - (seam + lower)  # distance below the lower lip's edge
        above = (seam + upper) - self._v  # distance above the upper lip's edge
        chin = below / self._chin
        v = np.where(
            below > 0,
            self._v - (lower + (jaw - lower) * _ramp(chin)) * _ramp(2 - chin),
            np.where(above > 0, self._v - upper * _ramp(1 + above / self._nose), seam),
        )
        skin = self._sample(u, v)
        gap = np.clip((lower - upper) * self._unit, 0, 1)
        inside = gap * np.clip(0.5 - np.maximum(below, above) * self._unit, 0, 1)
        hole = inside > 0
        cavity = self._cavity(*(field[hole] for field in (u, self._v - seam, below, above)))
        skin[hole] = (skin[hole] + inside[hole][:, None] * (cavity - skin[hole])).round()
        picture[self._box] = skin

    @staticmethod
    def _cavity(u: np.ndarray, height: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
        """Colour behind the lips, RGB (n, 3): darkness, the tongue on the jaw, the upper teeth fixed in the skull.

        ``height`` is v from the closed lips; it, ``below`` and ``above`` are (n,) like u.
        """
        light = np.clip(1 - u**2, 0, 1)
        tongue = 0.9 * _ramp(1 + below / 0.25) * light
        teeth = _ramp((0.05 * light - height) / 0.06 + 0.5) * _ramp(-2 * (above + below)) * light
        colour = CAVITY_RGB + tongue[..., None] * (TONGUE_RGB - CAVITY_RGB)
        colour = colour + teeth[..., None] * (TEETH_RGB - colour)
        shadow = 0.5 + 0.5 * _ramp(-above / 0.12)  # of the upper lip
        return colour * shadow[..., None]


class _Eyes:
    """The photograph with its eyes shut, and how far down a lid must come to cover each pixel."""

    def __init__(self, photo: np.ndarray, points: np.ndarray) -> None:
        y, x = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
        self._lid = np.full(photo.shape[:2], np.inf, np.float32)
        source = y.copy()
        for left, right, upper, lower in points[np.array(EYES)]:
            u = (2 * x - left[0] - right[0]) / (right[0] - left[0])
            axis = left[1] + (u + 1) / 2 * (right[1] - left[1])
            arc = np.clip(1 - u**2, 1e-6, None)
            middle, half = (upper[1] + lower[1] - left[1] - right[1]) / 2, (lower[1] - upper[1]) / 2
            top, bottom = axis + arc * (middle - 2.1 * half), axis + arc * (middle + half)
            depth = (y - top) / (bottom - top)
            eye = (np.abs(u) < 1) & (depth > 0) & (depth < 1)
            self._lid[eye] = depth[eye]
            source[eye] = (2 * bottom - y + 1)[eye]  # a lid looks as the skin below the eye
        self._shut = cv2.remap(photo, x, source, cv2.INTER_LINEAR)

    def draw(self, picture: np.ndarray, blink: float) -> None:
        """Lower the lids in place."""
        covered = self._lid < blink
        picture[covered] = self._shut[covered]


class _Head:
    """The head's sway before a still background, and the framing."""

    def __init__(self, photo: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> None:
        full = np.array(photo.shape[1::-1])
        scale = (size / full).max()
        visible = size / scale
        face = (points[FOREHEAD] + points[CHIN]) / 2
        corner = np.clip(face - visible / 2, 0, full - visible)
        x, y = np.meshgrid(*map(np.arange, size))
        self._x, self._y = (
            ((pixel + 0.5) / scale - 0.5 + low).astype(np.float32) for pixel, low in zip((x, y), corner)
        )
        self._right, self._down = self._x - float(points[CHIN][0]), self._y - float(points[CHIN][1])
        reach = np.linalg.norm(points[FOREHEAD] - points[CHIN])
        distance = np.hypot(self._x - face[0], self._y - face[1]) / reach
        self._weight = _ramp(2 - distance / 0.8)

    def draw(self, picture: np.ndarray, pose: Pose) -> np.ndarray:
        """The frame, uint8 RGB."""
        x = self._x - self._weight * (pose.x - pose.angle * self._down)
        y = self._y - self._weight * (pose.y + pose.angle * self._right)
        return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def _ramp(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


# --------------------------------------------------------------------------------------------------------------
# Video
# --------------------------------------------------------------------------------------------------------------


class Codecs(NamedTuple):
    """FFmpeg's names of a video encoder, its options, and an audio encoder."""

    video: str
    options: dict[str, str]
    audio: str


SAME_EVERYWHERE = {"x264-params": "cpu-independent=1"}
"""Options of libx264, whose output else depends on the processor, and with AVX-512 on what was in memory before."""

H264_AAC = Codecs("libx264", {"preset": "veryfast", "crf": "20"} | SAME_EVERYWHERE, "aac")
CODECS = {
    ".mp4": H264_AAC,
    ".mov": H264_AAC,
    ".mkv": H264_AAC,
    ".webm": Codecs("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}, "libopus"),
    ".avi": Codecs("mpeg4", {"b": "4M"}, "pcm_s16le"),
}


CAMERA_NOISE, GRAIN_PX = 6.0, 1.5
"""Standard deviation, in levels of 255 of each colour, of noise that is new in every picture; size of its grains."""


def make_sample(
    path: str | Path,
    *,
    offset_ms: int = 0,
    seconds: float = 6.0,
    fps: float = 25.0,
    size: tuple[int, int] | None = None,
    audio_rate: int = 48_000,
    seed: int = 0,
) -> None:
    """Write a video of a talking face whose audio is late by ``offset_ms`` (negative: early).

    Picture and sound are equally long: ``seconds``, rounded to whole frames. The suffix of ``path`` chooses the
    container and codecs, see CODECS. ``size`` is width and height in pixels (even, for most codecs); None is the
    photograph's, 512 x 600. ``audio_rate`` is in Hz; webm takes 48000. The same arguments give the same video.
    """
    count = round(seconds * fps)
    if count < 1:
        raise ValueError("a video needs at least one frame")
    duration = count / fps
    # What is heard at any time was seen offset_ms before.
    picture_start, sound_start = max(offset_ms, 0) / 1000, max(-offset_ms, 0) / 1000
    talk = speech(duration + abs(offset_ms) / 1000, audio_rate, seed)
    first = round(sound_start * audio_rate)
    waveform = talk.waveform[first : first + round(duration * audio_rate)]
    face = TalkingFace(portrait(), size)
    frames = _frames(face, talk, picture_start + np.arange(count) / fps, seed)
    _write(Path(path), frames, face.size, fps, waveform, audio_rate)


def _frames(face: TalkingFace, talk: Speech, times: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """The face saying the speech at each time (seconds), blinking and swaying meanwhile."""
    rng = np.random.default_rng(seed)
    blinks = np.cumsum(rng.uniform(1.5, 4.0, size=2 + int(times[-1])))
    slow, phase = rng.uniform(0.15, 0.45, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
    for time in times:
        blink = 1.3 * np.exp(-0.5 * ((time - blinks) / 0.055) ** 2).max()
        sway = np.sin(2 * np.pi * slow * time + phase).sum(axis=0) * (2.5, 1.5, 0.009)
        picture = face.draw(*talk.mouth(time), blink=min(blink, 1.0), pose=Pose(*sway.tolist()))
        grain = cv2.GaussianBlur(rng.normal(0, 1, picture.shape), (0, 0), GRAIN_PX)
        grain *= CAMERA_NOISE / grain.std()
        yield np.clip(picture + grain, 0, 255).astype(np.uint8)


def _write(
    path: Path, frames: Iterator[np.ndarray], size: tuple[int, int], fps: float, waveform: np.ndarray, rate: int
) -> None:
    """Encode RGB frames and a mono waveform into one file."""
    if path.suffix.lower() not in CODECS:
        raise ValueError(f"cannot write {path.name}: the suffix must be one of {', '.join(CODECS)}")
    codecs = CODECS[path.suffix.lower()]
    with av.open(str(path), "w") as out:
        video = out.add_stream(codecs.video, rate=Fraction(fps).limit_denominator(1001), options=codecs.options)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        audio = out.add_stream(codecs.audio, rate=rate, layout="mono")
        for picture in frames:
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(waveform[None], format="flt", layout="mono")
        sound.sample_rate, sound.pts = rate, 0  # without a pts, the encoder's delay would be heard
        out.mux(audio.encode(sound))
        out.mux(audio.encode())


def main(arguments: list[str] | None = None) -> None:
    """Command line: see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m model.sample",
        description="Write a made-up video of a talking face with a voice, whose audio-video offset is known.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    kinds = ", ".join(CODECS)
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help=f"file to write: {kinds}")
    parser.add_argument("--offset-ms", type=int, default=0, help="how late the audio is, in ms; negative: early")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long the video is")
    parser.add_argument("--seed", type=int, default=0, help="which babble: same seed, same video")
    options = parser.parse_args(arguments)
    make_sample(options.out, offset_ms=options.offset_ms, seconds=options.seconds, seed=options.seed)
    print(f"{options.out}: {options.seconds:g} s of a talking face, audio late by {options.offset_ms} ms")


if __name__ == "__main__":
    main()
