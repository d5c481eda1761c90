"""Mouth crops in; how smoothly they move, and how restless their colours are, out.

What a camera films carries noise that is new in every picture; what a network renders moves as smoothly as the
network does. So of filmed video the second difference over time is large beside the first: 1.7 times if there were
only noise, next to nothing if there were only smooth motion. It is measured on details of one to three pixels over
the whole crop, on everything at the lips, and on the colours of the face: their noise comes in blotches (a sensor has
fewer pixels of each colour than of all, and video keeps a quarter of the colours), so on details three times as large.

Grey is that of single pixels of the picture. Sampled by a crop that follows the face, what is as fine as they are is
new in every picture, too: a filmed face is as fine as that, whatever its size; one that was painted small and enlarged
is not. Interpolation would blur both.

The colours of filmed lips move with the lips. A network that paints a mouth anew for every picture paints its colours
anew, too: they change more from picture to picture, next to those of nose and cheeks in the same pictures, than the
change in grey explains. What the camera and the codec do to a picture, they do to both places.

A picture that is held, as the grid of 25 a second asks of video that has fewer, is no motion: only new ones count.
"""

import cv2
import numpy as np

LIPS = (slice(30, 66), slice(22, 74))
"""Where in a crop of 96 x 96 the lips are."""

COLOUR_SIZE = 32
FACE, MOUTH, ABOVE = (slice(5, 27), slice(4, 28)), (slice(11, 21), slice(9, 23)), (slice(1, 11), slice(4, 28))
"""Where in a crop shrunk to that size there is face, whoever it is; the lips; and what is above them."""

DETAIL_PX = 1.0, 3.0
FLOOR, COLOUR_FLOOR = 0.02, 0.005
"""Levels of 255, below which differences are not told apart."""

NOISE = 3**0.5
"""Second over first difference of noise; what has no colour is taken to be as noisy, so that it tells nothing."""

GREY_SHARE = 0.5
"""How much of how much more the lips change than what is above them, in grey, is expected of their colours."""

PERCENTILES = 85, 85, 85, 50, 85
"""The smoother moments of a window count: noise may be hidden by a codec's pauses, but not made up.

Of how restless colours are, the usual ones.
"""

MEASURES = len(PERCENTILES)
UNKNOWN = (np.nan,) * MEASURES
FACTS = slice(0, 4)
"""Which of them are evidence."""

SMOOTHED = 4
"""Which of them is how smooth the interpolated crop is: that tells what compression or a filter took away."""


class MotionMeter:
    """Measures successive crops of one face."""

    def __init__(self) -> None:
        self._before: list[tuple[np.ndarray, ...]] = []
        self._measured: list[tuple[float, ...]] = []

    def push(self, grey: np.ndarray, sampled: np.ndarray, pixels: np.ndarray, held: bool) -> None:
        """Add the next crop: ``pixels`` (also in ``grey``), ``sampled`` and ``held`` of a `model.crops.MouthCrop`."""
        if held:
            self._measured.append(UNKNOWN)
            return
        single, small = sampled.astype(np.float32), _details(_shrunk(pixels))
        colours = np.ascontiguousarray(small[FACE][..., 1:])
        now = _details(single), single[LIPS], colours, small, _details(grey.astype(np.float32))
        self._before = [*self._before[-2:], now]
        self._measured.append(_measure(*zip(*self._before)) if len(self._before) == 3 else UNKNOWN)

    def measured(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """(T, 5) float of crops ``first`` to ``end`` - 1; nan for the first two crops, and for those that are held.

        Log of the first over the second difference of details, of the lips and of colours: about -0.5 for noise, > 0
        for smooth motion. Log of how much more the colours of the lips change than those above them, less half of
        that of the grey: 0 for noise. And as the first, of the interpolated crop, which is no evidence (`SMOOTHED`).
        """
        return np.array(self._measured[first:end], np.float32).reshape(-1, MEASURES)


def typical_motion(motion: np.ndarray) -> np.ndarray:
    """(5,): of some frames of a `MotionMeter`, (T, 5); 0 where nothing is known."""
    known = motion[~np.isnan(motion).any(1)]
    if not len(known):
        return np.zeros(MEASURES)
    return np.array([np.percentile(of_one, share) for of_one, share in zip(known.T, PERCENTILES)])


Three = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of successive pictures, the oldest first."""


def _measure(details: Three, lips: Three, colours: Three, small: Three, interpolated: Three) -> tuple[float, ...]:
    _, old, now = small
    smooth_colours, restless = _smooth(colours, COLOUR_FLOOR, NOISE), _restless(np.abs(now - old))
    return _smooth(details), _smooth(lips), smooth_colours, restless, _smooth(interpolated)


def _smooth(pictures: Three, floor: float = FLOOR, without: float = 1.0) -> float:
    """``without``: second over first difference of what does not change at all."""
    oldest, old, now = pictures
    first, second = cv2.norm(now, old, cv2.NORM_L1), cv2.norm(now + oldest, 2 * old, cv2.NORM_L1)
    least = floor * now.size
    return float(np.log((first + least) / (second + without * least)))


def _restless(change: np.ndarray) -> float:
    """``change``: (32, 32, 3), of grey and of both colour differences."""
    lips, above = (change[place].mean((0, 1)) for place in (MOUTH, ABOVE))
    grey, *_ = np.log((lips + FLOOR) / (above + FLOOR))
    return float(np.log((lips[1:].sum() + FLOOR) / (above[1:].sum() + FLOOR)) - GREY_SHARE * grey)


def _details(picture: np.ndarray) -> np.ndarray:
    fine, coarse = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in DETAIL_PX)
    return fine - coarse


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """(32, 32, 3) float32: grey and both colour differences (ITU-R BT.601) of a crop."""
    separate = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb).astype(np.float32)
    return cv2.resize(separate, (COLOUR_SIZE, COLOUR_SIZE), interpolation=cv2.INTER_AREA)
