"""The rule that is fitted: what is usual is learnt from people, and from nothing that is generated."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from model.engine import Detector
from model.results import DetectorInfo
from model.training.clips import Clip
from model.training.fit_verdict import _highest, fit
from model.training.report import Report
from model.training.trials import PARTIAL, EmbeddedClip, joined_windows, windows_with_evidence
from model.training.verdict_figures import joined
from model.verdict import UNFITTED, VerdictRule, evidence_s

FRAMES = 130


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Without networks: comparing embeddings needs none."""
    return Detector(DetectorInfo("made", "0", "cpu", {}, {}), UNFITTED, scale=12.0, run=lambda kind, items: items)


def talking(who: str, rendered: float, *, fake: bool = False, likeness: float = 0.8, number: int = 0) -> EmbeddedClip:
    """Somebody whose mouth and voice are as alike as said, and whose mouth looks as rendered."""
    method = "Loopy" if fake else "lrs3"
    clip = Clip(f"{'fake' if fake else 'real'}/{method}/{who}/{number}.mp4", fake, method, who)
    rng = np.random.default_rng([number, *who.encode()])

    def directions() -> np.ndarray:
        drawn = rng.normal(size=(FRAMES, 256)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    sound = directions()
    mouth = likeness * sound + (1 - likeness**2) ** 0.5 * directions()
    look = rendered + rng.normal(0, 0.3, FRAMES).astype(np.float32)
    smooth = rng.normal(-0.5, 0.1, (FRAMES, 5)).astype(np.float32)
    always = np.ones(FRAMES, bool)
    opening = rng.uniform(0, 0.2, FRAMES).astype(np.float32)
    return EmbeddedClip(
        clip, mouth, sound, np.ones(FRAMES, np.float32), always, ~always, opening, look, smooth, look * 0 + 20
    )


@pytest.fixture(scope="module")
def people() -> list[EmbeddedClip]:
    """Two clips each of ten."""
    looks = np.random.default_rng(0).normal(-2, 0.4, 10)
    return [talking(f"p{k}", look, number=n) for k, look in enumerate(looks) for n in range(2)]


@pytest.fixture(scope="module")
def generated() -> list[EmbeddedClip]:
    looks = np.random.default_rng(1).normal(1, 0.5, 8)
    return [talking(f"f{k}", look, fake=True) for k, look in enumerate(looks)]


@pytest.fixture(scope="module")
def rule(detector, people, generated) -> VerdictRule:
    return fit(detector, people, generated)


def probability(detector: Detector, rule: VerdictRule, clip: EmbeddedClip) -> float:
    return rule.fake_probability(windows_with_evidence(detector, clip))


def test_real_people_are_never_called_fake_and_rendered_ones_and_other_voices_are_suspicious(
    detector, rule, people, generated
):
    of_people = [probability(detector, rule, one) for one in people]
    assert max(of_people) <= rule.fake_above and np.median(of_people) < 0.3
    assert min(probability(detector, rule, one) for one in generated) > 0.7
    other_voice = people[0].with_sound_of(people[4])
    assert probability(detector, rule, other_voice) > 0.8 > 0.5 > probability(detector, rule, people[0])


def test_who_looks_rendered_by_nature_makes_it_usual(detector, rule, people, generated):
    looks = np.random.default_rng(2).normal(-1, 0.9, 20)
    wiser = fit(detector, [*people, *(talking(f"s{k}", look) for k, look in enumerate(looks))], generated)
    assert wiser.of_real[3] > rule.of_real[3] and wiser.spread[3] > rule.spread[3]
    rendered = talking("x", 0.3)
    assert probability(detector, wiser, rendered) < 0.5 < probability(detector, rule, rendered)


def test_people_who_are_heard_worse_make_it_usual_that_some_windows_disagree_on_the_offset(
    detector, rule, people, generated
):
    heard_worse = [talking(f"p{k}", -2, likeness=0.03, number=9) for k in range(10)]
    wiser = fit(detector, people, generated, heard_worse=heard_worse)
    assert wiser.spread[2] > 2 * rule.spread[2]
    assert [*wiser.of_real, *wiser.spread[3:]] == [*rule.of_real, *rule.spread[3:]]
    unsure = talking("x", -2, likeness=0.03)
    assert probability(detector, wiser, unsure) < probability(detector, rule, unsure)


def test_no_generator_has_a_say_in_how_unusual_a_video_is(detector, rule, people, generated):
    others = [talking(f"g{k}", 4.0, fake=True, likeness=0.2) for k in range(8)]
    fitted = fit(detector, people, others)
    assert (fitted.of_real, fitted.spread, fitted.flutter) == (rule.of_real, rule.spread, rule.flutter)


def rendered_for_a_while(clip: EmbeddedClip, by: float) -> EmbeddedClip:
    """The same clip, but for 2 s its mouth looks so much more rendered."""
    return replace(clip, rendered=clip.rendered + by * (np.abs(np.arange(FRAMES) - FRAMES / 2) < 25))


def saying_other_words(clip: EmbeddedClip) -> EmbeddedClip:
    """The same clip, but for 2 s it is heard saying what it says at another moment."""
    middle, other = (slice(first, first + PARTIAL) for first in ((FRAMES - PARTIAL) // 2, 0))
    audio = clip.audio.copy()
    audio[middle] = clip.audio[other]
    return clip.with_sound(audio, clip.speech)


@pytest.fixture(scope="module")
def wiser(detector, people, generated):
    """The rule that also knows what changes within a video say."""
    painted = [rendered_for_a_while(one, 2.0) for one in people]
    return fit(detector, people, generated, painted=painted, said=[saying_other_words(one) for one in people])


def test_looks_that_change_make_a_video_suspicious(detector, rule, wiser):
    assert [len(odds.usual) for odds in (wiser.look_change, wiser.sync_change)] == [1, 2]
    for odds in (wiser.look_change, wiser.sync_change):
        assert min(odds.usual) > 0 and odds.odds.weights[0] > 0
    assert wiser.sync_change.tail > 0
    unchanged = replace(wiser, look_change=rule.look_change, sync_change=rule.sync_change)
    assert unchanged == rule, "nothing else is learnt from them"
    someone = talking("x", -2)
    looks = [probability(detector, wiser, rendered_for_a_while(someone, by)) for by in (0.0, 1.0, 3.0, 100.0)]
    assert probability(detector, rule, someone) <= looks[0] < 0.3 < looks[1] < looks[2] == looks[3]


def test_other_words_for_a_while_make_a_video_suspicious_and_get_nothing_called_fake(detector, wiser):
    someone = talking("x", -2)
    untouched, spoken, painted = (
        max(wiser.change_log_odds(one, evidence_s(windows)) for one in wiser.changed(windows))
        for clip in (someone, saying_other_words(someone), rendered_for_a_while(someone, 100.0))
        for windows in [windows_with_evidence(detector, clip)]
    )
    assert untouched < 0 < spoken < logit(wiser.fake_above) > painted


def test_sound_that_is_heard_worse_makes_it_usual_that_mouth_and_voice_fit_worse_for_a_while(
    detector, people, generated, wiser
):
    spoken = [saying_other_words(one) for one in people]
    painted = [rendered_for_a_while(one, 2.0) for one in people]
    heard_worse = [talking(f"p{k}", -2, likeness=0.03, number=9) for k in range(10)]
    warier = fit(detector, people, generated, heard_worse=heard_worse, painted=painted, said=spoken)
    assert min(np.divide(warier.sync_change.usual, wiser.sync_change.usual)) > 1
    assert warier.look_change.usual == wiser.look_change.usual


def test_the_threshold_is_set_by_people_however_many_parts_they_have(rule):
    people = [(f"p{k}", log_odds) for k, log_odds in enumerate(np.linspace(-3, 2, 12))]
    highest = _highest(rule.fine, people)
    assert _highest(rule.fine, [*people, *[("p0", -3.0)] * 500]) == highest > 4.0
    assert _highest(rule.fine, [(who, log_odds / 9) for who, log_odds in people]) < highest


def test_edited_real_video_has_a_say_in_the_threshold_and_in_nothing_else(detector, rule, people, generated):
    edited = [replace(one, rendered=one.rendered + 2, motion=one.motion + 0.2) for one in people]
    warier = fit(detector, people, generated, edited=edited)
    highest = max(rule.accusing_log_odds(windows_with_evidence(detector, one)) for one in edited)
    assert logit(rule.fake_above) < highest < logit(warier.fake_above)
    assert replace(warier, fake_above=rule.fake_above, coarse=rule.coarse) == rule


def test_looks_motion_or_colours_alone_get_nothing_called_fake_but_another_voice_does(detector, rule, people):
    def verdict(facts: list[float]) -> str:
        log_odds = rule.fine.log_odds(np.full(2, rule.unusual(np.array(facts), seconds=10.0)))
        return rule.verdict(float(expit(log_odds)), may_be_called_fake=True)

    usual = list(rule.of_real)
    assert verdict(usual) == "real"
    look, motion, colours = [50.0], [9.0] * 3, [9.0]
    for alone in (look + usual[4:], usual[3:4] + motion + usual[7:], usual[3:7] + colours):
        assert verdict(usual[:3] + alone) == "inconclusive"
    for together in (look + motion + usual[7:], look + usual[4:7] + colours, usual[3:4] + motion + colours):
        assert verdict(usual[:3] + together) == "fake"
    assert verdict([-9.0, -9.0, -9.0, *usual[3:]]) == "fake"


def test_clips_of_a_second_are_judged_together(detector, rule, monkeypatch):
    monkeypatch.setattr("model.training.statistics.RESAMPLES", 20)
    judge = Detector(detector.info, rule, detector.scale, detector.run)
    short = [talking("new", -2.0, number=n).part(0, 30) for n in range(4)]
    windows = joined_windows(judge, short)
    assert len(windows) == sum(len(windows_with_evidence(judge, clip)) for clip in short)
    assert evidence_s(windows) == pytest.approx(sum(evidence_s(windows_with_evidence(judge, one)) for one in short))
    assert all(window.end <= 30 * (1 + window.start // 30) for window in windows), "no window is of two clips"
    report = Report()
    joined(
        report,
        judge,
        {
            "new": short,
            "alone": [talking("alone", -2.0).part(0, 30)],
            "rendered": [talking("r", 3.0), talking("r", 3.0)],
        },
    )
    (rows,) = report.sections.values()
    assert rows["real"]["called real"].value == pytest.approx(2 / 3)
    assert rows["real, with 2 s that can be judged"]["not called real"].value == 0.5
