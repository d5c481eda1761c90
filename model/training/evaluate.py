"""Measure both detectors and the verdict on people never trained on, and write it down.

Run: ``python -m model.training.evaluate --data DIR``. Prints the figures, writes them with their plots to ``--out``,
and puts them into the model card. What `model.training.in_part`, `model.training.robustness` and
`model.training.limits` left in ``--out`` is put in as well.
"""

import argparse
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from model.detector import LipSyncDetector
from model.engine import WEIGHTS, Detector, load_detector
from model.media import MediaFile
from model.seed_detector import SeedLipSyncDetector
from model.training import in_part, limits, robustness, sync_figures, verdict_figures
from model.training.clips import NEVER_TRAIN, STUDIO, TRAIN_ONLY, Clip, Split, list_clips, split_clips
from model.training.plots import plot_offsets, plot_reliability, plot_roc, plot_scores
from model.training.prepare import load_prepared, prepare
from model.training.probes import probes
from model.training.report import Report, load_report, refresh_card
from model.training.scores import Answer, LeftOut, answer, answers, by_identity, fake_probability, left_out_answers
from model.training.statistics import even_odds
from model.training.sync_figures import OffsetTrial
from model.training.trials import EmbeddedClip, few_of_each, load_embedded, windows_with_evidence
from model.verdict import frames_to_ms
from model.weights import load_weights

WILD, UNKNOWN, GRID, TCD = "in the wild", "corpora never trained on", "GRID", "TCD-TIMIT (its sound is early)"
PLACES: dict[str, Callable[[Clip], bool]] = {
    WILD: lambda clip: clip.corpus not in STUDIO,
    UNKNOWN: lambda clip: clip.corpus in NEVER_TRAIN,
    GRID: lambda clip: clip.corpus == "grid",
    TCD: lambda clip: clip.corpus == "tcd_timit",
}
PLOTS = "plots"


@dataclass(frozen=True, slots=True)
class Material:
    """What is measured: clips as the ``served`` detector knows them, and its ``answers`` for the real ones.

    ``real``: of test identities. ``generated``: all there are. ``left_out``: the generated ones, family by family, by
    what never saw the family, with the real ones in the wild. ``test``: paths of clips of test identities.
    """

    served: Detector
    real: list[EmbeddedClip]
    answers: list[Answer]
    generated: list[EmbeddedClip]
    left_out: list[LeftOut]
    test: set[str]

    def real_in(self, place: str) -> list[EmbeddedClip]:
        """The real clips of one of `PLACES`."""
        return [clip for clip in self.real if PLACES[place](clip.clip)]

    def answers_in(self, place: str) -> list[Answer]:
        """The answers for them."""
        return [one for one in self.answers if PLACES[place](one.clip)]

    def unseen_generated(self) -> list[EmbeddedClip]:
        """Generated clips of test identities, judged by a rule that never saw the family."""
        return [clip for each in self.left_out for clip in each.generated if clip.clip.path in self.test]

    def calibrated(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Probabilities of the served rule by identity, for `unseen_generated` and for real clips."""
        rule = self.served.rule
        made = [answer(rule, clip.clip, windows_with_evidence(self.served, clip)) for clip in self.unseen_generated()]
        return by_identity(made, fake_probability), by_identity(self.answers, fake_probability)


def gather(split: dict[Split, list[Clip]], cache: Path, weights: Path) -> Material:
    """Embed every clip that the verdict is measured on."""
    served = load_detector(weights=weights)
    real = load_embedded(served, [clip for clip in split["test"] if not clip.fake], cache)
    generated = load_embedded(served, [clip for side in split.values() for clip in side if clip.fake], cache)
    wild = [clip for clip in real if PLACES[WILD](clip.clip)]
    left_out = left_out_answers(wild, generated, weights)
    return Material(served, real, answers(served, real), generated, left_out, {clip.path for clip in split["test"]})


def accuracy_figures(report: Report, detectors: Sequence[nn.Module], real: Sequence[Clip], cache: Path) -> None:
    """Figures of the networks by themselves, from crops and sound."""
    prepared = load_prepared(real, cache)
    places = {place: [clip for clip in prepared if is_there(clip.clip)] for place, is_there in PLACES.items()}
    sync_figures.sync_accuracy(report, detectors, places, goals=(UNKNOWN, GRID))
    sync_figures.logits(report, detectors, {place: places[place] for place in (WILD, GRID)})


def service_figures(report: Report, material: Material, trials: Sequence[OffsetTrial]) -> None:
    """Figures of what the service makes of them: offsets, verdicts, probabilities."""
    served, wild = material.served, material.real_in(WILD)
    sync_figures.judged_accuracy(report, served, {place: material.real_in(place) for place in PLACES})
    by_place = {place: [trial for trial in trials if is_there(trial.clip)] for place, is_there in PLACES.items()}
    sync_figures.constant_offsets(report, {"all": trials} | by_place)
    voices = {place: material.real_in(place) for place in (WILD, GRID)}
    sync_figures.other_voices(report, served, {"together": [c for clips in voices.values() for c in clips]} | voices)
    verdict_figures.unseen_generators(report, material.left_out, material.test)
    real = {place: material.answers_in(place) for place in (UNKNOWN, WILD, GRID)}
    verdict_figures.false_alarms(report, {"all": material.answers} | real)
    verdict_figures.calibration(report, *material.calibrated())
    verdict_figures.ablation(report, served, wild, material.left_out)
    seen = answers(served, [clip for clip in material.generated if clip.clip.path in material.test])
    verdict_figures.generated(report, material.left_out, seen, real[WILD], material.test)
    for place in (WILD, GRID):
        verdict_figures.tampered(report, place, served, material.real_in(place))
    verdict_figures.cut_in(report, served, material.real, material.unseen_generated())


def anchors(detector: Detector, clips: Iterable[Clip], cache: Path) -> dict[str, list[EmbeddedClip]]:
    """By person, some clips of corpora of which only the sync detector was trained on everybody."""
    found: dict[str, list[EmbeddedClip]] = defaultdict(list)
    of_them = [clip for clip in clips if clip.corpus in TRAIN_ONLY]
    for one in load_embedded(detector, few_of_each(of_them, verdict_figures.MOST_JOINED), cache):
        found[one.clip.identity].append(one)
    return found


def draw(report: Report, material: Material, trials: Sequence[OffsetTrial], folder: Path) -> None:
    """Plots, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = {each.family: tuple(map(_flat, each.against_real(fake_probability))) for each in material.left_out}
    plot_roc(curves, folder / "roc.png")
    plot_reliability(*even_odds(*material.calibrated()), folder / "reliability.png")
    offsets = {p: [frames_to_ms(t.found) for t in trials if PLACES[p](t.clip)] for p in (WILD, GRID, TCD)}
    plot_offsets(offsets, folder / "offsets.png")
    scores = {f"real, {p}": _flat(by_identity(material.answers_in(p), fake_probability)) for p in (WILD, GRID, TCD)}
    for one in (one for each in material.left_out for one in each.answers if one.probability is not None):
        scores.setdefault(one.clip.corpus, []).append(one.probability)
    plot_scores(scores, (material.served.rule.real_below, material.served.rule.fake_above), folder / "scores.png")
    for title, name in (
        ("ROC by family of generators, each left out of training", "roc"),
        ("Reliability of the fake probability", "reliability"),
        ("Constant offsets of real video", "offsets"),
        ("Fake probability by method, its family left out of training", "scores"),
    ):
        report.picture(title, f"{folder.name}/{name}.png")


def load_both(weights: Path) -> list[nn.Module]:
    """Both sync detectors: the default, then the baseline."""
    both: list[nn.Module] = [LipSyncDetector(), SeedLipSyncDetector()]
    for network, name in zip(both, ("lipsync", "seed")):
        load_weights(network, weights / f"{name}.safetensors")
    return [network.eval() for network in both]


def heights_px(folder: Path, clips: Iterable[Clip]) -> dict[str, int]:
    """Height of the upright picture, by path."""
    return {clip.path: MediaFile(folder / clip.path).info.height for clip in clips}


def evaluate(data: Path, cache: Path, out: Path, weights: Path) -> Report:
    """All figures; plots go into ``out``, and what other measurements left there is put in."""
    split = split_clips(list_clips(data))
    report = Report()
    accuracy_figures(report, load_both(weights), [clip for clip in split["test"] if not clip.fake], cache)
    material = gather(split, cache, weights)
    trials = sync_figures.offset_trials(material.served, material.real)
    service_figures(report, material, trials)
    verdict_figures.joined(report, material.served, anchors(material.served, split["train"], cache))
    draw(report, material, trials, out / PLOTS)
    judged = [one.clip for each in material.left_out for one in (*each.answers, *each.real)]
    verdict_figures.matched_by_size(report, material.left_out, heights_px(data, dict.fromkeys(judged)))
    probes(report, data, split)
    for measured_before in (out / in_part.RESULT, out / robustness.RESULT, out / limits.RESULT):
        if measured_before.exists():
            report.merge(load_report(measured_before))
    return report


def _flat(scores: Mapping[str, Sequence[float]]) -> list[float]:
    return [score for of_one in scores.values() for score in of_one]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the weights.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of weights with the model card")
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    measured = evaluate(arguments.data, arguments.cache, arguments.out, arguments.weights)
    measured.save(arguments.out / "report.json")
    (arguments.out / "report.md").write_text(measured.as_markdown())
    shutil.copytree(arguments.out / PLOTS, arguments.weights / PLOTS, dirs_exist_ok=True)
    refresh_card(arguments.weights / "MODEL_CARD.md", measured.as_markdown())
