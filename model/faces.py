"""Pictures in; face tracks through time out.

Faces are detected by BlazeFace (Bazarevsky et al. 2019; the full-range model, which finds small faces too,
then the short-range one) now and then and after a cut. Between, each known face is followed by a Face Mesh
of its own (Kartynnik et al. 2019, 468 landmarks) that sees only the surroundings of that face: the cost of
a frame is that of its faces, not of its size. Every other frame is looked at; in the one between, a face is on a
straight way from one place to the other.
"""

import os
from dataclasses import dataclass, field, fields
from functools import cached_property

os.environ.setdefault("GLOG_minloglevel", "2")

import cv2
import numpy as np
from mediapipe.python.solutions.face_detection import FaceDetection
from mediapipe.python.solutions.face_mesh import FaceMesh

from model.media import GRID_FPS, Frame

LEFT_EYE_OUTER, RIGHT_EYE_OUTER, FOREHEAD, CHIN = 33, 263, 10, 152
INNER_LIP_TOP, INNER_LIP_BOTTOM = 13, 14
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185) + (
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)  # fmt: skip

LOOK_EVERY = 2
"""Frames from one that is looked at to the next."""

SEARCH_EVERY = 12
SEARCH_EVERY_WITHOUT_FACE = 2
"""Looks between two searches for faces that are not followed yet."""

REGION = 2.0
"""Side of the square in which a face is followed, in sizes of the face's box."""

MAX_GAP = GRID_FPS // 2
"""A face that is away for more frames than this comes back as a new track."""

MIN_OVERLAP = 0.3
"""Intersection over union of the boxes of one face in two successive frames."""

CUT_DIFFERENCE = 28.0
"""Mean absolute difference of two grey 32 x 18 thumbnails, in grey levels of 255, above which is a cut."""


@dataclass(frozen=True)
class Face:
    """One face in one frame. ``landmarks``: (468, 2) float32, pixels. Angles: degrees, 0 = frontal."""

    landmarks: np.ndarray
    yaw_deg: float
    roll_deg: float

    @cached_property
    def box(self) -> np.ndarray:
        """(4,) float32: left, top, right, bottom in pixels."""
        return np.concatenate([self.landmarks.min(0), self.landmarks.max(0)])

    @property
    def eye_distance_px(self) -> float:
        """Distance of the outer eye corners, in pixels."""
        return float(np.linalg.norm(self.landmarks[RIGHT_EYE_OUTER] - self.landmarks[LEFT_EYE_OUTER]))


class FaceFinder:
    """Finds up to ``max_faces`` faces in successive RGB frames, (H, W, 3) uint8. Close it when done.

    It may go on with another video, which begins with a cut; loading its models takes longer than a second of video.
    """

    def __init__(self, max_faces: int = 4) -> None:
        self.max_faces = max_faces
        self._detectors = [_detector(full_range=True), _detector(full_range=False)]
        self._idle: list[FaceMesh] = []
        self._followers: list[_Follower] = []
        self._until_search = 0

    def __enter__(self) -> "FaceFinder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the models."""
        for part in (*self._detectors, *self._idle, *(follower.mesh for follower in self._followers)):
            part.close()

    def find(self, rgb: np.ndarray, cut: bool = False) -> list[Face]:
        """Faces of the next frame. ``cut``: the picture has nothing to do with the one before."""
        if cut:
            self._release(self._followers)
        faces = [face for follower in self._followers if (face := follower.follow(rgb))]
        lost = [follower for follower in self._followers if follower.lost]
        self._release(lost)
        self._until_search -= 1
        if self._until_search < 0 or cut or lost:
            faces += self._search(rgb, faces)
            self._until_search = SEARCH_EVERY if faces else SEARCH_EVERY_WITHOUT_FACE
        return faces

    def _search(self, rgb: np.ndarray, known: list[Face]) -> list[Face]:
        found: list[Face] = []
        for box in self._detect(rgb):
            if len(self._followers) >= self.max_faces:
                break
            if any(_holds_centre(face.box, box) for face in known + found):
                continue
            follower = _Follower(self._idle_mesh() or _mesh(), box)
            face = follower.follow(rgb)
            if face is None or any(_holds_centre(other.box, face.box) for other in known + found):
                self._idle.append(follower.mesh)
            else:
                self._followers.append(follower)
                found.append(face)
        return found

    def _detect(self, rgb: np.ndarray) -> list[np.ndarray]:
        """Boxes (left, top, right, bottom) in pixels, the largest first."""
        size = np.array([rgb.shape[1], rgb.shape[0]] * 2, np.float32)
        for detector in self._detectors:
            relative = [d.location_data.relative_bounding_box for d in detector.process(rgb).detections or ()]
            if relative:
                boxes = [np.array([r.xmin, r.ymin, r.xmin + r.width, r.ymin + r.height]) * size for r in relative]
                return sorted(boxes, key=lambda box: -float((box[2:] - box[:2]).prod()))
        return []

    def _idle_mesh(self) -> FaceMesh | None:
        if not self._idle:
            return None
        mesh = self._idle.pop()
        mesh.reset()
        return mesh

    def _release(self, followers: list["_Follower"]) -> None:
        self._idle += [follower.mesh for follower in followers]
        self._followers = [follower for follower in self._followers if follower not in followers]


class _Follower:
    """Follows one face with one mesh, inside a square that is moved when the face nears its border."""

    def __init__(self, mesh: FaceMesh, box: np.ndarray) -> None:
        self.mesh = mesh
        self.lost = False
        self._place(box)

    def follow(self, rgb: np.ndarray) -> Face | None:
        height, width = rgb.shape[:2]
        left, top = np.clip(self._corner, 0, (max(width - 2, 0), max(height - 2, 0))).astype(int)
        part = np.ascontiguousarray(rgb[top : top + self._side, left : left + self._side])
        found = self.mesh.process(part).multi_face_landmarks
        self.lost = not found
        if not found:
            return None
        points = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float32)
        face = _face(points * (part.shape[1], part.shape[0], part.shape[1]) + (left, top, 0))
        self._keep_inside(face.box)
        return face

    def _keep_inside(self, box: np.ndarray) -> None:
        size = float((box[2:] - box[:2]).max())
        drift = np.abs((box[:2] + box[2:]) / 2 - self._corner - self._side / 2).max()
        if drift > 0.2 * self._side or not 0.33 < size / self._side < 0.67:
            self._place(box)
            self.mesh.reset()

    def _place(self, box: np.ndarray) -> None:
        self._side = max(32, round(REGION * float((box[2:] - box[:2]).max())))
        self._corner = (box[:2] + box[2:]) / 2 - self._side / 2


@dataclass(slots=True)
class _OpenTrack:
    track_id: int
    last_index: int
    last_face: Face


FacesNow = tuple[Frame, dict[int, Face | None]]
"""A frame and its faces by track id; None where a track that may go on has no face now."""


@dataclass(slots=True)
class FaceTracker:
    """Gives the faces of successive frames lasting ids.

    A track ends at a cut, which the first frame is too, or when its face is away for more than ``MAX_GAP`` frames.
    """

    finder: FaceFinder
    _open: list[_OpenTrack] = field(default_factory=list)
    _next_id: int = 0
    _thumbnail: np.ndarray | None = None
    _looked_at: int = 0
    _before: dict[int, Face | None] = field(default_factory=dict)
    _between: list[Frame] = field(default_factory=list)

    def push(self, frame: Frame) -> list[FacesNow]:
        """Add the next frame; frames come out in order, as soon as their faces are known."""
        cut = self._is_cut(frame.rgb)
        if not cut and frame.index - self._looked_at < LOOK_EVERY:
            self._between.append(frame)
            return []
        now = self._look(frame, cut)
        done = [(waited, self._before if cut else self._on_the_way(waited, frame, now)) for waited in self._between]
        self._between, self._before, self._looked_at = [], now, frame.index
        return [*done, (frame, now)]

    def finish(self) -> list[FacesNow]:
        """The frames that were still waiting for one to come."""
        return [(waited, self._before) for waited in self._between]

    def _on_the_way(self, waited: Frame, frame: Frame, now: dict[int, Face | None]) -> dict[int, Face | None]:
        share = (waited.index - self._looked_at) / (frame.index - self._looked_at)
        return {track_id: _between(face, now.get(track_id), share) for track_id, face in self._before.items()}

    def _look(self, frame: Frame, cut: bool) -> dict[int, Face | None]:
        oldest = frame.index if cut else frame.index - MAX_GAP - 1
        self._open = [track for track in self._open if track.last_index >= oldest]
        for face in self.finder.find(frame.rgb, cut):
            self._assign(frame.index, face)
        return {t.track_id: t.last_face if t.last_index == frame.index else None for t in self._open}

    def _assign(self, index: int, face: Face) -> None:
        free = [track for track in self._open if track.last_index < index]
        best = max(free, key=lambda track: overlap(track.last_face.box, face.box), default=None)
        if best is not None and overlap(best.last_face.box, face.box) >= MIN_OVERLAP:
            best.last_index, best.last_face = index, face
        elif not any(overlap(t.last_face.box, face.box) > 0.5 for t in self._open if t.last_index == index):
            self._open.append(_OpenTrack(self._next_id, index, face))
            self._next_id += 1

    def _is_cut(self, rgb: np.ndarray) -> bool:
        step = max(1, min(rgb.shape[:2]) // 72)
        small = cv2.resize(rgb[::step, ::step], (32, 18), interpolation=cv2.INTER_AREA).mean(2)
        before, self._thumbnail = self._thumbnail, small
        return before is None or float(np.abs(small - before).mean()) > CUT_DIFFERENCE


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    shared = float(size.prod())
    return shared / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared)


def _between(a: Face | None, b: Face | None, share: float) -> Face | None:
    """``share`` of the way from one face to the other."""
    if a is None or b is None:
        return None
    parts = ((getattr(a, part.name), getattr(b, part.name)) for part in fields(Face))
    return Face(*(old + share * (new - old) for old, new in parts))


def _holds_centre(box: np.ndarray, other: np.ndarray) -> bool:
    centre = (other[:2] + other[2:]) / 2
    return bool((box[:2] < centre).all() and (centre < box[2:]).all())


def _detector(full_range: bool) -> FaceDetection:
    return FaceDetection(model_selection=int(full_range), min_detection_confidence=0.5)


def _mesh() -> FaceMesh:
    return FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=False)


def _face(points: np.ndarray) -> Face:
    across = points[RIGHT_EYE_OUTER] - points[LEFT_EYE_OUTER]
    return Face(
        landmarks=np.ascontiguousarray(points[:, :2], np.float32),
        yaw_deg=float(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1])))),
        roll_deg=float(np.degrees(np.arctan2(across[1], across[0]))),
    )
