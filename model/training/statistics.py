"""Figures with honest intervals: people, not windows, are what is sampled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval, over ``identities`` people."""

    value: float
    low: float
    high: float
    identities: int


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative (area under the ROC curve)."""
    return float(mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative)))


def mean_over_identities(values: Mapping[str, Sequence[float]]) -> Figure:
    """Mean of each identity's mean. ``values``: by identity; bootstrap over identities."""
    means = np.array([np.mean(of_one) for of_one in values.values() if len(of_one)])
    return _figure(lambda chosen: float(means[chosen].mean()), len(means))


def auc_over_identities(positive: Mapping[str, Sequence[float]], negative: Mapping[str, Sequence[float]]) -> Figure:
    """AUC of all positives against all negatives; whole identities are resampled, of both sides alike."""
    names = sorted(set(positive) | set(negative))

    def of(chosen: np.ndarray) -> float:
        above = [v for i in chosen for v in positive.get(names[i], ())]
        below = [v for i in chosen for v in negative.get(names[i], ())]
        return auc(above, below) if above and below else float("nan")

    return _figure(of, len(names))


def _figure(statistic: Callable[[np.ndarray], float], identities: int) -> Figure:
    if not identities:
        return Figure(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(0, identities, identities)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Figure(statistic(np.arange(identities)), float(low), float(high), identities)
