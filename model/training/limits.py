"""What can't be judged, found on people that the network of looks lacks.

Every clip of training and validation people is judged by the network that lacks its person (`model.training.thirds`),
by the served rule without regard to its limits; as it is, and written anew in ways that cost detail.
`model.verdict.FINE_QUANTIZER`, `MAX_QUANTIZER` and `MOST_UNUSUAL` there rest on the figures. Run:
``python -m model.training.limits --data DIR``. Interrupt and resume at will. Writes ``limits.json`` into ``--out``,
where `model.training.evaluate` finds it.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from model.engine import Detector, load_detector
from model.training.clips import Clip, list_clips, split_clips
from model.training.prepare import prepare
from model.training.report import Report
from model.training.robustness import CONDITIONS, SECONDS
from model.training.scores import Answer, answer, by_identity, fake_probability
from model.training.statistics import Figure, auc_over_identities, mean_over_identities
from model.training.thirds import embed_as_strangers, lacking
from model.training.train_temporal import TOO_COARSE
from model.training.trials import few_of_each, windows_with_evidence
from model.training.uploads import Anew, prepare_anew
from model.verdict import FINE_QUANTIZER, MIN_ACCUSATION_S, can_be_judged, enough_evidence, quantizer

RESULT = "limits.json"
AS_IT_IS = "as it is"
THIRDS = 3
MOST_OF_A_PERSON = 2
COSTS_DETAIL = "written anew", "H.264", "240 lines", "uploaded twice", "alike", "HEVC", "VP9", "AV1"
WAYS = {name: steps for name, steps in CONDITIONS.items() if name.startswith(COSTS_DETAIL)}
BANDS = (0, 22, 25, 28, 31, 34, 52)
"""Of QP, see `model.crops.quantizer_when_shrunk`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What would be answered on one clip, written anew in some ``way``, were there no limit of its QP."""

    way: str
    quantizer: float
    can_be_judged: bool
    answer: Answer


def judge_all(detectors: Sequence[Detector], clips: Iterable[Clip], cache: Path) -> list[Trial]:
    """All ``clips`` in all ways in which they are prepared, each by the detector that lacks its person."""
    found, detector = [], detectors[0]
    for clip in clips:
        ways = {AS_IT_IS: clip} | dict(zip(WAYS, (anew for anew, _ in written_anew(clip))))
        for way, anew in ways.items():
            for embedded in embed_as_strangers(detectors, [anew], cache):
                windows = windows_with_evidence(detector, embedded)
                said = answer(detector.rule, clip, windows, enough_evidence)
                if said.probability is not None:
                    said = replace(said, by=detector.rule.suspicion(windows, fine=True))
                    found.append(Trial(way, quantizer(windows), can_be_judged(windows), said))
    return found


def tabulate(report: Report, found: Sequence[Trial]) -> None:
    """By how coarsely clips are coded, and by how they were written."""
    section = "What is judged: people whom the network of looks lacks, by how coarsely clips are coded"
    report.note(
        section,
        "Clips of training and validation people, as they are and written anew, by three networks of looks that each "
        "lack a third of the people, and the rule as it is served, without its limits: above a QP of "
        f"{FINE_QUANTIZER:.0f} without the look. The sync detector and the rule know these people.",
    )
    known = [one for one in found if one.quantizer > 0]
    for low, high in zip(BANDS, BANDS[1:]):
        _row(report, section, f"QP {low} to {high}", [one for one in known if low <= one.quantizer < high])
    section = "What is judged: people whom the network of looks lacks, by how clips were written"
    for way in dict.fromkeys(one.way for one in found):
        written = [one for one in found if one.way == way]
        _row(report, section, way, written)
        judged = [one.answer for one in written if not one.answer.clip.fake and one.can_be_judged]
        report.add(section, way, "real called fake, within the limit", _share_called_fake(judged))
        report.add(section, way, "highest probability of real within it", _highest(judged))


def _row(report: Report, section: str, row: str, found: Sequence[Trial]) -> None:
    real, made = ([one.answer for one in found if one.answer.clip.fake == fake] for fake in (False, True))
    report.add(section, row, "real called fake", _share_called_fake(real))
    report.add(section, row, "generated called fake", _share_called_fake(made))
    evidence = {"probability": fake_probability} | {
        f"{kind} alone": attrgetter(f"by.{kind}") for kind in ("look", "motion", "colours")
    }
    for name, value in evidence.items():
        sides = (by_identity(side, value) for side in (made, real))
        report.add(section, row, f"AUC of {name}", auc_over_identities(*sides))


def _share_called_fake(found: Iterable[Answer]) -> Figure:
    return mean_over_identities(by_identity(found, lambda one: one.verdict == "fake"))


def _highest(found: Iterable[Answer]) -> Figure:
    long = by_identity((one for one in found if one.evidence_s >= MIN_ACCUSATION_S), fake_probability)
    highest = max((max(of_one) for of_one in long.values()), default=0.0)
    return Figure(highest, highest, highest, len(long))


def written_anew(clip: Clip) -> list[Anew]:
    """As which clips, and how, a clip is written anew, in the order of `WAYS`."""
    return [
        (replace(clip, path=f"limits/{number}/{clip.path}"), steps) for number, steps in enumerate(WAYS.values())
    ]  # fmt: skip


def main() -> None:
    """Judge, and write the figures."""
    parser = argparse.ArgumentParser(description="Find out what can't be judged; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the networks are kept")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, arguments.workers)
    sides = split_clips(list_clips(arguments.data))
    known = [clip for clip in sides["train"] + sides["val"] if clip.corpus not in TOO_COARSE]
    real, made = ([clip for clip in known if clip.fake == fake] for fake in (False, True))
    judged = few_of_each(real, MOST_OF_A_PERSON) + few_of_each(made, 1)
    prepare_anew(arguments.data, arguments.cache, judged, written_anew, SECONDS, arguments.workers)
    report = Report()
    tabulate(report, judge_all(lacking(load_detector(), arguments.run), judged, arguments.cache))
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.save(arguments.out / RESULT)


if __name__ == "__main__":
    main()
