"""Measure both detectors and the verdict on people never trained on, and write it down.

Run: ``python -m model.training.evaluate --data DIR``. Prints the tables, writes them as JSON and Markdown
to ``--out``, and puts them into the model card, so that nobody types a figure by hand.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.detector import LipSyncDetector
from model.engine import WEIGHTS, Detector, load_detector
from model.media import GRID_FPS, SAMPLES_PER_FRAME
from model.seed_detector import SeedLipSyncDetector
from model.training.accuracy import WINDOW_FRAMES, Context, mouths_of, sound_of, window_offsets, window_starts
from model.training.clips import NEVER_TRAIN, STUDIO, list_clips, split_clips
from model.training.prepare import PreparedClip, load_prepared, prepare
from model.training.statistics import Figure, auc_over_identities, mean_over_identities
from model.training.trials import EmbeddedClip, embed, face_evidence, segments, swaps, windows_with_evidence
from model.verdict import MIN_EVIDENCE_S, evidence_s
from model.weights import load_weights

WINDOWS_PER_CLIP, STRICT_WINDOWS_PER_CLIP, TAMPERED_WINDOWS_PER_CLIP = 60, 2, 4
SHIFT_FRAMES = 5
PEERS = (
    ("IC-SyncNet, LRS2 / LRS3, 5 frames (hundreds of hours of training)", "96.5 % / 93.8 %"),
    ("ModEFormer, UniSync, LRS2", "94.5 %, 94.3 %"),
    ("StableSyncNet (LatentSync), HDTF", "91 to 94 %"),
    ("LR-ASD swept over offsets, GRID s1, 75 frames, relative to its own bias", "87.5 %"),
    ("Lip opening x loudness, GRID s1, 75 frames", "62.5 %"),
    ("LR-ASD, 200 ms shift told from none, GRID s1, balanced accuracy", "95 %"),
    ("LR-ASD, other audio of the same speaker, GRID s1, AUC", "0.60"),
    ("Lip opening x loudness, other audio of the same speaker, GRID s1, AUC", "0.74"),
)
CARD_BEGIN, CARD_END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(slots=True)
class Report:
    """Rows of figures under headings."""

    sections: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, section: str, row: str, column: str, figure: Figure) -> None:
        """Note and print one figure."""
        self.sections[section].setdefault(row, {})[column] = figure
        print(f"{section} | {row} | {column}: {_text(figure)}", flush=True)

    def as_json(self) -> str:
        """All figures."""
        return json.dumps(self.sections, default=asdict, indent=1)

    def as_markdown(self) -> str:
        """All figures as tables."""
        parts = []
        for section, rows in self.sections.items():
            columns = list(dict.fromkeys(column for row in rows.values() for column in row))
            parts += [f"### {section}", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
            for row, figures in rows.items():
                cells = [_text(figures[column]) if column in figures else "" for column in columns]
                parts.append(f"| {row} | " + " | ".join(cells) + " |")
            parts.append("")
        parts += ["### Peers, as published or measured on other material", "", "| | |", "|---|---|"]
        return "\n".join(parts + [f"| {name} | {figure} |" for name, figure in PEERS]) + "\n"


def _text(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}, n={figure.identities})"


def evaluate(
    detectors: dict[str, nn.Module], served: Detector, real: list[PreparedClip], made: list[PreparedClip]
) -> Report:
    """All figures, for test clips of real people and generated ones."""
    report = Report()
    places = {
        "in the wild": [c for c in real if c.clip.corpus not in STUDIO],
        "in the wild, corpora never trained on": [
            c for c in real if c.clip.corpus in NEVER_TRAIN and c.clip.corpus not in STUDIO
        ],
        "GRID": [c for c in real if c.clip.corpus == "grid"],
        "TCD-TIMIT (its sound is early)": [c for c in real if c.clip.corpus == "tcd_timit"],
    }
    embedded = {clip.clip.path: embed(served, clip) for clip in real + made}
    for place, clips in places.items():
        for name, detector in detectors.items():
            _sync_accuracy(report, place, name, detector, clips)
        _offset_error(report, place, served, [embedded[c.clip.path] for c in clips])
    for place in ("in the wild", "GRID"):
        for name, detector in detectors.items():
            _tampering(report, place, name, detector, places[place])
        _verdicts(report, place, served, [embedded[c.clip.path] for c in places[place]])
    _generated(
        report, served, [embedded[c.clip.path] for c in places["in the wild"]], [embedded[c.clip.path] for c in made]
    )
    return report


def _by_identity(items: Iterable[tuple[str, Sequence[float]]]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = defaultdict(list)
    for identity, values in items:
        grouped[identity].extend(values)
    return grouped


def _sync_accuracy(report: Report, place: str, name: str, detector: nn.Module, clips: Sequence[PreparedClip]) -> None:
    contexts: tuple[Context, ...] = ("shared", "strict") if isinstance(detector, LipSyncDetector) else ("strict",)
    for context in contexts:
        count = WINDOWS_PER_CLIP if context == "shared" else STRICT_WINDOWS_PER_CLIP
        found = [(clip, window_offsets(detector, clip, count, context)) for clip in clips]
        for frames in WINDOW_FRAMES:
            right = _by_identity((c.clip.identity, np.abs(o[frames]) <= 1) for c, o in found)
            row = f"{name}, {context} context"
            report.add(f"Sync accuracy within +-1 frame: {place}", row, f"{frames} frames", mean_over_identities(right))
            if context == "shared":
                own = [(c, o, round(float(np.median(o[25])))) for c, o in found if len(o[25])]
                right = _by_identity((c.clip.identity, np.abs(o[frames] - at) <= 1) for c, o, at in own)
                row = f"{name}, relative to the clip's own offset"
                report.add(
                    f"Sync accuracy within +-1 frame: {place}", row, f"{frames} frames", mean_over_identities(right)
                )


def _offset_error(report: Report, place: str, served: Detector, clips: Sequence[EmbeddedClip]) -> None:
    section, error, moved = "Constant offset of 3 s", [], []
    for clip in clips:
        for part in segments(clip):
            offset = face_evidence(served, part).offset
            shifted = face_evidence(served, part.with_sound_late_by(SHIFT_FRAMES)).offset
            error.append((clip.clip.identity, [abs(offset) * 1000 / GRID_FPS]))
            moved.append((clip.clip.identity, [abs(shifted - offset - SHIFT_FRAMES) <= 1]))
    report.add(section, place, "mean absolute offset, ms", mean_over_identities(_by_identity(error)))
    report.add(section, place, "200 ms put there found within one frame", mean_over_identities(_by_identity(moved)))


def _tampering(report: Report, place: str, name: str, detector: nn.Module, clips: Sequence[PreparedClip]) -> None:
    section = f"True sound told from tampered, 1 s windows, by the detector's logits alone, AUC: {place}"
    score = partial(_logit_scores, detector)
    true = score(clips, lambda clip, start: (clip, start))
    shifted = score(clips, lambda clip, start: (clip, start + SHIFT_FRAMES))
    report.add(section, name, "shifted by 200 ms", auc_over_identities(true, shifted))
    for same, column in ((True, "other speech of the same person"), (False, "another person's speech")):
        swapped = score(clips, partial(_other_voice, clips, same))
        report.add(section, name, column, auc_over_identities(true, swapped))


def _other_voice(
    clips: Sequence[PreparedClip], same: bool, clip: PreparedClip, start: int
) -> tuple[PreparedClip, int] | None:
    others = [
        other for other in clips
        if other is not clip and other.clip.corpus == clip.clip.corpus
        and (other.clip.identity == clip.clip.identity) == same and len(other.crops) > start + GRID_FPS
    ]  # fmt: skip
    return (others[start % len(others)], start) if others else None


def _logit_scores(
    detector: nn.Module,
    clips: Sequence[PreparedClip],
    voice: Callable[[PreparedClip, int], tuple[PreparedClip, int] | None],
) -> dict[str, list[float]]:
    """In-sync logit of 1 s windows with the sound that ``voice`` chooses, by identity."""
    scores: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        for start in window_starts(clip, GRID_FPS, TAMPERED_WINDOWS_PER_CLIP).tolist():
            chosen = voice(clip, start)
            if chosen is None:
                continue
            source, begin = chosen
            mouths = mouths_of(clip, start, start + GRID_FPS)[None]
            sound = sound_of(source)[begin * SAMPLES_PER_FRAME : (begin + GRID_FPS) * SAMPLES_PER_FRAME]
            with torch.inference_mode():
                logits = detector(mouths, sound[None, None])[0]
            scores[clip.clip.identity].append(float(logits[0] - logits[1]))
    return scores


def _verdicts(report: Report, place: str, served: Detector, clips: Sequence[EmbeddedClip]) -> None:
    section = f"Verdict: {place}"
    kinds = {
        "real": clips,
        "other speech of the same person": list(swaps(clips, same_identity=True)),
        "another person's speech": list(swaps(clips, same_identity=False)),
        "real, its sound 200 ms late": [clip.with_sound_late_by(SHIFT_FRAMES) for clip in clips],
    }
    scores = {kind: _probabilities(served, members) for kind, members in kinds.items()}
    for kind in kinds:
        _shares(report, section, kind, served, scores[kind])
        if "speech" in kind and scores[kind]:
            report.add(
                section, kind, "AUC against real", auc_over_identities(_known(scores[kind]), _known(scores["real"]))
            )


def _generated(report: Report, served: Detector, real: Sequence[EmbeddedClip], made: Sequence[EmbeddedClip]) -> None:
    section = "Verdict: generated video (no generated video was used to train the detector)"
    true = _probabilities(served, real)
    methods = {"all": list(made)} | {
        m: [c for c in made if c.clip.corpus == m] for m in sorted({c.clip.corpus for c in made})
    }
    for method, clips in methods.items():
        scores = _probabilities(served, clips)
        _shares(report, section, method, served, scores)
        if _known(scores):
            report.add(section, method, "AUC against real", auc_over_identities(_known(scores), _known(true)))


def _probabilities(served: Detector, clips: Sequence[EmbeddedClip]) -> dict[str, list[float | None]]:
    """Fake probability of each whole clip by identity; None where the evidence is too short."""
    found: dict[str, list[float | None]] = defaultdict(list)
    for clip in clips:
        windows = windows_with_evidence(served, clip)
        enough = evidence_s(windows) >= MIN_EVIDENCE_S
        found[clip.clip.identity].append(served.rule.fake_probability(windows) if enough else None)
    return found


def _known(scores: dict[str, list[float | None]]) -> dict[str, list[float]]:
    return {name: known for name, values in scores.items() if (known := [v for v in values if v is not None])}


def _shares(report: Report, section: str, row: str, served: Detector, scores: dict[str, list[float | None]]) -> None:
    for verdict in ("fake", "real"):
        called = {k: [v is not None and served.rule.verdict(v) == verdict for v in vs] for k, vs in scores.items()}
        report.add(section, row, f"called {verdict}", mean_over_identities(called))
    unknown = {name: [v is None for v in values] for name, values in scores.items()}
    report.add(section, row, "too little evidence", mean_over_identities(unknown))


def refresh_card(card: Path, figures: str) -> None:
    """Replace the figures in the model card by new ones."""
    before, _, rest = card.read_text().partition(CARD_BEGIN)
    _, _, after = rest.partition(CARD_END)
    card.write_text(f"{before}{CARD_BEGIN}\n\n{figures}\n{CARD_END}{after}")


def load_both() -> dict[str, nn.Module]:
    """Both detectors with the shipped weights."""
    both: dict[str, nn.Module] = {}
    for name, network in (("lipsync", LipSyncDetector()), ("seed", SeedLipSyncDetector())):
        load_weights(network, WEIGHTS / f"{name}.safetensors")
        both[type(network).__name__] = network.eval()
    return both


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the shipped weights.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--out", type=Path, default=Path("build/evaluation"))
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    test = split_clips(list_clips(arguments.data))["test"]
    sides = [load_prepared([c for c in test if c.fake == fake], arguments.cache) for fake in (False, True)]
    measured = evaluate(load_both(), load_detector(), *sides)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(measured.as_json())
    (arguments.out / "report.md").write_text(measured.as_markdown())
    refresh_card(WEIGHTS / "MODEL_CARD.md", measured.as_markdown())
