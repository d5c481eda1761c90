"""Embedded clips in; what the detector answers for each of them out, for generated ones also without their family."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.engine import Detector, load_detector
from model.results import Verdict
from model.training.clips import FAMILIES, Clip, family_of
from model.training.trials import EmbeddedClip, windows_with_evidence
from model.verdict import Kinds, VerdictRule, can_be_judged, evidence_s, is_coarse
from model.windows import WindowEvidence

ENOUGH_S = 2.0
"""Seconds of speech with the mouth in view from which an answer is expected."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a detector says of one clip.

    ``probability`` of a fake in [0, 1]; None where there is too little evidence, and then ``verdict`` is
    "inconclusive". ``by``: see `VerdictRule.suspicion`; None where ``probability`` is.
    """

    clip: Clip
    evidence_s: float
    probability: float | None
    verdict: Verdict
    by: Kinds | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A family of generators, judged by the rule that was fitted without it; no detector was trained on any.

    ``generated``: all clips of the family; ``answers`` for them, and for ``real`` ones.
    """

    family: str
    generated: list[EmbeddedClip]
    answers: list[Answer]
    real: list[Answer]

    def against_real(
        self,
        value: Callable[[Answer], float | None],
        generated: Callable[[Clip], bool] = lambda clip: True,
        real: Callable[[Clip], bool] = lambda clip: True,
    ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """By identity, ``value`` of those generated and of those real clips that are asked for."""
        return (
            by_identity((one for one in self.answers if generated(one.clip)), value),
            by_identity((one for one in self.real if real(one.clip)), value),
        )


def answer(
    rule: VerdictRule,
    clip: Clip,
    windows: Sequence[WindowEvidence],
    enough: Callable[[Sequence[WindowEvidence]], bool] = can_be_judged,
) -> Answer:
    """Judge windows with evidence as `model.pipeline.analyze` does, if they are ``enough``."""
    seconds = evidence_s(windows)
    if not windows or not enough(windows):
        return Answer(clip, seconds, None, "inconclusive")
    probability = round(rule.fake_probability(windows), 4)
    verdict = rule.verdict_on(windows, probability)
    return Answer(clip, seconds, probability, verdict, rule.suspicion(windows, not is_coarse(windows)))


def answers(detector: Detector, clips: Iterable[EmbeddedClip]) -> list[Answer]:
    """Judge whole clips."""
    return [answer(detector.rule, clip.clip, windows_with_evidence(detector, clip)) for clip in clips]


def left_out_answers(real: Sequence[EmbeddedClip], generated: Sequence[EmbeddedClip], weights: Path) -> list[LeftOut]:
    """Each family of ``generated`` clips, and ``real`` ones, by the rule that was fitted without the family."""
    found = []
    for family in FAMILIES:
        members = [clip for clip in generated if family_of(clip.clip) == family]
        if members:
            detector = load_detector(weights=weights, left_out=family)
            found.append(LeftOut(family, members, answers(detector, members), answers(detector, real)))
    return found


def by_identity(found: Iterable[Answer], value: Callable[[Answer], float | None]) -> dict[str, list[float]]:
    """``value`` of each answer that has one."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for one in found:
        if (known := value(one)) is not None:
            grouped[one.clip.identity].append(known)
    return grouped


def called_fake(one: Answer) -> bool:
    """Of an answer, for `by_identity`."""
    return one.verdict == "fake"


def fake_probability(one: Answer) -> float | None:
    """Of an answer, for `by_identity`."""
    return one.probability
