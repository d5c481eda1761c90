"""Fit the few numbers of the verdict rule, on people that the detector was not trained on.

Real: clips of the validation identities. Fake: the same mouths with other voices, of the same person and
of others, and generated clips of training and validation identities (the detector never saw a generated
clip). Half of the weight is real, a quarter swapped, a quarter generated, and within each every identity
weighs the same. Run: ``python -m model.training.fit_verdict --data DIR``.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm

from model.detector import MAX_OFFSET
from model.engine import WEIGHTS, Detector, load_detector
from model.training.clips import list_clips, split_clips
from model.training.prepare import load_prepared, prepare
from model.training.trials import EmbeddedClip, embed, segments, swaps, windows_with_evidence
from model.verdict import MIN_EVIDENCE_S, Logistic, VerdictRule, evidence_s, save_rule
from model.windows import WindowEvidence

MAX_FALSE_ACCUSATIONS = 0.01
"""Share of real segments that may lie above the threshold for "fake", were their log-odds normal.

An empirical quantile of a few dozen people says nothing about the hundredth.
"""

LOWEST_FAKE_ABOVE, REAL_BELOW = 0.8, 0.5
PENALTY = 1e-3


@dataclass(frozen=True, slots=True)
class Judged:
    """A segment with enough evidence to be judged."""

    identity: str
    path: str
    windows: list[WindowEvidence]

    @property
    def curve(self) -> np.ndarray:
        """(31,), mean similarity by offset."""
        return np.average([w.curve for w in self.windows], axis=0, weights=[w.usable.sum() for w in self.windows])

    @property
    def facts(self) -> np.ndarray:
        """(3,), means over the windows."""
        return np.mean([window.facts for window in self.windows], axis=0)


def judged_segments(detector: Detector, clips: Sequence[EmbeddedClip]) -> list[Judged]:
    """Segments of ``clips`` with enough evidence."""
    parts = [
        Judged(clip.clip.identity, clip.clip.path, windows_with_evidence(detector, part))
        for clip in clips
        for part in segments(clip)
    ]
    return [part for part in parts if evidence_s(part.windows) >= MIN_EVIDENCE_S]


def fit(detector: Detector, real: Sequence[EmbeddedClip], generated: Sequence[EmbeddedClip]) -> VerdictRule:
    """Fit all numbers of the rule."""
    voices = [*swaps(real, same_identity=True), *swaps(real, same_identity=False)]
    true, swapped, made = (judged_segments(detector, clips) for clips in (real, voices, generated))
    out_of_sync = _logistic([(0, 0.5, _windows_of(true)), (1, 0.5, _windows_of(swapped))])
    fake = _logistic(
        [(label, weight, [(part.identity, part.facts) for part in parts])
         for label, weight, parts in ((0, 0.5, true), (1, 0.25, swapped), (1, 0.25, made))]
    )  # fmt: skip
    log_odds = [logit(fake(part.facts)) for part in true]
    threshold = float(expit(norm.isf(MAX_FALSE_ACCUSATIONS, np.mean(log_odds), np.std(log_odds))))
    print(json.dumps({"real": len(true), "swapped": len(swapped), "generated": len(made)}))
    strength = round(float(np.mean([part.facts[0] for part in true])), 2)
    return VerdictRule(
        out_of_sync, fake, strength, _sharpness(true), REAL_BELOW, round(max(LOWEST_FAKE_ABOVE, threshold), 3)
    )


def _windows_of(parts: Sequence[Judged]) -> list[tuple[str, np.ndarray]]:
    return [(part.identity, window.facts) for part in parts for window in part.windows]


def _logistic(groups: Sequence[tuple[int, float, list[tuple[str, np.ndarray]]]]) -> Logistic:
    """Logistic regression; a group is its label, its whole weight, and (identity, facts) of its members.

    No weight may be above 0: a better match never makes a video more suspicious.
    """
    facts, labels, weights = [], [], []
    for label, weight, members in groups:
        counts = Counter(identity for identity, _ in members)
        for identity, one in members:
            facts.append(one)
            labels.append(label)
            weights.append(weight / len(counts) / counts[identity])
    x, y, w = np.array(facts), np.array(labels), np.array(weights)
    centre, spread = x.mean(0), x.std(0) + 1e-6
    scaled = (x - centre) / spread

    def loss(p: np.ndarray) -> float:
        z = scaled @ p[:-1] + p[-1]
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + PENALTY * (p[:-1] ** 2).sum())

    never_suspicious = [(None, 0.0)] * x.shape[1]
    found = minimize(loss, np.zeros(x.shape[1] + 1), method="L-BFGS-B", bounds=[*never_suspicious, (None, None)]).x
    slope = found[:-1] / spread
    return Logistic(tuple(slope.round(4).tolist()), round(float(found[-1] - slope @ centre), 4))


def _sharpness(true: Sequence[Judged]) -> float:
    """Makes softmax(sharpness x curve) the probability of an offset.

    The true offset of a segment's windows is taken to be what the other segments of the clip say. Fitted on
    windows of 1 s, so that longer evidence is surer than it says.
    """
    curves, truths = [], []
    for part in true:
        others = [other.curve for other in true if other.path == part.path and other is not part]
        if others:
            curves += [window.curve for window in part.windows]
            truths += [int(np.clip(np.mean(others, axis=0).argmax(), 1, 2 * MAX_OFFSET - 1))] * len(part.windows)
    by_offset, near = np.array(curves), np.array(truths)[:, None] + np.arange(-1, 2)

    def loss(log_sharpness: float) -> float:
        scaled = np.exp(log_sharpness) * by_offset
        chance = np.logaddexp.reduce(scaled, axis=1) - np.logaddexp.reduce(np.take_along_axis(scaled, near, 1), axis=1)
        return float(chance.mean())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-3, 4), method="bounded").x)), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the verdict rule.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    sides = split_clips(list_clips(arguments.data))
    known = load_detector()
    chosen = [c for c in sides["val"] if not c.fake], [c for c in sides["train"] + sides["val"] if c.fake]
    embedded = [[embed(known, clip) for clip in load_prepared(clips, arguments.cache)] for clips in chosen]
    rule = fit(known, *embedded)
    save_rule(rule, WEIGHTS / "verdict.json")
    print(json.dumps({"fake_above": rule.fake_above, "real_below": rule.real_below, "sharpness": rule.sharpness}))
