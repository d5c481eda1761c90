"""What can't be judged, found on people that the network of looks lacks.

How far false accusations go can't be seen on the people that a network was chosen on. So three networks are trained
like the one that is served, each without a third of all people of training and validation, and every clip is judged by
the one that lacks its person, by the served rule without regard to its limits; as it is, and written anew in ways that
cost detail. `model.verdict.FINE_QUANTIZER`, `MAX_QUANTIZER` and `MOST_UNUSUAL` there rest on the figures.
Run: ``python -m model.training.limits --data DIR --generator FILE``. Interrupt and resume at will. Writes
``limits.json`` into ``--out``, where `model.training.evaluate` finds it.
"""

import argparse
import hashlib
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from model.engine import Detector, load_detector
from model.temporal import TemporalDetector
from model.training.clips import NEVER_TRAIN, Clip, list_clips, split_clips
from model.training.prepare import prepare
from model.training.report import Report
from model.training.robustness import CONDITIONS, SECONDS
from model.training.scores import Answer, answer, by_identity, called_fake, fake_probability
from model.training.statistics import Figure, auc_over_identities, share_over_identities
from model.training.train import Run
from model.training.train_temporal import MINUTES, TOO_COARSE, mean_of, members_of, new_run, render_clips, train_members
from model.training.trials import few_of_each, load_embedded, windows_with_evidence
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


def third_of(clip: Clip) -> int:
    """Which network lacks the person, 0 to 2."""
    return hashlib.sha256(clip.identity.encode()).digest()[0] % THIRDS


def train_without(third: int, people: Sequence[Clip], cache: Path, run: Path, generator: Path, minutes: float) -> None:
    """Train the network that lacks a third of ``people``; its checkpoints stay in ``run``, and are gone on with."""
    torch.set_num_threads(1)
    checkpoints = _checkpoints(run, third)
    if all(checkpoint.exists() and _restored(checkpoint).minutes >= minutes for checkpoint in checkpoints):
        return
    real = render_clips([clip for clip in people if third_of(clip) != third], cache, run, generator)
    train_members(real, minutes, checkpoints, {})


def load_without(third: int, run: Path) -> TemporalDetector:
    """The network that `train_without` left. Raises FileNotFoundError."""
    return mean_of([_restored(checkpoint).averaged.module for checkpoint in _checkpoints(run, third)])


def with_look_of(detector: Detector, network: TemporalDetector) -> Detector:
    """The same detector, but ``network`` says how rendered mouths look."""

    def run(kind: str, items: np.ndarray) -> np.ndarray:
        if kind != "sequences":
            return detector.run(kind, items)
        with torch.inference_mode():
            return network(torch.from_numpy(items)).numpy()

    return Detector(detector.info, detector.rule, detector.scale, run)


def judge_all(detectors: Sequence[Detector], clips: Iterable[Clip], cache: Path) -> list[Trial]:
    """All ``clips`` in all ways in which they are prepared, each by the detector that lacks its person."""
    found = []
    for clip in clips:
        detector = detectors[third_of(clip)]
        ways = {AS_IT_IS: clip} | dict(zip(WAYS, (anew for anew, _ in written_anew(clip))))
        for way, anew in ways.items():
            for embedded in load_embedded(detector, [anew], cache):
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
    return share_over_identities(by_identity(found, called_fake))


def _highest(found: Iterable[Answer]) -> Figure:
    long = by_identity((one for one in found if one.evidence_s >= MIN_ACCUSATION_S), fake_probability)
    highest = max((max(of_one) for of_one in long.values()), default=0.0)
    return Figure(highest, highest, highest, len(long))


def written_anew(clip: Clip) -> list[Anew]:
    """As which clips, and how, a clip is written anew, in the order of `WAYS`."""
    return [
        (replace(clip, path=f"limits/{number}/{clip.path}"), steps) for number, steps in enumerate(WAYS.values())
    ]  # fmt: skip


def _restored(checkpoint: Path) -> Run:
    training = new_run(torch.device("cpu"))
    training.restore(checkpoint)
    return training


def _checkpoints(run: Path, third: int) -> list[Path]:
    return members_of(run / f"temporal_without_{third}.pt")


def main() -> None:
    """Train what is not trained yet, judge, and write the figures."""
    parser = argparse.ArgumentParser(description="Find out what can't be judged; run again to resume.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where checkpoints are kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="wall time for each network")
    parser.add_argument("--generator", type=Path, required=True, help="weights of the generator of mouths")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, arguments.workers)
    sides = split_clips(list_clips(arguments.data))
    known = [clip for clip in sides["train"] + sides["val"] if clip.corpus not in TOO_COARSE]
    real, made = ([clip for clip in known if clip.fake == fake] for fake in (False, True))
    people = [clip for clip in real if clip.corpus not in NEVER_TRAIN]
    work = partial(
        train_without, people=people, cache=arguments.cache, run=arguments.run, generator=arguments.generator,
        minutes=arguments.minutes,
    )  # fmt: skip
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        pool.map(work, range(THIRDS), chunksize=1)
    judged = few_of_each(real, MOST_OF_A_PERSON) + few_of_each(made, 1)
    prepare_anew(arguments.data, arguments.cache, judged, written_anew, SECONDS, arguments.workers)
    served = load_detector()
    detectors = [with_look_of(served, load_without(third, arguments.run)) for third in range(THIRDS)]
    report = Report()
    tabulate(report, judge_all(detectors, judged, arguments.cache))
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.save(arguments.out / RESULT)


if __name__ == "__main__":
    main()
