"""Mouth crops in; how much they change from picture to picture, and how abruptly, out.

What a camera films carries noise that is new in every picture; what a network renders moves as smoothly as the
network does. So of filmed video the second difference over time is large beside the first: 1.7 times if there were
only noise, next to nothing if there were only smooth motion.
"""

import cv2
import numpy as np

FLOOR = 0.05
"""Grey levels of 255, below which differences are not told apart."""


class MotionMeter:
    """Measures successive crops of one face."""

    def __init__(self) -> None:
        self._before: list[np.ndarray] = []
        self._measured: list[tuple[float, float]] = []

    def push(self, crop: np.ndarray) -> None:
        """Add the next crop, (H, W, 3) uint8."""
        self._before = [*self._before[-2:], cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)]
        now = self._before[-1]
        first = _mean(now - self._before[-2]) if len(self._before) > 1 else np.nan
        second = _mean(now - 2 * self._before[-2] + self._before[-3]) if len(self._before) > 2 else np.nan
        self._measured.append((first, second))

    def finish(self) -> np.ndarray:
        """(T, 2) float: mean absolute first and second difference in grey levels of 255; nan where unknown."""
        return np.array(self._measured, np.float32).reshape(-1, 2)


def smoothness(differences: np.ndarray) -> float:
    """Log of how much smaller second differences (T, 2) are than first ones: > 0 smooth, about -0.5 noise.

    0 where nothing is known.
    """
    known = differences[~np.isnan(differences).any(1)]
    if not len(known):
        return 0.0
    first, second = np.median(known, axis=0) + FLOOR
    return float(np.log(first / second))


def _mean(difference: np.ndarray) -> float:
    return float(np.abs(difference).mean())
