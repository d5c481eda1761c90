"""Networks of looks that each lack a third of all people, to judge these people as strangers are judged.

The network that is served is trained on everybody who may be trained on, so what it says of them says little. Three
networks are trained like it, each without a third of all people of training and validation: the rule is fitted, and
what can't be judged is found (`model.training.limits`), with every person judged by the one that lacks them. Run:
``python -m model.training.thirds --data DIR --generator FILE``. Interrupt and resume at will.
"""

import argparse
import hashlib
import multiprocessing
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from model.engine import Detector
from model.temporal import TemporalDetector
from model.training.clips import Clip, list_clips
from model.training.prepare import prepare
from model.training.train import Run
from model.training.train_temporal import MINUTES, Batches, new_run, render_clips, to_learn_looks_from, train
from model.training.trials import EmbeddedClip, load_embedded

THIRDS = 3


def third_of(clip: Clip) -> int:
    """Which network lacks the person, 0 to 2."""
    return hashlib.sha256(clip.identity.encode()).digest()[0] % THIRDS


def train_without(
    third: int, people: Sequence[Clip], data: Path, cache: Path, run: Path, generator: Path, minutes: float
) -> None:
    """Train the network that lacks a third of ``people``; its checkpoint stays in ``run``, and is gone on with."""
    torch.set_num_threads(1)
    checkpoint = _checkpoint(run, third)
    if checkpoint.exists() and _restored(checkpoint).minutes >= minutes:
        return
    real = render_clips([clip for clip in people if third_of(clip) != third], data, cache, run, generator)
    training = new_run(torch.device("cpu"))
    train(training, Batches(real, training.step), minutes, checkpoint, {})


def load_without(third: int, run: Path) -> TemporalDetector:
    """The network that `train_without` left. Raises FileNotFoundError."""
    return _restored(_checkpoint(run, third)).averaged.module.eval()


def with_look_of(detector: Detector, network: TemporalDetector) -> Detector:
    """The same detector, but ``network`` says how rendered mouths look."""

    def run(kind: str, items: np.ndarray) -> np.ndarray:
        if kind != "sequences":
            return detector.run(kind, items)
        with torch.inference_mode():
            return network(torch.from_numpy(items)).numpy()

    return Detector(detector.info, detector.rule, detector.scale, run)


def lacking(detector: Detector, run: Path) -> list[Detector]:
    """The same detector with the network of looks that lacks each third. Raises FileNotFoundError."""
    return [with_look_of(detector, load_without(third, run)) for third in range(THIRDS)]


def embed_as_strangers(detectors: Sequence[Detector], clips: Iterable[Clip], cache: Path) -> list[EmbeddedClip]:
    """Those of ``clips`` that have a usable face, each embedded by the one of `lacking` that lacks its person."""
    return [one for clip in clips for one in load_embedded(detectors[third_of(clip)], [clip], cache)]


def _restored(checkpoint: Path) -> Run:
    training = new_run(torch.device("cpu"))
    training.restore(checkpoint)
    return training


def _checkpoint(run: Path, third: int) -> Path:
    return run / f"temporal_without_{third}.pt"


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description="Train three networks of looks; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="wall time for each network")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, arguments.workers)
    work = partial(
        train_without, people=to_learn_looks_from(list_clips(arguments.data)), data=arguments.data,
        cache=arguments.cache, run=arguments.run, generator=arguments.generator, minutes=arguments.minutes,
    )  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        pool.map(work, range(THIRDS), chunksize=1)


if __name__ == "__main__":
    main()
