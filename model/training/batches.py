"""Prepared clips in; random, augmented stretches of mouth and sound out, with where they belong in time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import TimeStretch

from model.audio import SpeechActivity
from model.crops import as_grey
from model.detector import VIDEO_SIZE
from model.media import GRID_FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from model.training.prepare import PreparedClip

CORPUS_POWER = 0.7
"""A corpus is drawn in proportion to its frames to this power: large ones more often, but not as much."""

MIN_SPEED, MAX_SPEED = 0.88, 1.14
"""Clips are played that much slower or faster, picture and sound alike."""

NON_SPEECH_WEIGHT = 0.2
LONGEST = 110
"""Longer clips are taken in parts of about this many frames, so that a batch can hold two of one person."""

SLOWER_FPS = (12.0, 15.0, 20.0, 24.0)
SLOWER_CHANCE = 0.2
"""How often, and to what, the frame rate of the picture is lowered; its frames are then repeated."""

MAX_LAG = 5
"""Sound is cut up to this many frames apart from the picture, lest the streams learn where a cut begins."""

CODED_SAMPLES = 1024
"""Of sound, that a codec treats at a time."""

BENT, SHADED = 0.07, 0.25
"""How far a face's shape is bent, in halves of the crop, and its light varied across it (standard deviations)."""

VOCODER_SAMPLES = 512
OTHER_THROAT, THROAT_CHANCE = 0.12, 0.35
"""By how much a voice's resonances and pitch are moved at most, at the same pace, and how often."""


@dataclass(frozen=True, slots=True)
class Batch:
    """``mouths`` (B, T, 3, H, W) in [0, 1]; ``sounds`` (B, 1, 640 T).

    ``lag`` (B,): the sound begins this many frames after the picture. ``weight`` (B, T): how much a
    picture counts, by whether the mouth is visible and somebody speaks.
    """

    mouths: Tensor
    sounds: Tensor
    lag: Tensor
    weight: Tensor


class Sampler:
    """Draws batches from clips. ``seed`` makes the sequence of batches the same every time."""

    def __init__(self, clips: Sequence[PreparedClip], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._torch_rng = torch.Generator().manual_seed(seed)
        activity = SpeechActivity()
        self._clips, self._weights = [], []
        for clip in clips:
            weights = _frame_weights(clip, activity)
            for part in _parts(len(clip.crops)):
                self._clips.append(_part_of(clip, part))
                self._weights.append(weights[part])
        self._lengths = np.array([len(clip.crops) for clip in self._clips])
        self._people = np.unique([f"{c.clip.corpus}/{c.clip.identity}" for c in self._clips], return_inverse=True)[1]
        frames: Counter[str] = Counter()
        for clip in self._clips:
            frames[clip.clip.corpus] += len(clip.crops)
        rarity = np.array([frames[clip.clip.corpus] ** (CORPUS_POWER - 1) for clip in self._clips])
        self._chance = self._lengths * rarity

    def draw(self, size: int, frames: int) -> Batch:
        """``size`` stretches of ``frames`` pictures, augmented, two of each person where there are two.

        Other speech of the same person is the hardest thing to tell from the right one. Raises ValueError
        when no clip is long enough.
        """
        chance = np.where(self._lengths >= frames * MAX_SPEED + 1, self._chance, 0.0)
        if not chance.any():
            raise ValueError(f"no clip has {frames * MAX_SPEED:.0f} frames")
        chosen: list[int] = []
        for _ in range(size):
            left = chance.copy()
            left[chosen] = 0.0
            if len(chosen) % 2 and (left * (same := self._people == self._people[chosen[-1]])).any():
                left = left * same
            left = left if left.any() else chance
            chosen.append(int(self._rng.choice(len(left), p=left / left.sum())))
        cuts = [self._cut(self._clips[i], self._weights[i], frames) for i in chosen]
        mouths, sounds, lags, weights = (torch.stack(parts) for parts in zip(*cuts))
        mouths = augment_mouths(mouths.flatten(0, 1), frames, self._torch_rng).unflatten(0, (size, frames))
        mouths = mouths.expand(-1, -1, 3, -1, -1)
        return Batch(mouths, augment_sounds(sounds, self._torch_rng)[:, None], lags, weights)

    def _cut(self, clip: PreparedClip, weights: np.ndarray, frames: int) -> tuple[Tensor, ...]:
        speed = self._rng.uniform(MIN_SPEED, MAX_SPEED)
        room = len(clip.crops) - frames * speed
        start = self._rng.uniform(0, room)
        lag = int(self._rng.integers(-MAX_LAG, MAX_LAG + 1))
        heard = start + clip.sound_late
        lag = int(np.clip(lag, np.ceil(-heard / speed), np.floor((room - heard) / speed)))
        steps = np.arange(frames)
        if self._rng.random() < SLOWER_CHANCE:
            ratio = GRID_FPS / self._rng.choice(SLOWER_FPS)
            steps = np.floor(steps / ratio + self._rng.random()) * ratio
        pictures = np.clip(np.round(start + speed * steps).astype(int), 0, len(clip.crops) - 1)
        instants = (heard + lag * speed) * SAMPLES_PER_FRAME + speed * np.arange(frames * SAMPLES_PER_FRAME)
        sound = np.interp(instants, np.arange(len(clip.audio)), clip.audio).astype(np.float32) / 32768
        return (
            torch.from_numpy(clip.crops[pictures]).permute(0, 3, 1, 2).float() / 255,
            torch.from_numpy(sound), torch.tensor(lag), torch.from_numpy(weights[pictures]),
        )  # fmt: skip


def grey_and_small(clip: PreparedClip) -> PreparedClip:
    """The clip as `LipSyncDetector` sees it, crops (T, 64, 64, 1): several times less to augment."""
    grey = as_grey(clip.crops)
    small = F.interpolate(
        torch.from_numpy(grey)[:, None].float(), size=(VIDEO_SIZE, VIDEO_SIZE), mode="bilinear", antialias=True
    )
    return replace(clip, crops=small.round().byte().permute(0, 2, 3, 1).numpy())


def _parts(length: int) -> list[slice]:
    edges = np.linspace(0, length, max(1, round(length / LONGEST)) + 1).astype(int)
    return [slice(low, high) for low, high in zip(edges, edges[1:])]


def _part_of(clip: PreparedClip, part: slice) -> PreparedClip:
    sound = clip.audio[part.start * SAMPLES_PER_FRAME : part.stop * SAMPLES_PER_FRAME]
    return replace(
        clip, crops=clip.crops[part], audio=sound, visible=clip.visible[part], lip_opening=clip.lip_opening[part]
    )


def _frame_weights(clip: PreparedClip, activity: SpeechActivity) -> np.ndarray:
    speech = np.zeros(len(clip.crops), np.float32)
    found = activity.per_frame([clip.sound])[: len(speech)]
    speech[: len(found)] = found
    return clip.visible * np.maximum(speech, NON_SPEECH_WEIGHT).astype(np.float32)


def augment_mouths(mouths: Tensor, frames: int, rng: torch.Generator) -> Tensor:
    """Turn, scale, bend, shift, mirror, recolour, shade, blur, cover, compress and add noise, alike in a stretch.

    ``mouths`` (B * frames, C, H, W) in [0, 1], and so is the result.
    """
    channels, side = mouths.shape[1:3]
    size = len(mouths) // frames

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=rng) * (high - low) + low

    def every_frame(values: Tensor) -> Tensor:
        return values.repeat_interleave(frames, 0)

    def coin(chance: float) -> Tensor:
        return uniform(0, 1) < chance

    def smooth(points: int, maps: int) -> Tensor:
        coarse = torch.randn(size, maps, points, points, generator=rng)
        return F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)

    turn, scale, widen = uniform(-0.17, 0.17), uniform(0.85, 1.15), uniform(0.9, 1.1)
    across = torch.where(coin(0.5), -1.0, 1.0) * widen
    shift = every_frame(uniform(-0.12, 0.12, 2)) + 0.012 * torch.randn(len(mouths), 2, generator=rng)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    turned = torch.stack([torch.stack([cos * across, -sin], 1), torch.stack([sin * across, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([every_frame(turned), shift[:, :, None]], 2), list(mouths.shape), False)
    bend = BENT * smooth(4, 2).permute(0, 2, 3, 1) * coin(0.6)[:, None, None, None]
    mouths = F.grid_sample(mouths, grid + every_frame(bend), padding_mode="border", align_corners=False)

    light, contrast, tint = uniform(-0.2, 0.2, 1, 1, 1), uniform(0.6, 1.4, 1, 1, 1), uniform(0.9, 1.1, channels, 1, 1)
    mouths = (mouths - 0.5) * every_frame(contrast * tint) + 0.5 + every_frame(light)
    mouths = mouths * every_frame((SHADED * smooth(3, 1) * coin(0.5)[:, None, None, None]).exp())
    mouths = mouths.clamp(0, 1) ** every_frame(uniform(0.7, 1.4, 1, 1, 1))

    blurred = every_frame(coin(0.4))
    if blurred.any():
        fewer = int(uniform(0.25, 0.8)[0] * side)
        small = F.interpolate(mouths[blurred], size=(fewer, fewer), mode="bilinear", antialias=True)
        mouths[blurred] = F.interpolate(small, size=(side, side), mode="bilinear")

    covered = coin(0.25)
    for index in covered.nonzero().flatten().tolist():
        top, left, high, wide = (int(v * side) for v in torch.rand(4, generator=rng) * torch.tensor([1, 1, 0.4, 0.4]))
        stretch = mouths[index * frames : (index + 1) * frames]
        stretch[:, :, top : top + high, left : left + wide] = torch.rand((), generator=rng)

    noisy = every_frame(coin(0.4))
    grain = torch.randn(int(noisy.sum()), 1, side, side, generator=rng)
    mouths[noisy] += every_frame(uniform(0, 0.06, 1, 1, 1))[noisy] * grain
    mouths = mouths.clamp(0, 1)

    if channels == 1:
        for index in coin(0.3).nonzero().flatten().tolist():
            stretch = slice(index * frames, (index + 1) * frames)
            mouths[stretch, 0] = _compressed(mouths[stretch, 0], int(torch.randint(12, 60, (), generator=rng)))
    return mouths


def _compressed(pictures: Tensor, quality: int) -> Tensor:
    """Grey pictures (T, H, W) in [0, 1] as JPEG leaves them, each by itself."""

    def once(picture: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], 0)

    return torch.from_numpy(np.stack([once(p) for p in (pictures * 255).byte().numpy()])).float() / 255


def augment_sounds(sounds: Tensor, rng: torch.Generator) -> Tensor:
    """Another throat, other voices and noise under it, a room, a microphone, a narrow band, a codec, another level.

    ``sounds`` (B, L) in [-1, 1]; nothing moves it in time.
    """
    size, length = sounds.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(size, *shape, generator=rng) * (high - low) + low

    def coin(chance: float) -> Tensor:
        return (uniform(0, 1, 1) < chance).float()

    sounds = sounds.clone()
    for index in coin(THROAT_CHANCE)[:, 0].nonzero().flatten().tolist():
        sounds[index] = _other_throat(sounds[index], 1 + OTHER_THROAT * float(2 * torch.rand((), generator=rng) - 1))
    level = sounds.square().mean(1, keepdim=True).sqrt() + 1e-4
    voices = sounds.roll(1, 0) / level.roll(1, 0)
    white = torch.randn(size, length, generator=rng)
    brown = torch.cumsum(white, 1)
    brown = brown - F.avg_pool1d(brown[:, None], 401, 1, 200, count_include_pad=False)[:, 0]
    brown = brown / brown.square().mean(1, keepdim=True).sqrt()
    for other, chance in ((voices, 0.35), (white, 0.25), (brown, 0.25)):
        sounds = sounds + coin(chance) * other * level * 10 ** (-uniform(3, 30, 1) / 20)

    spectrum = torch.fft.rfft(sounds, 2 * length)
    bins = spectrum.shape[1]
    curve = F.interpolate(uniform(-9, 9, 1, 8), size=bins, mode="linear")[:, 0] * coin(0.6)
    edge = uniform(3000, 7500, 1) + 8000 * (1 - coin(0.3))
    frequency = torch.linspace(0, SAMPLE_RATE / 2, bins)
    curve = curve - 60 * torch.sigmoid((frequency - edge) / 150)
    spectrum = spectrum * 10 ** (curve / 20) * torch.fft.rfft(_rooms(size, coin(0.3), uniform, rng), 2 * length)
    heard = torch.fft.irfft(spectrum, 2 * length)[:, :length]
    heard = torch.where(coin(0.3) > 0, _coded(heard, uniform(0.5, 4, 1, 1)), heard)
    heard = heard * 10 ** (uniform(-18, 6, 1) / 20)
    return heard.clamp(-1, 1)


def _other_throat(sound: Tensor, higher: float) -> Tensor:
    """A sound (L,) with all its frequencies times ``higher``, at the pace it had."""
    squeezed = F.interpolate(sound[None, None], scale_factor=1 / higher, mode="linear", recompute_scale_factor=True)[0]
    window = torch.hann_window(VOCODER_SAMPLES)
    spectrum = torch.stft(squeezed, VOCODER_SAMPLES, window=window, return_complex=True)
    at_pace = TimeStretch(VOCODER_SAMPLES // 4, spectrum.shape[1])
    paced = at_pace(spectrum, squeezed.shape[1] / len(sound))
    return torch.istft(paced, VOCODER_SAMPLES, window=window, length=len(sound))[0]


def _coded(sounds: Tensor, coarseness: Tensor) -> Tensor:
    """Sounds (B, L) much as a codec at a low bit rate leaves them.

    Every coefficient of a short-time spectrum is rounded to a step that is ``coarseness`` (B, 1, 1) times the mean
    of its band, so that the weak ones of a band vanish.
    """
    window = torch.hann_window(CODED_SAMPLES)
    spectrum = torch.stft(sounds, CODED_SAMPLES, window=window, return_complex=True)
    size = spectrum.abs()
    step = F.avg_pool1d(size.transpose(1, 2), 17, 1, 8, count_include_pad=False).transpose(1, 2) * coarseness + 1e-6
    rounded = torch.polar((size / step).round() * step, spectrum.angle())
    return torch.istft(rounded, CODED_SAMPLES, window=window, length=sounds.shape[1])


def _rooms(size: int, present: Tensor, uniform: object, rng: torch.Generator) -> Tensor:
    """Impulse responses (B, n): the direct sound, then a decaying tail of noise."""
    time_s = torch.arange(int(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    decay_s = uniform(0.03, 0.12, 1)
    tail = torch.randn(size, len(time_s), generator=rng) * torch.exp(-time_s / decay_s)
    tail = tail / tail.square().sum(1, keepdim=True).sqrt() * uniform(0.1, 0.6, 1) * present
    tail[:, 0] = 1.0
    return tail
