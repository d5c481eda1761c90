"""Real mouths in; rendered ones out: training material that knows no generator by name.

What ways of rendering a mouth have in common is how details come about from picture to picture. So a sequence is
painted anew from two to four of its own pictures, each moved by smooth optical flow, as generators of whole portraits
move what they remember; or from the output of a small generator or of an autoencoder; or it is smoothed over time,
re-timed, or changed picture by picture (self-blended images, Shiohara & Yamasaki 2022). In most cases it is painted
about as finely as the picture is, else as small as generators paint; then it is put back into the picture under a mask.
Afterwards real and fake go through the same (`model.training.degrading`), so that no codec, size or noise tells them
apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from model.crops import CROP_SIZE
from model.training.degrading import as_pixels, blurred, compressed, each, mixed, sharpened
from model.training.footage import Footage

Mouths = np.ndarray
"""(T, N, N) uint8: successive grey crops of a mouth."""

MIDDLE = CROP_SIZE / 2
COARSE = 24
"""Pixels to a side at which pictures are compared to choose those to paint from."""

WIDER = 1.2
"""How much wider than a crop what is painted is, so that a crop that follows otherwise shows no edge of it."""

AS_FINE = 0.7
"""How often what is painted is about as fine as the picture, not 96 pixels to a side."""

FINER, SIDES = 1.35, (64, 176)
"""Pixels of it to a pixel of the picture then, and least and most to a side."""

WAYS_TO_ENLARGE, OFTEN = (cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_LINEAR), (0.5, 0.35, 0.15)


@dataclass(frozen=True, slots=True)
class Take:
    """A sequence of a real mouth.

    ``generated``: crops, (T, 96, 96) uint8, as a generator paints them. ``coded``: through an autoencoder.
    ``elsewhere``: another sequence of the same clip, as long, if there is one.
    """

    footage: Footage
    generated: Mouths
    coded: Mouths
    elsewhere: Footage | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Crops of a `Take` to paint from: of its own, and of elsewhere."""

    mouths: Mouths
    elsewhere: Mouths | None = None


@dataclass(frozen=True, slots=True)
class Painted:
    """Crops, and where they are put back: ``region``, (N, N) float32 in [0, 1].

    ``held``: over the first picture, again and again.
    """

    mouths: Mouths
    region: np.ndarray
    held: bool = False


Paint = Callable[[Cut, np.random.Generator], Painted]


def pseudo_fake(take: Take, rng: np.random.Generator) -> Footage:
    """A fake of ``take``."""
    chances = {repainted: 0.42, generated: 0.16, coded: 0.12, smoothed: 0.12, retimed: 0.08, rerendered: 0.10}
    paint = list(chances)[rng.choice(len(chances), p=np.array([*chances.values()]) / sum(chances.values()))]
    how = int(rng.choice(WAYS_TO_ENLARGE, p=OFTEN))
    if paint in (generated, coded):
        wider, painted = 1.0, paint(take, rng)
    else:
        wider, painted = WIDER, paint(_cut(take, rng, how), rng)
    mouths, size = painted.mouths, len(painted.region)
    if rng.random() < 0.4:
        mouths = sharpened(mouths, rng.uniform(0.3, 1.5), rng.uniform(0.8, 2.0) * size / CROP_SIZE)
    ground = take.footage.held() if painted.held else take.footage
    return ground.painted(mouths, painted.region, wider, how)


def _cut(take: Take, rng: np.random.Generator, how: int) -> Cut:
    as_fine = int(np.clip(FINER * WIDER * take.footage.widths_px.mean(), *SIDES))
    size = as_fine if rng.random() < AS_FINE else CROP_SIZE
    elsewhere = None if take.elsewhere is None else take.elsewhere.crops(size, WIDER, how)
    return Cut(take.footage.crops(size, WIDER, how), elsewhere)


def repainted(cut: Cut, rng: np.random.Generator) -> Painted:
    """Painted from a few key pictures, or from one; in most cases the whole crop."""
    painted = painted_from_keys(cut.mouths, rng) if rng.random() < 0.75 else moved_still(cut, rng)
    return Painted(painted, _everything(painted) if rng.random() < 0.7 else mask(rng, painted.shape[1]))


def generated(take: Take, rng: np.random.Generator) -> Painted:
    """The mouth from a generator, pasted as generators do, over the mouth as it was or over one that stands still."""
    return Painted(_treated(take.generated, rng), mask(rng), held=rng.random() < 0.25)


def coded(take: Take, rng: np.random.Generator) -> Painted:
    """A region, or everything, as the decoder of an autoencoder draws it."""
    source = _treated(take.coded, rng)
    return Painted(source, _everything(source) if rng.random() < 0.5 else mask(rng))


def smoothed(cut: Cut, rng: np.random.Generator) -> Painted:
    """A region, or everything, smoothed over time."""
    return Painted(smoothed_over_time(cut.mouths, rng), _mask_or_all(cut.mouths, rng))


def retimed(cut: Cut, rng: np.random.Generator) -> Painted:
    """The mouth of other moments, faster or slower, its pictures made up from their neighbours."""
    source = cut.elsewhere if cut.elsewhere is not None and rng.random() < 0.5 else cut.mouths
    count, speed = len(cut.mouths), rng.uniform(0.5, 1.4)
    begin = rng.uniform(0, max(0.0, len(source) - 1 - speed * count))
    at = np.clip(begin + speed * np.arange(count), 0, len(source) - 1.001)
    between = mixed if rng.random() < 0.5 else _moved_on
    return Painted(between(source, at), mask(rng, source.shape[1]))


def rerendered(cut: Cut, rng: np.random.Generator) -> Painted:
    """A region changed picture by picture."""
    source = changed(cut.mouths, rng)
    source = trembling(source, rng) if rng.random() < 0.3 else source
    return Painted(source, _mask_or_all(source, rng), held=rng.random() < 0.25)


def painted_from_keys(mouths: Mouths, rng: np.random.Generator) -> Mouths:
    """Every picture from the same two to four, each moved by smooth flow, mixed by how alike they are."""
    keys, weights = _keys(mouths, rng)
    smooth_px, smooth_frames, how = rng.uniform(0.8, 3.5), rng.uniform(0, 1.2), _interpolation(rng)
    sources = mouths[keys]
    sources = resized(sources, rng.uniform(0.4, 1.0), rng) if rng.random() < 0.5 else sources
    sources = each(sources, lambda p: cv2.bilateralFilter(p, 5, 30, 3)) if rng.random() < 0.25 else sources
    painted = np.zeros(mouths.shape, np.float32)
    for key, source, weight in zip(keys, sources, weights):
        moved = flows(mouths, mouths[key], smooth_px, smooth_frames)
        painted += weight[:, None, None] * np.stack([_moved(source, flow, how) for flow in moved])
    if rng.random() < 0.5:
        painted = _with_coarse_of(painted, mouths, rng.uniform(1.5, 4), rng.uniform(0.5, 1))
    painted = as_pixels(painted)
    return resized(painted, rng.uniform(0.5, 1.0), rng) if rng.random() < 0.3 else painted


def moved_still(cut: Cut, rng: np.random.Generator) -> Mouths:
    """Every picture from a single one, of this sequence or of another, moved by smooth flow."""
    source = cut.mouths if cut.elsewhere is None or rng.random() < 0.6 else cut.elsewhere
    still = source[rng.integers(len(source))]
    smooth_frames = rng.uniform(0, 2) if rng.random() < 0.75 else 0.0
    moved = flows(cut.mouths, still, rng.uniform(1, 6), smooth_frames) * (
        rng.uniform(0.6, 1.3) if rng.random() < 0.25 else 1.0
    )
    how = _interpolation(rng)
    still = resized(still[None], rng.uniform(0.4, 1.0), rng)[0] if rng.random() < 0.6 else still
    still = cv2.bilateralFilter(still, 5, rng.uniform(10, 40), 3) if rng.random() < 0.3 else still
    painted = np.stack([_moved(still, flow, how) for flow in moved])
    if rng.random() < 0.4:
        painted = as_pixels(_with_coarse_of(painted, cut.mouths, rng.uniform(2, 5), rng.uniform(0.5, 1)))
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
    return as_pixels(numbers)


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


def mask(rng: np.random.Generator, size: int = CROP_SIZE) -> np.ndarray:
    """(``size``, ``size``) float32 in [0, 1]: an ellipse around the lips, a box, everything from a row on, or all."""
    kind, region = rng.choice(4, p=(0.3, 0.35, 0.2, 0.15)), np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    if kind == 3:
        return np.ones((size, size), np.float32)
    if kind == 0:
        centre = int(MIDDLE), int(MIDDLE) + int(rng.integers(-3, 6))
        cv2.ellipse(region, centre, (int(rng.integers(20, 38)), int(rng.integers(12, 26))), 0, 0, 360, 1.0, -1)
    elif kind == 1:
        top, left = int(rng.integers(8, 40)), int(rng.integers(0, 18))
        right, bottom = CROP_SIZE - int(rng.integers(0, 18)), int(rng.integers(80, 100))
        cv2.rectangle(region, (left, top), (right, bottom), 1.0, -1)
    else:
        region[int(rng.integers(0, 42)) :] = 1
    region = cv2.GaussianBlur(region, (0, 0), rng.uniform(0.5, 6)) if rng.random() < 0.75 else region
    return cv2.resize(region, (size, size), interpolation=cv2.INTER_LINEAR)


def resized(mouths: Mouths, factor: float, rng: np.random.Generator) -> Mouths:
    """Smaller by ``factor`` and enlarged again, in one of several ways."""
    down = int(rng.choice((cv2.INTER_AREA, cv2.INTER_LINEAR)))
    up = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)))
    less = (max(14, round(mouths.shape[1] * factor)),) * 2
    return each(mouths, lambda p: cv2.resize(cv2.resize(p, less, interpolation=down), p.shape, interpolation=up))


def flows(mouths: Mouths, still: np.ndarray, smooth_px: float, smooth_frames: float) -> np.ndarray:
    """(T, N, N, 2) float32: where each pixel is in ``still``, (N, N), smoothed in space and over time.

    ``smooth_px``: of a crop of 96 pixels.
    """
    smooth = smooth_px * len(still) / CROP_SIZE
    moved = np.stack([cv2.GaussianBlur(_flow(picture, still), (0, 0), smooth) for picture in mouths])
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


def _mask_or_all(mouths: Mouths, rng: np.random.Generator) -> np.ndarray:
    return _everything(mouths) if rng.random() < 0.3 else mask(rng, mouths.shape[1])


def _everything(mouths: Mouths) -> np.ndarray:
    return np.ones(mouths.shape[1:], np.float32)


def _interpolation(rng: np.random.Generator) -> int:
    return int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC)))


def _flow(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, N, 2): where each pixel of ``picture`` is in ``other``, relative to its place."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return estimator.calc(np.ascontiguousarray(picture), np.ascontiguousarray(other), None)


def _moved(picture: np.ndarray, flow: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    x, y = np.moveaxis(_grid(len(picture)) + flow, -1, 0).astype(np.float32)
    return cv2.remap(np.ascontiguousarray(picture), x, y, how, borderMode=cv2.BORDER_REPLICATE)


@cache
def _grid(size: int) -> np.ndarray:
    """(N, N, 2): x and y of each pixel."""
    rows, columns = np.mgrid[:size, :size]
    return np.stack([columns, rows], -1)


def _warped(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    size = picture.shape[::-1]
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, size, borderMode=cv2.BORDER_REPLICATE)


def _bilateral(mouths: Mouths, spread: float) -> Mouths:
    return each(mouths, lambda p: cv2.bilateralFilter(p, 5, spread, 3))
