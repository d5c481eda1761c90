"""Real faces in; faces with a rendered mouth out: training material that knows no generator by name.

What every way of rendering a mouth has in common is a region that was not filmed with the rest. So a region of a
real face is replaced by itself, changed (self-blended images, Shiohara & Yamasaki 2022), by the mouth of another
moment, or by the output of a small generator or of an autoencoder; or the whole face becomes a still picture that
is made to talk. Both pictures of a face are treated alike but for a flicker. Afterwards real and fake go through the
same degradation (`degrade`), so that no codec, size or noise tells them apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np

from model.faces import CHIN, LIPS

NOSE_TIP, NOSE_BASE = 1, 2
JAW = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356) + JAW[::-1] + (127, 162, 21, 54, 103, 67, 109)

Pair = np.ndarray
"""(2, H, W, 3) uint8: a face in two pictures, 80 ms apart."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A face at one moment; see `model.crops.FaceCrop`.

    ``mouth``: its lower part as a generator makes it. ``coded``: all of it through an autoencoder.
    """

    pixels: Pair
    landmarks: np.ndarray
    mouth: Pair | None = None
    coded: Pair | None = None


def pseudo_fake(moment: Moment, other: Moment, rng: np.random.Generator) -> Pair:
    """A fake of ``moment``; ``other``: another moment of the same clip."""
    kinds: list[tuple[float, Callable[[], Pair]]] = [
        (0.40, lambda: rerendered(moment, rng)),
        (0.25, lambda: from_another_moment(moment, other, rng)),
        (0.30 if moment.mouth is not None else 0.0, lambda: generated(moment, rng)),
        (0.20, lambda: talking_still(moment, other, rng)),
        (0.30 if moment.coded is not None else 0.0, lambda: autoencoded(moment, rng)),
    ]
    chances = np.array([chance for chance, _ in kinds])
    return kinds[rng.choice(len(kinds), p=chances / chances.sum())][1]()


def rerendered(moment: Moment, rng: np.random.Generator) -> Pair:
    """A region of the face shrunk and enlarged, smoothed, recoloured, warped, or several of these."""
    return _blend(moment.pixels, changed(moment.pixels, rng), region(moment.landmarks, rng), rng)


def from_another_moment(moment: Moment, other: Moment, rng: np.random.Generator) -> Pair:
    """The mouth of another moment, moved into place by the still parts of the face."""
    still = [*JAW[::2], NOSE_TIP, NOSE_BASE]
    to_here, _ = cv2.estimateAffinePartial2D(other.landmarks[still], moment.landmarks[still])
    if to_here is None:
        return rerendered(moment, rng)
    source = np.stack([_warp(picture, to_here) for picture in other.pixels])
    if rng.random() < 0.6:
        source = changed(source, rng)
    return _blend(moment.pixels, source, region(moment.landmarks, rng), rng)


def generated(moment: Moment, rng: np.random.Generator) -> Pair:
    """The mouth from a generator, pasted as generators do: a box with hard or soft edges, often enlarged."""
    source = changed(moment.mouth, rng) if rng.random() < 0.4 else _resized(moment.mouth, rng.uniform(0.45, 1.0), rng)
    if rng.random() < 0.4:
        source = _with_detail_of(source, moment.pixels, rng.uniform(0.2, 1.0))
    ground = still(moment.pixels) if rng.random() < 0.3 else moment.pixels
    return _blend(ground, source, lower_box(moment.landmarks, rng), rng)


def talking_still(moment: Moment, other: Moment, rng: np.random.Generator) -> Pair:
    """One picture made to talk: everything is still or moves as a sheet, the mouth is stretched open and shut."""
    first = moment.pixels[0]
    if rng.random() < 0.6:
        first = _resized(first[None], rng.uniform(0.35, 0.9), rng)[0]
    openness, change = rng.uniform(-0.25, 0.45), rng.normal(0, 0.15)
    sway = rng.normal(0, 0.6, 2) * (rng.random() < 0.6)
    pictures = [
        _stretched(first, moment.landmarks, amount, sway * step)
        for step, amount in enumerate((openness, openness + change))
    ]
    pair = np.stack(pictures)
    if rng.random() < 0.4:
        mouth = other.pixels if moment.mouth is None else moment.mouth
        pair = _blend(pair, changed(mouth, rng), lower_box(moment.landmarks, rng), rng)
    return changed(pair, rng) if rng.random() < 0.5 else pair


def autoencoded(moment: Moment, rng: np.random.Generator) -> Pair:
    """A region, or everything, as the decoder of an autoencoder draws it."""
    source = changed(moment.coded, rng) if rng.random() < 0.2 else moment.coded
    if rng.random() < 0.4:
        return source
    return _blend(moment.pixels, source, region(moment.landmarks, rng), rng)


def still(pair: Pair) -> Pair:
    """The first picture twice."""
    return np.stack([pair[0], pair[0]])


def changed(pair: Pair, rng: np.random.Generator) -> Pair:
    """One to three changes, each alike in both pictures but for a flicker."""
    changes: Sequence[Callable[[Pair, np.random.Generator], Pair]] = (
        _shrunk, _shrunk, _smoothed, _recoloured, _sharpened, _moved, _rippled, _compressed,
    )  # fmt: skip
    for index in rng.choice(len(changes), rng.integers(1, 4), replace=False):
        pair = changes[index](pair, rng)
    return pair


def region(landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(160, 160) float32 in [0, 1]: the lips, the lower face, a box around it, or the whole face."""
    kind = rng.choice(4, p=(0.3, 0.35, 0.25, 0.1))
    if kind == 2:
        return lower_box(landmarks, rng)
    if kind == 0:
        points, grow = landmarks[list(LIPS)], rng.uniform(1.15, 2.2)
        points = points.mean(0) + (points - points.mean(0)) * grow
    elif kind == 1:
        points = landmarks[[*JAW[2:-2], NOSE_BASE]]
        points = points.mean(0) + (points - points.mean(0)) * rng.uniform(0.75, 1.1)
    else:
        points = landmarks[list(FACE_OVAL)]
    points = points + rng.normal(0, 1.5, points.shape)
    mask = np.zeros((160, 160), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.round().astype(np.int32)), 1.0)
    return _soft(mask, rng)


def lower_box(landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(160, 160) float32 in [0, 1]: the lower half of the face's box, as Wav2Lip and its kind replace it."""
    oval = landmarks[list(FACE_OVAL)]
    left, right = oval[:, 0].min(), oval[:, 0].max()
    inset = rng.uniform(-0.05, 0.2) * (right - left)
    top = rng.uniform(0.2, 0.9) * (landmarks[NOSE_BASE, 1] - landmarks[NOSE_TIP, 1]) + landmarks[NOSE_TIP, 1]
    bottom = landmarks[CHIN, 1] + rng.uniform(-3, 8)
    mask = np.zeros((160, 160), np.float32)
    corners = (int(left + inset), int(top)), (int(right - inset), int(bottom))
    cv2.rectangle(mask, *corners, 1.0, -1)
    return _soft(mask, rng) if rng.random() < 0.7 else mask


def degrade(pair: Pair, rng: np.random.Generator) -> Pair:
    """What uploading does, to real and fake alike: size, light, noise, codec, frame rate, mirror."""
    if rng.random() < 0.5:
        pair = pair[:, :, ::-1]
    pair = _moved(pair, rng, reach=6.0, flicker=0.0)
    if rng.random() < 0.5:
        pair = _resized(pair, rng.uniform(0.4, 1.0), rng)
    if rng.random() < 0.2:
        pair = _smoothed(pair, rng)
    if rng.random() < 0.2:
        pair = _sharpened(pair, rng)
    if rng.random() < 0.6:
        pair = _recoloured(pair, rng, strength=2.0)
    if rng.random() < 0.08:
        pair = pair.mean(3, keepdims=True).astype(np.uint8).repeat(3, 3)
    if rng.random() < 0.25:
        grain = rng.normal(0, rng.uniform(1, 8), pair.shape)
        pair = np.clip(pair + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        pair = still(pair)
    if rng.random() < 0.6:
        pair = h264(pair, int(rng.integers(16, 36)))
    return np.ascontiguousarray(pair)


def h264(pair: Pair, crf: int) -> Pair:
    """Two pictures as H.264 leaves them at a constant rate factor."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pair.shape[1:3]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    encoder.options = {"crf": str(crf), "preset": "ultrafast", "tune": "zerolatency", "threads": "1"}
    packets = [p for f in pair for p in encoder.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(f), "rgb24"))]
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [f for packet in [*packets, *encoder.encode(None), None] for f in decoder.decode(packet)]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def _blend(ground: Pair, source: Pair, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    weight = mask[None, :, :, None] * (1.0 if rng.random() < 0.7 else rng.uniform(0.6, 1.0))
    return (ground * (1 - weight) + source * weight).round().astype(np.uint8)


def _soft(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 7.0))


def _warp(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _resized(pair: Pair, factor: float, rng: np.random.Generator) -> Pair:
    side = pair.shape[1]
    down = rng.choice((cv2.INTER_AREA, cv2.INTER_LINEAR))
    up = rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4))
    less = max(16, round(side * factor))
    small = [cv2.resize(picture, (less, less), interpolation=int(down)) for picture in pair]
    return np.stack([cv2.resize(picture, (side, side), interpolation=int(up)) for picture in small])


def _shrunk(pair: Pair, rng: np.random.Generator) -> Pair:
    return _resized(pair, rng.uniform(0.3, 0.85), rng)


def _smoothed(pair: Pair, rng: np.random.Generator) -> Pair:
    kind = rng.choice(3)
    if kind == 0:
        sigma = rng.uniform(0.5, 1.6)
        return np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in pair])
    if kind == 1:
        return np.stack([cv2.medianBlur(np.ascontiguousarray(p), 3) for p in pair])
    spread = rng.uniform(15, 50)
    return np.stack([cv2.bilateralFilter(np.ascontiguousarray(p), 5, spread, 3) for p in pair])


def _recoloured(pair: Pair, rng: np.random.Generator, strength: float = 1.0) -> Pair:
    gain, shift = 1 + strength * rng.normal(0, 0.03, 3), strength * rng.normal(0, 3, 3)
    light = 1 + strength * rng.normal(0, 0.05)
    return np.clip(pair * (gain * light) + shift, 0, 255).astype(np.uint8)


def _sharpened(pair: Pair, rng: np.random.Generator) -> Pair:
    amount, sigma = rng.uniform(0.4, 1.6), rng.uniform(0.8, 2.0)
    return np.stack([cv2.addWeighted(p, 1 + amount, cv2.GaussianBlur(p, (0, 0), sigma), -amount, 0) for p in pair])


def _with_detail_of(pair: Pair, other: Pair, amount: float) -> Pair:
    fine = [picture.astype(np.float32) - cv2.GaussianBlur(picture, (0, 0), 2.0) for picture in other]
    return np.clip(pair + amount * np.stack(fine), 0, 255).astype(np.uint8)


def _moved(pair: Pair, rng: np.random.Generator, reach: float = 2.0, flicker: float = 0.6) -> Pair:
    centre, turn, scale = np.array(pair.shape[1:3]) / 2, rng.normal(0, 1.5), rng.normal(1, 0.03)
    shift = rng.normal(0, reach / 2, 2)
    pictures = []
    for picture in pair:
        matrix = cv2.getRotationMatrix2D(tuple(centre), turn, scale)
        matrix[:, 2] += shift + flicker * rng.normal(0, 1, 2)
        pictures.append(_warp(np.ascontiguousarray(picture), matrix))
    return np.stack(pictures)


def _rippled(pair: Pair, rng: np.random.Generator) -> Pair:
    side, amplitude = pair.shape[1], rng.uniform(0.5, 2.5)
    base = rng.normal(0, 1, (2, 6, 6))
    pictures = []
    for picture in pair:
        knots = (base + 0.3 * rng.normal(0, 1, base.shape)).astype(np.float32) * amplitude
        dx, dy = (cv2.resize(plane, (side, side), interpolation=cv2.INTER_CUBIC) for plane in knots)
        pictures.append(_remapped(picture, dx, dy))
    return np.stack(pictures)


def _compressed(pair: Pair, rng: np.random.Generator) -> Pair:
    return h264(pair, int(rng.integers(22, 36)))


def _remapped(picture: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: len(picture), : picture.shape[1]].astype(np.float32)
    return cv2.remap(
        np.ascontiguousarray(picture), columns + dx, rows + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _stretched(picture: np.ndarray, landmarks: np.ndarray, amount: float, sway: np.ndarray) -> np.ndarray:
    """The mouth opened by ``amount`` of its width (shut if negative), the chin with it; all moved by ``sway``."""
    lips = landmarks[list(LIPS)]
    centre, width = lips.mean(0), float(np.ptp(lips[:, 0])) + 1.0
    rows, columns = np.mgrid[: len(picture), : picture.shape[1]].astype(np.float32)
    across, down = (columns - centre[0]) / width, (rows - centre[1]) / width
    near = np.exp(-2.5 * across**2 - 1.2 * down**2)
    dy = -amount * width * 0.5 * near * np.tanh(3 * down) * np.where(down > 0, 1.0, 0.4)
    return _remapped(picture, np.float32(sway[0]), (dy + sway[1]).astype(np.float32))
