"""Fit the few numbers of the verdict rule, on people that the detectors were not trained on.

Real: clips of the validation identities. Fake: generated clips, none of which any detector was trained on; the real
mouths with other voices, of the same person and of others; and real clips with 2 s of a generated one. Real and
generated clips count as they are and as uploading leaves them (`model.training.uploads`), also where that is coded too
coarsely for looks: to a network of looks, people whom it lacks are more unusual than the validation people on whom it
was chosen, and what compression adds to the spread of the latter makes up for some of that. Real clips that were edited
as honest people do have a say in the threshold for "fake", and in nothing else. How well mouth and voice go together
counts as it is in worse sound, too (`HEARD`). What changes within a video say is learnt from the same people with 2 s
of their mouth painted anew, or heard saying other words (`model.training.in_part`). Within each kind every identity
weighs the same (`THROUGHOUT`, `IN_PART`). Writes the rule that is served, and for every family of generators one that
was fitted without it. Run: ``python -m model.training.fit_verdict --data DIR [--generator FILE]``.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from scipy.stats import t

from model.changes import changes
from model.detector import MAX_OFFSET
from model.engine import WEIGHTS, Detector, load_detector, rule_name
from model.training.clips import FAMILIES, family_of, list_clips, split_clips
from model.training.in_part import GENERATED, SAID, load_in_part, prepare_in_part
from model.training.prepare import prepare
from model.training.trials import (
    SEGMENT,
    WINDOW_S,
    EmbeddedClip,
    load_embedded,
    load_heard_worse,
    partial_fakes,
    segments,
    swaps,
    windows_with_evidence,
)  # fmt: skip
from model.training.uploads import edits_of, prepare_uploads, uploads_of
from model.verdict import (
    ALIKE,
    CONTENT,
    LOOK,
    MARGIN,
    MOST_CHANGED,
    MOST_OF_PIXELS,
    SIGNS,
    SUSPICIOUS,
    SYNC,
    UNFITTED,
    ChangeOdds,
    Logistic,
    Odds,
    VerdictRule,
    can_be_judged,
    enough_evidence,
    evidence_s,
    is_coarse,
    save_rule,
    too_smooth,
)  # fmt: skip
from model.weights import seal
from model.windows import WindowEvidence

MAX_FALSE_ACCUSATIONS = 0.005
"""Chance that a part of a video of a further real person lies above the threshold for "fake", were parts normal.

None that it is fitted on may, but of two dozen people that says little about the hundredth, and a false accusation
costs more than a miss.
"""

MIN_PEOPLE = 3
"""To tell from them what a further one is like."""

REAL_BELOW = 0.5

MIN_BETWEEN = 0.5
"""Share of the variance of real parts that is between them, at least; the rest is flutter."""

LACKED = 1.9
"""How much more looks of people whom the network lacks spread about the mean of validation people than theirs do.

Found by `model.training.limits`. How mouths move is learnt from nobody.
"""

LACKED_CHANGE = 1.2
"""How much more their looks change within a video, found so, too: camera, light and person stay the same there."""

HEARD = [list(SUSPICIOUS).index(fact) for fact in ("changes alike", "agrees on the offset")]
"""How usual these are counts sound as it is often heard, too (`model.training.sounds`).

In clean sound nearly all windows of real video agree on the offset, so that one in twenty that does not would be most
unusual.
"""

PENALTY = 3e-3

OF_WINDOWS = {"real": 0.5, "generated": 0.35, "swapped": 0.15}
THROUGHOUT = {"real": 0.5, "generated": 0.38, "swapped": 0.12}
IN_PART = {"real": 0.5, "partial": 0.5}
"""Of the weight in fitting how likely a window is of a fake, and a video one throughout, and in part."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A segment with enough evidence to learn from."""

    identity: str
    path: str
    windows: list[WindowEvidence]

    @property
    def curve(self) -> np.ndarray:
        """(31,), mean similarity by offset."""
        return np.average([w.curve for w in self.windows], axis=0, weights=[w.usable.sum() for w in self.windows])


def judged(detector: Detector, clips: Iterable[EmbeddedClip], whole: bool = False) -> list[Judged]:
    """Segments of ``clips``, or ``whole`` ones, with enough evidence."""
    parts = [
        Judged(clip.clip.identity, clip.clip.path, windows_with_evidence(detector, part))
        for clip in clips
        for part in ([clip] if whole else segments(clip))
    ]
    return [part for part in parts if part.windows and enough_evidence(part.windows)]


def fit(
    detector: Detector,
    real: Sequence[EmbeddedClip],
    generated: Sequence[EmbeddedClip],
    uploads: Sequence[EmbeddedClip] = (),
    heard_worse: Sequence[EmbeddedClip] = (),
    painted: Sequence[EmbeddedClip] = (),
    said: Sequence[EmbeddedClip] = (),
    edited: Sequence[EmbeddedClip] = (),
) -> VerdictRule:
    """Fit all numbers of the rule.

    ``uploads``: of both, written anew; ``edited``: of ``real``, for the threshold alone; ``heard_worse``: ``real``, in
    worse sound; ``painted`` and ``said``: real clips, 2 s of whose mouths are painted anew, or of whose words are
    others (`model.training.in_part`).
    """
    voices = [*swaps(real, same_identity=True), *swaps(real, same_identity=False)]
    real_uploads, generated_uploads = ([c for c in uploads if c.clip.fake == fake] for fake in (False, True))
    kinds = {
        "real": _parts_and_wholes(detector, [*real, *real_uploads]),
        "generated": _parts_and_wholes(detector, [*generated, *generated_uploads]),
        "swapped": judged(detector, voices),
        "partial": judged(detector, partial_fakes(real, generated), whole=True),
    }
    print(json.dumps({kind: len(parts) for kind, parts in kinds.items()}))
    fine = {kind: [part for part in parts if not too_smooth(part.windows)] for kind, parts in kinds.items()}
    coarse = {kind: _coarse(parts) or parts for kind, parts in kinds.items()}
    of_real, of_made, of_swapped = (_of_windows(fine[kind]) for kind in ("real", "generated", "swapped"))
    of_real_video, spread, flutter = _usual(fine["real"])
    heard = [part for part in _parts_and_wholes(detector, heard_worse) if not too_smooth(part.windows)]
    _, spread_in_any_sound, flutter_in_any_sound = _usual([*fine["real"], *heard])
    spread[HEARD], flutter[HEARD] = spread_in_any_sound[HEARD], flutter_in_any_sound[HEARD]
    start = replace(
        UNFITTED,
        out_of_sync=_logistic([(0, 0.5, _only(of_real, SYNC)), (1, 0.5, _only(of_swapped, SYNC))], SIGNS[SYNC]),
        rendered=_logistic([(0, 0.5, _only(of_real, CONTENT)), (1, 0.5, _only(of_made, CONTENT))], SIGNS[CONTENT]),
        of_real=tuple(of_real_video.round(3).tolist()),
        spread=tuple(spread.round(3).tolist()),
        flutter=tuple(flutter.round(3).tolist()),
        sharpness=_sharpness(fine["real"]),
        real_below=REAL_BELOW,
    )
    tail = _tail(one for part in fine["real"] for one in start.unusual_stretches(part.windows, fine=True))
    measuring = replace(start, tail=tail)
    complete = replace(measuring, fine=_odds(measuring, fine, True), coarse=_odds(measuring, coarse, False))
    with_threshold = _with_threshold(complete, [*kinds["real"], *_parts_and_wholes(detector, edited)])
    in_part = (judged(detector, clips, whole=True) for clips in (painted, said))
    return _with_changes(with_threshold, fine["real"], heard, *in_part)


def _coarse(parts: Iterable[Judged]) -> list[Judged]:
    return [part for part in parts if is_coarse(part.windows) and can_be_judged(part.windows)]


def _with_threshold(rule: VerdictRule, real: Sequence[Judged]) -> VerdictRule:
    """The rule with a threshold for "fake"; odds of coarse video are brought nearer to even until it holds for them."""
    accusable = [part for part in real if rule.may_be_accused(part.windows) and can_be_judged(part.windows)]
    fine, coarse = (
        [(part.identity, rule.accusing_log_odds(part.windows)) for part in accusable if is_coarse(part.windows) == so]
        for so in (False, True)
    )
    highest_fine, highest_coarse = _highest(rule.fine, fine), _highest(rule.coarse, coarse)
    nearer = highest_fine / highest_coarse if highest_coarse > highest_fine > 0 else 1.0
    fake_above = float(np.ceil(1000 * expit(highest_fine)) / 1000)
    return replace(rule, coarse=rule.coarse.nearer_to_even(nearer), fake_above=fake_above)


def _odds(rule: VerdictRule, kinds: Mapping[str, Sequence[Judged]], fine: bool) -> Odds:
    """Odds of parts, by kind, as if all of them were ``fine``, or none."""

    def unusual(facts: np.ndarray) -> np.ndarray:
        return np.array([rule.unusual(rule.told(facts, fine), WINDOW_S)])

    windows = [
        (int(kind != "real"), share, _through(_of_windows(kinds[kind]), unusual)) for kind, share in OF_WINDOWS.items()
    ]
    facts = {kind: [(part.identity, rule.video_facts(part.windows, fine)) for part in kinds[kind]] for kind in kinds}
    whole, worst = (
        _logistic([(int(kind != "real"), share, _only(facts[kind], fact)) for kind, share in shares.items()], (1,))
        for shares, fact in ((THROUGHOUT, slice(0, 1)), (IN_PART, slice(1, 2)))
    )
    return Odds(_logistic(windows, (1,)), whole, worst)


def _tail(unusual: Iterable[float]) -> float:
    """By how much stretches of real video beyond their 75th percentile exceed it: of an exponential tail."""
    above = (of_all := np.array([*unusual])) - np.percentile(of_all, 75)
    return round(float(above[above > 0].mean()), 3)


def _with_changes(
    rule: VerdictRule,
    real: Sequence[Judged],
    heard: Sequence[Judged],
    painted: Sequence[Judged],
    said: Sequence[Judged],
) -> VerdictRule:
    """The rule with what changes within a video say; as it was where there is nothing to learn that from.

    Looks of people whom the network lacks change more; how well mouth and voice fit changes as it does in worse sound,
    too, and the more the longer a video is, for somewhere something else is heard.
    """
    if not painted or not said:
        return rule
    look = _change_odds(LOOK, real, real, painted, by_length=False)
    look = replace(look, usual=tuple(round(LACKED_CHANGE * usual, 3) for usual in look.usual))
    sync = _change_odds(ALIKE, [*real, *heard], real, said, by_length=True)
    return accusing_nobody(replace(rule, look_change=look, sync_change=sync))


def _change_odds(
    facts: slice, heard: Sequence[Judged], real: Sequence[Judged], in_part: Sequence[Judged], by_length: bool
) -> ChangeOdds:
    """Of some facts; ``heard``: real video, by which it is known how much they usually change."""
    squares: dict[str, list[np.ndarray]] = defaultdict(list)
    for part in heard:
        if len(more := _more_suspicious(part, facts)):
            squares[part.identity].append(np.mean(more**2, axis=0))
    usual = np.sqrt(np.mean([np.mean(of_one, axis=0) for of_one in squares.values()], axis=0))
    odds = ChangeOdds(tuple(usual.round(3).tolist()), 0.0, Logistic((0.0,), 0.0))

    def times(part: Judged) -> list[float]:
        return [odds.times_usual(more) for more in _more_suspicious(part, facts)]

    if by_length:
        odds = replace(odds, tail=_tail(of_one for part in real for of_one in times(part)))

    def most(parts: Sequence[Judged]) -> Facts:
        found = [(part, max(of_part)) for part in parts if (of_part := times(part))]
        return [(part.identity, odds.counted(of_part, evidence_s(part.windows))) for part, of_part in found]

    return replace(odds, odds=_logistic([(0, 0.5, most(real)), (1, 0.5, most(in_part))], (1,)))


def _more_suspicious(part: Judged, facts: slice) -> np.ndarray:
    """(N, F): of every 2 s, by how much more suspicious than the rest some facts are."""
    return np.array([(SIGNS * change.facts)[facts] for change in changes(part.windows)])


def accusing_nobody(rule: VerdictRule) -> VerdictRule:
    """The rule, changes brought so near to even that they get no video called fake by themselves."""
    look, sync = (_nearer_to_even(odds, rule.fake_above) for odds in (rule.look_change, rule.sync_change))
    return replace(rule, look_change=look, sync_change=sync)


def _nearer_to_even(change: ChangeOdds, fake_above: float) -> ChangeOdds:
    highest = change.odds.log_odds(np.array([MOST_CHANGED]))
    share = (logit(fake_above) + MARGIN - 0.01) / highest if highest > 0 else 1.0
    return replace(change, odds=change.odds.times(min(1.0, share)))


def _highest(odds: Odds, real: Sequence[tuple[str, float]]) -> float:
    """Log-odds that no real part is above, hardly one of a further person, nor any by look, motion or colours alone.

    ``real``: whose real parts that may be accused are, and their log-odds. Above lies a part of a further person by
    `MAX_FALSE_ACCUSATIONS` (the prediction interval of a normal sample, people weighing the same). The last because
    networks of looks are surer of the people that they were chosen on than of others (`model.training.limits`).
    """
    by_person: dict[str, list[float]] = defaultdict(list)
    for identity, log_odds in real:
        by_person[identity].append(log_odds)
    alone = odds.log_odds(np.full(2, MOST_OF_PIXELS))
    if len(by_person) < MIN_PEOPLE:
        return alone
    people = len(by_person)
    mean = np.mean([np.mean(of_one) for of_one in by_person.values()])
    variance = sum(np.mean((np.array(of_one) - mean) ** 2) for of_one in by_person.values()) / (people - 1)
    reach = t.isf(MAX_FALSE_ACCUSATIONS, people - 1) * (1 + 1 / people) ** 0.5
    return float(max(mean + reach * variance**0.5, max(map(max, by_person.values())), alone))


def _parts_and_wholes(detector: Detector, clips: Sequence[EmbeddedClip]) -> list[Judged]:
    return judged(detector, clips) + judged(detector, (c for c in clips if len(c.video) > SEGMENT), whole=True)


Facts = list[tuple[str, np.ndarray]]
"""Whose they are, and they."""


def _of_windows(parts: Sequence[Judged]) -> Facts:
    return [(part.identity, window.facts) for part in parts for window in part.windows]


def _through(facts: Facts, function: Callable[[np.ndarray], np.ndarray]) -> Facts:
    return [(identity, function(of_one)) for identity, of_one in facts]


def _usual(true: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean facts of real video, and how they spread, and flutter (see `VerdictRule`); every identity weighs the same.

    What the means of parts spread by their flutter alone is taken off the former; looks are as spread as of people whom
    the network lacks.
    """
    counts = Counter(part.identity for part in true)
    weights = np.array([1 / counts[part.identity] for part in true])
    facts = [np.array([window.facts for window in part.windows]) for part in true]
    seconds = np.array([max(WINDOW_S, evidence_s(part.windows)) for part in true])
    means, within = np.array([of_part.mean(0) for of_part in facts]), np.array([of_part.var(0) for of_part in facts])
    long = seconds >= 2 * WINDOW_S
    within = np.average(within[long], axis=0, weights=weights[long])
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average((means - mean) ** 2, axis=0, weights=weights)
    between = np.maximum(variance - within * np.average(1 / seconds, weights=weights), MIN_BETWEEN * variance)
    spread = np.sqrt(between)
    spread[LOOK] *= LACKED
    return mean, spread + 1e-3, np.sqrt(within)


def _only(facts: Facts, kind: slice) -> Facts:
    return [(identity, of_one[kind]) for identity, of_one in facts]


def _logistic(groups: Sequence[tuple[int, float, Facts]], signs: Sequence[int]) -> Logistic:
    """Logistic regression; a group is its label, its whole weight, and (identity, facts) of its members.

    ``signs``: of each weight, so that a better match, say, never makes a video more suspicious.
    """
    facts, labels, weights = [], [], []
    for label, weight, members in groups:
        counts = Counter(identity for identity, _ in members)
        for identity, one in members:
            facts.append(one)
            labels.append(label)
            weights.append(weight / len(counts) / counts[identity])
    x, y, w = np.array(facts), np.array(labels), np.array(weights)
    centre, spread = x.mean(0), x.std(0) + 1e-6
    scaled = (x - centre) / spread

    def loss(p: np.ndarray) -> float:
        z = scaled @ p[:-1] + p[-1]
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + PENALTY * (p[:-1] ** 2).sum())

    bounds = [(0.0, None) if sign > 0 else (None, 0.0) for sign in signs]
    found = minimize(loss, np.zeros(x.shape[1] + 1), method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
    slope = found[:-1] / spread
    return Logistic(tuple(slope.round(4).tolist()), round(float(found[-1] - slope @ centre), 4))


def _sharpness(true: Sequence[Judged]) -> float:
    """Makes softmax(sharpness x curve) the probability of an offset.

    The true offset of a segment's windows is taken to be what the other segments of the clip say. Fitted on
    windows of 1 s, so that longer evidence is surer than it says.
    """
    curves, truths = [], []
    for part in true:
        others = [other.curve for other in true if other.path == part.path and other is not part]
        if others:
            curves += [window.curve for window in part.windows]
            truths += [int(np.clip(np.mean(others, axis=0).argmax(), 1, 2 * MAX_OFFSET - 1))] * len(part.windows)
    by_offset, near = np.array(curves), np.array(truths)[:, None] + np.arange(-1, 2)

    def loss(log_sharpness: float) -> float:
        scaled = np.exp(log_sharpness) * by_offset
        chance = np.logaddexp.reduce(scaled, axis=1) - np.logaddexp.reduce(np.take_along_axis(scaled, near, 1), axis=1)
        return float(chance.mean())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-3, 4), method="bounded").x)), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the verdict rule.")
    parser.add_argument("--data", type=Path, required=True, help="folder of clips")
    parser.add_argument("--cache", type=Path, default=Path("build/cache"))
    parser.add_argument("--run", type=Path, default=Path("build/run"), help="where the autoencoders are kept")
    parser.add_argument("--generator", type=Path, help="of mouths; else what changes say stays as it is")
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.cache, workers=2)
    sides = split_clips(list_clips(arguments.data))
    known = load_detector(fitted=False)
    real = load_embedded(known, [c for c in sides["val"] if not c.fake], arguments.cache)
    generated = load_embedded(known, [c for c in sides["train"] + sides["val"] if c.fake], arguments.cache)
    clips = [one.clip for one in [*real, *generated]]
    prepare_uploads(arguments.data, arguments.cache, clips, workers=2)
    uploads = load_embedded(known, [upload for clip in clips for upload, _ in uploads_of(clip)], arguments.cache)
    edited = load_embedded(known, [edit for one in real for edit, _ in edits_of(one.clip)], arguments.cache)
    heard_worse = load_heard_worse(known, real, arguments.cache)
    in_part: dict[str, list[EmbeddedClip]] = {}
    if arguments.generator:
        usable = prepare_in_part(
            arguments.data, arguments.cache, [one.clip for one in real], arguments.generator, arguments.run, workers=2
        )
        in_part = {kind: load_in_part(known, usable, arguments.cache, kind) for kind in (GENERATED, SAID)}
    stored = None if in_part else load_detector().rule
    for left_out in (None, *FAMILIES):
        kept, anew = ([c for c in some if family_of(c.clip) != left_out] for some in (generated, uploads))
        rule = fit(known, real, kept, anew, heard_worse, in_part.get(GENERATED, ()), in_part.get(SAID, ()), edited)
        if stored:
            rule = replace(rule, look_change=stored.look_change, sync_change=stored.sync_change)
            rule = accusing_nobody(rule)
        save_rule(rule, WEIGHTS / rule_name(left_out))
        print(json.dumps({"left out": left_out} | asdict(rule)))
    seal(WEIGHTS)
