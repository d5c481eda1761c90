"""Face landmarks in; mouth crops out: 96 x 96, upright, of one size relative to the face, steady in time.

The crop is centred on the mean of the lip landmarks, turned by the line between the outer eye corners, and
1.25 times as wide as the face is large; the size of a face is the larger of the outer-eye distance and
0.78 times the distance from the middle of the eyes to the chin, so that a turned head keeps its scale.
All three are averaged over 5 frames (200 ms), which steadies the crop without blurring the lips.
"""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from model.faces import CHIN, INNER_LIP_BOTTOM, INNER_LIP_TOP, LEFT_EYE_OUTER, LIPS, RIGHT_EYE_OUTER, Face

CROP_SIZE = 96
SMOOTHING = 5
CROP_WIDTH = 1.25
CHIN_TO_EYES = 0.78

MAX_YAW_DEG = 45.0
MIN_CROP_PX = 28.0


@dataclass(frozen=True, slots=True)
class MouthCrop:
    """The mouth in one frame of the grid.

    ``pixels``: (96, 96, 3) uint8 RGB. ``visible``: the face was found here, not too far turned or small.
    ``lip_opening``: distance of the inner lips over the size of the face, 0 = closed. ``width_px``: what
    the crop's width was in the frame.
    """

    index: int
    pixels: np.ndarray
    visible: bool
    lip_opening: float
    yaw_deg: float
    width_px: float


@dataclass(frozen=True, slots=True)
class _Sight:
    index: int
    rgb: np.ndarray
    face: Face
    seen: bool
    geometry: np.ndarray


class MouthCropper:
    """Crops the mouth of one track. A crop comes out two frames after its frame went in."""

    def __init__(self) -> None:
        self._sights: deque[_Sight] = deque(maxlen=SMOOTHING)
        self._done = -1

    def push(self, index: int, rgb: np.ndarray, face: Face | None) -> list[MouthCrop]:
        """Add frame ``index``. ``face`` None: not found in it; the last known place is cropped instead."""
        if face is None and not self._sights:
            return []
        known = face or self._sights[-1].face
        self._sights.append(_Sight(index, rgb, known, face is not None, mouth_geometry(known.landmarks)))
        return self._ready(keep=SMOOTHING // 2)

    def finish(self) -> list[MouthCrop]:
        """The crops that were still waiting for frames to come."""
        return self._ready(keep=0)

    def _ready(self, keep: int) -> list[MouthCrop]:
        ready = [i for i in range(len(self._sights) - keep) if self._sights[i].index > self._done]
        crops = [self._crop(i) for i in ready]
        if crops:
            self._done = crops[-1].index
        return crops

    def _crop(self, i: int) -> MouthCrop:
        sight, reach = self._sights[i], SMOOTHING // 2
        near = [self._sights[j].geometry for j in range(max(0, i - reach), min(len(self._sights), i + reach + 1))]
        geometry = np.mean(near, axis=0)
        width_px = CROP_WIDTH * float(np.hypot(geometry[2], geometry[3]))
        return MouthCrop(
            index=sight.index,
            pixels=cut_mouth(sight.rgb, geometry),
            visible=sight.seen and abs(sight.face.yaw_deg) <= MAX_YAW_DEG and width_px >= MIN_CROP_PX,
            lip_opening=lip_opening(sight.face.landmarks),
            yaw_deg=sight.face.yaw_deg,
            width_px=width_px,
        )


def face_size(landmarks: np.ndarray) -> float:
    """Size of a face in pixels, from its (468, 2) landmarks; see the module's text."""
    left, right = landmarks[LEFT_EYE_OUTER], landmarks[RIGHT_EYE_OUTER]
    to_chin = np.linalg.norm(landmarks[CHIN] - (left + right) / 2)
    return float(max(np.linalg.norm(right - left), CHIN_TO_EYES * to_chin, 1.0))


def lip_opening(landmarks: np.ndarray) -> float:
    """Distance of the inner lips over the size of the face: 0 closed, about 0.3 wide open."""
    gap = np.linalg.norm(landmarks[INNER_LIP_BOTTOM] - landmarks[INNER_LIP_TOP])
    return float(gap) / face_size(landmarks)


def mouth_geometry(landmarks: np.ndarray) -> np.ndarray:
    """(4,): centre x, centre y, and the face's size times (cos, sin) of its roll, all in pixels.

    Roll and size as one vector average without a jump at 180 degrees.
    """
    across = landmarks[RIGHT_EYE_OUTER] - landmarks[LEFT_EYE_OUTER]
    along = across / max(float(np.linalg.norm(across)), 1e-6)
    return np.concatenate([landmarks[list(LIPS)].mean(0), along * face_size(landmarks)])


def cut_mouth(rgb: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    """Crop (96, 96, 3) uint8 out of a frame; ``geometry`` as from `mouth_geometry`."""
    centre, along = geometry[:2], geometry[2:]
    per_pixel = CROP_WIDTH * along / CROP_SIZE
    step = np.hypot(*per_pixel)
    if step >= 2:
        rgb, centre, per_pixel = _shrunk_around(rgb, centre, per_pixel, int(step))
    right, down = per_pixel, np.array([-per_pixel[1], per_pixel[0]])
    origin = centre - (right + down) * (CROP_SIZE - 1) / 2
    to_frame = np.stack([right, down, origin], axis=1)
    return cv2.warpAffine(
        rgb, to_frame, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _shrunk_around(
    rgb: np.ndarray, centre: np.ndarray, per_pixel: np.ndarray, factor: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of the frame that matters, area-averaged, so that the warp does not alias."""
    reach = int(np.hypot(*per_pixel) * CROP_SIZE * 0.75) + factor
    height, width = rgb.shape[:2]
    left, top = (int(np.clip(c - reach, 0, size - factor)) for c, size in zip(centre, (width, height)))
    right, bottom = (
        int(np.clip(c + reach, low + factor, size)) for c, low, size in zip(centre, (left, top), (width, height))
    )
    part = rgb[top:bottom, left:right]
    size = (max(1, part.shape[1] // factor), max(1, part.shape[0] // factor))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([size[0] / part.shape[1], size[1] / part.shape[0]])
    return small, (centre - (left, top) + 0.5) * ratio - 0.5, per_pixel * ratio.mean()
