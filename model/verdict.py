"""Window evidence in; probabilities and a verdict out, by a rule of a few fitted numbers.

A window's sync facts and the look of its face each go through a logistic function, to the probability that it is
in sync and that the face was filmed. `video_facts` of the windows of the speaking face go through another, to the
probability that the video is a lip-sync fake, at even odds of real and fake. All are fitted by logistic regression
on people that no detector was trained on (`model.training.fit_verdict`), so that the probability means what it says
there. Two thresholds make the verdict; between them it is inconclusive.
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

FACTS = (
    "sync strength", "sync contrast", "windows that agree on the offset", "rendered look",
    "rendered look, worst 2 s", "sync contrast, worst 2 s",
)  # fmt: skip
SUSPICIOUS = (-1, -1, -1, 1, 1, -1)
"""Of each fact, whether more of it (1) or less (-1) may make a video more suspicious."""

CONTENT_FACTS = (3, 4)
STRETCH_S = 2.0
"""A part of a video that is fake for this long is looked for."""

NOTABLE = 1.0
"""Log-odds above real video from which a kind of evidence is named as a reason."""

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

    ``out_of_sync``: probability of one window being out of sync. ``rendered``: of its face being rendered.
    ``fake``: of a video being fake, from its `video_facts`; ``of_real``: what those are for real video, on
    average. ``sharpness``: what the mean similarity by offset is multiplied by to make a softmax of it an
    honest probability of the offset. ``real_below``, ``fake_above``: thresholds of the fake probability.
    """

    out_of_sync: Logistic
    rendered: Logistic
    fake: Logistic
    of_real: tuple[float, ...]
    sharpness: float
    real_below: float
    fake_above: float

    def sync_score(self, window: WindowEvidence) -> float:
        """Probability that mouth and voice match in this window."""
        return 1 - self.out_of_sync(window.sync_facts)

    def content_score(self, window: WindowEvidence) -> float:
        """Probability that the face in this window was filmed, not rendered."""
        return 1 - self.rendered(np.array([window.rendered]))

    def fake_probability(self, windows: Sequence[WindowEvidence]) -> float:
        """Probability that these windows, one or more with evidence, are of a lip-sync fake."""
        return self.fake(video_facts(windows))

    def suspicion(self, windows: Sequence[WindowEvidence]) -> tuple[float, float]:
        """Log-odds that sync, and that the look of the face, add to what real video has on average."""
        parts = np.array(self.fake.weights) * (video_facts(windows) - np.array(self.of_real))
        content = float(parts[list(CONTENT_FACTS)].sum())
        return float(parts.sum()) - content, content

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


LOGISTICS = ("out_of_sync", "rendered", "fake")
UNFITTED = VerdictRule(Logistic((0, 0, 0), 0), Logistic((0,), 0), Logistic((0,) * 6, 0), (0,) * 6, 1.0, 0.5, 0.5)
"""Says nothing, at even odds; to gather evidence with before there is a rule."""


def load_rule(path: Path) -> VerdictRule:
    """Read a rule. Raises FileNotFoundError, or KeyError and TypeError when it is not one."""
    facts = json.loads(path.read_text())
    return VerdictRule(
        **{name: Logistic(tuple(facts[name]["weights"]), facts[name]["bias"]) for name in LOGISTICS},
        of_real=tuple(facts["of_real"]),
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


def video_facts(windows: Sequence[WindowEvidence]) -> np.ndarray:
    """(6,), see `FACTS`: means over windows with evidence, and over their worst 2 s."""
    sync, rendered = np.array([w.sync_facts for w in windows]), np.array([w.rendered for w in windows])
    starts, length = np.array([w.start for w in windows]), windows[0].end - windows[0].start
    within = starts[None] - starts[:, None]
    reach = max(0, round(STRETCH_S * GRID_FPS) - length)
    stretches = (within >= 0) & (within <= reach) & (starts[:, None] <= max(starts.min(), starts.max() - reach))
    stretches = stretches[2 * stretches.sum(1) >= stretches.sum(1).max()]
    share = stretches / stretches.sum(1, keepdims=True)
    return np.array([*sync.mean(0), rendered.mean(), (share @ rendered).max(), (share @ sync[:, 1]).min()])


def spans_text(windows: Sequence[WindowEvidence]) -> str:
    """When, in words: "from 1.2 to 3.4 s and from 5.0 to 6.0 s"; overlapping windows are joined."""
    spans: list[list[int]] = []
    for window in sorted(windows, key=lambda window: window.start):
        if spans and window.start <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], window.end)
        else:
            spans.append([window.start, window.end])
    return " and ".join(f"from {start / GRID_FPS:.1f} to {end / GRID_FPS:.1f} s" for start, end in spans)


def reasons_for(rule: VerdictRule, probability: float, windows: Sequence[WindowEvidence]) -> tuple[Reason, ...]:
    """Why: what was seen in windows with evidence, and when, in words for an analyst."""
    verdict, (by_sync, by_content) = rule.verdict(probability), rule.suspicion(windows)
    agree = float(np.mean([window.sync_facts[2] for window in windows]))
    share = f"{agree:.0%} of the {len(windows)} windows with speech agree on the offset, within one frame"
    found = []
    if verdict == "inconclusive":
        found.append(
            Reason("between_thresholds", f"The evidence points neither way (probability {probability:.2f}): {share}.")
        )
    if verdict != "real" and by_content >= min(NOTABLE, max(by_sync, 0.0)):
        found.append(_rendered_reason(rule, windows))
    if verdict != "real" and by_sync >= min(NOTABLE, max(by_content, 0.0)):
        if agree < 0.5:
            found.append(Reason("wandering_offset", f"The best offset wanders: only {share}."))
        found.append(_low_sync_reason(rule, windows))
    if verdict == "real":
        found.append(Reason("in_sync", f"Mouth and voice belong together: {share}."))
        filmed = np.mean([rule.content_score(window) >= 0.5 for window in windows])
        found.append(Reason("filmed_face", f"The face looks filmed in {filmed:.0%} of the windows with speech."))
    return (*found, *_offset_reasons(rule.sync(windows)))


def _rendered_reason(rule: VerdictRule, windows: Sequence[WindowEvidence]) -> Reason:
    rendered = [window for window in windows if rule.content_score(window) < 0.5]
    worst = min(windows, key=rule.content_score)
    when = spans_text(rendered or [worst])
    return Reason(
        "rendered_face",
        f"The face looks rendered rather than filmed {when}, in {len(rendered)} of {len(windows)} windows with "
        f"speech; most of all {spans_text([worst])}.",
    )


def _low_sync_reason(rule: VerdictRule, windows: Sequence[WindowEvidence]) -> Reason:
    apart = [window for window in windows if rule.sync_score(window) < 0.5]
    strength = np.mean([window.sync_facts[0] for window in windows])
    when = spans_text(apart or [min(windows, key=rule.sync_score)])
    return Reason(
        "low_sync",
        f"Mouth and voice are not alike enough {when}: {strength:.1f} on average at the best constant offset, where "
        f"real video has about {rule.of_real[0]:.1f}.",
    )


def _offset_reasons(sync: Sync) -> list[Reason]:
    sure = sync.confidence is not None and sync.confidence >= SURE_OF_OFFSET
    if not sure or sync.offset_ms is None or abs(sync.offset_ms) < NOTABLE_OFFSET_MS:
        return []
    late = "late" if sync.offset_ms > 0 else "early"
    detail = f"The sound is {abs(sync.offset_ms)} ms {late} throughout, as a muxing or broadcast fault makes it; "
    return [Reason("constant_offset", detail + "this is no sign of a fake.")]
