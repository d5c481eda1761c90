"""Which clips there are, who is in them, and which side of the split each identity is on.

A folder of clips holds either a ``manifest.csv`` with at least ``path,label,identity`` or the layout
``real/<corpus>/<identity>/<clip>`` and ``fake/<method>/<identity>__<id>``.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]

TEST_SHARE, VAL_SHARE = 0.30, 0.20

TRAIN_ONLY = frozenset({"arabic_news"})
"""Corpora whose identities are only roughly known: never split, so that nobody is on both sides."""

NEVER_TRAIN = frozenset({"tcd_timit", "voxceleb2", "multivsr"})
"""Corpora kept out of training whole, to measure on material of a kind never seen; half is for testing."""

STUDIO = frozenset({"grid", "syllables", "tcd_timit"})
"""Corpora that are not in the wild."""


FAMILIES = {
    "wav2lip": ("wav2lip", "wav2lip-hq", "wav2lip_codeformer"),
    "Loopy": ("Loopy",),
    "AniTalker": ("AniTalker",),
    "EDTalk": ("EDTalk",),
    "SadTalker": ("SadTalker",),
    "latent": ("MuseTalk", "LatentSync"),
}
"""Generators that are left out of training together, to measure on what was never seen."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One file. ``corpus``: for a fake, the method that made it. ``path`` is relative to the folder."""

    path: str
    fake: bool
    corpus: str
    identity: str


def list_clips(folder: Path) -> list[Clip]:
    """All clips of ``folder``, sorted by path. Raises FileNotFoundError when there are none."""
    manifest = folder / "manifest.csv"
    clips = _from_manifest(manifest) if manifest.exists() else _from_layout(folder)
    if not clips:
        raise FileNotFoundError(f"No clips in {folder}: neither manifest.csv nor real/<corpus>/<identity>/<clip>.")
    return sorted(clips, key=lambda clip: clip.path)


def split_clips(clips: Iterable[Clip]) -> dict[Split, list[Clip]]:
    """Split by identity, real and fake alike, corpus by corpus, the same way every time.

    The identities of a corpus are put in the order of a hash of their names; the first 30 % are for
    testing, the next 20 % for validation, the rest for training; `TRAIN_ONLY` and `NEVER_TRAIN` say which
    corpora are treated otherwise.
    """
    by_corpus: dict[tuple[bool, str], list[Clip]] = defaultdict(list)
    for clip in clips:
        by_corpus[clip.fake, clip.corpus].append(clip)
    split: dict[Split, list[Clip]] = {"train": [], "val": [], "test": []}
    for (_, corpus), members in sorted(by_corpus.items()):
        sides = _sides(corpus, {clip.identity for clip in members})
        for clip in members:
            split[sides[clip.identity]].append(clip)
    return split


def family_of(clip: Clip) -> str:
    """Which of `FAMILIES` made a generated clip; a method in none of them is its own."""
    return next((name for name, methods in FAMILIES.items() if clip.corpus in methods), clip.corpus)


def _sides(corpus: str, identities: set[str]) -> dict[str, Split]:
    if corpus in TRAIN_ONLY:
        return dict.fromkeys(identities, "train")
    ordered = sorted(identities, key=lambda name: hashlib.sha256(f"{corpus}/{name}".encode()).digest())
    tests, vals = round(TEST_SHARE * len(ordered)), round(VAL_SHARE * len(ordered))
    if corpus in NEVER_TRAIN:
        tests = (len(ordered) + 1) // 2
        vals = len(ordered) - tests
    return {
        name: "test" if rank < tests else "val" if rank < tests + vals else "train" for rank, name in enumerate(ordered)
    }


def _from_manifest(manifest: Path) -> list[Clip]:
    with manifest.open(newline="") as file:
        return [_clip(row["path"], row["label"] == "fake", row["identity"]) for row in csv.DictReader(file)]


def _from_layout(folder: Path) -> list[Clip]:
    paths = [p.relative_to(folder) for p in folder.glob("*/*/**/*") if p.is_file()]
    real = [_clip(p.as_posix(), False, p.parts[2]) for p in paths if p.parts[0] == "real" and len(p.parts) > 3]
    fake = [_clip(p.as_posix(), True, p.name.split("__")[0]) for p in paths if p.parts[0] == "fake"]
    return real + fake


def _clip(path: str, fake: bool, identity: str) -> Clip:
    return Clip(path, fake, corpus=Path(path).parts[1], identity=identity)
