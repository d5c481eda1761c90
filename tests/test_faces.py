"""Faces are found, followed and cropped, on faces drawn by the product."""

import cv2
import numpy as np
import pytest

from model.crops import (
    CROP_SIZE,
    CROP_WIDTH,
    MouthCropper,
    cut_mouth,
    face_size,
    follow_mouths,
    lip_opening,
    mouth_geometry,
    quantizer_when_shrunk,
    sample_mouth,
)
from model.faces import LOOK_EVERY, MAX_GAP, Face, FaceFinder, FaceTracker
from model.media import Frame
from model.sample import Pose, TalkingFace, portrait


@pytest.fixture(scope="module")
def talking() -> TalkingFace:
    return TalkingFace(portrait(), size=(320, 376))


@pytest.fixture(scope="module")
def closed(talking) -> np.ndarray:
    return talking.draw(0.0, 0.5)


def follow(frames: list[np.ndarray], max_faces: int = 4) -> list[dict[int, Face | None]]:
    with FaceFinder(max_faces) as finder:
        tracker = FaceTracker(finder)
        known = [found for frame in numbered(frames) for found in tracker.push(frame)] + tracker.finish()
        assert [frame.index for frame, _ in known] == list(range(len(frames)))
        return [dict(faces) for _, faces in known]


def numbered(frames: list[np.ndarray]) -> list[Frame]:
    return [Frame(index, frame, 1.0) for index, frame in enumerate(frames)]


def seen(faces: dict[int, Face | None]) -> list[int]:
    return sorted(track_id for track_id, face in faces.items() if face is not None)


def test_one_face_is_one_track_while_it_moves(talking):
    frames = [talking.draw(0.5, 0.5, pose=Pose(0.8 * t, 0.3 * t, 0.002 * t)) for t in range(25)]
    assert [seen(faces) for faces in follow(frames)] == [[0]] * 25


def test_two_faces_are_two_tracks_and_the_limit_holds(closed):
    frames = [np.hstack([closed, closed[:, ::-1]])] * 3
    assert [seen(faces) for faces in follow(frames)] == [[0, 1]] * 3
    assert [seen(faces) for faces in follow(frames, max_faces=1)] == [[0]] * 3


def test_a_face_that_is_briefly_away_comes_back_as_itself_and_later_as_another(closed):
    covered = closed.copy()
    covered[60:330, 40:280] = closed[60:330, 40:280].mean((0, 1))
    away = LOOK_EVERY * (MAX_GAP // LOOK_EVERY + 2)
    tracks = follow([closed] * 4 + [covered] * 5 + [closed] * 6 + [covered] * away + [closed] * 7)
    assert seen(tracks[2]) == [0] and seen(tracks[6]) == []
    assert 0 in tracks[6] and seen(tracks[12]) == [0]
    assert seen(tracks[-1]) == [1]


def test_a_cut_ends_the_track_even_if_the_next_face_is_in_the_same_place(closed):
    other_shot = closed.copy()
    other_shot[:60] = 255
    other_shot[:, :50] = 255
    other_shot[:, 270:] = 255
    tracks = follow([closed] * 3 + [other_shot] * 3)
    assert seen(tracks[2]) == [0] and seen(tracks[3]) == [1]


def test_between_two_looks_a_face_is_on_a_straight_way(talking):
    frames = [talking.draw(0.5, 0.5, pose=Pose(3.0 * t, 0.0, 0.0)) for t in range(3 * LOOK_EVERY + 1)]
    centres = [faces[0].landmarks.mean(0)[0] for faces in follow(frames)]
    looks = centres[::LOOK_EVERY]
    for start, end, between in zip(looks, looks[1:], range(0, len(centres), LOOK_EVERY)):
        assert centres[between : between + LOOK_EVERY + 1] == pytest.approx(np.linspace(start, end, LOOK_EVERY + 1))
    assert np.diff(centres) == pytest.approx(np.full(len(frames) - 1, 3.0), abs=1.5)


def test_a_small_face_in_a_wide_picture_is_found(closed):
    wide = np.full((720, 1280, 3), 90, np.uint8)
    small = cv2.resize(closed, (120, 141), interpolation=cv2.INTER_AREA)
    wide[300:441, 700:820] = small
    assert seen(follow([wide] * 2)[1]) == [0]


def test_no_face_no_track():
    assert follow([np.full((240, 320, 3), 90, np.uint8)] * 5) == [{}] * 5


def test_every_picture_with_a_face_has_one_crop(closed):
    with FaceFinder() as finder:
        found = [crop for now in follow_mouths(iter(numbered([closed] * 12)), finder) for crop in now.ready.get(0, [])]
    assert [crop.index for crop in found] == list(range(12)) and all(crop.visible for crop in found)


def test_lip_opening_follows_the_mouth(talking):
    shut, wide = (follow([talking.draw(opening, 0.5)])[0][0] for opening in (0.0, 1.0))
    assert lip_opening(shut.landmarks) < 0.03 < 0.1 < lip_opening(wide.landmarks)


def test_the_crop_is_the_same_however_the_picture_is_turned_and_scaled(closed):
    face = follow([closed])[0][0]
    straight = cut_mouth(closed, mouth_geometry(face.landmarks))
    assert straight.shape == (CROP_SIZE, CROP_SIZE, 3)
    for angle, scale in ((20, 1.0), (-35, 1.0), (0, 3.0), (15, 0.7)):
        to = cv2.getRotationMatrix2D((160, 188), angle, scale)
        to[:, 2] += 600 - np.array([160, 188])
        turned = cv2.warpAffine(closed, to, (1200, 1200))
        points = face.landmarks @ to[:, :2].T + to[:, 2]
        crop = cut_mouth(turned, mouth_geometry(points.astype(np.float32)))
        assert np.abs(crop.astype(int) - straight).mean() < 6, (angle, scale)


@pytest.mark.parametrize("face_px", [40, 70, 280])
def test_single_pixels_are_as_noisy_whatever_the_size_of_the_face_and_interpolated_ones_are_not(face_px):
    noise = np.random.default_rng(0).normal(128, 20, (600, 600, 1)).clip(0, 255).astype(np.uint8)
    rgb, geometry = np.repeat(noise, 3, 2), np.array([300, 300, face_px, 0.3 * face_px])
    sampled = sample_mouth(rgb, geometry)
    assert sampled.shape == (CROP_SIZE, CROP_SIZE) and sampled.dtype == np.uint8
    assert sampled.std() == pytest.approx(20, rel=0.1) and cut_mouth(rgb, geometry)[..., 0].std() < 0.8 * 20


def test_crops_come_two_frames_late_one_for_each_frame_and_say_what_is_not_visible(closed):
    face = follow([closed])[0][0]
    cropper = MouthCropper()
    assert cropper.push(Frame(0, closed, 1.0), None) == []
    counts, crops = [], []
    for index in range(1, 8):
        ready = cropper.push(Frame(index, closed, 1.0), None if index == 4 else face)
        counts.append(len(ready))
        crops += ready
    crops += cropper.finish()
    assert counts == [0, 0, 1, 1, 1, 1, 1]
    assert [crop.index for crop in crops] == list(range(1, 8))
    assert [crop.visible for crop in crops] == [True, True, True, False, True, True, True]


def test_a_picture_that_is_held_is_told_from_a_new_one(closed):
    face = follow([closed])[0][0]
    coded_again, new = closed.copy(), closed.copy()
    coded_again[::3, ::3] += 1
    new[::3, ::3] += 5
    cropper, crops = MouthCropper(), []
    for index, rgb in enumerate([closed, closed, closed.copy(), coded_again, new, closed]):
        crops += cropper.push(Frame(index, rgb, 1.0), face)
    held = [crop.held for crop in [*crops, *cropper.finish()]]
    assert held == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("yaw_deg", "mouth_px", "visible"), [(0.0, 48.0, True), (0.0, 40.0, False), (70.0, 150.0, False)]
)
def test_a_profile_and_a_small_mouth_are_not_visible(closed, yaw_deg, mouth_px, visible):
    landmarks = follow([closed])[0][0].landmarks
    landmarks = landmarks * mouth_px / (CROP_WIDTH * face_size(landmarks))
    cropper = MouthCropper()
    cropper.push(Frame(0, closed, 1.0), Face(landmarks, yaw_deg, roll_deg=0.0))
    assert [crop.visible for crop in cropper.finish()] == [visible]


def test_what_is_shrunk_was_coded_less_coarsely_for_it():
    assert quantizer_when_shrunk(30.0, 96.0) == quantizer_when_shrunk(30.0, 50.0) == 30
    assert quantizer_when_shrunk(30.0, 192.0) == pytest.approx(24) and np.isnan(quantizer_when_shrunk(np.nan, 192.0))
