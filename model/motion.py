"""Mouth crops in; how smoothly they move, out.

What a camera films carries noise that is new in every picture; what a network renders moves as smoothly as the
network does. So of filmed video the second difference over time is large beside the first: 1.7 times if there were
only noise, next to nothing if there were only smooth motion. It is measured on details of one to three pixels over
the whole crop, on everything at the lips, and on the colour of the face: there noise comes in blotches (a sensor has
fewer pixels of each colour than of all, and video keeps a quarter of the colours), so in details three times as large.
"""

import cv2
import numpy as np

LIPS = (slice(30, 66), slice(22, 74))
"""Where in a crop of 96 x 96 the lips are."""

COLOUR_SIZE = 32
FACE = (slice(5, 27), slice(4, 28))
"""Where in a crop shrunk to that size there is face, whoever it is."""

DETAIL_PX = 1.0, 3.0
FLOOR, COLOUR_FLOOR = 0.02, 0.005
"""Levels of 255, below which differences are not told apart."""

NOISE = 3**0.5
"""Second over first difference of noise; what has no colour is taken to be as noisy, so that it tells nothing."""

PERCENTILE = 85
"""The smoother moments of a window count: noise may be hidden by a codec's pauses, but not made up."""


class MotionMeter:
    """Measures successive crops of one face."""

    def __init__(self) -> None:
        self._before: list[tuple[np.ndarray, ...]] = []
        self._measured: list[tuple[float, ...]] = []

    def push(self, grey: np.ndarray, pixels: np.ndarray) -> None:
        """Add the next crop, (96, 96) uint8 grey and (96, 96, 3) uint8 RGB."""
        numbers = grey.astype(np.float32)
        self._before = [*self._before[-2:], (_details(numbers), numbers[LIPS], _details(_colours(pixels))[FACE])]
        details, lips, colours = zip(*self._before)
        enough = len(self._before) == 3
        self._measured.append(
            (_smooth(*details), _smooth(*lips), _smooth(*colours, COLOUR_FLOOR, NOISE)) if enough else (np.nan,) * 3
        )

    def measured(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """(T, 3) float of crops ``first`` to ``end`` - 1: log of the first over the second difference.

        Of details, of the lips and of colours; about -0.5 for noise, > 0 for smooth motion; nan for the first two crops.
        """
        return np.array(self._measured[first:end], np.float32).reshape(-1, 3)


def smoothness(motion: np.ndarray) -> np.ndarray:
    """(3,): of some frames of a `MotionMeter`, (T, 3); 0 where nothing is known."""
    known = motion[~np.isnan(motion).any(1)]
    return np.percentile(known, PERCENTILE, axis=0) if len(known) else np.zeros(3)


def _details(picture: np.ndarray) -> np.ndarray:
    fine, coarse = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in DETAIL_PX)
    return fine - coarse


def _colours(pixels: np.ndarray) -> np.ndarray:
    """(32, 32, 2) float32: both colour differences (ITU-R BT.601) of a crop, shrunk."""
    differences = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float32)
    return cv2.resize(differences, (COLOUR_SIZE, COLOUR_SIZE), interpolation=cv2.INTER_AREA)


def _smooth(
    oldest: np.ndarray, old: np.ndarray, now: np.ndarray, floor: float = FLOOR, without: float = 1.0
) -> float:
    """``without``: second over first difference of what does not change at all."""
    first, second = cv2.norm(now, old, cv2.NORM_L1), cv2.norm(now + oldest, 2 * old, cv2.NORM_L1)
    least = floor * now.size
    return float(np.log((first + least) / (second + without * least)))
