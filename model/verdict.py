"""Window evidence in; probabilities and a verdict out, by a rule of a few fitted numbers.

Facts of windows (`WindowEvidence.facts`) are averaged, and it is asked how unusual they would be of real video: of each
fact only what is more suspicious than its mean over real video counts, in standard deviations, for that a mouth is well
in sync does not excuse that it looks rendered. Look and smooth motion are of the same pixels, and compression makes
both more unusual, so the root of the sum of their squares is how unusual the pixels are. Mouth and voice are evidence
of their own, and so is how much more the colours of the lips change than those above them, for compression changes both
alike: how unusual they are adds to it. No generator has a say in that, so none is needed to know an unseen one.
Logistic functions of how unusual the whole video is, and its worst two seconds, say how likely it is a fake throughout,
and one in part; the likelier of both is the probability that it is a lip-sync fake, at even odds of real and fake. Two
seconds are held against the rest of their own video, too (`model.changes`): camera, light and person are the same
there, so that a mouth which looks more rendered for a while, or fits its voice worse, is told better than one among
strangers; that makes a video suspicious, but gets nobody called fake. All numbers are fitted on people that no detector
was trained on (`model.training.fit_verdict`). Where compression or a filter took away what tells filmed from rendered
by looks and by how smooth colours are, only voice, motion in grey and restless colours are asked, with odds of their
own. Two thresholds make the verdict; between them it is inconclusive.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from model.changes import STRETCH_S, changes, stretches, sums, usable_frames
from model.detector import MAX_OFFSET
from model.media import GRID_FPS
from model.motion import SMOOTHED
from model.results import Reason, Sync, Verdict
from model.windows import WANDER, WindowEvidence

MIN_EVIDENCE_S = 1.0
"""Seconds of speech with a visible, moving mouth below which nothing is said."""

MIN_ACCUSATION_S = 2.0
"""Seconds of evidence below which no video is called fake, however suspicious."""

MAX_SMOOTHNESS = 0.1
"""Of interpolated details, see `model.motion`: above it compression or a filter has left no trace of a camera.

Real and generated video look alike then, and real video looks rendered.
"""

FINE_QUANTIZER = 28.0
"""See `model.crops.MouthCrop`: coded more coarsely, filmed mouths look as rendered ones do.

Voices still fit their mouths then, single pixels still differ, and compression makes the colours of real lips no more
suspicious.
"""

MAX_QUANTIZER = 34.0
"""Coded more coarsely still, real mouths no longer fit their voices."""

SUSPICIOUS = {
    "sync strength": -1, "changes alike": -1, "agrees on the offset": -1, "rendered look": 1, "smooth details": 1,
    "smooth lips": 1, "smooth colours": 1, "restless colours": 1,
}  # fmt: skip
"""The facts of a window, and whether more of each (1) or less (-1) may make it more suspicious."""

SIGNS = np.array([*SUSPICIOUS.values()])

SYNC, LOOK, SMOOTH_GREY, SMOOTH_COLOURS, RESTLESS = slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7), slice(7, 8)
CONTENT = slice(3, 8)
"""Which facts belong together, and all but the first."""

ALIKE = slice(0, 2)
"""Those of sync that tell for two seconds: in clean sound nearly all windows agree on the offset, or nearly none."""

UNTOLD = [LOOK.start, SMOOTH_COLOURS.start]
"""What coarse video does not tell: the look, and how smooth colours are."""

MOST_UNUSUAL = np.array([7.0, 7.0, 7.0, 4.0, 4.0, 4.0, 4.0, 4.0])
"""Standard deviations of real video that each fact counts at most, and all that is smooth together no more than one.

A mouth that does not belong to the voice is so beyond doubt; how mouths look and move differs more between kinds of
real video than a network knows, so that none of that alone gets a video called fake.
"""

MOST_OF_PIXELS = float(MOST_UNUSUAL[CONTENT].max())

MOST_CHANGED = 4.0
"""Times what is usual that a change within a video counts at most: who walks up to a camera changes, too."""

MARGIN = 1.0
"""By how much the log-odds of a fake in part must exceed those of a fake throughout to count instead."""

NOTABLE = 1.0
"""Standard deviations of real video from which a kind of evidence is named as a reason."""

OUT_OF_SYNC, AT_TIMES = 2.0, 0.1
"""Standard deviations of real video from which a video is out of sync on the whole; and the share of its time in which
it must fit as real video does nevertheless for the voice to be the mouth's.

Other voices, noise, or pictures that lag, put real video out of sync for a while; with another's voice no part fits.
"""

FOREIGN = 3.0
"""Standard deviations of real video from which mouth and voice do not belong together, and no offset is theirs."""

NOTABLE_OFFSET_MS = 80
SURE_OF_OFFSET = 0.9

WANDERS = 0.5
"""Share of windows that agree on the offset below which it wanders, and there is no constant one."""

USUAL_OFFSET_MS = 120
"""By how much files are off as they are made.

Where most windows agree on such an offset, mouth and voice belong together or are made to, however poorly they fit in
noise; those of another's voice do by chance, in few videos of some seconds.
"""


@dataclass(frozen=True, slots=True)
class Logistic:
    """sigmoid(weights . facts + bias)."""

    weights: tuple[float, ...]
    bias: float

    def __call__(self, facts: np.ndarray) -> float:
        return float(expit(self.log_odds(facts)))

    def log_odds(self, facts: np.ndarray) -> float:
        """Before the sigmoid."""
        return float(np.dot(self.weights, facts) + self.bias)

    def times(self, share: float) -> "Logistic":
        """The same with its log-odds times ``share``."""
        return Logistic(tuple(round(weight * share, 4) for weight in self.weights), round(self.bias * share, 4))


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely a fake is by how unusual windows are: one ``window``; of a video the ``whole``, and its ``worst`` 2 s.

    The latter two are for a fake throughout and one in part.
    """

    window: Logistic
    whole: Logistic
    worst: Logistic

    def log_odds(self, facts: np.ndarray) -> float:
        """Log-odds of a fake, throughout or in part, from `VerdictRule.video_facts`."""
        return max(self.whole.log_odds(facts[:1]), self.worst.log_odds(facts[1:]) - MARGIN)

    def nearer_to_even(self, share: float) -> "Odds":
        """These, all log-odds times ``share``."""
        return Odds(*(logistic.times(share) for logistic in (self.window, self.whole, self.worst)))


@dataclass(frozen=True, slots=True)
class ChangeOdds:
    """How likely two seconds are fake by how much more suspicious some facts are there than in the rest of their video.

    ``usual``: by how much each fact changes in real video (root of the mean square); ``tail``: by how many times that
    more the most changed 2 s of real video do when it is e times as long; ``odds``: of how many times that they do.
    """

    usual: tuple[float, ...]
    tail: float
    odds: Logistic

    def times_usual(self, more: np.ndarray) -> float:
        """How many times what is usual the facts change; ``more``: by how much more suspicious each is."""
        return float(np.sqrt(np.mean(np.clip(more / np.array(self.usual), 0.0, None) ** 2)))

    def counted(self, times: float, seconds: float) -> np.ndarray:
        """(1,): what counts of `times_usual`, the most of a video with so many seconds of evidence."""
        return np.clip([times - by_chance(self.tail, seconds)], 0.0, MOST_CHANGED)

    def log_odds(self, times: float, seconds: float) -> float:
        """Log-odds of a fake in part, by the same."""
        return self.odds.log_odds(self.counted(times, seconds)) - MARGIN


class Changed(NamedTuple):
    """``windows`` of 2 s, and how many times what is usual their ``look``, and their ``sync``, change from the rest."""

    windows: Sequence[WindowEvidence]
    look: float
    sync: float


class Kinds(NamedTuple):
    """How unusual of real video each kind of evidence is: 0 not at all.

    ``sync``; ``look`` of the mouth, as a network sees it; ``motion``: how smoothly it moves, in grey and in colours;
    ``colours``: how restless those of the lips are.
    """

    sync: float
    look: float
    motion: float
    colours: float

    @property
    def together(self) -> float:
        """How unusual all of it is."""
        return float(self.sync + np.hypot(self.look, self.motion) + self.colours)

    def of_sync_at_most(self, most: float) -> "Kinds":
        """The same, but sync is no more unusual than that."""
        return self._replace(sync=min(self.sync, most))


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """The fitted numbers.

    ``out_of_sync``: probability of one window being out of sync, from its `sync_facts`. ``rendered``: of its
    mouth being rendered, from its `content_facts`. ``of_real``, ``spread``: mean and standard deviation of the
    facts of real videos; ``flutter``: standard deviation of those of 1 s about the mean of their video.
    ``look_change``, ``sync_change``: what changes within a video say. ``fine`` and ``coarse``: probabilities from all
    facts, and from those that coarse video tells; ``tail``: by how much more unusual the worst 2 s of real video are
    when it is e times as long. ``sharpness``: what the mean fit by offset is multiplied by to make a softmax of it an
    honest probability of the offset. ``real_below``, ``fake_above``: thresholds of the fake probability.
    """

    out_of_sync: Logistic
    rendered: Logistic
    of_real: tuple[float, ...]
    spread: tuple[float, ...]
    flutter: tuple[float, ...]
    look_change: ChangeOdds
    sync_change: ChangeOdds
    fine: Odds
    coarse: Odds
    tail: float
    sharpness: float
    real_below: float
    fake_above: float

    def sync_score(self, window: WindowEvidence) -> float:
        """Probability that mouth and voice match in this window."""
        return 1 - self.out_of_sync(window.sync_facts)

    def content_score(self, window: WindowEvidence) -> float:
        """Probability that the mouth in this window was filmed, not rendered."""
        return 1 - self.rendered(self.told(window.facts, not is_coarse([window]))[CONTENT])

    def fake_probability(self, windows: Sequence[WindowEvidence]) -> float:
        """Probability that these windows, one or more with evidence, are of a lip-sync fake."""
        return float(expit(self.log_odds(windows)))

    def log_odds(self, windows: Sequence[WindowEvidence]) -> float:
        """Log-odds of the same."""
        fine = not is_coarse(windows)
        seconds = evidence_s(windows)
        changed = [self.change_log_odds(one, seconds) for one in self.changed(windows)]
        return max([self.odds(fine).log_odds(self.video_facts(windows, fine)), *changed])

    def accusing_log_odds(self, windows: Sequence[WindowEvidence]) -> float:
        """Log-odds by which windows are called fake: how poorly mouth and voice fit counts little of `agreed` ones."""
        fine, most_sync = not is_coarse(windows), NOTABLE if self.agreed(windows) else np.inf
        return self.odds(fine).log_odds(self.video_facts(windows, fine, most_sync))

    def changed(self, windows: Sequence[WindowEvidence]) -> list[Changed]:
        """By how much every two seconds of windows with evidence differ from the rest of their face."""
        fine, found = not is_coarse(windows), []
        for change in changes(windows):
            more = SIGNS * change.facts
            look = self.look_change.times_usual(more[LOOK]) if fine else 0.0
            found.append(Changed(change.windows, look, self.sync_change.times_usual(more[ALIKE])))
        return found

    def change_log_odds(self, changed: Changed, seconds: float) -> float:
        """Log-odds of a fake in part of a video with so many seconds of evidence."""
        return max(self.look_change.log_odds(changed.look, seconds), self.sync_change.log_odds(changed.sync, seconds))

    def window_probability(self, window: WindowEvidence) -> float:
        """Probability that one window alone is of a lip-sync fake."""
        fine = not is_coarse([window])
        return self.odds(fine).window(np.array([self.unusual(self.told(window.facts, fine), evidence_s([window]))]))

    def window_probabilities(self, windows: Sequence[WindowEvidence]) -> list[float]:
        """Of all windows with evidence of a face: each alone, or by how much the 2 s around it differ from the rest."""
        seconds = evidence_s(windows)
        around = {
            changed.windows[len(changed.windows) // 2].start: float(expit(self.change_log_odds(changed, seconds)))
            for changed in (self.changed(windows) if windows else ())
        }
        return [max(self.window_probability(window), around.get(window.start, 0.0)) for window in windows]

    def odds(self, fine: bool) -> Odds:
        """Those of video that is ``fine``, or is not."""
        return self.fine if fine else self.coarse

    def told(self, facts: np.ndarray, fine: bool) -> np.ndarray:
        """``facts`` (8,); those that are `UNTOLD` where the video is not ``fine`` are what is usual then."""
        known = facts.copy()
        if not fine:
            known[UNTOLD] = np.array(self.of_real)[UNTOLD]
        return known

    def video_facts(self, windows: Sequence[WindowEvidence], fine: bool, most_sync: float = np.inf) -> np.ndarray:
        """(2,): how unusual windows with evidence are of real video, and their worst 2 s; sync ``most_sync`` at most.

        From the latter is taken what the worst of so many would have in real video, so that a long one is not
        accused for its length.
        """
        whole = self.suspicion(windows, fine).of_sync_at_most(most_sync).together
        worst = max(self.unusual_stretches(windows, fine, most_sync)) - by_chance(self.tail, evidence_s(windows))
        return np.array([whole, worst])

    def unusual_stretches(
        self, windows: Sequence[WindowEvidence], fine: bool, most_sync: float = np.inf
    ) -> list[float]:
        """How unusual each of `stretches` is; sync ``most_sync`` at most."""
        return [kinds.of_sync_at_most(most_sync).together for _, kinds in self.by_stretch(windows, fine)]

    def by_stretch(self, windows: Sequence[WindowEvidence], fine: bool) -> list[tuple[Sequence[WindowEvidence], Kinds]]:
        """The windows of each of `stretches`, and how unusual they are."""
        ordered, seconds = sorted(windows, key=lambda window: window.start), min(STRETCH_S, evidence_s(windows))
        total = sums(ordered)
        return [
            (ordered[first:end], self.kinds(self.told((total[end] - total[first]) / (end - first), fine), seconds))
            for first, end in stretches(ordered)
        ]

    def unusual(self, facts: np.ndarray, seconds: float) -> float:
        """How unusual mean facts (8,) of so much evidence are of real video: 0 not at all; see `kinds`."""
        return self.kinds(facts, seconds).together

    def kinds(self, facts: np.ndarray, seconds: float) -> Kinds:
        """How unusual facts of each kind are, in standard deviations of real video.

        How smooth grey and how smooth colours are add as look and motion do; what takes noise away smooths both.
        """
        excess = self.excess(facts, seconds)
        kinds = SYNC, LOOK, SMOOTH_GREY, SMOOTH_COLOURS, RESTLESS
        sync, look, grey, colours, restless = (float(np.sqrt(np.mean(excess[kind] ** 2))) for kind in kinds)
        return Kinds(sync, look, min(float(np.hypot(grey, colours)), MOST_OF_PIXELS), restless)

    def excess(self, facts: np.ndarray, seconds: float) -> np.ndarray:
        """(8,): by how many standard deviations facts are more suspicious than real video usually is.

        Those of little evidence flutter, and are less unusual for it.
        """
        spread = np.hypot(self.spread, np.array(self.flutter) / max(1.0, seconds) ** 0.5)
        return np.clip(SIGNS * (facts - np.array(self.of_real)) / spread, 0.0, MOST_UNUSUAL)

    def suspicion(self, windows: Sequence[WindowEvidence], fine: bool) -> Kinds:
        """`kinds` of the mean of windows."""
        return self.kinds(self.told(np.mean([w.facts for w in windows], axis=0), fine), evidence_s(windows))

    def sync(self, windows: Sequence[WindowEvidence]) -> Sync:
        """Constant offset of windows with evidence, and how sure it is."""
        curve = np.average([w.curve for w in windows], axis=0, weights=[w.usable.sum() for w in windows])
        chance = np.exp(self.sharpness * (curve - curve.max()))
        best = int(curve.argmax())
        near = chance[max(0, best - 1) : best + 2].sum() / chance.sum()
        return Sync(offset_ms=frames_to_ms(best - MAX_OFFSET), confidence=round(float(near), 4))

    def in_sync_at_times(self, windows: Sequence[WindowEvidence]) -> bool:
        """Whether windows that are out of sync on the whole fit as real video does in some of their seconds."""
        fine = not is_coarse(windows)
        if self.suspicion(windows, fine).sync <= OUT_OF_SYNC:
            return False
        return bool(np.quantile([kinds.sync for _, kinds in self.by_stretch(windows, fine)], AT_TIMES) < NOTABLE)

    def agreed(self, windows: Sequence[WindowEvidence]) -> bool:
        """Whether most windows agree on an offset that files have."""
        offset_ms = self.sync(windows).offset_ms
        return offset_ms is not None and abs(offset_ms) <= USUAL_OFFSET_MS and agreement(windows) >= WANDERS

    def may_be_accused(self, windows: Sequence[WindowEvidence]) -> bool:
        """Whether these windows are enough for that, and their voice is not the mouth's at times."""
        return evidence_s(windows) >= MIN_ACCUSATION_S and not self.in_sync_at_times(windows)

    def may_be_called_fake(self, windows: Sequence[WindowEvidence]) -> bool:
        """Whether they may be accused, and not only for how poorly mouth and voice fit while they are `agreed`."""
        return self.may_be_accused(windows) and self.accusing_log_odds(windows) > logit(self.fake_above)

    def verdict_on(self, windows: Sequence[WindowEvidence], fake_probability: float) -> Verdict:
        """The verdict for the probability of windows; whether they may be called fake is asked only if it matters."""
        return self.verdict(fake_probability, fake_probability > self.fake_above and self.may_be_called_fake(windows))

    def verdict(self, fake_probability: float, may_be_called_fake: bool) -> Verdict:
        """The verdict for a probability, see `may_be_called_fake`."""
        if fake_probability > self.fake_above and may_be_called_fake:
            return "fake"
        return "real" if fake_probability < self.real_below else "inconclusive"


EVEN = Odds(Logistic((0,), 0), Logistic((0,), 0), Logistic((0,), 0))
NEVER = Logistic((0,), -9)
UNFITTED = VerdictRule(
    out_of_sync=Logistic((0,) * 3, 0), rendered=Logistic((0,) * 5, 0), of_real=(0,) * 8, spread=(1,) * 8,
    flutter=(0,) * 8, look_change=ChangeOdds((1,), 0, NEVER), sync_change=ChangeOdds((1, 1), 0, NEVER), fine=EVEN,
    coarse=EVEN, tail=0.0, sharpness=1.0, real_below=0.5, fake_above=0.5,
)  # fmt: skip
"""Says nothing, at even odds; to gather evidence with before there is a rule."""


def parse_rule(content: bytes) -> VerdictRule:
    """Read a rule as `save_rule` writes it. Raises ValueError, KeyError or TypeError when it is not one."""
    facts = json.loads(content)

    def logistic(one: dict) -> Logistic:
        return Logistic(tuple(one["weights"]), one["bias"])

    def odds(one: dict) -> Odds:
        return Odds(*(logistic(one[name]) for name in ("window", "whole", "worst")))

    def change(one: dict) -> ChangeOdds:
        return ChangeOdds(tuple(one["usual"]), one["tail"], logistic(one["odds"]))

    return VerdictRule(
        out_of_sync=logistic(facts["out_of_sync"]),
        rendered=logistic(facts["rendered"]),
        fine=odds(facts["fine"]),
        coarse=odds(facts["coarse"]),
        of_real=tuple(facts["of_real"]),
        spread=tuple(facts["spread"]),
        flutter=tuple(facts["flutter"]),
        look_change=change(facts["look_change"]),
        sync_change=change(facts["sync_change"]),
        tail=facts["tail"],
        sharpness=facts["sharpness"],
        real_below=facts["real_below"],
        fake_above=facts["fake_above"],
    )


def save_rule(rule: VerdictRule, path: Path) -> None:
    """Write a rule as JSON that people can read."""
    path.write_text(json.dumps(asdict(rule), indent=2) + "\n")


def by_chance(tail: float, seconds: float) -> float:
    """By how much the worst 2 s of so many seconds exceed others; ``tail``: by how much more in e times as many."""
    return tail * float(np.log(max(1.0, seconds / STRETCH_S)))


def frames_to_ms(frames: int) -> int:
    """Frames of the 25 fps grid in milliseconds."""
    return frames * 1000 // GRID_FPS


def evidence_s(windows: Sequence[WindowEvidence]) -> float:
    """Seconds of speech with the mouth in view that windows cover, overlaps counted once."""
    return int(usable_frames(windows).sum()) / GRID_FPS


def quantizer(windows: Sequence[WindowEvidence]) -> float:
    """How coarsely these mouths are coded, see `model.crops.MouthCrop`; 0 where the codec does not tell."""
    return float(np.mean([window.quantizer for window in windows]))


def too_smooth(windows: Sequence[WindowEvidence]) -> bool:
    """Whether nothing in these windows moves as a camera's noise does."""
    return float(np.mean([window.motion[SMOOTHED] for window in windows])) > MAX_SMOOTHNESS


def is_coarse(windows: Sequence[WindowEvidence]) -> bool:
    """Whether compression left too little in these windows to tell filmed from rendered by how they look and move."""
    return too_smooth(windows) or quantizer(windows) > FINE_QUANTIZER


def too_compressed(windows: Sequence[WindowEvidence]) -> bool:
    """Whether compression left too little in these windows for any judgement, or may have, where no codec tells."""
    coded = quantizer(windows)
    return coded > MAX_QUANTIZER or (coded == 0 and too_smooth(windows))


def enough_evidence(windows: Sequence[WindowEvidence]) -> bool:
    """Whether windows with evidence are enough to learn from, however coarsely they are coded."""
    return evidence_s(windows) >= MIN_EVIDENCE_S


def can_be_judged(windows: Sequence[WindowEvidence]) -> bool:
    """Whether windows with evidence are enough for a probability."""
    return enough_evidence(windows) and not too_compressed(windows)


def agreement(windows: Sequence[WindowEvidence]) -> float:
    """Share of windows that agree on the offset of their track, see `WindowEvidence.sync_facts`."""
    return float(np.mean([window.sync_facts[2] for window in windows]))


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
    verdict = rule.verdict_on(windows, probability)
    agree = agreement(windows)
    within = f"within {frames_to_ms(WANDER)} ms"
    share = f"{agree:.0%} of the {len(windows)} windows with speech agree on the offset, {within}"
    found = []
    if verdict == "inconclusive" and probability > rule.fake_above:
        found.append(_spared(rule, probability, windows))
    elif verdict == "inconclusive":
        found.append(
            Reason("between_thresholds", f"The evidence points neither way (probability {probability:.2f}): {share}.")
        )
    if verdict == "real":
        found.append(Reason("in_sync", f"Mouth and voice belong together: {share}."))
    else:
        found += _suspicious_reasons(rule, windows, share)
    if is_coarse(windows):
        found.append(_coarse_picture(windows))
    elif verdict == "real":
        filmed = np.mean([rule.content_score(window) >= 0.5 for window in windows])
        found.append(Reason("filmed_face", f"The mouth looks filmed in {filmed:.0%} of the windows with speech."))
    if rule.suspicion(windows, not is_coarse(windows)).sync < FOREIGN:
        found += offset_reasons(rule.sync(windows), windows)
    return tuple(found)


def _spared(rule: VerdictRule, probability: float, windows: Sequence[WindowEvidence]) -> Reason:
    """Why what is suspicious is not called fake."""
    suspicious = f"Suspicious (probability {probability:.2f}), but "
    if (seconds := evidence_s(windows)) < MIN_ACCUSATION_S:
        detail = (
            f"on {seconds:.1f} s of speech with a mouth in view: below {MIN_ACCUSATION_S:g} s nothing is called fake."
        )
        return Reason("short_evidence", suspicious + detail)
    if not rule.in_sync_at_times(windows):
        detail = (
            f"{agreement(windows):.0%} of the windows with speech agree on an offset of "
            f"{rule.sync(windows).offset_ms} ms, as files have: noise or other voices may be why mouth and voice fit "
            "poorly, and nothing is called fake for that alone."
        )
        return Reason("agreed_offset", suspicious + detail)
    best, _ = min(rule.by_stretch(windows, not is_coarse(windows)), key=lambda stretch: stretch[1].sync)
    when = spans_text(best)
    detail = f"mouth and voice fit as in real video {when}: other voices, noise or pictures that lag may be what is "
    return Reason("in_sync_at_times", suspicious + detail + "out of sync elsewhere, and nothing is called fake for it.")


def too_compressed_reasons(rule: VerdictRule, windows: Sequence[WindowEvidence]) -> tuple[Reason, ...]:
    """Why `too_compressed` windows are not judged, and what is known of the offset."""
    limit = f"; at most {MAX_QUANTIZER:.0f} is judged" if quantizer(windows) > MAX_QUANTIZER else ""
    detail = f"{_coarseness(windows, limit)}; filmed and rendered faces look alike then."
    return (Reason("too_compressed", detail), *offset_reasons(rule.sync(windows), windows))


def _coarse_picture(windows: Sequence[WindowEvidence]) -> Reason:
    left = "the look of the mouth was left out; only how it moves, its colours and the voice count."
    return Reason("coarse_picture", f"{_coarseness(windows)}: {left}")


def _coarseness(windows: Sequence[WindowEvidence], limit: str = "") -> str:
    coded = quantizer(windows)
    if coded > FINE_QUANTIZER:
        too = "too " if limit else ""
        return f"The picture is coded {too}coarsely (as by H.264's QP {coded:.0f} of 51 at the mouth's size{limit})"
    return "The picture holds no trace of a camera, as after heavy compression or a filter"


def _suspicious_reasons(rule: VerdictRule, windows: Sequence[WindowEvidence], share: str) -> list[Reason]:
    worst, by = max(rule.by_stretch(windows, not is_coarse(windows)), key=lambda stretch: stretch[1].together)
    found = _change_reasons(rule, windows)
    enough = NOTABLE if found else min(NOTABLE, max(by))
    when = spans_text([window for window in windows if rule.window_probability(window) >= 0.5] or worst)
    if by.look >= enough > 0:
        found.append(Reason("rendered_face", f"The mouth looks rendered rather than filmed, {when}."))
    if by.motion >= enough > 0:
        detail = f"The mouth moves too smoothly for a filmed one, without a camera's finest detail and noise, {when}."
        found.append(Reason("smooth_motion", detail))
    if by.colours >= enough > 0:
        detail = f"The colours of the mouth change more than those above it, as if painted picture by picture, {when}."
        found.append(Reason("restless_colours", detail))
    if by.sync >= enough > 0:
        if agreement(windows) < WANDERS:
            found.append(Reason("wandering_offset", f"The best offset wanders: only {share}."))
        found.append(_poor_sync(rule, worst, when))
    return found


def _change_reasons(rule: VerdictRule, windows: Sequence[WindowEvidence]) -> list[Reason]:
    found, enough, seconds = [], logit(rule.real_below), evidence_s(windows)
    changed = rule.changed(windows)
    look, sync = (max(changed, key=by, default=None) for by in (attrgetter("look"), attrgetter("sync")))
    if look and rule.look_change.log_odds(look.look, seconds) >= enough:
        detail = f"The mouth looks more rendered {spans_text(look.windows)} than in the rest of the video. A face that "
        detail += "comes nearer, or other light, can do that, too: it makes nothing a fake by itself."
        found.append(Reason("changed_look", detail))
    if sync and rule.sync_change.log_odds(sync.sync, seconds) >= enough:
        detail = f"Mouth and voice fit worse {spans_text(sync.windows)} than in the rest of the video, as where other "
        detail += "words were put in. Somebody off screen, or noise, can do that, too: alone it makes nothing a fake."
        found.append(Reason("changed_sync", detail))
    return found


def _poor_sync(rule: VerdictRule, windows: Sequence[WindowEvidence], when: str) -> Reason:
    facts = np.mean([window.facts for window in windows], axis=0)
    low, loose, _ = rule.excess(facts, evidence_s(windows))[SYNC]
    if loose > low:
        detail = f"The mouth follows the voice only loosely, {when}: {facts[1]:.0%} of their changes are alike"
        return Reason("loose_sync", f"{detail}, where real video has about {rule.of_real[1]:.0%}.")
    detail = f"Mouth and voice are not alike enough, {when}: {facts[0]:.1f} at their best offset"
    return Reason("low_sync", f"{detail}, where real video has about {rule.of_real[0]:.1f}.")


def offset_reasons(sync: Sync, windows: Sequence[WindowEvidence]) -> list[Reason]:
    """That the sound is off, if it surely and notably is, and whether it is so in most of ``windows``, or wanders.

    Nothing where most windows do not agree on it.
    """
    sure = sync.confidence is not None and sync.confidence >= SURE_OF_OFFSET and agreement(windows) >= WANDERS
    if not sure or sync.offset_ms is None or abs(sync.offset_ms) < NOTABLE_OFFSET_MS:
        return []
    late = "late" if sync.offset_ms > 0 else "early"
    steady = np.mean([abs(frames_to_ms(window.offset) - sync.offset_ms) <= frames_to_ms(1) for window in windows]) > 0.5
    fault = "throughout, as a muxing or broadcast fault" if steady else "on the whole and wanders, as a recorded call"
    detail = f"The sound is {abs(sync.offset_ms)} ms {late} {fault} makes it; this is no sign of a fake."
    return [Reason("constant_offset", detail)]
