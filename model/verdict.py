"""Window evidence in; probabilities and a verdict out, by a rule of a few fitted numbers.

Three facts of a window (`WindowEvidence.facts`) go through a logistic function to the probability that the
window is out of sync; their means over the windows of the speaking face, through another, to the probability
that the video is a lip-sync fake, at even odds of real and fake. Both are fitted by logistic regression on
people that the detector was not trained on (`model.training.fit_verdict`), so that the probability means
what it says there. Two thresholds make the verdict; between them it is inconclusive.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.detector import MAX_OFFSET
from model.media import GRID_FPS
from model.results import Reason, Sync, Verdict
from model.windows import WindowEvidence

MIN_EVIDENCE_S = 1.0
"""Seconds of speech with a visible, moving mouth below which nothing is said."""

NOTABLE_OFFSET_MS = 80
SURE_OF_OFFSET = 0.9


@dataclass(frozen=True, slots=True)
class Logistic:
    """sigmoid(weights . facts + bias)."""

    weights: tuple[float, ...]
    bias: float

    def __call__(self, facts: np.ndarray) -> float:
        return float(1 / (1 + np.exp(-(np.dot(self.weights, facts) + self.bias))))


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """The fitted numbers.

    ``out_of_sync``: probability of one window being out of sync. ``fake``: of a video being fake.
    ``real_strength``: what the first fact is for real video, on average. ``sharpness``: what the mean
    similarity by offset is multiplied by to make a softmax of it an honest probability of the offset.
    ``real_below``, ``fake_above``: thresholds of the fake probability.
    """

    out_of_sync: Logistic
    fake: Logistic
    real_strength: float
    sharpness: float
    real_below: float
    fake_above: float

    def sync_score(self, window: WindowEvidence) -> float:
        """Probability that mouth and voice match in this window."""
        return 1 - self.out_of_sync(window.facts)

    def fake_probability(self, windows: Sequence[WindowEvidence]) -> float:
        """Probability that these windows, one or more with evidence, are of a lip-sync fake."""
        return self.fake(np.mean([window.facts for window in windows], axis=0))

    def sync(self, windows: Sequence[WindowEvidence]) -> Sync:
        """Constant offset of windows with evidence, and how sure it is."""
        curve = np.average([w.curve for w in windows], axis=0, weights=[w.usable.sum() for w in windows])
        chance = np.exp(self.sharpness * (curve - curve.max()))
        best = int(curve.argmax())
        near = chance[max(0, best - 1) : best + 2].sum() / chance.sum()
        return Sync(offset_ms=frames_to_ms(best - MAX_OFFSET), confidence=round(float(near), 4))

    def verdict(self, fake_probability: float) -> Verdict:
        """The verdict for a probability."""
        if fake_probability > self.fake_above:
            return "fake"
        return "real" if fake_probability < self.real_below else "inconclusive"


def load_rule(path: Path) -> VerdictRule:
    """Read a rule. Raises FileNotFoundError, or KeyError and TypeError when it is not one."""
    facts = json.loads(path.read_text())
    return VerdictRule(
        out_of_sync=Logistic(tuple(facts["out_of_sync"]["weights"]), facts["out_of_sync"]["bias"]),
        fake=Logistic(tuple(facts["fake"]["weights"]), facts["fake"]["bias"]),
        real_strength=facts["real_strength"],
        sharpness=facts["sharpness"],
        real_below=facts["real_below"],
        fake_above=facts["fake_above"],
    )


def save_rule(rule: VerdictRule, path: Path) -> None:
    """Write a rule as JSON that people can read."""
    path.write_text(json.dumps(asdict(rule), indent=2) + "\n")


def frames_to_ms(frames: int) -> int:
    """Frames of the 25 fps grid in milliseconds."""
    return frames * 1000 // GRID_FPS


def evidence_s(windows: Sequence[WindowEvidence]) -> float:
    """Seconds of speech with the mouth in view that windows cover, overlaps counted once."""
    covered = {frame for window in windows for frame in (window.start + np.flatnonzero(window.usable)).tolist()}
    return len(covered) / GRID_FPS


def reasons_for(rule: VerdictRule, probability: float, windows: Sequence[WindowEvidence]) -> tuple[Reason, ...]:
    """Why: what was seen in windows with evidence, in words for an analyst."""
    verdict, sync = rule.verdict(probability), rule.sync(windows)
    strength, _, agree = np.mean([window.facts for window in windows], axis=0)
    share = f"{agree:.0%} of the {len(windows)} windows with speech agree on the offset"
    found = []
    if verdict == "fake":
        if agree < 0.5:
            found.append(Reason("wandering_offset", f"The best offset wanders: only {share}, within one frame."))
        alike = f"{strength:.1f} at the best constant offset, where real video has about {rule.real_strength:.1f}"
        found.append(Reason("low_sync", f"Mouth and voice are not alike enough: {alike}."))
    elif verdict == "real":
        found.append(Reason("in_sync", f"Mouth and voice belong together: {share}, within one frame."))
    else:
        found.append(
            Reason("between_thresholds", f"The evidence points neither way (probability {probability:.2f}): {share}.")
        )
    sure = sync.confidence is not None and sync.confidence >= SURE_OF_OFFSET
    if sure and sync.offset_ms is not None and abs(sync.offset_ms) >= NOTABLE_OFFSET_MS:
        late = "late" if sync.offset_ms > 0 else "early"
        found.append(
            Reason(
                "constant_offset",
                f"The sound is {abs(sync.offset_ms)} ms {late} throughout, as a muxing or broadcast fault makes it; "
                "this is no sign of a fake.",
            )
        )
    return tuple(found)
