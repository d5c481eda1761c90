"""Mouth crops in; how smoothly they move, out.

What a camera films carries noise that is new in every picture; what a network renders moves as smoothly as the
network does. So of filmed video the second difference over time is large beside the first: 1.7 times if there were
only noise, next to nothing if there were only smooth motion. It is measured on details of one to three pixels over
the whole crop, and on everything at the lips.
"""

import cv2
import numpy as np

LIPS = (slice(30, 66), slice(22, 74))
"""Where in a crop of 96 x 96 the lips are."""

DETAIL_PX = 1.0, 3.0
FLOOR = 0.02
"""Grey levels of 255, below which differences are not told apart."""

PERCENTILE = 85
"""The smoother moments of a window count: noise may be hidden by a codec's pauses, but not made up."""


class MotionMeter:
    """Measures successive crops of one face."""

    def __init__(self) -> None:
        self._before: list[tuple[np.ndarray, np.ndarray]] = []
        self._measured: list[tuple[float, float]] = []

    def push(self, crop: np.ndarray) -> None:
        """Add the next crop, (96, 96) uint8 grey."""
        grey = crop.astype(np.float32)
        fine, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in DETAIL_PX)
        self._before = [*self._before[-2:], (fine - coarse, grey[LIPS])]
        enough = len(self._before) == 3
        self._measured.append(tuple(_smooth(*of_one) for of_one in zip(*self._before)) if enough else (np.nan, np.nan))

    def measured(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """(T, 2) float of crops ``first`` to ``end`` - 1: log of the first over the second difference.

        Of details and of the lips; about -0.5 for noise, > 0 for smooth motion; nan for the first two crops.
        """
        return np.array(self._measured[first:end], np.float32).reshape(-1, 2)


def smoothness(motion: np.ndarray) -> np.ndarray:
    """(2,): of some frames of a `MotionMeter`, (T, 2); 0 where nothing is known."""
    known = motion[~np.isnan(motion).any(1)]
    return np.percentile(known, PERCENTILE, axis=0) if len(known) else np.zeros(2)


def _smooth(oldest: np.ndarray, old: np.ndarray, now: np.ndarray) -> float:
    first, second = cv2.norm(now, old, cv2.NORM_L1), cv2.norm(now + oldest, 2 * old, cv2.NORM_L1)
    floor = FLOOR * now.size
    return float(np.log((first + floor) / (second + floor)))
