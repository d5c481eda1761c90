"""Real clips in; the same, but two seconds of them to other words, their mouth painted anew or not, prepared, out.

Whoever forges a few seconds of a video keeps the camera, the light and the person of the rest, which a cut to another
clip does not. So the mouth is painted over in the picture's own pixels, by the generator that was trained here, or as
an autoencoder draws it at another moment, and is heard saying what is said there; or it is left as it was, and only
heard saying that. What was written without a change is beside it. The rule learns from validation people how much looks
and sync change within a video (`model.training.fit_verdict`); this measures it on test people, and writes
``in_part.json`` into ``--out``, where `model.training.evaluate` finds it.
Run: ``python -m model.training.in_part --data DIR --generator FILE``.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch

from model.crops import CROP_SIZE, CROP_WIDTH, MouthCrop, mouth_to_frame
from model.detector import LipSyncDetector
from model.engine import WEIGHTS, Detector, load_detector
from model.media import GRID_FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, MediaFile, load_audio
from model.training import autoencoder
from model.training.autoencoder import MouthAutoencoder, coded_mouths, load_autoencoder
from model.training.clips import Clip, list_clips, split_clips
from model.training.generator import MouthGenerator, load_generator, rerender_mouths
from model.training.prepare import in_processes, is_prepared, most_visible_mouth, prepare_into
from model.training.reencode import Encoding, at_rate, fitted, timed_pictures, write
from model.training.report import Report
from model.training.trials import PARTIAL, EmbeddedClip, load_embedded
from model.training.verdict_figures import partly_fake
from model.weights import load_weights

RESULT = "in_part.json"
UNTOUCHED, GENERATED, CODED, SAID = KINDS = "untouched", "generated", "coded", "said"
"""As it was; the mouth painted by the generator; by an autoencoder; as it was, with other words."""

AUTOENCODER = autoencoder.KINDS[1]
"""The one whose pictures are enlarged by sub-pixels, which is sharpest."""

SECONDS = 9.0
APART = 12
"""Frames at least between those that are painted anew, `PARTIAL` in the middle, and those whose words they say."""

WRITTEN = Encoding(crf=18)
TOP, BOTTOM, SIDE, SOFT_PX = 34, 92, 12, 4.0
"""What is painted over of a crop, and by how much its edge is blurred."""

FADE = SAMPLE_RATE // 100
"""Samples in which one sound gives way to another."""


@dataclass(frozen=True, slots=True)
class Painters:
    """Networks that paint mouths, and the one by whose embedding of a voice the first of them does."""

    generator: MouthGenerator
    autoencoder: MouthAutoencoder
    listener: LipSyncDetector


@lru_cache(1)
def load_painters(generator: Path, run: Path) -> Painters:
    """Once per process. Raises FileNotFoundError."""
    torch.set_num_threads(1)
    listener = LipSyncDetector().eval()
    load_weights(listener, WEIGHTS / "lipsync.safetensors")
    return Painters(load_generator(generator), load_autoencoder(AUTOENCODER, run), listener)


def kinds_of(clip: Clip) -> dict[str, Clip]:
    """As which clips one is prepared, by kind."""
    return {kind: replace(clip, path=f"in_part/{kind}/{clip.path}", fake=kind != UNTOUCHED) for kind in KINDS}


def prepare_in_part(
    data: Path, cache: Path, clips: Iterable[Clip], generator: Path, run: Path, workers: int
) -> list[Clip]:
    """Fill ``cache`` with what it lacks of ``clips`` in all kinds. Returns those that show a face for long enough."""
    clips = list(clips)
    lacking = [clip for clip in clips if not _is_prepared(cache, clip)]
    work = partial(_prepare, data, cache, generator, run)
    for _ in in_processes(work, lacking, workers, "painted anew in part"):
        pass
    return [clip for clip in clips if _is_prepared(cache, clip)]


def load_in_part(detector: Detector, clips: Iterable[Clip], cache: Path, kind: str) -> list[EmbeddedClip]:
    """Those of ``clips`` that `prepare_in_part` returned, as one kind."""
    return load_embedded(detector, [kinds_of(clip)[kind] for clip in clips], cache)


def _is_prepared(cache: Path, clip: Clip) -> bool:
    return all(is_prepared(cache, one) for one in kinds_of(clip).values())


def _prepare(data: Path, cache: Path, generator: Path, run: Path, clip: Clip) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        written = write_in_part(data / clip.path, Path(scratch), load_painters(generator, run))
        for kind, source in written.items():
            prepare_into(cache, source, kinds_of(clip)[kind])


def write_in_part(source: Path, scratch: Path, painters: Painters) -> dict[str, Path]:
    """Write a clip in all `KINDS`. Returns where, by kind; nothing when no face is in view for long enough."""
    at_25 = at_rate(timed_pictures(source, SECONDS), Fraction(GRID_FPS))
    pictures = [(time_s, fitted(rgb, WRITTEN)) for time_s, rgb in at_25]
    if len(pictures) < 2 * PARTIAL + APART:
        return {}
    sound = load_audio(MediaFile(source))
    heard = min(len(pictures), len(sound) // SAMPLES_PER_FRAME)
    sound = sound[: heard * SAMPLES_PER_FRAME]
    files = {kind: scratch / f"{kind}.mp4" for kind in KINDS}
    write(files[UNTOUCHED], pictures, sound, WRITTEN)
    crops = [crop for crop in most_visible_mouth(MediaFile(files[UNTOUCHED])) if crop.index < heard]
    begin = (len(crops) - PARTIAL) // 2
    other = begin + PARTIAL + APART
    other = other if other + PARTIAL <= len(crops) else begin - PARTIAL - APART
    if other < 0 or len(crops) != crops[-1].index + 1 - crops[0].index:
        return {}
    there, elsewhere = crops[begin : begin + PARTIAL], crops[other : other + PARTIAL]
    said = with_words_of(sound, *(some[0].index * SAMPLES_PER_FRAME for some in (there, elsewhere)))
    words = _voice(painters.listener, said)[[crop.index for crop in there]]
    painted = {
        GENERATED: rerender_mouths(painters.generator, _pixels(there), crops[0].pixels, words),
        CODED: coded_mouths(painters.autoencoder, _pixels(elsewhere)),
    }
    for kind, mouths in painted.items():
        write(files[kind], _painted_over(pictures, there, mouths), said, WRITTEN)
    write(files[SAID], pictures, said, WRITTEN)
    return files


def with_words_of(sound: np.ndarray, begin: int, other: int) -> np.ndarray:
    """A sound (L,) that says from sample ``begin`` on, for 2 s, what it says from ``other`` on."""
    length = PARTIAL * SAMPLES_PER_FRAME
    share = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / FADE).astype(np.float32)
    said, place = sound.copy(), slice(begin, begin + length)
    said[place] = sound[place] * (1 - share) + sound[other : other + length] * share
    return said


def _painted_over(
    pictures: Sequence[tuple[float, np.ndarray]], crops: Sequence[MouthCrop], mouths: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    region = np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    region[TOP:BOTTOM, SIDE : CROP_SIZE - SIDE] = 1
    region = cv2.GaussianBlur(region, (0, 0), SOFT_PX)
    over = list(pictures)
    for crop, mouth in zip(crops, mouths):
        time_s, rgb = pictures[crop.index]
        to_frame, size = mouth_to_frame(crop.place / (1, 1, CROP_WIDTH, CROP_WIDTH)), rgb.shape[1::-1]
        paint = cv2.warpAffine(mouth, to_frame, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        share = cv2.warpAffine(region, to_frame, size)[..., None]
        over[crop.index] = time_s, np.clip(rgb * (1 - share) + paint * share + 0.5, 0, 255).astype(np.uint8)
    return over


def _pixels(crops: Sequence[MouthCrop]) -> np.ndarray:
    return np.stack([crop.pixels for crop in crops])


def _voice(listener: LipSyncDetector, sound: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return listener.encode_audio(torch.from_numpy(sound)[None, None])[0].numpy()


def main() -> None:
    """Measure on test people, and write the figures."""
    parser = argparse.ArgumentParser(description="Measure how video is judged that is fake in part.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the autoencoders are kept")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    people = [clip for clip in split_clips(list_clips(arguments.data))["test"] if not clip.fake]
    usable = prepare_in_part(
        arguments.data, arguments.cache, people, arguments.generator, arguments.run, arguments.workers
    )
    detector, report = load_detector(), Report()
    untouched, *fakes = (load_in_part(detector, usable, arguments.cache, kind) for kind in KINDS)
    for kind, clips in zip((GENERATED, CODED), fakes):
        partly_fake(report, "Video that is fake for 2 s: painted anew in place", kind, detector, clips, untouched)
    section = "Video that is fake for 2 s: other words of the same person over the mouth as it was"
    partly_fake(report, section, "other words", detector, fakes[-1], untouched)
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.save(arguments.out / RESULT)


if __name__ == "__main__":
    main()
