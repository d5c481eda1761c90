"""Clips in; the same clips as platforms would hand them back, prepared, out.

A rule that is fitted on files as they are would trust evidence that compression destroys or imitates. So real and
generated clips are written anew alike, each in two of several `WAYS`, and count beside the originals. Real ones are
also edited as honest people do, each in two of `EDITS`: they must not be called fake for it. Run:
``python -m model.training.uploads --data DIR``; ``model.training.fit_verdict`` needs it.
"""

import argparse
import hashlib
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from model.training.clips import Clip, list_clips, split_clips
from model.training.prepare import in_processes, is_prepared, prepare_into
from model.training.reencode import Encoding, reencode_in_turn

WAYS = (
    (Encoding(crf=23, audio_kbps=16),),
    (Encoding(crf=28, height=480),),
    (Encoding(crf=35),),
    (Encoding(crf=26, height=540), Encoding(crf=31, height=360)),
)
EDITS: Mapping[str, tuple[Encoding, ...]] = {
    "enlarged twice": (Encoding(enlarged=2.0),),
    "more contrast and colour": (Encoding(filters="curves=preset=strong_contrast,hue=s=1.6"),),
    "noise taken away": (Encoding(filters="atadenoise=s=5"),),
    "skin smoothed": (Encoding(filters="bilateral=sigmaS=4:sigmaR=0.08"),),
    "each picture mixed with the one before": (Encoding(filters="tmix=frames=2"),),
}
EACH = 2
SECONDS = 8.0


Anew = tuple[Clip, tuple[Encoding, ...]]
"""As which clip one is prepared that was written anew, and how it was."""


def uploads_of(clip: Clip) -> list[Anew]:
    """As which clips, and how, a clip is written anew; always the same."""
    return _each(clip, "uploads", WAYS)


def edits_of(clip: Clip) -> list[Anew]:
    """As which clips, and how, a clip is edited; always the same."""
    return _each(clip, "edits", [*EDITS.values()])


def _each(clip: Clip, kind: str, ways: Sequence[tuple[Encoding, ...]]) -> list[Anew]:
    first = hashlib.sha256(clip.path.encode()).digest()[0]
    chosen = [(first + k) % len(ways) for k in range(EACH)]
    return [(replace(clip, path=f"{kind}/{way}/{clip.path}"), ways[way]) for way in chosen]


def prepare_uploads(data: Path, cache: Path, clips: Iterable[Clip], workers: int) -> None:
    """Fill ``cache`` with what it lacks of the uploads of ``clips``, and edits of real ones; prints progress."""
    clips = list(clips)
    prepare_anew(data, cache, clips, uploads_of, SECONDS, workers)
    prepare_anew(data, cache, [clip for clip in clips if not clip.fake], edits_of, SECONDS, workers)


def prepare_anew(
    data: Path, cache: Path, clips: Iterable[Clip], anew_of: Callable[[Clip], list[Anew]], seconds: float, workers: int
) -> None:
    """Fill ``cache`` with what it lacks of the first ``seconds`` of ``clips``, written anew; prints progress."""
    lacking = [clip for clip in clips if not all(is_prepared(cache, anew) for anew, _ in anew_of(clip))]
    for _ in in_processes(partial(_write, data, cache, anew_of, seconds), lacking, workers, "written anew"):
        pass


def _write(data: Path, cache: Path, anew_of: Callable[[Clip], list[Anew]], seconds: float, clip: Clip) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for anew, steps in anew_of(clip):
            prepare_into(cache, reencode_in_turn(data / clip.path, Path(scratch), steps, seconds), anew)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the clips that the verdict rule is fitted on anew.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    sides = split_clips(list_clips(arguments.data))
    known = [clip for clip in sides["val"] if not clip.fake] + [c for c in sides["train"] + sides["val"] if c.fake]
    prepare_uploads(arguments.data, arguments.cache, known, arguments.workers)
