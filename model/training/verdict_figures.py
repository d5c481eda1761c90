"""How well fakes are told from real video: verdicts, generators never seen, calibration, what each detector adds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from model.engine import Detector
from model.training.clips import Clip
from model.training.report import Report
from model.training.scores import (
    ENOUGH_S,
    Answer,
    LeftOut,
    answer,
    answers,
    by_identity,
    called_fake,
    fake_probability,
)
from model.training.statistics import (
    Figure,
    calibration_error_by_chance,
    calibration_error_over_identities,
    share_over_identities,
    stratified_auc_over_identities,
)
from model.training.sync_figures import SHIFT_FRAMES
from model.training.trials import PARTIAL, EmbeddedClip, joined_windows, partial_fakes, swaps, windows_with_evidence

AUC_GOAL, FALSE_ALARM_GOAL, CALIBRATION_GOAL, INCONCLUSIVE_GOAL = 0.95, 0.02, 0.05, 0.05
SIZE_LIMIT_PX = 320
MOST_JOINED = 8

FACTS: Mapping[str, Callable[[Answer], float | None]] = {
    "sync alone": lambda one: one.by and one.by.sync,
    "look of the mouth alone": lambda one: one.by and one.by.look,
    "smoothness of motion alone": lambda one: one.by and one.by.motion,
    "colours alone": lambda one: one.by and one.by.colours,
    "all": fake_probability,
}


def tampered(report: Report, place: str, detector: Detector, clips: Sequence[EmbeddedClip]) -> None:
    """Verdicts for real clips as they are, with other voices, and with their sound late."""
    section, real = f"Verdict: {place}", answers(detector, clips)
    add_verdicts(report, section, "real", real)
    add_verdicts(
        report, section, "real, its sound 200 ms late",
        answers(detector, (clip.with_sound_late_by(SHIFT_FRAMES) for clip in clips)),
    )  # fmt: skip
    for same, row in ((True, "other speech of the same person"), (False, "another person's speech")):
        swapped = answers(detector, swaps(clips, same_identity=same))
        add_verdicts(report, section, row, swapped)
        report.add(section, row, "AUC against real", _auc(swapped, real, fake_probability))


def generated(
    report: Report, left_out: Sequence[LeftOut], seen: Sequence[Answer], real: Sequence[Answer], test: set[str]
) -> None:
    """Verdicts for generated clips of test identities, by method: left out of training, and served.

    ``seen``, ``real``: answers of the served detector to the same generated clips, and to real ones.
    """
    unseen = [one for each in left_out for one in each.answers if one.clip.path in test]
    for section, fakes in (
        ("Verdict: generated video, its generator left out of training", unseen),
        ("Verdict: generated video by known generators of people not trained on", seen),
    ):
        for method, members in _by_method(fakes):
            add_verdicts(report, section, method, members)
    for method, members in _by_method(seen):
        report.add(section, method, "AUC against real", _auc(members, real, fake_probability))


def unseen_generators(report: Report, left_out: Sequence[LeftOut], test: set[str]) -> None:
    """AUC against real video in the wild by detectors that were trained and fitted without the family."""
    section = "Generators left out of training, one family at a time: AUC against real video in the wild"
    columns: dict[str, Callable[[Clip], bool]] = {
        "clips of test identities": lambda clip: clip.path in test,
        "all clips of the family": lambda clip: True,
    }
    for column, chosen in columns.items():
        overall = stratified_auc_over_identities([each.against_real(fake_probability, chosen) for each in left_out])
        report.add(section, "all", column, overall)
        report.target(f"Fakes of generators left out of training, AUC, {column}", overall, AUC_GOAL)
    for each in left_out:
        figures = _aucs(each, columns)
        for column, figure in figures.items():
            report.add(section, f"family {each.family}", column, figure)
        report.target(f"The same, family {each.family}, all its clips", figures["all clips of the family"], AUC_GOAL)
    for each in left_out:
        for method in sorted({one.clip.corpus for one in each.answers}):
            for column, figure in _aucs(each, columns, method).items():
                report.add(section, f"method {method}", column, figure)


def false_alarms(report: Report, real: Mapping[str, Sequence[Answer]]) -> None:
    """By place: real video called fake; of "all": answered "inconclusive" in spite of enough evidence."""
    for place, found in real.items():
        accused = _share(found, called_fake)
        report.target(f"Real video called fake: {place}", accused, FALSE_ALARM_GOAL, at_most=True)
    enough = [one for one in real["all"] if one.evidence_s >= ENOUGH_S]
    unsure = _share(enough, lambda one: one.verdict == "inconclusive")
    title = f"Real video with {ENOUGH_S:g} s of speech with the mouth in view answered inconclusive"
    report.target(title, unsure, INCONCLUSIVE_GOAL, at_most=True)


def joined(report: Report, detector: Detector, people: Mapping[str, Sequence[EmbeddedClip]]) -> None:
    """Verdicts for real people of whom there are many clips that are too short alone, joined."""
    section = "Verdict: news anchors, clips of a second each joined by person"
    report.note(
        section,
        f"Up to {MOST_JOINED} clips of a person, in Arabic. The sync detector was trained on these people; the network "
        "of looks was not, and no number of the rule is fitted on them. Who is who is known roughly.",
    )
    found = [answer(detector.rule, clips[0].clip, joined_windows(detector, clips)) for clips in people.values()]
    add_verdicts(report, section, "real", found)
    long = [one for one in found if one.probability is not None and one.evidence_s >= ENOUGH_S]
    row = f"real, with {ENOUGH_S:g} s that can be judged"
    report.add(section, row, "called fake", _share(long, called_fake))
    report.add(section, row, "not called real", _share(long, lambda one: one.verdict != "real"))


def calibration(report: Report, fakes: Mapping[str, Sequence[float]], real: Mapping[str, Sequence[float]]) -> None:
    """Expected calibration error of the fake probability at even odds."""
    figure = calibration_error_over_identities(fakes, real)
    title = "Calibration error of the fake probability at even odds (generated, left out of training, and real)"
    report.target(title, figure, CALIBRATION_GOAL, at_most=True)
    report.add("Calibration", "as measured", "calibration error", figure)
    chance = calibration_error_by_chance(fakes, real)
    report.add("Calibration", "were every probability true, by chance", "calibration error", chance)


def ablation(report: Report, detector: Detector, clips: Sequence[EmbeddedClip], left_out: Sequence[LeftOut]) -> None:
    """AUC by what is looked at. ``clips``: real ones in the wild, also swapped with the same person's speech."""
    section = "What each kind of evidence adds, AUC against real video in the wild"
    swapped, real = answers(detector, swaps(clips, same_identity=True)), answers(detector, clips)
    for row, value in FACTS.items():
        unseen = stratified_auc_over_identities([each.against_real(value) for each in left_out])
        report.add(section, row, "generated, its generator left out of training", unseen)
        report.add(section, row, "other speech of the same person", _auc(swapped, real, value))


def cut_in(report: Report, detector: Detector, real: Sequence[EmbeddedClip], made: Sequence[EmbeddedClip]) -> None:
    """Real clips of 5 s or more with 2 s of a generated one in the middle, and with 2 s of another real one."""
    others = [*real[len(real) // 2 :], *real[: len(real) // 2]]
    for row, inserted in (("2 s of a generated clip cut in", _interleaved(made)), ("2 s of another real one", others)):
        fakes = list(partial_fakes(real, inserted))
        paths = {fake.clip.path for fake in fakes}
        untouched = [clip for clip in real if clip.clip.path in paths]
        partly_fake(report, "Video that is fake for 2 s: another clip cut in", row, detector, fakes, untouched)


def partly_fake(
    report: Report,
    section: str,
    row: str,
    detector: Detector,
    fakes: Sequence[EmbeddedClip],
    untouched: Sequence[EmbeddedClip],
) -> None:
    """Clips whose middle 2 s are not theirs, the same as they were, and whether windows point at what was changed."""
    found, point, by_chance = [], [], []
    for clip in fakes:
        windows = windows_with_evidence(detector, clip)
        found.append(answer(detector.rule, clip.clip, windows))
        if windows:
            start = (len(clip.video) - PARTIAL) // 2
            inside = [w.start < start + PARTIAL and w.end > start for w in windows]
            worst = int(np.argmax(detector.rule.window_probabilities(windows)))
            point.append((clip.clip.identity, inside[worst]))
            by_chance.append((clip.clip.identity, float(np.mean(inside))))
    whole = answers(detector, untouched)
    add_verdicts(report, section, row, found)
    add_verdicts(report, section, f"{row}: the same clips, untouched", whole)
    report.add(section, row, "AUC against real", _auc(found, whole, fake_probability))
    report.add(section, row, "most suspicious window overlaps it", _mean(point))
    report.add(section, row, "any window overlaps it", _mean(by_chance))


def matched_by_size(report: Report, left_out: Sequence[LeftOut], height_px: Mapping[str, int]) -> None:
    """AUC among files of like height, so that size can't be what answers. ``height_px``: by path."""
    section = "Fake probability among files of like height, AUC"
    sizes: dict[str, Callable[[Clip], bool]] = {
        f"height up to {SIZE_LIMIT_PX} pixels": lambda clip: height_px[clip.path] <= SIZE_LIMIT_PX,
        f"height above {SIZE_LIMIT_PX} pixels": lambda clip: height_px[clip.path] > SIZE_LIMIT_PX,
    }
    for row, chosen in sizes.items():
        figure = stratified_auc_over_identities(
            [each.against_real(fake_probability, chosen, chosen) for each in left_out]
        )
        report.add(section, row, "generated, its generator left out of training, against real in the wild", figure)


def add_verdicts(report: Report, section: str, row: str, found: Sequence[Answer]) -> None:
    """Shares of what was answered."""
    columns: dict[str, Callable[[Answer], bool]] = {
        "called fake": called_fake,
        "called real": lambda one: one.verdict == "real",
        "inconclusive": lambda one: one.verdict == "inconclusive" and one.probability is not None,
        "too little evidence": lambda one: one.probability is None,
    }
    for column, is_so in columns.items():
        report.add(section, row, column, _share(found, is_so))


def _share(found: Iterable[Answer], is_so: Callable[[Answer], bool]) -> Figure:
    return share_over_identities(by_identity(found, is_so))


def _aucs(each: LeftOut, columns: Mapping[str, Callable[[Clip], bool]], method: str | None = None) -> dict[str, Figure]:
    """By column; ``method``: of its clips alone."""

    def sides(chosen: Callable[[Clip], bool]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        return each.against_real(fake_probability, lambda clip: chosen(clip) and method in (None, clip.corpus))

    return {column: stratified_auc_over_identities([sides(chosen)]) for column, chosen in columns.items()}


def _auc(fakes: Iterable[Answer], real: Iterable[Answer], value: Callable[[Answer], float | None]) -> Figure:
    return stratified_auc_over_identities([(by_identity(fakes, value), by_identity(real, value))])


def _mean(items: Iterable[tuple[str, float]]) -> Figure:
    grouped: dict[str, list[float]] = {}
    for identity, value in items:
        grouped.setdefault(identity, []).append(value)
    return share_over_identities(grouped)


def _by_method(found: Sequence[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    yield "all", list(found)
    for method in sorted({one.clip.corpus for one in found}):
        yield method, [one for one in found if one.clip.corpus == method]


def _interleaved(clips: Sequence[EmbeddedClip]) -> list[EmbeddedClip]:
    """In turn one clip of each method."""
    methods = sorted({clip.clip.corpus for clip in clips})
    ranked = [
        (rank, clip)
        for method in methods
        for rank, clip in enumerate(clip for clip in clips if clip.clip.corpus == method)
    ]
    return [clip for _, clip in sorted(ranked, key=lambda pair: pair[0])]
