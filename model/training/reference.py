"""What the detector's input and scores are like on the people it was trained and fitted on; see `model.drift`.

Real clips of training and validation identities, some of each. Writes ``weights/reference.json`` and seals the folder.
Run: ``python -m model.training.reference --data DIR``.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from model.drift import reference_of
from model.engine import WEIGHTS, load_detector
from model.errors import MediaError
from model.pipeline import analyze
from model.results import Analysis
from model.training.clips import Clip, list_clips, split_clips
from model.weights import REFERENCE, seal

CLIPS_EACH = 4


def some_of_each(clips: Iterable[Clip]) -> list[Clip]:
    """The first clips of every identity."""
    chosen: list[Clip] = []
    count: Counter[str] = Counter()
    for clip in clips:
        count[clip.identity] += 1
        if count[clip.identity] <= CLIPS_EACH:
            chosen.append(clip)
    return chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Describe the training data, to compare what comes in with it.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    arguments = parser.parse_args()
    detector = load_detector()
    sides = split_clips(list_clips(arguments.data))
    analyses: list[tuple[str, Analysis]] = []
    for clip in some_of_each(clip for clip in sides["train"] + sides["val"] if not clip.fake):
        try:
            analyses.append((clip.identity, analyze(arguments.data / clip.path, detector)))
        except MediaError as error:
            print(f"{clip.path}: {error}")
    (WEIGHTS / REFERENCE).write_text(reference_of(analyses).as_json())
    seal(WEIGHTS)
    print(f"{len(analyses)} clips of {len({identity for identity, _ in analyses})} identities")
