"""Scores and offsets in; small PNG pictures of them out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.training.statistics import auc, reliability

DOTS_PER_INCH = 80
OFFSET_BINS_MS = np.arange(-620, 621, 40)


def plot_roc(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """Share of fakes found by share of real video called fake. ``curves``: scores of fakes and of real video."""
    drawing, axes = _axes("real video called fake, share", "fakes found, share")
    for name, (fakes, real) in curves.items():
        false_alarms, found = roc(fakes, real)
        axes.step(false_alarms, found, where="post", label=f"{name}, AUC {auc(fakes, real):.3f}")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.legend(loc="lower right", fontsize="small")
    drawing.savefig(path)


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at every threshold, from the highest down."""
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    rates = [(np.asarray(side)[:, None] >= thresholds).mean(0) for side in (negative, positive)]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def plot_reliability(probability: np.ndarray, truth: np.ndarray, weight: np.ndarray, path: Path) -> None:
    """How often it was a fake, by what probability was said; dots as large as their weight."""
    said, seen, whole = reliability(probability, truth, weight).T
    drawing, axes = _axes("fake probability", "share of fakes, at even odds")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.plot(said, seen, color="C0", linewidth=1)
    axes.scatter(said, seen, s=20 + 600 * whole, color="C0", alpha=0.7)
    drawing.savefig(path)


def plot_offsets(offsets_ms: Mapping[str, Sequence[float]], path: Path) -> None:
    """Constant offsets of real video, by group of corpora."""
    drawing, axes = _axes("offset, ms (> 0: the sound is late)", "share of segments of 3 s")
    for name, values in offsets_ms.items():
        weights = np.full(len(values), 1 / max(1, len(values)))
        axes.hist(values, OFFSET_BINS_MS, weights=weights, histtype="step", linewidth=1.5, label=name)
    axes.legend(fontsize="small")
    drawing.savefig(path)


def plot_scores(scores: Mapping[str, Sequence[float]], thresholds: Sequence[float], path: Path) -> None:
    """Fake probability of every clip, by what made it; lines at the thresholds of the verdict."""
    drawing, axes = _axes("fake probability", "")
    jitter = np.random.default_rng(0)
    for row, values in enumerate(scores.values()):
        axes.boxplot([values], positions=[row], orientation="horizontal", widths=0.6, showfliers=False)
        axes.scatter(values, row + jitter.uniform(-0.2, 0.2, len(values)), s=9, alpha=0.5)
    for threshold in thresholds:
        axes.axvline(threshold, color="0.5", linestyle=":")
    axes.set_yticks(range(len(scores)), [f"{name} ({len(values)})" for name, values in scores.items()])
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    drawing.savefig(path)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    drawing = Figure(figsize=(6.4, 4.8), dpi=DOTS_PER_INCH, layout="constrained")
    axes = drawing.add_subplot(xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes
