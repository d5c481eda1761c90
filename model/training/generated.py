"""Faces in; the same faces with mouths that the generator of `model.training.generator` painted out."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from model.crops import CROP_SIZE, CROP_WIDTH, FACE_LIFT, FACE_SIZE, FACE_STEP, FACE_WIDTH
from model.detector import LipSyncDetector
from model.training.generator import MouthGenerator, rerender_mouths, voice_of
from model.training.prepare import PreparedClip, PreparedFaces, load_prepared

OTHER_VOICE = 0.5
"""How often a mouth says what is said at another moment of the clip."""

SIDE = round(FACE_SIZE * CROP_WIDTH / FACE_WIDTH)
LEFT = (FACE_SIZE - SIDE) // 2
TOP = LEFT + round(FACE_SIZE * FACE_LIFT / FACE_WIDTH)
MOUTH = (slice(TOP, TOP + SIDE), slice(LEFT, LEFT + SIDE))
"""Where in the crop of a face that of the mouth is."""


def with_generated_mouths(
    faces: Iterable[PreparedFaces], cache: Path, generator: MouthGenerator, listener: LipSyncDetector, seed: int
) -> list[PreparedFaces]:
    """``faces`` with their ``generated`` set, for a voice as ``listener`` hears it."""
    rng = np.random.default_rng(seed)
    return [
        replace(one, generated=_repainted(one, clip, generator, listener, rng))
        for one in faces
        for clip in load_prepared([one.clip], cache)
    ]


def _repainted(
    faces: PreparedFaces,
    clip: PreparedClip,
    generator: MouthGenerator,
    listener: LipSyncDetector,
    rng: np.random.Generator,
) -> np.ndarray:
    voice = voice_of(listener, clip).numpy()
    spoken = np.where(rng.random(len(faces.at)) < OTHER_VOICE, rng.integers(0, len(voice), len(faces.at)), faces.at)
    when = np.clip(spoken[:, None] + [0, FACE_STEP], 0, len(voice) - 1).ravel()
    pictures = faces.pixels.reshape(-1, FACE_SIZE, FACE_SIZE, 3).copy()
    mouths = np.stack([cv2.resize(picture[MOUTH], (CROP_SIZE, CROP_SIZE)) for picture in pictures])
    painted = rerender_mouths(generator, mouths, mouths[rng.integers(len(mouths))], voice[when])
    for picture, mouth in zip(pictures, painted):
        picture[MOUTH] = cv2.resize(mouth, (SIDE, SIDE))
    return pictures.reshape(faces.pixels.shape)
