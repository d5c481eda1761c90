"""Smooth motion and noise are told apart, whatever moves and however fast; and colours that are painted anew."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from model.crops import as_grey
from model.motion import MOUTH, MotionMeter, typical_motion

RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.uniform(0, 255, (128, 128, 3)).astype(np.float32), (0, 0), 4)
TEXTURE = ((TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE) * 200 + 20).astype(np.float32)
ROUGHEST = -0.5 * np.log(3)


def crops(speed_px: float, noise: float, frames: int = 25, painted: float = 0.0) -> list[np.ndarray]:
    """A coloured texture that drifts under noise that is always new; ``painted``: colours anew at the lips."""
    lips = np.zeros((96, 96, 1), np.float32)
    lips[3 * MOUTH[0].start : 3 * MOUTH[0].stop, 3 * MOUTH[1].start : 3 * MOUTH[1].stop] = painted
    pictures = []
    for t in range(frames):
        moved = cv2.warpAffine(TEXTURE, np.float64([[1, 0, -speed_px * t], [0, 1, 0]]), (128, 128))[16:112, 8:104]
        moved = moved + cv2.GaussianBlur(RNG.normal(0, noise, moved.shape), (0, 0), 1.5)
        anew = cv2.GaussianBlur(RNG.normal(0, 150, (96, 96)), (0, 0), 4)[..., None] * (1, -0.51, 0)
        pictures.append(np.clip(moved + lips * anew, 0, 255).astype(np.uint8))
    return pictures


def measured(pictures: list[np.ndarray], held: Sequence[bool] | None = None) -> np.ndarray:
    meter = MotionMeter()
    for picture, again in zip(pictures, held or [False] * len(pictures)):
        grey = as_grey(picture)
        meter.push(grey, grey, picture, again)
    return meter.measured()


@pytest.mark.parametrize("speed_px", [0.5, 1.0])
def test_noise_makes_motion_rough_and_its_absence_smooth(speed_px):
    filmed, rendered = (typical_motion(measured(crops(speed_px, noise)))[:3] for noise in (40.0, 0.0))
    assert (filmed < -0.2).all() and (rendered > 0.3).all()


def test_noise_alone_is_as_rough_as_it_gets():
    *smooth, restless, interpolated = typical_motion(measured(crops(0.0, 40.0)))
    assert [*smooth, interpolated] == pytest.approx([ROUGHEST] * 4, abs=0.05) and restless == pytest.approx(0, abs=0.15)


def test_colours_that_are_painted_anew_are_restless_and_those_that_move_are_not():
    moving, painted = (typical_motion(measured(crops(0.5, 20.0, painted=share)))[3] for share in (0.0, 1.0))
    assert abs(moving) < 0.3 and painted > moving + 0.4


def test_what_has_no_colour_tells_nothing_by_its_colours():
    grey = [np.repeat(as_grey(picture)[..., None], 3, 2) for picture in crops(1.0, 0.0)]
    details, _, colours, restless, _ = typical_motion(measured(grey))
    assert details > 0.3 and colours == pytest.approx(ROUGHEST, abs=0.01) and restless < 0.3


def test_pictures_that_are_held_do_not_count():
    once = crops(1.0, 40.0)
    thrice, held = [picture for picture in once for _ in range(3)], [False, True, True] * len(once)
    motion = measured(thrice, held)
    assert np.isnan(motion).all(1).tolist() == [True] * 6 + [False, True, True] * 23
    assert typical_motion(motion) == pytest.approx(typical_motion(measured(once)))
    smooth, *_ = typical_motion(measured(thrice))
    assert smooth > typical_motion(motion)[0] + 0.3


def test_what_is_not_known_is_not_a_number_and_says_nothing():
    motion = measured(crops(1.0, 1.0, frames=3))
    assert motion.shape == (3, 5) and np.isnan(motion[:2]).all() and not np.isnan(motion[2]).any()
    assert typical_motion(motion[:2]).tolist() == [0] * 5 == typical_motion(measured([])).tolist()
