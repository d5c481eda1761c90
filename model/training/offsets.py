"""How late the sound of a clip is, from how well its pictures and sounds fit at each offset.

Real files are muxed up to three frames off. What a clip says counts together with what the other clips of the
same person say; clips whose sound fits at no offset near zero are left out of training.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from model.detector import MAX_OFFSET, LipSyncDetector
from model.training.accuracy import offset_similarity
from model.training.clips import Clip
from model.training.prepare import PreparedClip

OFFSETS = "offsets.json"
REACH = 6
"""Offsets up to this many frames are considered."""

OWN_SHARE = 0.5
"""How much a clip's own frames count against those of the other clips of the same person."""

MIN_SURE, MAX_LATE = 0.5, 4
"""A clip is left out if its offset is less sure than this, or larger."""


@dataclass(frozen=True, slots=True)
class KnownOffset:
    """``late``: frames by which the sound is late. ``sure``: probability of it, within a frame."""

    late: int
    sure: float


def offset_curve(network: LipSyncDetector, clip: PreparedClip) -> np.ndarray:
    """(13,): mean log share of each offset from -6 to 6 among the 13, over the frames that have all of them."""
    similarity = offset_similarity(network, clip)
    near = similarity[REACH : len(similarity) - REACH, MAX_OFFSET - REACH : MAX_OFFSET + REACH + 1]
    return near.log_softmax(1).sum(0).numpy() if len(near) else np.zeros(2 * REACH + 1)


def judge(curves: dict[Clip, np.ndarray]) -> dict[str, KnownOffset]:
    """By path, from the curves of all clips of some people."""
    by_person: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for clip, curve in curves.items():
        by_person[clip.corpus, clip.identity].append(curve)
    known = {}
    for clip, curve in curves.items():
        of_person = np.mean(by_person[clip.corpus, clip.identity], axis=0)
        both = OWN_SHARE * curve + (1 - OWN_SHARE) * of_person
        chance = np.exp(both - both.max()) / np.exp(both - both.max()).sum()
        best = int(chance.argmax())
        known[clip.path] = KnownOffset(best - REACH, round(float(chance[max(0, best - 1) : best + 2].sum()), 3))
    return known


def with_known_offsets(clips: Iterable[PreparedClip], cache: Path) -> list[PreparedClip]:
    """Clips with their ``sound_late``, without those to be left out; as they are where offsets were not estimated."""
    path = cache / OFFSETS
    if not path.exists():
        return list(clips)
    known = {name: KnownOffset(**facts) for name, facts in json.loads(path.read_text()).items()}
    return [
        replace(clip, sound_late=of.late)
        for clip in clips
        if (of := known[clip.clip.path]).sure >= MIN_SURE and abs(of.late) <= MAX_LATE
    ]


def save_offsets(known: dict[str, KnownOffset], cache: Path) -> None:
    """Keep them where `with_known_offsets` looks."""
    (cache / OFFSETS).write_text(json.dumps({path: asdict(of) for path, of in known.items()}, indent=0))


def distribution(known: dict[str, KnownOffset], paths: Sequence[str]) -> dict[str, int]:
    """Number of clips by offset in frames."""
    return {str(late): count for late, count in sorted(Counter(known[path].late for path in paths).items())}
