"""Does what comes in look like what the detector was trained and fitted on?

An `Analysis` is described by a few numbers, each of which falls into one of five bins that hold a fifth of the
reference's people each, `Reference`. How far the shares of many analyses are from those is the population stability
index, sum((p - q) ln(p / q)) (Siddiqi 2006): below 0.1 little has changed, above 0.25 much has.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.results import Analysis, Window
from model.weights import REFERENCE, WeightsError, WeightsFolder

BINS = 5


def _scored(analysis: Analysis) -> list[Window]:
    return [window for window in analysis.windows if window.note is None]


def _mean_score(name: str) -> Callable[[Analysis], float | None]:
    def mean(analysis: Analysis) -> float | None:
        scores = [getattr(window, name) for window in _scored(analysis)]
        return float(np.mean(scores)) if scores else None

    return mean


FEATURES: Mapping[str, Callable[[Analysis], float | None]] = {
    "fake_probability": lambda analysis: analysis.fake_probability,
    "sync_score": _mean_score("sync_score"),
    "content_score": _mean_score("content_score"),
    "offset_ms": lambda analysis: analysis.sync.offset_ms,
    "evidence_share": lambda analysis: len(_scored(analysis)) / len(analysis.windows) if analysis.windows else 0.0,
    "face_width_px": lambda analysis: max((track.box[2] for track in analysis.tracks), default=None),
    "height_px": lambda analysis: analysis.media.height,
    "fps": lambda analysis: analysis.media.fps,
}
"""What describes an analysis: scores first, then the quality of the input. None: unknown, and not counted."""


@dataclass(frozen=True, slots=True)
class Reference:
    """``edges`` between bins, ascending, and ``shares`` of the reference in each bin, by feature."""

    edges: dict[str, tuple[float, ...]]
    shares: dict[str, tuple[float, ...]]

    def bins(self, analysis: Analysis) -> dict[str, int]:
        """Into which bin each feature falls that is known."""
        values = {name: FEATURES[name](analysis) for name in self.edges}
        return {name: bisect_right(self.edges[name], value) for name, value in values.items() if value is not None}

    @classmethod
    def parse(cls, content: bytes) -> "Reference":
        """Read what `as_json` writes. Raises ValueError, KeyError or TypeError when it is none."""
        facts = json.loads(content)
        known = {name: facts[name] for name in FEATURES}
        return cls(
            {name: tuple(map(float, one["edges"])) for name, one in known.items()},
            {name: tuple(map(float, one["shares"])) for name, one in known.items()},
        )

    def as_json(self) -> str:
        """For a file."""
        facts = {name: {"edges": self.edges[name], "shares": self.shares[name]} for name in self.edges}
        return json.dumps(facts, indent=2) + "\n"


def reference_of(analyses: Sequence[tuple[str, Analysis]]) -> Reference:
    """The reference that analyses, each with the identity it is of, make; every identity weighs the same."""
    edges, shares = {}, {}
    for name, feature in FEATURES.items():
        known = [(identity, value) for identity, one in analyses if (value := feature(one)) is not None]
        identities, counts = np.unique([identity for identity, _ in known], return_counts=True)
        weight_of = dict(zip(identities, 1 / counts / len(identities)))
        values, weights = np.array([value for _, value in known]), np.array([weight_of[i] for i, _ in known])
        order = values.argsort()
        at = values[order][np.searchsorted(weights[order].cumsum(), np.arange(1, BINS) / BINS)]
        edges[name] = tuple(np.unique(at[at > values.min()].round(4)).tolist())
        filled = np.bincount(np.searchsorted(edges[name], values, "right"), weights, len(edges[name]) + 1)
        shares[name] = tuple(filled.round(4).tolist())
    return Reference(edges, shares)


def stability_index(shares: Sequence[float], reference: Sequence[float], least: float = 1e-3) -> float:
    """Population stability index of two sets of shares; empty bins count as ``least``."""
    p, q = (np.maximum(one, least) for one in (shares, reference))
    return float(((p - q) * np.log(p / q)).sum())


def load_reference(weights: Path) -> Reference | None:
    """That of a folder of weights, if it has one. Raises WeightsError."""
    folder = WeightsFolder.open(weights)
    if REFERENCE not in folder.files:
        return None
    try:
        return Reference.parse(folder.read(REFERENCE))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder.path / REFERENCE}: it is no reference") from error
