"""Figures with honest intervals: people, not windows, are what is sampled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest, mannwhitneyu

RESAMPLES = 1000
BINS = 10

Scores = Mapping[str, Sequence[float]]
"""By identity."""


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


def share_over_identities(shares: Mapping[str, Sequence[float]]) -> Figure:
    """The same of shares in [0, 1], such as 1 for what is so and 0 for what is not.

    Where all are 0, or 1, resamples don't differ; the interval is then that of so many people without a hit, or without
    a miss (Clopper & Pearson 1934).
    """
    share = mean_over_identities(shares)
    if not share.identities or share.value not in (0.0, 1.0):
        return share
    exact = binomtest(round(share.value * share.identities), share.identities).proportion_ci()
    return replace(share, low=float(exact.low), high=float(exact.high))


def auc_over_identities(positive: Mapping[str, Sequence[float]], negative: Mapping[str, Sequence[float]]) -> Figure:
    """AUC of all positives against all negatives; whole identities are resampled, of both sides alike."""
    names = sorted(set(positive) | set(negative))

    def of(chosen: np.ndarray) -> float:
        above = [v for i in chosen for v in positive.get(names[i], ())]
        below = [v for i in chosen for v in negative.get(names[i], ())]
        return auc(above, below) if above and below else float("nan")

    return _figure(of, len(names))


def stratified_auc_over_identities(strata: Sequence[tuple[Scores, Scores]]) -> Figure:
    """AUC of positives against the negatives of their own stratum, averaged over positives.

    For scores of several detectors, which are not to be compared with each other. Whole identities are resampled.
    """
    full = [stratum for stratum in strata if all(stratum)]
    names = sorted({name for stratum in full for side in stratum for name in side})

    def of(chosen: np.ndarray) -> float:
        drawn = [tuple(_drawn(side, names, chosen) for side in stratum) for stratum in full]
        drawn = [(above, below) for above, below in drawn if above and below]
        weights = [len(above) for above, _ in drawn]
        return float(np.average([auc(*sides) for sides in drawn], weights=weights)) if drawn else float("nan")

    return _figure(of, len(names))


def auc_loss_over_identities(before: tuple[Scores, Scores], after: tuple[Scores, Scores]) -> Figure:
    """By how much the AUC of (positive, negative) falls; the same identities are drawn for both."""
    names = sorted({name for side in (*before, *after) for name in side})

    def of(chosen: np.ndarray) -> float:
        sides = [_drawn(side, names, chosen) for side in (*before, *after)]
        return auc(sides[0], sides[1]) - auc(sides[2], sides[3]) if all(sides) else float("nan")

    return _figure(of, len(names))


def balanced_accuracy_over_identities(positive: Scores, negative: Scores) -> Figure:
    """Mean of the shares of positives and of negatives that were judged rightly (1; else 0)."""
    names = sorted(set(positive) | set(negative))
    sides = np.array([[np.mean(side.get(name) or np.nan) for name in names] for side in (positive, negative)])
    return _figure(lambda chosen: float(np.nanmean(sides[:, chosen], axis=1).mean()), len(names))


def even_odds(positive: Scores, negative: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, truths and weights, (N,) each, so that both sides weigh the same and within a side every identity."""
    rows = [
        (score, truth, 0.5 / len(side) / len(scores))
        for truth, side in ((1, positive), (0, negative))
        for scores in side.values()
        for score in scores
    ]
    scores, truths, weights = np.array(rows, float).reshape(-1, 3).T
    return scores, truths, weights


def reliability(probability: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(B, 3): mean probability, share of positives and whole weight of each of `BINS` equal bins that is not empty."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    whole, said, seen = (np.bincount(place, weight * x, BINS) for x in (np.ones_like(weight), probability, truth))
    filled = whole > 0
    return np.stack([said[filled] / whole[filled], seen[filled] / whole[filled], whole[filled]], 1)


def calibration_error(probability: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017): how far bins of like probability are from the truth, on average."""
    said, seen, whole = reliability(probability, truth, weight).T
    return float(np.average(np.abs(said - seen), weights=whole))


def calibration_error_by_chance(positive: Scores, negative: Scores) -> Figure:
    """The same, were every probability exactly true: what so few people make of no error at all.

    Whether a person is fake is drawn anew, with their clips' own probabilities; the interval is over such draws.
    """
    rng = np.random.default_rng(0)
    probability, _, weight = even_odds(positive, negative)
    clips = [len(scores) for side in (positive, negative) for scores in side.values()]
    person = np.repeat(np.arange(len(clips)), clips)
    draws = [
        calibration_error(probability, rng.random(person.max() + 1)[person] < probability, weight)
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Figure(float(np.mean(draws)), float(low), float(high), len(set(positive) | set(negative)))


def calibration_error_over_identities(positive: Scores, negative: Scores) -> Figure:
    """Expected calibration error at even odds, see `even_odds`; few people make it larger than it is."""
    sides = (positive, negative)
    names = sorted({name for side in sides for name in side})

    def of(chosen: np.ndarray) -> float:
        drawn = [{str(k): side[names[i]] for k, i in enumerate(chosen) if names[i] in side} for side in sides]
        return calibration_error(*even_odds(*drawn)) if all(drawn) else float("nan")

    return _figure(of, len(names))


def _drawn(side: Scores, names: Sequence[str], chosen: np.ndarray) -> list[float]:
    return [value for index in chosen for value in side.get(names[index], ())]


def _figure(statistic: Callable[[np.ndarray], float], identities: int) -> Figure:
    if not identities:
        return Figure(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(0, identities, identities)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Figure(statistic(np.arange(identities)), float(low), float(high), identities)
