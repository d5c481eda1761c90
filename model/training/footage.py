"""The pictures' own pixels around a mouth: cut out of a video, painted over, and sampled as the service samples them.

What tells rendered from filmed is finest at the single pixel. So what is rendered for training is put back into the
picture that it came from before anything happens to both, and looked at as the service looks (`model.crops`): a crop
that was painted as a crop would show what no video shows.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from model.crops import CROP_WIDTH, MouthCrop, as_grey, mouth_to_frame, sample_mouth
from model.media import MediaFile
from model.training.prepare import most_visible_mouth

REACH = 1.6
"""Width of what is kept around a mouth, in widths of its crop."""

FINE_STEP, COARSE_STEP = 0.6, 1.6
"""Pixels of the picture per pixel of a crop below and above which either is blurred before it is sampled."""


@dataclass(frozen=True, slots=True)
class Footage:
    """A mouth in successive pictures.

    ``pictures``: (T, H, W) uint8 grey, the part around the mouth, at its own scale. ``geometry``: (T, 4) float, as from
    `model.crops.mouth_geometry`, in pixels of that part.
    """

    pictures: np.ndarray
    geometry: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def widths_px(self) -> np.ndarray:
        """(T,): how wide crops are in the pictures."""
        return CROP_WIDTH * np.hypot(self.geometry[:, 2], self.geometry[:, 3])

    def part(self, start: int, frames: int) -> "Footage":
        """``frames`` pictures from ``start`` on."""
        return Footage(self.pictures[start : start + frames], self.geometry[start : start + frames])

    def held(self) -> "Footage":
        """The first picture, again and again."""
        return Footage(*(np.repeat(array[:1], len(self), 0) for array in (self.pictures, self.geometry)))

    def crops(self, size: int, wider: float, how: int) -> np.ndarray:
        """(T, size, size) uint8: crops ``wider`` times as wide as the service's, interpolated by OpenCV's ``how``."""
        step, pictures = wider * self.widths_px.mean() / size, self.pictures
        if step > COARSE_STEP:
            pictures = [cv2.GaussianBlur(picture, (0, 0), 0.4 * step) for picture in pictures]
        return np.stack([
            cv2.warpAffine(
                picture, mouth_to_frame(one, size, wider), (size, size), flags=how | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for picture, one in zip(pictures, self.geometry)
        ])  # fmt: skip

    def painted(self, crops: np.ndarray, region: np.ndarray, wider: float, how: int) -> "Footage":
        """The same with ``crops``, as from `crops`, put back where ``region``, (size, size) in [0, 1], says."""
        size, (height, breadth) = crops.shape[1], self.pictures.shape[1:]
        over = np.empty_like(self.pictures)
        for now, (picture, one, width) in enumerate(zip(self.pictures, self.geometry, self.widths_px)):
            to_frame, step, crop = mouth_to_frame(one, size, wider), wider * width / size, crops[now]
            if step < FINE_STEP:
                crop = cv2.GaussianBlur(crop, (0, 0), 0.35 / step)
            paint = cv2.warpAffine(crop, to_frame, (breadth, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
            share = cv2.warpAffine(region, to_frame, (breadth, height))
            over[now] = np.clip(picture * (1 - share) + paint * share + 0.5, 0, 255)
        return replace(self, pictures=over)

    def sampled(self) -> np.ndarray:
        """(T, 96, 96) uint8, see `model.crops.MouthCrop`."""
        return np.stack([sample_mouth(picture, one) for picture, one in zip(self.pictures, self.geometry)])


def around_mouths(*footage: Footage, reach: float = 1.5) -> list[Footage]:
    """Footage of one place, all cut alike to what ``reach`` widths of a crop around the mouths need; sides are even."""
    geometry = np.concatenate([one.geometry for one in footage])
    half = reach / 2 * np.concatenate([one.widths_px for one in footage])[:, None]
    sides = footage[0].pictures.shape[:0:-1]
    low = np.clip(np.floor((geometry[:, :2] - half).min(0)), 0, None).astype(int)
    high = np.clip(np.ceil((geometry[:, :2] + half).max(0)), None, sides).astype(int)
    (left, top), (right, bottom) = low, high - (high - low) % 2
    return [Footage(one.pictures[:, top:bottom, left:right], one.geometry - (left, top, 0, 0)) for one in footage]


def load_footage(source: Path, most: int) -> Footage:
    """The first ``most`` pictures of the most visible mouth of a file, from the first in which it is followed.

    Raises MediaError, or LookupError when there is no face.
    """
    media = MediaFile(source)
    crops = most_visible_mouth(media)
    if not crops:
        raise LookupError(f"no face: {source}")
    places = _places(crops)[:most]
    pictures, geometry, part = [], [], None
    for frame in media.frames():
        if crops[0].index <= frame.index < crops[0].index + len(places):
            scaled = places * (1, 1, 1 / CROP_WIDTH, 1 / CROP_WIDTH) * frame.scale
            part = part or _part(scaled, frame.rgb.shape)
            top, left = (edge.start for edge in part)
            pictures.append(as_grey(np.ascontiguousarray(frame.rgb[part])))
            geometry.append(scaled[frame.index - crops[0].index] - (left, top, 0, 0))
    return Footage(np.stack(pictures), np.stack(geometry))


def _places(crops: list[MouthCrop]) -> np.ndarray:
    """(T, 4) of every frame from the first on; where there is no crop, as in the last one before."""
    known = np.array([crop.index for crop in crops])
    latest = np.searchsorted(known, np.arange(known[0], known[-1] + 1), side="right") - 1
    return np.stack([crop.place for crop in crops])[latest]


def _part(geometry: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    half = REACH / 2 * CROP_WIDTH * np.hypot(geometry[:, 2], geometry[:, 3])[:, None]
    low = np.clip(np.floor((geometry[:, :2] - half).min(0)), 0, None).astype(int)
    high = np.clip(np.ceil((geometry[:, :2] + half).max(0)), None, shape[1::-1]).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])
