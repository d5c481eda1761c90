"""Real mouths in; rendered ones out: training material that knows no generator by name.

What ways of rendering a mouth have in common is how details come about from picture to picture. So a sequence is
painted anew from two to four of its own pictures, each moved by smooth optical flow, as generators of whole portraits
move what they remember; or from the output of a small generator or of an autoencoder; or it is smoothed over time,
re-timed, or changed picture by picture (self-blended images, Shiohara & Yamasaki 2022), and put back under a mask.
Afterwards real and fake go through the same degradation (`degrade`), so that no codec, size or noise tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from model.crops import CROP_SIZE

Mouths = np.ndarray
"""(T, 96, 96) uint8: successive grey crops of a mouth."""

MIDDLE = CROP_SIZE / 2
ROWS, COLUMNS = np.mgrid[:CROP_SIZE, :CROP_SIZE].astype(np.float32)
COARSE = 24
"""Pixels to a side at which pictures are compared to choose those to paint from."""


@dataclass(frozen=True, slots=True)
class Take:
    """A sequence of a real mouth.

    ``generated``: as a generator paints it. ``coded``: through an autoencoder. ``elsewhere``: another one of the
    same clip, at least as long, if there is one.
    """

    mouths: Mouths
    generated: Mouths
    coded: Mouths
    elsewhere: Mouths | None = None


def pseudo_fake(take: Take, rng: np.random.Generator) -> Mouths:
    """A fake of ``take``."""
    kinds: tuple[tuple[float, Callable[[Take, np.random.Generator], Mouths]], ...] = (
        (0.42, repainted), (0.16, generated), (0.12, coded), (0.12, smoothed), (0.08, retimed), (0.10, rerendered),
    )  # fmt: skip
    chances = np.array([chance for chance, _ in kinds])
    return kinds[rng.choice(len(kinds), p=chances / chances.sum())][1](take, rng)


def repainted(take: Take, rng: np.random.Generator) -> Mouths:
    """Painted from a few key pictures, or from one; in most cases the whole crop."""
    painted = painted_from_keys(take.mouths, rng) if rng.random() < 0.75 else moved_still(take, rng)
    return painted if rng.random() < 0.7 else _masked(take.mouths, painted, mask(rng))


def generated(take: Take, rng: np.random.Generator) -> Mouths:
    """The mouth from a generator, pasted as generators do, over the mouth as it was or over one that stands still."""
    source = _treated(take.generated, rng)
    ground = np.repeat(take.mouths[:1], len(source), 0) if rng.random() < 0.25 else take.mouths
    return _masked(ground, source, mask(rng))


def coded(take: Take, rng: np.random.Generator) -> Mouths:
    """A region, or everything, as the decoder of an autoencoder draws it."""
    source = _treated(take.coded, rng)
    return source if rng.random() < 0.5 else _masked(take.mouths, source, mask(rng))


def smoothed(take: Take, rng: np.random.Generator) -> Mouths:
    """A region, or everything, smoothed over time."""
    return _masked(take.mouths, smoothed_over_time(take.mouths, rng), _mask_or_all(rng))


def retimed(take: Take, rng: np.random.Generator) -> Mouths:
    """The mouth of other moments, faster or slower, its pictures made up from their neighbours."""
    source = take.elsewhere if take.elsewhere is not None and rng.random() < 0.5 else take.mouths
    count, speed = len(take.mouths), rng.uniform(0.5, 1.4)
    begin = rng.uniform(0, max(0.0, len(source) - 1 - speed * count))
    at = np.clip(begin + speed * np.arange(count), 0, len(source) - 1.001)
    between = _mixed if rng.random() < 0.5 else _moved_on
    return _masked(take.mouths, between(source, at), mask(rng))


def rerendered(take: Take, rng: np.random.Generator) -> Mouths:
    """A region changed picture by picture."""
    ground = np.repeat(take.mouths[:1], len(take.mouths), 0) if rng.random() < 0.25 else take.mouths
    source = changed(take.mouths, rng)
    source = trembling(source, rng) if rng.random() < 0.3 else source
    return _masked(ground, source, _mask_or_all(rng))


def painted_from_keys(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """Every picture from the same two to four, each moved by smooth flow, mixed by how alike they are."""
    keys, weights = _keys(mouths, rng)
    smooth_px, smooth_frames, how = rng.uniform(0.8, 3.5), rng.uniform(0, 1.2), _interpolation(rng)
    sources = mouths[keys]
    sources = resized(sources, rng.uniform(0.4, 1.0), rng) if rng.random() < 0.5 else sources
    sources = _each(sources, lambda p: cv2.bilateralFilter(p, 5, 30, 3)) if rng.random() < 0.25 else sources
    painted = np.zeros(mouths.shape, np.float32)
    for key, source, weight in zip(keys, sources, weights):
        moved = flows(mouths, mouths[key], smooth_px, smooth_frames)
        painted += weight[:, None, None] * np.stack([_moved(source, flow, how) for flow in moved])
    if rng.random() < 0.5:
        painted = _with_coarse_of(painted, mouths, rng.uniform(1.5, 4), rng.uniform(0.5, 1))
    painted = _as_pixels(painted)
    return resized(painted, rng.uniform(0.5, 1.0), rng) if rng.random() < 0.3 else painted


def moved_still(take: Take, rng: np.random.Generator) -> Mouths:
    """Every picture from a single one, of this sequence or of another, moved by smooth flow."""
    source = take.mouths if take.elsewhere is None or rng.random() < 0.6 else take.elsewhere
    still = source[rng.integers(len(source))]
    smooth_frames = rng.uniform(0, 2) if rng.random() < 0.75 else 0.0
    moved = flows(take.mouths, still, rng.uniform(1, 6), smooth_frames) * (
        rng.uniform(0.6, 1.3) if rng.random() < 0.25 else 1.0
    )
    how = _interpolation(rng)
    still = resized(still[None], rng.uniform(0.4, 1.0), rng)[0] if rng.random() < 0.6 else still
    still = cv2.bilateralFilter(still, 5, rng.uniform(10, 40), 3) if rng.random() < 0.3 else still
    painted = np.stack([_moved(still, flow, how) for flow in moved])
    if rng.random() < 0.4:
        painted = _as_pixels(_with_coarse_of(painted, take.mouths, rng.uniform(2, 5), rng.uniform(0.5, 1)))
    return resized(painted, rng.uniform(0.5, 1.0), rng) if rng.random() < 0.35 else painted


def smoothed_over_time(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """By a Gaussian, by a recursive filter, or along the optical flow between neighbours."""
    kind, numbers = rng.choice(3), mouths.astype(np.float32)
    if kind == 0:
        numbers = gaussian_filter1d(numbers, rng.uniform(0.5, 1.4), axis=0, mode="nearest")
    elif kind == 1:
        kept = rng.uniform(0.3, 0.75)
        for now in range(1, len(numbers)):
            numbers[now] = kept * numbers[now - 1] + (1 - kept) * numbers[now]
    else:
        numbers = np.stack([_with_neighbours(mouths, now) for now in range(len(mouths))])
    return _as_pixels(numbers)


def changed(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """One or two changes, each alike in all pictures."""
    changes: tuple[Callable[[Mouths], Mouths], ...] = (
        lambda x: resized(x, rng.uniform(0.35, 0.85), rng),
        lambda x: blurred(x, rng.uniform(0.4, 1.3)),
        lambda x: _bilateral(x, rng.uniform(10, 45)),
        lambda x: sharpened(x, rng.uniform(0.4, 1.5), rng.uniform(0.8, 2.0)),
        lambda x: compressed(x, int(rng.integers(20, 34)), rng),
    )
    for index in rng.choice(len(changes), rng.integers(1, 3), replace=False):
        mouths = changes[index](mouths)
    return mouths


def trembling(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """Shifted by a fraction of a pixel, other in every picture."""
    shifts = rng.normal(0, rng.uniform(0.1, 0.8), (len(mouths), 2))
    shifts = gaussian_filter1d(shifts, 1.0, axis=0) * 2 if rng.random() < 0.5 else shifts
    return np.stack([_warped(picture, np.float32([[1, 0, x], [0, 1, y]])) for picture, (x, y) in zip(mouths, shifts)])


def mask(rng: np.random.Generator) -> np.ndarray:
    """(96, 96) float32 in [0, 1]: an ellipse around the lips, a box, everything from a row on, or all."""
    kind, region = rng.choice(4, p=(0.3, 0.35, 0.2, 0.15)), np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    if kind == 3:
        return np.ones_like(region)
    if kind == 0:
        centre = int(MIDDLE), int(MIDDLE) + int(rng.integers(-3, 6))
        cv2.ellipse(region, centre, (int(rng.integers(20, 38)), int(rng.integers(12, 26))), 0, 0, 360, 1.0, -1)
    elif kind == 1:
        top, left = int(rng.integers(8, 40)), int(rng.integers(0, 18))
        right, bottom = CROP_SIZE - int(rng.integers(0, 18)), int(rng.integers(80, 100))
        cv2.rectangle(region, (left, top), (right, bottom), 1.0, -1)
    else:
        region[int(rng.integers(0, 42)) :] = 1
    return cv2.GaussianBlur(region, (0, 0), rng.uniform(0.5, 6)) if rng.random() < 0.75 else region


def degrade(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """What cameras, trackers and uploading do, to real and fake alike; not so much that it leaves no difference."""
    mouths = mouths[:, :, ::-1] if rng.random() < 0.5 else mouths
    mouths = _tracked_elsewhere(mouths, rng)
    if rng.random() < 0.45:
        mouths = resized(mouths, rng.uniform(0.45, 1.0), rng)
    if rng.random() < 0.15:
        mouths = blurred(mouths, rng.uniform(0.4, 1.0))
    if rng.random() < 0.2:
        mouths = sharpened(mouths, rng.uniform(0.3, 1.2), 1.2)
    if rng.random() < 0.6:
        light, contrast = rng.normal(0, 12), rng.uniform(0.6, 1.35)
        mouths = _as_pixels((mouths.astype(np.float32) - 128) * contrast + 128 + light)
    if rng.random() < 0.2:
        mouths = _as_pixels(mouths + rng.normal(0, rng.uniform(0.5, 5), mouths.shape))
    mouths = _at_another_rate(mouths, rng)
    if rng.random() < 0.7:
        mouths = compressed(mouths, int(rng.integers(12, 30)), rng)
    if rng.random() < 0.25:
        mouths = compressed(mouths, int(rng.integers(20, 30)), rng)
    return np.ascontiguousarray(mouths)


def resized(mouths: Mouths, factor: float, rng: np.random.Generator) -> Mouths:
    """Smaller by ``factor`` and enlarged again, in one of several ways."""
    down = int(rng.choice((cv2.INTER_AREA, cv2.INTER_LINEAR)))
    up = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)))
    less = (max(14, round(CROP_SIZE * factor)),) * 2
    return _each(mouths, lambda p: cv2.resize(cv2.resize(p, less, interpolation=down), p.shape, interpolation=up))


def blurred(mouths: np.ndarray, sigma: float) -> np.ndarray:
    """Each picture through a Gaussian."""
    return _each(mouths, lambda p: cv2.GaussianBlur(p, (0, 0), sigma))


def sharpened(mouths: Mouths, amount: float, sigma: float) -> Mouths:
    """Each picture through an unsharp mask."""
    return _each(mouths, lambda p: cv2.addWeighted(p, 1 + amount, cv2.GaussianBlur(p, (0, 0), sigma), -amount, 0))


def compressed(mouths: Mouths, crf: int, rng: np.random.Generator) -> Mouths:
    """As H.264 leaves them, with one of two presets, with or without pictures that depend on later ones."""
    return h264(mouths, crf, str(rng.choice(("ultrafast", "veryfast"), p=(1 / 3, 2 / 3))), bool(rng.integers(2)))


def h264(mouths: Mouths, crf: int, preset: str = "veryfast", ahead: bool = False) -> Mouths:
    """As H.264 leaves them at a constant rate factor. ``ahead``: the encoder may look ahead."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = mouths.shape[1:]
    encoder.pix_fmt, encoder.time_base = "gray", Fraction(1, 25)
    encoder.options = {"crf": str(crf), "preset": preset, "threads": "1"} | ({} if ahead else {"tune": "zerolatency"})
    packets = []
    for index, picture in enumerate(mouths):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "gray")
        frame.pts = index
        packets += encoder.encode(frame)
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [f for packet in [*packets, *encoder.encode(None), None] for f in decoder.decode(packet)]
    return np.stack([_luma(frame) for frame in sorted(frames, key=lambda frame: frame.pts)])


def _luma(frame: av.VideoFrame) -> np.ndarray:
    """(H, W) uint8 of a planar frame, without a conversion."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].copy()


def flows(mouths: Mouths, still: np.ndarray, smooth_px: float, smooth_frames: float) -> np.ndarray:
    """(T, 96, 96, 2) float32: where each pixel is in ``still``, (96, 96), smoothed in space and over time."""
    moved = np.stack([cv2.GaussianBlur(_flow(picture, still), (0, 0), smooth_px) for picture in mouths])
    return gaussian_filter1d(moved, smooth_frames, axis=0, mode="nearest") if smooth_frames > 0.2 else moved


def _keys(mouths: Mouths, rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
    """Two to four pictures that differ most, and (keys, T) how much of each every picture has."""
    coarse = np.stack([cv2.resize(p, (COARSE, COARSE), interpolation=cv2.INTER_AREA) for p in mouths]).astype(
        np.float32
    )
    coarse -= coarse.mean((1, 2), keepdims=True)

    def distance(key: int) -> np.ndarray:
        return ((coarse - coarse[key]) ** 2)[:, COARSE // 4 : -COARSE // 6].mean((1, 2))

    keys = [int(rng.integers(len(mouths)))]
    distances = [distance(keys[0])]
    for _ in range(rng.integers(1, 4)):
        keys.append(int(np.min(distances, axis=0).argmax()))
        distances.append(distance(keys[-1]))
    nearness = -np.stack(distances) / (np.median(distances) + 1e-3) * rng.uniform(1, 8)
    weights = np.exp(nearness - nearness.max(0))
    smooth_frames = rng.uniform(0, 1.2)
    weights /= weights.sum(0)
    return keys, gaussian_filter1d(weights, smooth_frames, axis=1, mode="nearest") if smooth_frames > 0.2 else weights


def _treated(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """What may be done to the output of a network afterwards."""
    mouths = changed(mouths, rng) if rng.random() < 0.45 else mouths
    mouths = trembling(mouths, rng) if rng.random() < 0.3 else mouths
    return smoothed_over_time(mouths, rng) if rng.random() < 0.25 else mouths


def _tracked_elsewhere(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """Turned, scaled and shifted alike, with a fine tremble as of a tracker."""
    matrix = cv2.getRotationMatrix2D((MIDDLE, MIDDLE), rng.normal(0, 2), rng.uniform(0.85, 1.2))
    matrix[:, 2] += rng.normal(0, 3, 2)
    tremble = gaussian_filter1d(rng.normal(0, 1, (len(mouths), 2)), 1.0, axis=0)
    tremble *= rng.uniform(0, 0.8) * (rng.random() < 0.6)
    shifted = np.repeat(matrix[None], len(mouths), 0)
    shifted[:, :, 2] += tremble
    return np.stack([_warped(picture, one) for picture, one in zip(mouths, shifted)])


def _at_another_rate(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """Now and then: pictures repeated as from a lower rate, or mixed as from a higher one."""
    if rng.random() < 0.12:
        step = 25 / rng.choice((12.0, 15.0, 20.0, 24.0))
        shown = (np.floor(np.arange(len(mouths)) / step + rng.random()) * step).astype(int)
        mouths = mouths[shown.clip(0, len(mouths) - 1)]
    if rng.random() < 0.1:
        mouths = _mixed(mouths, np.clip(np.arange(len(mouths)) * 0.93 + rng.random(), 0, len(mouths) - 1.001))
    return mouths


def _mixed(mouths: Mouths, at: np.ndarray) -> Mouths:
    """Pictures at times between frames, as mixtures of both neighbours."""
    before, share = at.astype(int), (at % 1)[:, None, None]
    return _as_pixels(mouths[before] * (1 - share) + mouths[before + 1] * share)


def _moved_on(mouths: Mouths, at: np.ndarray) -> Mouths:
    """Pictures at times between frames, the earlier neighbour moved towards the later."""
    return np.stack([_moved(mouths[int(t)], -(t % 1) * _flow(mouths[int(t)], mouths[int(t) + 1])) for t in at])


def _with_neighbours(mouths: Mouths, now: int) -> np.ndarray:
    near = [near for near in (now - 1, now + 1) if 0 <= near < len(mouths)]
    moved = [_moved(mouths[other].astype(np.float32), _flow(mouths[now], mouths[other])) for other in near]
    return np.mean([mouths[now].astype(np.float32), *moved], axis=0)


def _with_coarse_of(painted: np.ndarray, mouths: Mouths, sigma: float, share: float) -> np.ndarray:
    """The coarse part of ``painted`` drawn to that of ``mouths``."""
    return painted + share * (blurred(mouths, sigma).astype(np.float32) - blurred(painted.astype(np.float32), sigma))


def _masked(ground: Mouths, source: Mouths, region: np.ndarray) -> Mouths:
    return _as_pixels(ground * (1 - region) + source * region)


def _mask_or_all(rng: np.random.Generator) -> np.ndarray:
    region = mask(rng)
    return np.ones_like(region) if rng.random() < 0.3 else region


def _interpolation(rng: np.random.Generator) -> int:
    return int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC)))


def _flow(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(96, 96, 2): where each pixel of ``picture`` is in ``other``, relative to its place."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return estimator.calc(np.ascontiguousarray(picture), np.ascontiguousarray(other), None)


def _moved(picture: np.ndarray, flow: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    x, y = COLUMNS + flow[..., 0], ROWS + flow[..., 1]
    return cv2.remap(np.ascontiguousarray(picture), x, y, how, borderMode=cv2.BORDER_REPLICATE)


def _warped(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    size = picture.shape[::-1]
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, size, borderMode=cv2.BORDER_REPLICATE)


def _bilateral(mouths: Mouths, spread: float) -> Mouths:
    return _each(mouths, lambda p: cv2.bilateralFilter(p, 5, spread, 3))


def _each(mouths: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([change(np.ascontiguousarray(picture)) for picture in mouths])


def _as_pixels(numbers: np.ndarray) -> Mouths:
    return np.clip(numbers + 0.5, 0, 255).astype(np.uint8)
