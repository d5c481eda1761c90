"""Smooth motion and noise are told apart, whatever moves and however fast."""

import cv2
import numpy as np
import pytest

from model.motion import MotionMeter, smoothness

RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 4)
TEXTURE = ((TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE) * 200 + 20).astype(np.float32)


def crops(speed_px: float, noise: float, frames: int = 25) -> list[np.ndarray]:
    """A texture that drifts, with noise that is new in every picture."""
    pictures = []
    for t in range(frames):
        moved = cv2.warpAffine(TEXTURE, np.float64([[1, 0, -speed_px * t], [0, 1, 0]]), (128, 128))[16:112, 8:104]
        pictures.append(np.clip(moved + RNG.normal(0, noise, moved.shape), 0, 255).astype(np.uint8))
    return pictures


def measured(pictures: list[np.ndarray]) -> np.ndarray:
    meter = MotionMeter()
    for picture in pictures:
        meter.push(picture)
    return meter.measured()


@pytest.mark.parametrize("speed_px", [0.5, 1.0])
def test_noise_makes_motion_rough_and_its_absence_smooth(speed_px):
    filmed, rendered = (smoothness(measured(crops(speed_px, noise))) for noise in (6.0, 0.0))
    assert (filmed < -0.2).all() and (rendered > 0.3).all()


def test_noise_alone_is_as_rough_as_it_gets():
    assert smoothness(measured(crops(0.0, 6.0))) == pytest.approx([-0.5 * np.log(3)] * 2, abs=0.05)


def test_what_is_not_known_is_not_a_number_and_says_nothing():
    motion = measured(crops(1.0, 1.0, frames=3))
    assert motion.shape == (3, 2) and np.isnan(motion[:2]).all() and not np.isnan(motion[2]).any()
    assert smoothness(motion[:2]).tolist() == [0, 0] == smoothness(measured([])).tolist()
