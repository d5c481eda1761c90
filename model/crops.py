"""Faces in; crops of their mouths out, 96 x 96: upright, of one size, steady.

The crop is centred on the mean of the lip landmarks, turned by the line between the outer eye corners, and
1.25 times as wide as the face is large; the size of a face is the larger of the outer-eye distance and
0.78 times the distance from the middle of the eyes to the chin, so that a turned head keeps its scale.
All three are averaged over 5 frames (200 ms), which steadies the crop without blurring the lips.

A crop is cut twice: once interpolated, for what a mouth looks like; and once of single pixels of the picture, in grey,
so that what is finest in it is neither blurred nor averaged away, whatever the size of the face.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from model.faces import (
    CHIN,
    INNER_LIP_BOTTOM,
    INNER_LIP_TOP,
    LEFT_EYE_OUTER,
    LIPS,
    RIGHT_EYE_OUTER,
    Face,
    FaceFinder,
    FaceTracker,
)  # fmt: skip
from model.media import Frame

CROP_SIZE = 96
SMOOTHING = 5
CROP_WIDTH = 1.25
CHIN_TO_EYES = 0.78

MAX_YAW_DEG = 45.0
MIN_CROP_PX = 44.0
"""Pixels of the picture that a crop must be wide; compression makes smaller mouths look rendered."""

HELD_DIFFERENCE = 0.3
"""Mean absolute difference of a mouth in two pictures, in grey levels of 255, below which they are one and the same."""


@dataclass(frozen=True, slots=True)
class MouthCrop:
    """The mouth in one frame of the grid.

    ``pixels``: (96, 96, 3) uint8 RGB. ``sampled``: (96, 96) uint8, the same in grey, each the nearest of the picture's
    own pixels. ``visible``: the face was found here, not too far turned or small. ``held``: there is nothing new in it,
    the picture before is shown for longer, as in video of few pictures a second.
    ``lip_opening``: distance of the inner lips over the size of the face, 0 = closed. ``quantizer``: see
    `quantizer_when_shrunk`. In pixels of the upright source picture are ``place``, (4,): centre x and y of the crop,
    and the vector along its upper edge; and ``box``: left, top, right, bottom of the face.
    """

    index: int
    pixels: np.ndarray
    sampled: np.ndarray
    visible: bool
    held: bool
    lip_opening: float
    quantizer: float
    place: np.ndarray
    box: np.ndarray


@dataclass(frozen=True, slots=True)
class MouthsNow:
    """What one more frame brought: crops that became ready, by track, and the tracks that ended."""

    ready: dict[int, list[MouthCrop]]
    ended: list[int]


def follow_mouths(frames: Iterator[Frame], finder: FaceFinder) -> Iterator[MouthsNow]:
    """The mouths of all faces in successive frames. Every track is ended once."""
    tracker, croppers = FaceTracker(finder), defaultdict(MouthCropper)
    for frame in frames:
        for known, faces in tracker.push(frame):
            yield _crop_all(croppers, known, faces)
    for known, faces in tracker.finish():
        yield _crop_all(croppers, known, faces)
    yield MouthsNow({track_id: cropper.finish() for track_id, cropper in croppers.items()}, list(croppers))


def _crop_all(croppers: dict[int, "MouthCropper"], frame: Frame, faces: dict[int, Face | None]) -> MouthsNow:
    ready = {track_id: croppers[track_id].push(frame, face) for track_id, face in faces.items()}
    ended = [track_id for track_id in croppers if track_id not in faces]
    return MouthsNow(ready | {track_id: croppers.pop(track_id).finish() for track_id in ended}, ended)


@dataclass(frozen=True, slots=True)
class _Sight:
    frame: Frame
    face: Face
    seen: bool
    geometry: np.ndarray

    @property
    def index(self) -> int:
        return self.frame.index


class MouthCropper:
    """Crops the mouth of one track. A crop comes out two frames after its frame went in."""

    def __init__(self) -> None:
        self._sights: deque[_Sight] = deque(maxlen=SMOOTHING)
        self._done = -1

    def push(self, frame: Frame, face: Face | None) -> list[MouthCrop]:
        """Add a frame. ``face`` None: not found in it; the last known place is cropped instead."""
        if face is None and not self._sights:
            return []
        known = face or self._sights[-1].face
        self._sights.append(_Sight(frame, known, face is not None, mouth_geometry(known.landmarks)))
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
        sampled = sample_mouth(sight.frame.rgb, geometry)
        visible = sight.seen and abs(sight.face.yaw_deg) <= MAX_YAW_DEG and width_px >= MIN_CROP_PX
        return MouthCrop(
            index=sight.index,
            pixels=cut_mouth(sight.frame.rgb, geometry),
            sampled=sampled,
            visible=visible,
            held=i > 0 and _is_held(sampled, geometry, self._sights[i - 1].frame.rgb, sight.frame.rgb),
            lip_opening=lip_opening(sight.face.landmarks),
            quantizer=quantizer_when_shrunk(sight.frame.quantizer, width_px / sight.frame.scale),
            place=geometry * (1, 1, CROP_WIDTH, CROP_WIDTH) / sight.frame.scale,
            box=sight.face.box / sight.frame.scale,
        )


def _is_held(sampled: np.ndarray, geometry: np.ndarray, before: np.ndarray, now: np.ndarray) -> bool:
    """Whether a mouth, ``sampled`` by ``geometry``, is the same in the picture before."""
    if before is now:
        return True
    return cv2.norm(sampled, sample_mouth(before, geometry), cv2.NORM_L1) < HELD_DIFFERENCE * sampled.size


def quantizer_when_shrunk(quantizer: float, width_px: float) -> float:
    """QP as it matters in a crop that was ``width_px`` wide.

    QP rises by 6 when the step of the quantiser doubles (ITU-T H.264, 8.5.9); shrinking by half averages errors away as
    if the step were half.
    """
    return quantizer - 6 * np.log2(max(1.0, width_px / CROP_SIZE))


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
    """Mouth (96, 96, 3) uint8 out of a frame; ``geometry`` as from `mouth_geometry`."""
    step = CROP_WIDTH * np.hypot(geometry[2], geometry[3]) / CROP_SIZE
    if step >= 2:
        rgb, geometry = _shrunk_around(rgb, geometry, int(step))
    return _cut(rgb, geometry, cv2.INTER_LINEAR)


def sample_mouth(rgb: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    """The same in grey, (96, 96) uint8, each the nearest pixel of the frame."""
    return as_grey(_cut(rgb, geometry, cv2.INTER_NEAREST))


def _cut(rgb: np.ndarray, geometry: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.warpAffine(
        rgb, mouth_to_frame(geometry), (CROP_SIZE, CROP_SIZE), flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def as_grey(crops: np.ndarray) -> np.ndarray:
    """(..., 96, 96) uint8: a crop or several, (..., 96, 96, 3) uint8 RGB, as the detector sees them."""
    return cv2.cvtColor(crops.reshape(-1, *crops.shape[-2:]), cv2.COLOR_RGB2GRAY).reshape(crops.shape[:-1])


def mouth_to_frame(geometry: np.ndarray) -> np.ndarray:
    """(2, 3): from pixels of the crop to pixels of the frame; ``geometry`` as from `mouth_geometry`."""
    right = CROP_WIDTH * geometry[2:] / CROP_SIZE
    down = np.array([-right[1], right[0]])
    origin = geometry[:2] - (right + down) * (CROP_SIZE - 1) / 2
    return np.stack([right, down, origin], axis=1)


def _shrunk_around(rgb: np.ndarray, geometry: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame that matters, area-averaged, so that the warp does not alias."""
    centre, reach = geometry[:2], int(0.75 * CROP_WIDTH * np.hypot(geometry[2], geometry[3])) + factor
    height, breadth = rgb.shape[:2]
    left, top = (int(np.clip(c - reach, 0, limit - factor)) for c, limit in zip(centre, (breadth, height)))
    right, bottom = (
        int(np.clip(c + reach, low + factor, limit)) for c, low, limit in zip(centre, (left, top), (breadth, height))
    )
    across, down = (right - left) // factor, (bottom - top) // factor
    part = rgb[top : top + down * factor, left : left + across * factor]
    small = cv2.resize(part, (across, down), interpolation=cv2.INTER_AREA)
    return small, np.concatenate([(centre - (left, top) + 0.5) / factor - 0.5, geometry[2:] / factor])
