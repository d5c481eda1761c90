"""Pictures for people who want to see what was found: the middle of the most suspicious windows."""

from collections.abc import Sequence

import cv2
import numpy as np

from model.crops import CROP_WIDTH, cut_mouth
from model.media import Frame, MediaFile
from model.results import Box, KeyFrame, Mouth, Places, Window

MOST = 6
LONG_SIDE = 480
"""Of a picture, in pixels."""

APART_S = 1.0
"""Seconds from one key frame to the next, at least."""

BOX_RGB = (255, 176, 0)
JPEG_QUALITY = 85


def key_frames(
    media: MediaFile, windows: Sequence[Window], places: Sequence[Places], step_s: float
) -> tuple[KeyFrame, ...]:
    """Up to `MOST` of the most suspicious windows, in order of time, none near another.

    Of windows whose face is not seen in the middle there is none.
    """
    of_track = {one.track_id: one for one in places}
    chosen: list[KeyFrame] = []
    known = [window for window in windows if window.fake_probability is not None]
    for window in sorted(known, key=lambda one: -(one.fake_probability or 0)):
        middle_s = (window.start_s + window.end_s) / 2
        if len(chosen) == MOST:
            break
        if any(abs(one.time_s - middle_s) < APART_S for one in chosen):
            continue
        if (place := _place(of_track[window.track_id], middle_s, step_s)) and (frame := media.picture_at(middle_s)):
            chosen.append(_key_frame(window, middle_s, frame, *place))
    return tuple(sorted(chosen, key=lambda one: one.time_s))


def _place(places: Places, time_s: float, step_s: float) -> tuple[Box, Mouth] | None:
    index = min(round((time_s - places.start_s) / step_s), len(places.boxes) - 1)
    box, mouth = places.boxes[index], places.mouths[index]
    return (box, mouth) if box and mouth else None


def _key_frame(window: Window, time_s: float, frame: Frame, box: Box, mouth: Mouth) -> KeyFrame:
    x, y, side, degrees = mouth
    along = side / CROP_WIDTH * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    scale = min(1.0, LONG_SIDE / max(frame.rgb.shape[:2]))
    small = cv2.resize(frame.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    left, top, width, height = (round(value * frame.scale * scale) for value in box)
    cv2.rectangle(small, (left, top), (left + width, top + height), BOX_RGB, 2)
    return KeyFrame(
        track_id=window.track_id,
        time_s=round(time_s, 3),
        fake_probability=window.fake_probability or 0.0,
        picture=_jpeg(small),
        mouth=_jpeg(cut_mouth(frame.rgb, np.array([x, y, *along]) * frame.scale)),
    )


def _jpeg(rgb: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()
