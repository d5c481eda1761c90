"""The steps of training and of measuring, one after the other, each in a process of its own.

Run: ``python -m model.training.recipe train|evaluate --data DIR``, or ``make train``, ``make evaluate``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from model.training.clips import list_clips
from model.training.train_temporal import photographs


def train(data: Path, cache: Path, run: Path, minutes: float) -> None:
    """Train all detectors, the sync one for ``minutes``, and fit the verdict. Interrupted, it resumes where it was.

    Raises FileNotFoundError without clips, or what training starts from, CalledProcessError when a step fails.
    """
    list_clips(data)
    photographs()
    common = "--data", data, "--cache", cache
    kept = *common, "--run", run
    _step("align", *kept, "--minutes", 60)
    _step("train", *kept, "--minutes", minutes)
    _step("train", *kept, "--detector", "seed", "--minutes", 45)
    _step("generator", *kept, "--minutes", 12)
    _step("autoencoder", *kept)
    painted = *kept, "--generator", run / "generator.safetensors"
    _step("train_temporal", *painted)
    _step("fit_verdict", *painted)
    _step("limits", *painted)
    _step("in_part", *painted)
    _step("reference", "--data", data)


def evaluate(data: Path, cache: Path) -> None:
    """Measure the weights and refresh the model card. Raises as `train` does."""
    list_clips(data)
    _step("robustness", "--data", data)
    _step("evaluate", "--data", data, "--cache", cache)


def _step(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", f"model.training.{module}", *map(str, arguments)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train everything, or measure it.")
    parser.add_argument("what", choices=("train", "evaluate"))
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=90.0, help="training time of the sync detector")
    options = parser.parse_args()
    if options.what == "train":
        train(options.data, options.cache, options.run, options.minutes)
    else:
        evaluate(options.data, options.cache)
