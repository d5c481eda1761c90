"""Fit the few numbers of the verdict rule, on people that the detectors were not trained on.

Real: clips of the validation identities. Fake: generated clips, each looked at by the content detector that was
trained without its family of generators; the real mouths with other voices, of the same person and of others; and
real clips with 2 s of a generated one. Within each kind every identity weighs the same (`SHARES`). Writes the rule
that is served, and for every family one that was fitted without it. Run: ``python -m model.training.fit_verdict
--data DIR``.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm

from model.detector import MAX_OFFSET
from model.engine import LEFT_OUT, WEIGHTS, Detector, load_detector
from model.training.clips import FAMILIES, family_of, list_clips, split_clips
from model.training.prepare import prepare
from model.training.trials import (
    SEGMENT,
    EmbeddedClip,
    load_embedded,
    partial_fakes,
    seen_by,
    segments,
    swaps,
    windows_with_evidence,
)  # fmt: skip
from model.verdict import MIN_EVIDENCE_S, SUSPICIOUS, Logistic, VerdictRule, evidence_s, save_rule, video_facts
from model.windows import WindowEvidence

MAX_FALSE_ACCUSATIONS = 0.01
"""Share of real segments that may lie above the threshold for "fake", were their log-odds normal.

An empirical quantile of a few dozen people says nothing about the hundredth.
"""

LOWEST_FAKE_ABOVE, REAL_BELOW = 0.8, 0.5
PENALTY = 1e-3

SHARES = {"real": 0.5, "generated": 0.3, "swapped": 0.12, "partial": 0.08}
"""Of the weight in fitting the probability of a fake."""


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
        """See `video_facts`."""
        return video_facts(self.windows)


def judged(detector: Detector, clips: Iterable[EmbeddedClip], whole: bool = False) -> list[Judged]:
    """Segments of ``clips``, or ``whole`` ones, with enough evidence."""
    parts = [
        Judged(clip.clip.identity, clip.clip.path, windows_with_evidence(detector, part))
        for clip in clips
        for part in ([clip] if whole else segments(clip))
    ]
    return [part for part in parts if evidence_s(part.windows) >= MIN_EVIDENCE_S]


def fit(detector: Detector, real: Sequence[EmbeddedClip], generated: Sequence[EmbeddedClip]) -> VerdictRule:
    """Fit all numbers of the rule."""
    voices = [*swaps(real, same_identity=True), *swaps(real, same_identity=False)]
    kinds = {
        "real": judged(detector, real) + judged(detector, (c for c in real if len(c.video) > SEGMENT), whole=True),
        "generated": judged(detector, generated) + judged(detector, generated, whole=True),
        "swapped": judged(detector, voices),
        "partial": judged(detector, partial_fakes(real, generated), whole=True),
    }
    print(json.dumps({kind: len(parts) for kind, parts in kinds.items()}))
    true = kinds["real"]
    out_of_sync = _logistic([(0, 0.5, _sync_facts(true)), (1, 0.5, _sync_facts(kinds["swapped"]))], (-1, -1, -1))
    rendered = _logistic([(0, 0.5, _rendered(true)), (1, 0.5, _rendered(kinds["generated"]))], (1,))
    fake = _logistic(
        [(int(kind != "real"), SHARES[kind], [(part.identity, part.facts) for part in parts])
         for kind, parts in kinds.items()], SUSPICIOUS,
    )  # fmt: skip
    log_odds = [logit(fake(part.facts)) for part in true]
    threshold = float(expit(norm.isf(MAX_FALSE_ACCUSATIONS, np.mean(log_odds), np.std(log_odds))))
    of_real = tuple(np.mean([part.facts for part in true], axis=0).round(3).tolist())
    fake_above = round(max(LOWEST_FAKE_ABOVE, threshold), 3)
    return VerdictRule(out_of_sync, rendered, fake, of_real, _sharpness(true), REAL_BELOW, fake_above)


def _sync_facts(parts: Sequence[Judged]) -> list[tuple[str, np.ndarray]]:
    return [(part.identity, window.sync_facts) for part in parts for window in part.windows]


def _rendered(parts: Sequence[Judged]) -> list[tuple[str, np.ndarray]]:
    return [(part.identity, np.array([window.rendered])) for part in parts for window in part.windows]


def _logistic(groups: Sequence[tuple[int, float, list[tuple[str, np.ndarray]]]], signs: Sequence[int]) -> Logistic:
    """Logistic regression; a group is its label, its whole weight, and (identity, facts) of its members.

    ``signs``: of each weight, so that a better match, say, never makes a video more suspicious.
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

    bounds = [(0.0, None) if sign > 0 else (None, 0.0) for sign in signs]
    found = minimize(loss, np.zeros(x.shape[1] + 1), method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
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
    known = load_detector(fitted=False)
    real = load_embedded(known, [c for c in sides["val"] if not c.fake], arguments.cache)
    generated = load_embedded(known, [c for c in sides["train"] + sides["val"] if c.fake], arguments.cache)
    unseen = {name: load_detector(left_out=name, fitted=False) for name in FAMILIES}
    generated = [seen_by(unseen[family_of(clip.clip)], clip, arguments.cache) for clip in generated]
    rule = fit(known, real, generated)
    save_rule(rule, WEIGHTS / "verdict.json")
    print(json.dumps({"fake_above": rule.fake_above, "real_below": rule.real_below, "sharpness": rule.sharpness}))
    for name, detector in unseen.items():
        others = [clip for clip in generated if family_of(clip.clip) != name]
        without = fit(detector, [seen_by(detector, clip, arguments.cache) for clip in real], others)
        save_rule(without, WEIGHTS / LEFT_OUT / name / "verdict.json")
