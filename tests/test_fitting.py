"""The rule that is fitted: what is usual is learnt from people, and from those that a network does not know."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from model.engine import Detector
from model.training.clips import FOLDS, Clip, fold_of
from model.training.fit_verdict import fit, judged
from model.training.train_temporal import teaches
from model.training.trials import EmbeddedClip, windows_with_evidence
from model.verdict import VerdictRule

FRAMES = 130
SCALE = 12.0


@pytest.fixture(scope="module")
def detector() -> Detector:
    """As much of one as comparing embeddings needs."""
    part = SimpleNamespace(scale=SCALE)
    part.offset_similarity = lambda video, audio: Detector.offset_similarity(part, video, audio)
    return part


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
    smooth = rng.normal(-0.5, 0.1, (FRAMES, 2)).astype(np.float32)
    always = np.ones(FRAMES, bool)
    opening = rng.uniform(0, 0.2, FRAMES).astype(np.float32)
    return EmbeddedClip(clip, mouth, sound, np.ones(FRAMES, np.float32), always, opening, look, smooth)


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
    assert min(probability(detector, rule, one) for one in generated) > 0.8
    other_voice = people[0].with_sound_of(people[4])
    assert probability(detector, rule, other_voice) > 0.8 > 0.5 > probability(detector, rule, people[0])


def test_who_looks_rendered_to_networks_that_do_not_know_them_makes_it_usual(detector, rule, people, generated):
    strangers = [talking(f"s{k}", look) for k, look in enumerate(np.random.default_rng(2).normal(-1, 0.9, 20))]
    wiser = fit(detector, people, generated, acquaintances=strangers)
    assert wiser.of_real[3] > rule.of_real[3] and wiser.spread[3] > rule.spread[3]
    rendered = talking("x", -0.8)
    assert probability(detector, wiser, rendered) < 0.5 < probability(detector, rule, rendered)


def test_how_well_the_sync_detector_knows_somebody_does_not_count(detector, rule, people, generated):
    known = [talking(f"k{k}", -2, likeness=0.99) for k in range(20)]
    strength = float(judged(detector, known)[0].windows[0].sync_facts[0])
    fitted = fit(detector, people, generated, acquaintances=known)
    assert strength > rule.of_real[0] + 5 * rule.spread[0]
    assert fitted.of_real[0] == pytest.approx(rule.of_real[0], abs=0.5 * rule.spread[0])
    assert fitted.sharpness == rule.sharpness


def test_everybody_is_in_one_fold_and_only_real_clips_fine_enough_teach_looks():
    clips = [talking(f"p{k}", 0, number=n).clip for k in range(30) for n in range(2)]
    folds = {clip.identity: fold_of(clip) for clip in clips}
    assert all(fold_of(clip) == folds[clip.identity] for clip in clips) and set(folds.values()) == set(range(FOLDS))
    one = clips[0]
    assert teaches(one) and not teaches(replace(one, fake=True))
    assert not any(teaches(replace(one, corpus=corpus)) for corpus in ("arabic_news", "voxceleb2"))
