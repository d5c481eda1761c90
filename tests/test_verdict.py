"""Windows say what they know and no more; the verdict follows from them."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter1d

from model.changes import changes, stretches
from model.detector import EMBEDDING, MAX_OFFSET
from model.engine import Detector
from model.results import DetectorInfo
from model.verdict import (
    LOOK,
    MARGIN,
    MOST_CHANGED,
    UNFITTED,
    ChangeOdds,
    Logistic,
    Odds,
    VerdictRule,
    agreement,
    can_be_judged,
    evidence_s,
    is_coarse,
    parse_rule,
    reasons_for,
    save_rule,
    spans_text,
    too_compressed,
    too_compressed_reasons,
)
from model.windows import (
    APART,
    BESIDE,
    FaceEvidence,
    WindowEvidence,
    aligned_sound,
    fit_among_mouths,
    frozen,
    mean_change,
    over_time,
    slide,
    speech_frames,
    window_starts,
)

RULE = VerdictRule(
    out_of_sync=Logistic((-0.5, -4.0, -1.0), 4.0),
    rendered=Logistic((2.0, 2.0, 0.0, 0.0, 0.0), 0.0),
    of_real=(6.0, 0.75, 1.0, -3.0, -0.5, -0.5, -0.5, 0.2),
    spread=(0.5, 0.1, 0.2, 1.0, 0.5, 0.5, 0.5, 0.3),
    flutter=(0.0,) * 8,
    look_change=ChangeOdds((1.0,), 0.0, Logistic((2.0,), -6.0)),
    sync_change=ChangeOdds((1.0, 0.1), 0.0, Logistic((2.0,), -6.0)),
    fine=Odds(window=Logistic((2.0,), -4.0), whole=Logistic((2.0,), -4.0), worst=Logistic((2.0,), -5.0)),
    coarse=Odds(window=Logistic((1.0,), -2.0), whole=Logistic((1.0,), -2.0), worst=Logistic((1.0,), -3.0)),
    tail=0.5,
    sharpness=3.0,
    real_below=0.4,
    fake_above=0.8,
)


def face(
    offsets: list[int | None],
    *,
    usable: bool = True,
    speech: bool = True,
    moving: bool = True,
    rendered: float | np.ndarray = -3.0,
    smooth: float = -0.5,
    smooth_colours: float | None = None,
    restless: float = 0.2,
    quantizer: float = 20.0,
) -> FaceEvidence:
    """A face whose similarity peaks at ``offsets``, one a frame; None: nowhere."""
    rng = np.random.default_rng(0)
    similarity = rng.normal(0, 0.3, (len(offsets), 2 * MAX_OFFSET + 1))
    for frame, offset in enumerate(offsets):
        if offset is not None:
            similarity[frame, MAX_OFFSET + offset] += 6
    ones = np.ones(len(offsets), bool)
    opening = rng.uniform(0, 0.2, len(offsets)) if moving else np.full(len(offsets), 0.05)
    look = np.zeros(len(offsets)) + rendered
    of_colours = smooth if smooth_colours is None else smooth_colours
    motion = np.tile([smooth, smooth, of_colours, restless, smooth], (len(offsets), 1))
    seen = ones & usable
    coded = np.full(len(offsets), quantizer)
    fit, change = fit_among_mouths(similarity, seen), np.full(len(offsets), 8.0)
    return FaceEvidence(0, 0, similarity, fit, change, seen & speech, ones & speech, seen, opening, look, motion, coded)


def verdict(windows: list[WindowEvidence]) -> str:
    return RULE.verdict(RULE.fake_probability(windows), RULE.may_be_called_fake(windows))


def wandering(frames: int) -> list[int | None]:
    return [int(k) for k in np.repeat(np.random.default_rng(1).integers(-15, 16, frames // 25), 25)]


@pytest.mark.parametrize("late", [-6, 0, 5])
def test_a_constant_offset_is_found_and_is_no_sign_of_a_fake(late):
    evidence = face([late] * 100)
    windows = slide(evidence, 1.0, 0.2)
    assert evidence.offset == late and {w.offset for w in windows} == {late}
    sync = RULE.sync(windows)
    assert sync.offset_ms == 40 * late and sync.confidence > 0.95
    assert verdict(windows) == "real"
    assert all(RULE.sync_score(w) > 0.9 for w in windows)


def test_a_wandering_and_an_absent_peak_are_signs_of_a_fake():
    for offsets in (wandering(250), [None] * 250):
        windows = slide(face(offsets), 1.0, 0.2)
        assert verdict(windows) == "fake"
        assert np.mean([RULE.sync_score(w) for w in windows]) < 0.5


def test_pictures_that_lag_by_a_changing_amount_as_in_recorded_calls_are_no_sign_of_a_fake_within_bounds():
    lags = np.repeat([0, -3, 2, 0, 3, -3], 50)
    for late, expected in ((lags, "real"), (5 * lags, "inconclusive")):
        windows = slide(face(late.tolist()), 1.0, 0.2)
        assert verdict(windows) == expected


def test_a_picture_that_freezes_shows_nothing_and_one_that_is_held_as_few_a_second_are_does():
    held = [False] + [True, True, False] * 20 + [False] * 20 + [True] * 15 + [False] * 20
    expected = np.zeros(len(held), bool)
    expected[81 - BESIDE : 96 + BESIDE] = True
    assert np.array_equal(frozen(held, len(held)), expected)
    for first in range(0, len(held), 10):
        assert np.array_equal(frozen(held, first + 10, first), expected[first : first + 10])
    face_now = face([0] * 50)
    for share, note in ((0.5, None), (0.7, "mouth_still")):
        usable = np.arange(50) % 25 >= 25 * share
        assert {window.note for window in slide(replace(face_now, usable=usable), 1.0, 1.0)} == {note}


def test_reasons_name_the_evidence():
    def codes(offsets: list[int | None], rule: VerdictRule = RULE, **look: float) -> list[str]:
        windows = slide(face(offsets, **look), 1.0, 0.2)
        return [reason.code for reason in reasons_for(rule, rule.fake_probability(windows), windows)]

    assert codes([0] * 100) == ["in_sync", "filmed_face"]
    assert codes([5] * 100) == ["in_sync", "filmed_face", "constant_offset"]
    assert codes([5] * 100, replace(RULE, sharpness=0.1)) == ["in_sync", "filmed_face"]
    assert codes(wandering(250))[:2] == ["wandering_offset", "low_sync"]
    seldom = np.where(np.arange(20) % 3, np.random.default_rng(0).integers(-15, 0, 20), 5).repeat(25).tolist()
    surer = replace(RULE, sharpness=9.0)
    best = surer.sync(slide(face(seldom), 1.0, 0.2))
    assert best.offset_ms == 200 and best.confidence > 0.9 and "constant_offset" not in codes(seldom, surer)
    late = replace(face([5] * 100), similarity=face([5] * 100).similarity / 2)
    windows = slide(late, 1.0, 0.2)
    assert RULE.sync(windows).offset_ms == 200 and RULE.sync(windows).confidence > 0.9
    assert "constant_offset" not in [reason.code for reason in reasons_for(RULE, 0.9, windows)]
    assert codes([0] * 100, rendered=4.0) == ["rendered_face"]
    rough = replace(RULE, of_real=(*RULE.of_real[:4], -1.5, -1.5, -1.5, *RULE.of_real[7:]))
    assert codes([0] * 100, rough, smooth=0.05) == ["smooth_motion"]
    assert codes([0] * 100, restless=2.0) == ["restless_colours"]
    assert codes(wandering(250), rendered=4.0)[:3] == ["rendered_face", "wandering_offset", "low_sync"]
    assert codes([0] * 100, replace(RULE, real_below=0.0))[0] == "between_thresholds"
    assert codes([0] * 45, rendered=4.0) == ["short_evidence", "rendered_face"]
    loose = face([0] * 100)
    loose = replace(loose, similarity=np.where(np.abs(np.arange(31) - MAX_OFFSET) <= APART, 6.0, loose.similarity))
    windows = slide(loose, 1.0, 0.2)
    assert "loose_sync" in [reason.code for reason in reasons_for(RULE, 0.9, windows)]


def test_nothing_is_called_fake_on_less_than_two_seconds():
    assert [verdict(slide(face([None] * frames), 1.0, 0.2)) for frames in (25, 49, 50)] == [
        "inconclusive", "inconclusive", "fake",
    ]  # fmt: skip
    assert verdict(slide(face([0] * 25), 1.0, 0.2)) == "real"


def test_a_voice_that_is_the_mouths_at_times_gets_nothing_called_fake():
    def answered(offsets: list[int | None], **more: float) -> tuple[str, list[str]]:
        windows = slide(face(offsets, **more), 1.0, 0.2)
        reasons = reasons_for(RULE, RULE.fake_probability(windows), windows)
        assert RULE.fake_probability(windows) > RULE.fake_above
        return verdict(windows), [reason.code for reason in reasons]

    never, seldom, at_times = ([0] * fit + [None] * (500 - fit) for fit in (0, 75, 150))
    assert answered(never)[0] == answered(seldom)[0] == "fake"
    found, codes = answered(at_times)
    assert found == "inconclusive" and codes[0] == "in_sync_at_times" and "short_evidence" not in codes
    assert answered([0] * 500, rendered=9.0, restless=2.0)[0] == "fake", "a rendered mouth need not be out of sync"


def test_a_poor_fit_at_an_offset_that_files_have_gets_nothing_called_fake_alone():
    def answered(offset: int, **more: float) -> tuple[str, list[str]]:
        loose = face([offset] * 100, **more)
        loose = replace(loose, similarity=0.3 * loose.similarity, fit=0.1 * loose.fit)
        windows = slide(loose, 1.0, 0.2)
        reasons = reasons_for(RULE, RULE.fake_probability(windows), windows)
        assert RULE.fake_probability(windows) > RULE.fake_above and agreement(windows) > 0.9
        return verdict(windows), [reason.code for reason in reasons]

    assert answered(3)[0] == "inconclusive" and answered(3)[1][0] == "agreed_offset"
    assert answered(4)[0] == "fake", "by chance few of another's voice lie near 0"
    assert answered(3, rendered=4.0)[0] == "fake", "a rendered mouth may be in sync"


def test_an_offset_that_wanders_about_a_constant_one_is_said_to():
    def said(offsets: list[int]) -> str:
        windows = slide(face(offsets), 1.0, 0.2)
        surer = replace(RULE, sharpness=10.0)
        return next(r.detail for r in reasons_for(surer, 0.1, windows) if r.code == "constant_offset")

    assert "200 ms late throughout" in said([5] * 250)
    wandering = [offset for offset in (5, 8, 2, 5, 9, 1, 5, 8, 2, 5) for _ in range(25)]
    assert "200 ms late on the whole and wanders" in said(wandering)


def test_a_rendered_face_is_a_fake_however_well_it_is_in_sync():
    windows = slide(face([0] * 100, rendered=4.0), 1.0, 0.2)
    assert verdict(windows) == "fake"
    assert all(RULE.sync_score(w) > 0.9 and RULE.content_score(w) < 0.01 for w in windows)


def test_two_seconds_that_are_rendered_are_found_in_twenty_and_named():
    look = np.full(500, -3.0)
    look[200:250] = 4.0
    windows = slide(face([0] * 500, rendered=look), 1.0, 0.2)
    mean, worst = RULE.video_facts(windows, fine=True)
    assert mean < 1 and worst > 1.5
    assert RULE.fake_probability(windows) > RULE.fake_probability(slide(face([0] * 500), 1.0, 0.2))
    _, changed, rendered, *_ = reasons_for(RULE, RULE.fake_probability(windows), windows)
    assert rendered.code == "rendered_face" and "from 7.4 to 10.6 s" in rendered.detail
    assert changed.code == "changed_look" and "from 8.0 to 10.0 s" in changed.detail
    suspicious = [w for w in windows if RULE.window_probability(w) > 0.5]
    assert suspicious and all(w.start >= 175 and w.end <= 275 for w in suspicious)


def most_changed(rule: VerdictRule, windows: list[WindowEvidence]) -> float:
    """Log-odds of a fake in part, by whatever changes."""
    return max(rule.change_log_odds(one, evidence_s(windows)) for one in rule.changed(windows))


def test_a_mouth_that_looks_rendered_for_a_while_is_held_against_the_rest_of_it():
    look = np.full(250, -3.0)
    look[100:150] = -1.0
    windows = slide(face([0] * 250, rendered=look), 1.0, 0.2)
    assert reasons_for(RULE, 0.1, windows)[0].code != "changed_look"
    most = max(changes(windows), key=lambda change: change.facts[LOOK])
    assert spans_text(most.windows) == "from 4.0 to 6.0 s" and most.facts[LOOK] == pytest.approx(2.0, abs=0.1)
    assert most_changed(RULE, windows) == pytest.approx(2 * most.facts[LOOK][0] - 6 - MARGIN)
    much = slide(face([0] * 250, rendered=20 * look), 1.0, 0.2)
    assert most_changed(RULE, much) == 2 * MOST_CHANGED - 6 - MARGIN, "it counts only so much"
    softer = slide(face([0] * 250, rendered=-look), 1.0, 0.2)
    assert most_changed(RULE, softer) < most_changed(RULE, windows), "looking more filmed is no change that counts"


def test_a_mouth_that_fits_its_voice_worse_for_a_while_is_held_against_the_rest_of_it():
    other_words = [0] * 100 + [None] * 50 + [0] * 100
    windows = slide(face(other_words), 1.0, 0.2)
    assert RULE.fake_probability(windows) > 0.5 > RULE.fake_probability(slide(face([0] * 250), 1.0, 0.2))
    most = max(RULE.changed(windows), key=lambda one: one.sync)
    assert spans_text(most.windows) == "from 4.0 to 6.0 s" and most.look < most.sync
    changed = next(reason for reason in reasons_for(RULE, 0.7, windows) if reason.code == "changed_sync")
    assert "from 4.0 to 6.0 s" in changed.detail
    coarse = slide(face(other_words, quantizer=30.0), 1.0, 0.2)
    assert max(one.sync for one in RULE.changed(coarse)) == pytest.approx(most.sync)
    throughout = RULE.changed(slide(face([None] * 250), 1.0, 0.2))
    assert max(one.sync for one in throughout) < most.sync, "what is so throughout does not change"


def test_a_longer_video_is_not_suspicious_for_its_length():
    odds = replace(RULE.look_change, tail=0.5)
    assert odds.log_odds(3.0, 2.0) == RULE.look_change.log_odds(3.0, 600.0)
    assert odds.log_odds(3.0, 2.0 * np.e) == pytest.approx(RULE.look_change.log_odds(2.5, 2.0))
    assert odds.log_odds(100.0, 600.0) == odds.log_odds(MOST_CHANGED, 2.0)


def test_windows_point_at_where_looks_or_sync_change():
    look_change = replace(RULE.look_change, odds=Logistic((4.0,), -6.0))
    sync_change = ChangeOdds((0.7, 0.1), 0.0, Logistic((4.0,), -3.0))
    rule, look = replace(RULE, look_change=look_change, sync_change=sync_change), np.full(250, -3.0)
    look[100:150] = -0.5
    looser = face([0] * 250).similarity
    looser[100:150, MAX_OFFSET] -= 1.0
    for changed in (face([0] * 250, rendered=look), replace(face([0] * 250), similarity=looser)):
        windows = slide(changed, 1.0, 0.2)
        alone, together = [rule.window_probability(w) for w in windows], rule.window_probabilities(windows)
        assert all(after >= before for before, after in zip(alone, together))
        most = max(range(len(windows)), key=lambda i: together[i] - alone[i])
        assert together[most] - alone[most] > 0.1 and windows[most].start >= 100 and windows[most].end <= 150
        assert together[0] == alone[0]
    assert rule.window_probabilities([]) == []


def test_a_change_counts_within_one_face_and_beside_enough_of_it_alone():
    assert changes(slide(face([0] * 98), 1.0, 0.2)) == []
    assert changes(slide(face([0] * 105), 1.0, 0.2))
    filmed, other = (slide(face([0] * 95, rendered=look), 1.0, 0.2) for look in (-3.0, 4.0))
    elsewhere = [replace(window, track_id=1, start=window.start + 95, end=window.end + 95) for window in other]
    assert changes([*filmed, *elsewhere]) == RULE.changed([*filmed, *elsewhere]) == []


def test_coarse_video_is_not_asked_whether_looks_change():
    look = np.full(250, -3.0)
    look[100:150] = 2.0
    fine, coarse = (slide(face([0] * 250, rendered=look, quantizer=qp), 1.0, 0.2) for qp in (20.0, 30.0))
    assert RULE.log_odds(fine) >= most_changed(RULE, fine) > RULE.log_odds(coarse) > most_changed(RULE, coarse)
    assert RULE.window_probabilities(coarse) == [RULE.window_probability(window) for window in coarse]
    assert "changed_look" not in [reason.code for reason in reasons_for(RULE, 0.9, coarse)]


def test_the_likelier_of_a_fake_throughout_and_in_part_counts():
    assert RULE.fine.log_odds(np.array([4.0, 4.5])) == 4.0
    assert RULE.fine.log_odds(np.array([1.0, 4.5])) == 3.0


def test_only_what_is_more_suspicious_than_real_video_counts_and_each_fact_only_so_much():
    usual, spread = np.array(RULE.of_real), np.array(RULE.spread)
    suspicious = np.array([-1, -1, -1, 1, 1, 1, 1, 1])
    assert RULE.unusual(usual, 5) == 0 and RULE.unusual(usual - 5 * suspicious * spread, 5) == 0
    assert RULE.kinds(usual + suspicious * spread, 5) == pytest.approx((1, 1, 2**0.5, 1))
    together = 2 + 3**0.5
    assert RULE.unusual(usual + suspicious * spread, 5) == pytest.approx(together), "sync and colours add to the pixels"
    for alone in (np.eye(8)[3], np.repeat([0, 1, 0], [4, 3, 1]), np.eye(8)[7]):
        assert RULE.unusual(usual + 100 * suspicious * spread * alone, 5) == 4


def test_the_same_facts_are_less_unusual_of_less_evidence():
    fluttering = replace(RULE, flutter=RULE.spread)
    facts = np.array(RULE.of_real) + 2 * np.array([-1, -1, -1, 1, 1, 1, 1, 1]) * RULE.spread
    by_length = [fluttering.unusual(facts, seconds) for seconds in (0.5, 1, 4, 1e6)]
    assert by_length == pytest.approx([2 * (2 + 3**0.5) / (1 + share) ** 0.5 for share in (1, 1, 1 / 4, 0)], rel=1e-3)


def test_a_blunt_peak_is_suspicious_and_a_sharp_one_is_not():
    sharp = face([0] * 100)
    blunt = replace(sharp, similarity=uniform_filter1d(7 * sharp.similarity, 7, axis=1))
    (_, peak, agrees), (_, blunted, still) = (slide(one, 1.0, 0.2)[0].sync_facts for one in (sharp, blunt))
    assert agrees == still == 1 and blunted < 0.6 * peak
    by_blunt, by_sharp = (RULE.suspicion(slide(one, 1.0, 0.2), fine=True).sync for one in (blunt, sharp))
    assert by_blunt > 1.5 > 0.5 > by_sharp


@pytest.mark.parametrize(("likeness", "share"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_mouth_and_sound_change_alike_as_far_as_one_is_the_other(likeness, share):
    detector = Detector(DetectorInfo("made", "0", "cpu", {}, {}), RULE, scale=10.0, run=lambda kind, items: items)
    sound, other = (directions(200, seed) for seed in (0, 1))
    mouth = likeness * sound + (1 - likeness**2) ** 0.5 * other
    similarity = detector.offset_similarity(mouth, aligned_sound(sound, 0, 200))
    seen = np.ones(200, bool)
    change = mean_change(detector.change(mouth), detector.change(sound), 0)
    whole = replace(face([0] * 200), similarity=similarity, fit=fit_among_mouths(similarity, seen), change=change)
    found = [window.sync_facts[1] for window in slide(whole, 1.0, 0.2, offset=0)]
    assert np.mean(found) == pytest.approx(share, abs=0.06)


def directions(frames: int, seed: int) -> np.ndarray:
    """(frames, 256) unit vectors that turn within a few frames."""
    drawn = uniform_filter1d(np.random.default_rng(seed).normal(size=(frames, EMBEDDING)), 5, axis=0)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_a_sound_that_suits_every_mouth_and_mouths_that_are_hidden_say_nothing_of_how_well_one_fits():
    rng = np.random.default_rng(0)
    similarity, seen = rng.normal(0, 3, (90, 31)).astype(np.float32), rng.random(90) < 0.8
    suits_all = sliding_window_view(rng.normal(0, 9, 120), 31)
    fit = fit_among_mouths(similarity, seen)
    assert fit_among_mouths((similarity + suits_all).astype(np.float32), seen) == pytest.approx(fit, abs=1e-4)
    hidden = np.where(seen[:, None], similarity, 50.0)
    assert fit_among_mouths(hidden, seen)[seen] == pytest.approx(fit[seen], abs=1e-4)
    assert fit_among_mouths(similarity[10:80], seen[10:80])[30:40] == pytest.approx(fit[40:50], abs=1e-4)
    silent = np.where(np.arange(31) < 15 - np.arange(90)[:, None], 0, similarity + 20).astype(np.float32)
    of_silent = fit_among_mouths(silent, seen)
    assert of_silent[silent == 0].max() < of_silent[silent != 0].min(), "before the first sound, none fits"


def test_the_worst_of_a_long_video_weighs_less_than_the_same_of_a_short_one():
    look = np.full(100, -3.0)
    look[25:75] = 1.0
    short = RULE.fake_probability(slide(face([0] * 100, rendered=look), 1.0, 0.2))
    long = RULE.fake_probability(slide(face([0] * 2000, rendered=np.pad(look, (0, 1900), "edge")), 1.0, 0.2))
    assert long < short
    assert replace(RULE, tail=0.0).video_facts(slide(face([0] * 50), 1.0, 0.2), fine=True)[1] == pytest.approx(
        RULE.video_facts(slide(face([0] * 50), 1.0, 0.2), fine=True)[1]
    )


def test_stretches_of_two_seconds_slide_and_leave_out_what_is_mostly_gap():
    windows = slide(face([0] * 100), 1.0, 0.2)
    assert stretches(windows) == [(i, i + 6) for i in range(11)]
    assert stretches(windows[:3]) == [(0, 3)]
    assert stretches([windows[0], *windows[10:]])
    sparse = [*windows[:6], windows[-1]]
    assert stretches(sparse)[0] == (0, 6) and (6, 7) not in stretches(sparse)


def test_hours_of_windows_are_judged_in_bounded_memory():
    many = slide(face([0] * 15_000), 1.0, 0.04)
    tracemalloc.start()
    RULE.fake_probability(many)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_where_no_face_was_seen_whole_its_look_says_nothing():
    assert {w.rendered for w in slide(face([0] * 50, rendered=np.nan), 1.0, 0.2)} == {0.0}
    assert over_time(np.array([2, 4]), np.array([1.0, 3.0]), 6).tolist() == [1, 1, 1, 2, 3, 3]
    assert np.isnan(over_time(np.zeros(0, int), np.zeros(0), 3)).all()


@pytest.mark.parametrize(
    ("smooth", "quantizer", "told", "judged"),
    [
        (0.05, 27.0, True, True),
        (0.05, np.nan, True, True),
        (0.2, 20.0, False, True),
        (0.2, np.nan, False, False),
        (0.05, 31.0, False, True),
        (0.05, 35.0, False, False),
    ],
)
def test_what_compression_left_decides_what_is_told(smooth, quantizer, told, judged):
    windows = slide(face([5] * 100, smooth=smooth, quantizer=quantizer), 1.0, 0.2)
    assert is_coarse(windows) == (not told) and too_compressed(windows) == (not judged) == (not can_be_judged(windows))


def test_what_is_too_compressed_says_why():
    for look in ({"quantizer": 35.0}, {"smooth": 0.2, "quantizer": np.nan}):
        windows = slide(face([5] * 100, **look), 1.0, 0.2)
        reasons = too_compressed_reasons(RULE, windows)
        assert [reason.code for reason in reasons] == ["too_compressed", "constant_offset"]
        assert ("QP 35" in reasons[0].detail) == ("smooth" not in look)


def test_of_coarse_pictures_neither_looks_nor_smooth_colours_count():
    def coded(offsets: list[int | None] = [0] * 100, **look: float) -> list[WindowEvidence]:
        return slide(face(offsets, quantizer=31.0, **look), 1.0, 0.2)

    usual = coded()
    for alike in (coded(rendered=4.0), coded(smooth_colours=0.0)):
        assert RULE.fake_probability(alike) == RULE.fake_probability(usual)
        assert RULE.window_probability(alike[0]) == RULE.window_probability(usual[0])
    for other in (coded(restless=2.0), coded(smooth=0.5), coded(wandering(100))):
        assert RULE.fake_probability(other) > RULE.fake_probability(usual) + 0.2
    codes = [[reason.code for reason in reasons_for(RULE, p, w)] for p, w in ((0.1, usual), (0.9, coded(restless=2.0)))]
    assert codes == [["in_sync", "coarse_picture"], ["restless_colours", "coarse_picture"]]


def test_spans_are_joined_and_in_seconds():
    windows = slide(face([0] * 200), 1.0, 0.2)
    assert spans_text([windows[0], windows[1], windows[20]]) == "from 0.0 to 1.2 s and from 4.0 to 5.0 s"


def test_without_a_rule_nothing_is_said():
    assert UNFITTED.fake_probability(slide(face([0] * 50), 1.0, 0.2)) == 0.5


@pytest.mark.parametrize(
    ("state", "note"),
    [
        ({"speech": False}, "no_speech"),
        ({"usable": False}, "mouth_not_visible"),
        ({"moving": False}, "mouth_still"),
        ({}, None),
    ],
)
def test_windows_without_evidence_say_why(state, note):
    assert {w.note for w in slide(face([0] * 50, **state), 1.0, 0.2)} == {note}


@pytest.mark.parametrize(
    ("window_s", "hop_s", "expected"),
    [(1.0, 0.2, 21), (1.0, 1.0, 5), (0.2, 0.04, 121), (5.0, 0.2, 1), (6.0, 0.2, 0)],
)
def test_windows_slide_as_asked(window_s, hop_s, expected):
    windows = slide(face([0] * 125), window_s, hop_s)
    assert len(windows) == expected
    assert all(w.end - w.start == round(window_s * 25) for w in windows)
    assert [w.start for w in windows] == [round(i * hop_s * 25) for i in range(expected)]


def test_windows_of_a_late_track_lie_on_the_grid_of_the_video():
    assert window_starts(7, 60, 1.0, 0.2) == [10, 15, 20, 25, 30, 35]


def test_evidence_counts_overlapping_windows_once():
    assert evidence_s(slide(face([0] * 50), 1.0, 0.2)) == 2.0
    assert evidence_s([]) == 0.0


def test_sound_is_aligned_with_the_pictures_and_zero_where_there_is_none():
    audio = np.arange(1, 41, dtype=np.float32)[:, None] * np.ones((1, EMBEDDING), np.float32)
    assert aligned_sound(audio, 0, 10)[MAX_OFFSET, 0] == 1
    assert aligned_sound(audio, 20, 10)[0, 0] == 20 - MAX_OFFSET + 1
    assert (aligned_sound(audio, 0, 10)[:MAX_OFFSET] == 0).all()
    assert (aligned_sound(audio, 35, 20)[MAX_OFFSET + 5 :] == 0).all()
    assert (aligned_sound(audio[:0], 0, 5) == 0).all()


def test_speech_is_widened_a_little_and_absent_beyond_the_sound():
    probability = np.zeros(20, np.float32)
    probability[10] = 0.9
    speech = speech_frames(probability, 30)
    assert speech.nonzero()[0].tolist() == list(range(7, 14)) and len(speech) == 30
    for first in range(31):
        assert (speech_frames(probability, 30, first) == speech[first:]).all()


def test_a_rule_survives_a_round_trip(tmp_path):
    save_rule(RULE, tmp_path / "rule.json")
    assert parse_rule((tmp_path / "rule.json").read_bytes()) == RULE
