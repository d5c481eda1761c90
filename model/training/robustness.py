"""What re-encoding, shrinking, noise and other frame rates cost: test clips written anew, judged as the service does.

Run: ``python -m model.training.robustness --data DIR``. Writes ``robustness.json`` into ``--out``, where
`model.training.evaluate` finds it. Real and generated clips are written alike; generated ones are judged by the
detector that was trained without their family.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import torch

from model.engine import WEIGHTS, Detector, load_detector
from model.pipeline import analyze
from model.results import Verdict
from model.training.clips import FAMILIES, STUDIO, Clip, family_of, list_clips, split_clips
from model.training.reencode import ALIKE, Encoding, reencode_in_turn
from model.training.report import Report
from model.training.sounds import by_telephone, in_a_room, with_music, with_noise, with_voices
from model.training.statistics import (
    Figure,
    auc_loss_over_identities,
    auc_over_identities,
    share_over_identities,
)
from model.training.trials import few_of_each
from model.training.uploads import EDITS

SECONDS = 5.0
CLIPS_PER_SIDE, CLIPS_PER_IDENTITY = 30, 1
SAME_OFFSET_MS = 40
AUC_LOSS_GOAL, FALSE_ALARM_GOAL = 0.03, 0.03
RESULT = "robustness.json"

BASELINE = "written anew, CRF 18"
CONDITIONS: Mapping[str, tuple[Encoding, ...]] = {
    BASELINE: (Encoding(),),
    "H.264, CRF 23": (Encoding(crf=23),),
    "H.264, CRF 32": (Encoding(crf=32),),
    "H.264, CRF 40": (Encoding(crf=40),),
    "240 lines": (Encoding(height=240),),
    "enlarged by half": (Encoding(enlarged=1.5),),
    "enlarged twice": EDITS["enlarged twice"],
    "more contrast and colour": EDITS["more contrast and colour"],
    "noise taken away": (Encoding(filters="atadenoise=0a=0.04:0b=0.08:1a=0.04:1b=0.08:2a=0.04:2b=0.08:s=5"),),
    "skin smoothed": EDITS["skin smoothed"],
    "held steady": (Encoding(filters="deshake"),),
    "each picture mixed with the one before": EDITS["each picture mixed with the one before"],
    "AAC, 16 kb/s": (Encoding(audio_kbps=16),),
    "white noise, 10 dB below": (Encoding(sound=partial(with_noise, snr_db=10.0)),),
    "music, 5 dB below": (Encoding(sound=partial(with_music, snr_db=5.0)),),
    "other voices, 5 dB below": (Encoding(sound=partial(with_voices, snr_db=5.0)),),
    "in a room": (Encoding(sound=in_a_room),),
    "by telephone": (Encoding(sound=by_telephone),),
    "10 fps": (Encoding(fps=Fraction(10)),),
    "10 pictures a second, held, at 25 fps": (Encoding(filters="fps=10,fps=25"),),
    "15 fps": (Encoding(fps=Fraction(15)),),
    "24 fps": (Encoding(fps=Fraction(24)),),
    "29.97 fps": (Encoding(fps=Fraction(30_000, 1001)),),
    "50 fps": (Encoding(fps=Fraction(50)),),
    "60 fps": (Encoding(fps=Fraction(60)),),
    "uploaded twice: 480 lines, CRF 28, 64 kb/s; then 360 lines, CRF 32, 48 kb/s": (
        Encoding(crf=28, height=480),
        Encoding(crf=32, height=360, audio_kbps=48),
    ),
    "alike: in 256 x 256 pixels, 25 fps, CRF 23": (ALIKE,),
    "HEVC, CRF 28": (Encoding("libx265", crf=28),),
    "HEVC, CRF 33": (Encoding("libx265", crf=33),),
    "VP9, CRF 38": (Encoding("libvpx-vp9", crf=38),),
    "VP9, CRF 54": (Encoding("libvpx-vp9", crf=54),),
    "AV1, CRF 30": (Encoding("libsvtav1", crf=30),),
    "AV1, CRF 50": (Encoding("libsvtav1", crf=50),),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the service would answer for one clip under one condition."""

    clip: Clip
    condition: str
    probability: float | None
    verdict: Verdict
    offset_ms: int | None


def chosen_clips(clips: Iterable[Clip]) -> list[Clip]:
    """Real clips in the wild and of GRID, and as many generated ones of known families; one or two of a person."""
    clips = list(clips)
    real = [c for c in clips if not c.fake and (c.corpus not in STUDIO or c.corpus == "grid")]
    made = [c for c in clips if c.fake and family_of(c) in FAMILIES]
    return [clip for side in (real, made) for clip in few_of_each(side, CLIPS_PER_IDENTITY)[:CLIPS_PER_SIDE]]


def judge(folder: Path, weights: Path, clip: Clip) -> list[Outcome]:
    """The clip under every condition."""
    detector = _detector(weights, family_of(clip) if clip.fake else None)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for condition, steps in CONDITIONS.items():
            found = analyze(reencode_in_turn(folder / clip.path, Path(scratch), steps, SECONDS), detector)
            outcomes.append(Outcome(clip, condition, found.fake_probability, found.verdict, found.sync.offset_ms))
    return outcomes


def tabulate(report: Report, outcomes: Sequence[Outcome]) -> None:
    """Figures by condition, and the worst of them as targets."""
    section = f"Robustness: the first {SECONDS:g} s written anew, judged by the whole service"
    report.note(
        section,
        "Generated clips by the detector that never saw their family, real ones by the served one. *AUC lost*: of the "
        f'clips that can be judged both ways, against "{BASELINE}".',
    )
    before = {o.clip.path: o for o in outcomes if o.condition == BASELINE and o.probability is not None}
    losses, false_alarms = [], []
    for condition in CONDITIONS:
        after = [o for o in outcomes if o.condition == condition]
        real = [o for o in after if not o.clip.fake]
        both = [o for o in after if o.probability is not None and o.clip.path in before]
        losses.append(auc_loss_over_identities(_sides(before[o.clip.path] for o in both), _sides(both)))
        false_alarms.append(_share(real, lambda o: o.verdict == "fake"))
        same = _share(both, lambda o: abs(o.offset_ms - before[o.clip.path].offset_ms) <= SAME_OFFSET_MS)
        report.add(section, condition, "AUC", auc_over_identities(*_sides(after)))
        report.add(section, condition, "AUC lost", losses[-1])
        report.add(section, condition, "real called fake", false_alarms[-1])
        report.add(section, condition, "too little evidence", _share(after, lambda o: o.probability is None))
        report.add(section, condition, "same offset within one frame", same)
    for title, figures, goal in (
        ("AUC lost", losses, AUC_LOSS_GOAL),
        ("real called fake", false_alarms, FALSE_ALARM_GOAL),
    ):
        known = {condition: figure for condition, figure in zip(CONDITIONS, figures) if figure.identities}
        worst = max(known, key=lambda condition: known[condition].value)
        name = f"Robustness, {title}, worst of {len(known)} ways to write anew of which any can be judged ({worst})"
        report.target(name, known[worst], goal, at_most=True)


def measure(folder: Path, clips: Sequence[Clip], weights: Path, workers: int) -> list[Outcome]:
    """Judge ``clips`` under every condition, in processes of one thread each; prints progress."""
    outcomes: list[Outcome] = []
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        for done, found in enumerate(pool.imap_unordered(partial(judge, folder, weights), clips), 1):
            outcomes += found
            print(f"judged {done} of {len(clips)} clips, {len(CONDITIONS)} times each", flush=True)
    return sorted(outcomes, key=lambda o: o.clip.path)


@cache
def _detector(weights: Path, left_out: str | None) -> Detector:
    return load_detector(weights=weights, left_out=left_out)


def _sides(outcomes: Iterable[Outcome]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    known = [o for o in outcomes if o.probability is not None]
    fakes, real = ([o for o in known if o.clip.fake == fake] for fake in (True, False))
    return _by_identity(fakes, lambda o: o.probability), _by_identity(real, lambda o: o.probability)


def _share(outcomes: Iterable[Outcome], is_so: Callable[[Outcome], bool]) -> Figure:
    return share_over_identities(_by_identity(outcomes, is_so))


def _by_identity(outcomes: Iterable[Outcome], value: Callable[[Outcome], float]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for one in outcomes:
        grouped.setdefault(one.clip.identity, []).append(value(one))
    return grouped


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what re-encoding costs.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    test = chosen_clips(split_clips(list_clips(arguments.data))["test"])
    found = Report()
    tabulate(found, measure(arguments.data, test, arguments.weights, arguments.workers))
    arguments.out.mkdir(parents=True, exist_ok=True)
    found.save(arguments.out / RESULT)
