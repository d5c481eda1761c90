"""Find the audio-video offset of every training clip by detectors that never saw the person in it.

A detector trained on files as they are learns each source's offset by heart. So the training identities are
halved, a detector is trained on each half, both at once on a core each, and judges the clips of the other half.
Run before training: ``python -m model.training.align --data DIR``.
"""

import argparse
import hashlib
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from model.detector import LipSyncDetector
from model.training.clips import Clip, list_clips, split_clips
from model.training.offsets import KnownOffset, distribution, judge, offset_curve, save_offsets
from model.training.prepare import load_prepared, prepare
from model.training.train import train
from model.weights import load_weights


def half_of(clip: Clip) -> int:
    """0 or 1: which half of the training identities."""
    return hashlib.sha256(f"half/{clip.corpus}/{clip.identity}".encode()).digest()[0] % 2


def train_half(data: Path, cache: Path, run: Path, half: int, minutes: float) -> None:
    """Train a detector on one half of the training identities, on one core, so that both can run at once."""
    torch.set_num_threads(1)
    sides = split_clips(clip for clip in list_clips(data) if not clip.fake)
    clips = load_prepared([clip for clip in sides["train"] if half_of(clip) == half], cache)
    held_out = load_prepared([clip for clip in sides["val"] if clip.corpus != "grid"], cache)
    train("lipsync", clips, held_out, minutes, run / f"half{half}.pt", run / f"half{half}.safetensors")


def estimate(data: Path, cache: Path, run: Path) -> dict[str, KnownOffset]:
    """Offsets of all real training clips, each by the detector of the other half."""
    clips = [clip for clip in split_clips(list_clips(data))["train"] if not clip.fake]
    curves: dict[Clip, np.ndarray] = {}
    for half in (0, 1):
        network = LipSyncDetector()
        load_weights(network, run / f"half{half}.safetensors")
        network.eval()
        with torch.inference_mode():
            others = load_prepared([clip for clip in clips if half_of(clip) != half], cache)
            curves |= {other.clip: offset_curve(network, other) for other in others}
    return judge(curves)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Estimate the audio-video offset of every training clip.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the two detectors are kept")
    parser.add_argument("--minutes", type=float, default=15.0, help="training time of each")
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    context = get_context("spawn")
    common = arguments.data, arguments.cache, arguments.run
    halves = [context.Process(target=train_half, args=(*common, half, arguments.minutes)) for half in (0, 1)]
    for process in halves:
        process.start()
    for process in halves:
        process.join()
    found = estimate(arguments.data, arguments.cache, arguments.run)
    save_offsets(found, arguments.cache)
    for corpus in sorted({path.split("/")[1] for path in found}):
        print(corpus, distribution(found, [path for path in found if path.split("/")[1] == corpus]))
