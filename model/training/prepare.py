"""Clips in; mouth crops and sound on one time grid out, kept in a cache, so that training never decodes.

Run: ``python -m model.training.prepare --data DIR --cache DIR``. Interrupt and resume at will: what is in
the cache is not made again. Clips without a usable face are noted, not hidden.
"""

import argparse
import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from model.crops import CROP_SIZE, MouthCrop, follow_mouths
from model.errors import MediaError
from model.faces import FaceFinder
from model.media import MediaFile, load_audio
from model.training.clips import Clip, list_clips

T = TypeVar("T")

ARRAYS = "crops", "sampled", "audio", "visible", "held", "lip_opening", "quantizer"
"""Of a `PreparedClip`, in the cache."""


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """The most visible face of a clip, on the 25 fps grid from the first to the last frame it was followed.

    ``crops``: (T, 96, 96, 3) uint8 RGB. ``sampled``: (T, 96, 96) uint8, see `model.crops.MouthCrop`. ``audio``:
    (T * 640,) int16 at 16 kHz, beginning with the first crop. ``visible`` and ``held``: (T,) bool. ``lip_opening`` and
    ``quantizer``: (T,) float32, see `model.crops.MouthCrop`. ``sound_late``: by how many frames the file's sound is
    known to be late.
    """

    clip: Clip
    crops: np.ndarray
    sampled: np.ndarray
    audio: np.ndarray
    visible: np.ndarray
    held: np.ndarray
    lip_opening: np.ndarray
    quantizer: np.ndarray
    sound_late: int = 0

    @property
    def sound(self) -> np.ndarray:
        """(640 T,) float32 in [-1, 1]: ``audio`` as the detectors take it."""
        return self.audio.astype(np.float32) / 32768


def load_prepared(clips: Iterable[Clip], cache: Path) -> list[PreparedClip]:
    """Those of ``clips`` that have a usable face, from the cache."""
    return [clip for clip in (_load(clip, cache) for clip in clips) if len(clip.crops)]


def _load(clip: Clip, cache: Path) -> PreparedClip:
    with np.load(_cached(cache, clip)) as arrays:
        return PreparedClip(clip, *(arrays[name] for name in ARRAYS))


def prepare_clip(source: Path) -> dict[str, np.ndarray]:
    """Arrays of `PreparedClip` for one file; empty ones when no face is found."""
    media = MediaFile(source)
    return _on_one_grid(most_visible_mouth(media), load_audio(media))


def most_visible_mouth(media: MediaFile) -> list[MouthCrop]:
    """Crops of the face that is in view most often; none when there is no face."""
    tracks: dict[int, list[MouthCrop]] = defaultdict(list)
    with FaceFinder() as finder:
        for now in follow_mouths(media.frames(), finder):
            for track_id, crops in now.ready.items():
                tracks[track_id] += crops
    return max(tracks.values(), key=lambda crops: sum(c.visible for c in crops), default=[])


def _on_one_grid(crops: list[MouthCrop], sound: np.ndarray) -> dict[str, np.ndarray]:
    first = crops[0].index if crops else 0
    length = crops[-1].index + 1 - first if crops else 0
    pixels = np.zeros((length, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    sampled = np.zeros((length, CROP_SIZE, CROP_SIZE), np.uint8)
    visible, held, opening = np.zeros(length, bool), np.ones(length, bool), np.zeros(length, np.float32)
    quantizer = np.full(length, np.nan, np.float32)
    for crop in crops:
        at = crop.index - first
        pixels[at], sampled[at], visible[at] = crop.pixels, crop.sampled, crop.visible
        held[at], opening[at], quantizer[at] = crop.held, crop.lip_opening, crop.quantizer
    heard = min(length, max(0, len(sound) // 640 - first))
    audio = np.clip(sound[first * 640 : (first + heard) * 640] * 32767, -32768, 32767).astype(np.int16)
    of_frames = (array[:heard] for array in (visible, held, opening, quantizer))
    return dict(zip(ARRAYS, (pixels[:heard], sampled[:heard], audio, *of_frames)))


def _cached(cache: Path, clip: Clip) -> Path:
    return cache / (clip.path + ".npz")


def is_prepared(cache: Path, clip: Clip) -> bool:
    """Whether ``cache`` has a clip."""
    return _cached(cache, clip).exists()


def prepare_into(cache: Path, source: Path, clip: Clip) -> str:
    """Put the file ``source`` into the cache as ``clip``. Returns what is wrong with it, if anything."""
    target = _cached(cache, clip)
    try:
        arrays = prepare_clip(source)
        note = "" if arrays["visible"].any() else f"no usable face or no sound: {clip.path}"
    except MediaError as error:
        arrays, note = _on_one_grid([], np.zeros(0, np.float32)), f"{error}: {clip.path}"
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".partial.npz")
    np.savez(unfinished, **arrays)
    unfinished.rename(target)
    return note


def _prepare_from(cache: Path, folder: Path, clip: Clip) -> str:
    return prepare_into(cache, folder / clip.path, clip)


def prepare(folder: Path, cache: Path, workers: int) -> None:
    """Fill ``cache`` with every clip of ``folder`` that it lacks; prints progress."""
    clips = [clip for clip in list_clips(folder) if not is_prepared(cache, clip)]
    for note in in_processes(partial(_prepare_from, cache, folder), clips, workers, "prepared"):
        if note:
            print(note)


def in_processes(work: Callable[[Clip], T], clips: Sequence[Clip], workers: int, done_so_far: str) -> Iterator[T]:
    """What ``work`` makes of each clip, in ``workers`` processes, as it comes; prints progress."""
    if not clips:
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done, result in enumerate(pool.imap_unordered(work, clips), 1):
            yield result
            if done % 50 == 0 or done == len(clips):
                print(f"{done_so_far} {done} of {len(clips)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn clips into mouth crops and sound, kept in a cache.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, arguments.workers)
