"""What cameras, trackers and uploading do to video, done to real and fake alike."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from model.crops import CROP_SIZE, MIN_CROP_PX
from model.training.footage import Footage

Pictures = np.ndarray
"""(T, H, W) uint8 grey, successive."""

SHRINK, ENLARGE, WIDEST_PX = 0.45, 2.0, 300
"""By how much a picture is scaled at most; no crop is made wider than that, nor narrower than is judged."""


def degrade(footage: Footage, rng: np.random.Generator) -> Footage:
    """Scaled, lit otherwise, noisier, at another rate, coded again, followed otherwise; each only now and then.

    Not so much that it leaves no difference between real and fake. The same seed does the same to both.
    """
    footage = _scaled(footage, rng) if rng.random() < 0.45 else footage
    pictures = footage.pictures
    if rng.random() < 0.12:
        pictures = blurred(pictures, rng.uniform(0.4, 1.0))
    if rng.random() < 0.15:
        pictures = sharpened(pictures, rng.uniform(0.3, 1.2), 1.2)
    if rng.random() < 0.6:
        light, contrast = rng.normal(0, 12), rng.uniform(0.6, 1.35)
        pictures = as_pixels((pictures.astype(np.float32) - 128) * contrast + 128 + light)
    if rng.random() < 0.2:
        pictures = as_pixels(pictures + rng.standard_normal(pictures.shape, np.float32) * rng.uniform(0.5, 5))
    footage = _at_another_rate(replace(footage, pictures=pictures), rng)
    pictures = footage.pictures
    if rng.random() < 0.7:
        pictures = compressed(pictures, int(rng.integers(12, 30)), rng)
    if rng.random() < 0.25:
        pictures = compressed(pictures, int(rng.integers(20, 30)), rng)
    return _followed_otherwise(replace(footage, pictures=pictures), rng)


def blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """Each picture through a Gaussian."""
    return each(pictures, lambda p: cv2.GaussianBlur(p, (0, 0), sigma))


def sharpened(pictures: Pictures, amount: float, sigma: float) -> Pictures:
    """Each picture through an unsharp mask."""
    return each(pictures, lambda p: cv2.addWeighted(p, 1 + amount, cv2.GaussianBlur(p, (0, 0), sigma), -amount, 0))


def mixed(pictures: Pictures, at: np.ndarray) -> Pictures:
    """Pictures at times between frames, as mixtures of both neighbours."""
    before, share = at.astype(int), (at % 1)[:, None, None]
    return as_pixels(pictures[before] * (1 - share) + pictures[before + 1] * share)


def compressed(pictures: Pictures, crf: int, rng: np.random.Generator) -> Pictures:
    """As H.264 leaves them, with one of two presets, with or without pictures that depend on later ones."""
    return h264(pictures, crf, str(rng.choice(("ultrafast", "veryfast"), p=(1 / 3, 2 / 3))), bool(rng.integers(2)))


def h264(pictures: Pictures, crf: int, preset: str = "veryfast", ahead: bool = False) -> Pictures:
    """As H.264 leaves them at a constant rate factor. ``ahead``: the encoder may look ahead."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures.shape[1:]
    encoder.pix_fmt, encoder.time_base = "gray", Fraction(1, 25)
    encoder.options = {"crf": str(crf), "preset": preset, "threads": "1"} | ({} if ahead else {"tune": "zerolatency"})
    packets = []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "gray")
        frame.pts = index
        packets += encoder.encode(frame)
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = [f for packet in [*packets, *encoder.encode(None), None] for f in decoder.decode(packet)]
    return np.stack([_luma(frame) for frame in sorted(frames, key=lambda frame: frame.pts)])


def each(pictures: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What ``change`` makes of each picture."""
    return np.stack([change(np.ascontiguousarray(picture)) for picture in pictures])


def as_pixels(numbers: np.ndarray) -> Pictures:
    """Rounded to levels of 8 bits."""
    return np.clip(numbers + 0.5, 0, 255).astype(np.uint8)


def _luma(frame: av.VideoFrame) -> np.ndarray:
    """(H, W) uint8 of a planar frame, without a conversion."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].copy()


def _scaled(footage: Footage, rng: np.random.Generator) -> Footage:
    """Smaller, in most cases, or larger, in one of several ways."""
    width = float(footage.widths_px.mean())
    if rng.random() < 0.7:
        factor = rng.uniform(np.clip(MIN_CROP_PX / width, SHRINK, 1.0), 1.0)
        how = cv2.INTER_LINEAR if rng.random() < 0.4 else cv2.INTER_AREA
    else:
        factor = rng.uniform(1.0, np.clip(WIDEST_PX / width, 1.0, ENLARGE))
        how = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)))
    before = np.array(footage.pictures.shape[:0:-1])
    after = 2 * np.round(before * factor / 2).astype(int)
    across, down = after / before
    geometry = footage.geometry * (across, down, across, across)
    geometry[:, :2] += 0.5 * (after / before - 1)
    return Footage(each(footage.pictures, lambda p: cv2.resize(p, after.tolist(), interpolation=how)), geometry)


def _at_another_rate(footage: Footage, rng: np.random.Generator) -> Footage:
    """Now and then: pictures held as from a lower rate, or mixed as from a higher one."""
    pictures, geometry, frames = footage.pictures, footage.geometry, len(footage)
    if rng.random() < 0.12:
        step = 25 / rng.choice((12.0, 15.0, 20.0, 24.0))
        shown = (np.floor(np.arange(frames) / step + rng.random()) * step).astype(int).clip(0, frames - 1)
        pictures, geometry = pictures[shown], geometry[shown]
    if rng.random() < 0.1:
        pictures = mixed(pictures, np.clip(np.arange(frames) * 0.93 + rng.random(), 0, frames - 1.001))
    return Footage(pictures, geometry)


def _followed_otherwise(footage: Footage, rng: np.random.Generator) -> Footage:
    """Turned, scaled and shifted alike, with a fine tremble as of a tracker."""
    angle, scale, shift = np.deg2rad(rng.normal(0, 2)), rng.uniform(0.85, 1.18), rng.normal(0, 3, 2)
    tremble = gaussian_filter1d(rng.normal(0, 1, (len(footage), 2)), 1.0, axis=0)
    tremble *= rng.uniform(0, 0.8) * (rng.random() < 0.6)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    centre, along = footage.geometry[:, :2], footage.geometry[:, 2:]
    centre = centre + (shift + tremble) * footage.widths_px[:, None] / CROP_SIZE
    return replace(footage, geometry=np.hstack([centre, along @ np.array([[cos, sin], [-sin, cos]])]))
