"""Figures, tables, plots, degradations and probes: what the model card is made of."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model.media import MediaFile, load_audio
from model.training.clips import FAMILIES, Clip
from model.training.evaluate import PLACES
from model.training.plots import plot_offsets, plot_reliability, plot_roc, plot_scores, roc
from model.training.probes import container_facts, know, probe, sound_facts
from model.training.reencode import Encoding, at_rate, filtered, fitted, reencode
from model.training.report import Report, load_report, refresh_card
from model.training.robustness import BASELINE, CLIPS_PER_SIDE, CONDITIONS, Outcome, chosen_clips, tabulate
from model.training.scores import Answer, LeftOut, answer, by_identity, fake_probability
from model.training.sounds import WORSE, by_telephone, with_music, with_noise, with_voices
from model.training.statistics import (
    Figure,
    auc_loss_over_identities,
    balanced_accuracy_over_identities,
    calibration_error_by_chance,
    calibration_error_over_identities,
    even_odds,
    reliability,
    share_over_identities,
    stratified_auc_over_identities,
)
from model.training.sync_figures import SHIFTS, OffsetTrial, constant_offsets
from model.training.trials import EmbeddedClip, few_of_each, swapped_segments
from model.training.verdict_figures import ablation, add_verdicts, false_alarms, matched_by_size, unseen_generators
from model.verdict import FINE_QUANTIZER, UNFITTED, Kinds
from tests.conftest import write_media

PEOPLE = [f"p{i}" for i in range(20)]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.training.statistics.RESAMPLES", 50)


def clip(who: str, fake: bool = False, corpus: str = "lrs3", number: int = 0) -> Clip:
    return Clip(f"{'fake' if fake else 'real'}/{corpus}/{who}/{number}.mp4", fake, corpus, who)


def said(of: Clip, probability: float | None, verdict: str = "real") -> Answer:
    return Answer(of, 3.0, probability, verdict, None if probability is None else Kinds(*[probability] * 4))


def left_out(family: str, fake: float, real: float) -> LeftOut:
    """Everybody once, real and generated, with the same probabilities."""
    method = FAMILIES[family][0]
    return LeftOut(
        family, [], [said(clip(who, True, method), fake) for who in PEOPLE], [said(clip(who), real) for who in PEOPLE]
    )


def test_calibration_error_is_zero_when_probabilities_are_true_and_large_when_they_are_not():
    fakes = {who: [0.75] * 3 + [0.25] for who in PEOPLE}
    real = {who: [0.25] * 3 + [0.75] for who in PEOPLE}
    assert calibration_error_over_identities(fakes, real).value == pytest.approx(0, abs=1e-9)
    assert calibration_error_over_identities(real, fakes).value == pytest.approx(0.5)
    few, many = ({str(k): [k % 10 / 10] for k in range(count)} for count in (20, 2000))
    assert calibration_error_by_chance(few, few).value > 3 * calibration_error_by_chance(many, many).value > 0
    sure = calibration_error_over_identities({who: [0.9] for who in PEOPLE}, {who: [0.1] for who in PEOPLE})
    assert sure.value == pytest.approx(0.1) and sure.low <= sure.value <= sure.high


def test_a_share_of_none_or_of_all_has_an_interval_too():
    none, every, some = (
        share_over_identities(dict.fromkeys(PEOPLE, share)) for share in ([False], [True], [True, False])
    )
    assert none.value == none.low == 0 and none.high == pytest.approx(0.168, abs=0.001)
    assert every.value == every.high == 1 and every.low == pytest.approx(0.832, abs=0.001)
    assert some.low == some.value == some.high == 0.5, "people who do not differ do not, at any other share"
    assert share_over_identities({}).identities == 0


def test_even_odds_weigh_both_sides_and_every_person_alike():
    score, truth, weight = even_odds({"a": [0.9] * 10, "b": [0.8]}, {who: [0.1, 0.2] for who in PEOPLE})
    assert weight[truth == 1].sum() == pytest.approx(0.5) and weight[truth == 0].sum() == pytest.approx(0.5)
    assert weight[score == 0.8].sum() == pytest.approx(0.25)
    assert reliability(score, truth, weight)[:, 2].sum() == pytest.approx(1)
    assert len(reliability(np.array([0.0, 1.0]), np.array([0, 1]), np.array([0.5, 0.5]))) == 2


def test_scores_of_different_detectors_are_not_compared():
    low, high = ({"a": [0.2]}, {"b": [0.1]}), ({"c": [0.9]}, {"b": [0.8]})
    assert stratified_auc_over_identities([low, high]).value == 1
    assert stratified_auc_over_identities([low, ({"c": [0.5, 0.5, 0.5]}, {"b": [0.8]})]).value == 0.25
    assert stratified_auc_over_identities([({}, {"b": [0.1]})]).identities == 0


def test_loss_and_balanced_accuracy():
    good, bad = (
        ({"a": [2.0], "b": [3.0]}, {"a": [0.0], "b": [1.0]}),
        ({"a": [0.0], "b": [1.0]}, {"a": [2.0], "b": [3.0]}),
    )
    assert auc_loss_over_identities(good, good).value == 0 and auc_loss_over_identities(good, bad).value == 1
    assert balanced_accuracy_over_identities({"a": [1, 1], "b": [1]}, {"a": [0], "b": [1] * 9}).value == 0.75


def test_a_report_tells_what_was_reached_and_survives_a_round_trip(tmp_path):
    report = Report()
    report.target("AUC", Figure(0.96, 0.9, 0.99, 12), 0.95)
    report.target("called fake", Figure(0.05, 0.0, 0.1, 12), 0.02, at_most=True)
    report.add("Verdict", "real", "called fake", Figure(0.05, 0.0, 0.1, 12))
    report.add("Verdict", "fake", "AUC", Figure(0.5, 0.4, 0.6, 3))
    report.add("Verdict", "fake", "nothing known", Figure(float("nan"), float("nan"), float("nan"), 0))
    report.note("Verdict", "Mind this.")
    report.picture("ROC", "plots/roc.png")
    text = report.as_markdown()
    assert "| AUC | 0.960 (0.900 to 0.990, n=12) | >= 0.95 | yes |" in text
    assert "| called fake | 0.050 (0.000 to 0.100, n=12) | <= 0.02 | no |" in text
    assert "| fake |  | 0.500 (0.400 to 0.600, n=3) |" in text and "nothing known" not in text
    assert "![ROC](plots/roc.png)" in text and "Mind this." in text
    assert text.index("Targets") < text.index("roc.png") < text.index("### Verdict") < text.index("Peers")
    report.save(tmp_path / "report.json")
    other = Report()
    other.merge(load_report(tmp_path / "report.json"))
    assert other.as_markdown() == text


def test_the_model_card_keeps_its_words(tmp_path):
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    for figures in ("new", "newer"):
        refresh_card(card, figures)
    assert card.read_text() == "before\n<!-- figures: begin -->\n\nnewer\n<!-- figures: end -->\nafter\n"


def test_plots_are_small_pictures(tmp_path):
    rng = np.random.default_rng(0)
    fakes, real = rng.uniform(0.3, 1, 200), rng.uniform(0, 0.7, 200)
    plot_roc({"Loopy": (fakes, real), "EDTalk": (real, fakes)}, tmp_path / "roc.png")
    plot_reliability(*even_odds({"a": fakes}, {"b": real}), tmp_path / "reliability.png")
    plot_offsets({"in the wild": [-40, 0, 0, 80], "GRID": []}, tmp_path / "offsets.png")
    plot_scores({"real": real, "Loopy": fakes}, (0.5, 0.8), tmp_path / "scores.png")
    for name in ("roc", "reliability", "offsets", "scores"):
        png = (tmp_path / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG") and 2_000 < len(png) < 60_000


def test_roc_rises_from_nothing_to_everything():
    false_alarms, found = roc([0.9, 0.8, 0.2], [0.1, 0.5])
    assert found.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert false_alarms.tolist() == [0, 0, 0, 0.5, 0.5, 1]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Noise in grey squares, 320 x 240, 2 s at 30 pictures a second, with a tone."""
    return write_media(tmp_path_factory.mktemp("video") / "video.mp4", size=(320, 240), fps=30)


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format="gray") for picture in container.decode(video=0)]


def written(video: Path, folder: Path, encoding: Encoding, seconds: float = 1.0) -> Path:
    reencode(video, folder / "out.mp4", encoding, seconds)
    return folder / "out.mp4"


def test_a_file_written_anew_is_the_same_but_for_what_is_asked(video, tmp_path):
    out = written(video, tmp_path, Encoding())
    info = MediaFile(out).info
    assert (info.width, info.height, info.sample_rate) == (320, 240, 16_000) and abs(info.fps - 30) < 0.5
    before, after = pictures(video), pictures(out)
    assert len(after) == 30
    assert np.abs(before[7].astype(float) - after[7]).mean() < 5 < np.abs(before[7].astype(float) - after[9]).mean()
    assert abs(len(load_audio(MediaFile(out))) / 16_000 - 1.0) < 0.1


def test_a_silent_film_stays_one(tmp_path):
    out = written(write_media(tmp_path / "silent.mp4", audio=False), tmp_path, Encoding())
    assert MediaFile(out).info.audio_codec is None and len(pictures(out)) == 25


def test_lower_quality_is_smaller_and_worse(video, tmp_path):
    source, size, error = pictures(video), [], []
    for crf in (18, 32, 45):
        out = written(video, tmp_path, Encoding(crf=crf))
        size.append(out.stat().st_size)
        error.append(np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(source, pictures(out))]))
    assert size[0] > size[1] > size[2] and error[0] < error[1] < error[2]


@pytest.mark.parametrize(
    ("codec", "name"), [("libx265", "hevc"), ("libvpx-vp9", "vp9"), ("libsvtav1", "av1"), ("libx264", "h264")]
)
def test_pictures_are_coded_as_is_asked_and_how_coarsely_is_known(video, tmp_path, codec, name):
    scheduling = os.sched_getscheduler(0)
    media = MediaFile(written(video, tmp_path, Encoding(codec, crf=50)))
    assert os.sched_getscheduler(0) == scheduling
    assert media.info.video_codec == name and media.info.audio_codec == "aac"
    assert FINE_QUANTIZER < np.mean([frame.quantizer for frame in media.frames()]) < 51


def test_what_is_written_anew_is_always_the_same(video, tmp_path):
    files = [written(video, tmp_path, Encoding(crf=23, height=118)).read_bytes() for _ in range(3)]
    assert files[0] == files[1] == files[2]


def test_pictures_fit_what_is_asked_and_are_not_enlarged():
    rgb = np.full((240, 320, 3), 200, np.uint8)
    assert fitted(rgb, Encoding(height=121)).shape == (120, 162, 3)
    assert fitted(rgb, Encoding(height=480)).shape == (240, 320, 3)
    assert fitted(rgb, Encoding(enlarged=1.5)).shape == (360, 480, 3)
    square = fitted(rgb, Encoding(square=256))
    assert square.shape == (256, 256, 3) and not square[:31].any() and (square[32:224] == 200).all()
    assert fitted(np.swapaxes(rgb, 0, 1), Encoding(square=64)).shape == (64, 64, 3)


@pytest.mark.parametrize("fps", [Fraction(15), Fraction(25), Fraction(30_000, 1001), Fraction(60)])
def test_another_frame_rate_takes_the_picture_that_is_nearest_in_time(fps):
    source = [(0.01 * (k % 3) + k / 25, np.array(k)) for k in range(50)]
    converted = list(at_rate(iter(source), fps))
    assert abs(len(converted) - 2 * fps) <= 2
    for index, (time_s, rgb) in enumerate(converted):
        assert time_s == pytest.approx(index / float(fps))
        nearest = min(abs(at - time_s) for at, _ in source)
        assert abs(source[int(rgb)][0] - time_s) == pytest.approx(nearest, abs=1e-9)


def test_a_frame_rate_is_written_into_the_file(video, tmp_path):
    out = written(video, tmp_path, Encoding(fps=Fraction(24)))
    assert MediaFile(out).info.fps == 24.0 and len(pictures(out)) == 24


@pytest.mark.parametrize("add", [with_noise, with_music, with_voices])
def test_what_is_added_to_a_sound_is_as_loud_as_said_and_always_the_same(add):
    tone = np.sin(np.cumsum(np.linspace(0.02, 0.6, 32_000))).astype(np.float32)
    added = add(tone, 10.0) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(added**2)) == pytest.approx(10, abs=0.2)
    assert np.array_equal(add(tone, 10.0), add(tone, 10.0))


@pytest.mark.parametrize("worse", WORSE.values(), ids=WORSE)
def test_sound_that_is_heard_worse_stays_where_it_is(worse):
    said = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    heard = worse(said)
    assert heard.shape == said.shape and heard.dtype == np.float32
    alike = [np.abs(np.mean(heard[500 + late : 31_500 + late] * said[500:31_500])) for late in range(-500, 501)]
    assert abs(int(np.argmax(alike)) - 500) <= 8
    assert not len(worse(said[:0])) and not worse(said * 0).any()


def test_a_telephone_lets_its_band_through_alone():
    low, middle, high = (
        np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32) for hz in (80, 1000, 6000)
    )
    loudness = [np.std(by_telephone(tone)) / np.std(tone) for tone in (low, middle, high)]
    assert loudness[1] > 0.9 > 0.1 > max(loudness[0], loudness[2])


def test_pictures_go_through_filters_at_the_times_they_had(video, tmp_path):
    before, after = pictures(video), pictures(written(video, tmp_path, Encoding(filters="negate,hue=s=0")))
    assert len(after) == 30
    inverted = [np.abs(255.0 - a - b).mean() for a, b in zip(before, after)]
    assert max(inverted) < 8 < np.abs(255.0 - before[0] - after[2]).mean()


def test_pictures_odd_in_size_lose_a_row_to_filters():
    odd = [(0.0, np.full((121, 161, 3), 200, np.uint8)), (0.04, np.full((121, 161, 3), 20, np.uint8))]
    found = list(filtered(iter(odd), "negate"))
    assert [time_s for time_s, _ in found] == [0.0, 0.04]
    assert [picture.shape for _, picture in found] == [(120, 160, 3)] * 2
    assert abs(found[0][1].mean() - 55) < 5


def test_the_made_talking_face_keeps_its_delay(talk, tmp_path):
    def envelope(path: Path) -> np.ndarray:
        sound = load_audio(MediaFile(path))[:48_000]
        return np.abs(sound).reshape(-1, 160).mean(1)

    before = envelope(talk(200))
    after = envelope(written(talk(200), tmp_path, Encoding(audio_kbps=16), seconds=3.0))
    length = min(len(before), len(after)) - 20
    fits = [np.corrcoef(before[10 : 10 + length], after[10 + k : 10 + k + length])[0, 1] for k in range(-8, 9)]
    assert abs(int(np.argmax(fits)) - 8) <= 1


def test_a_probe_finds_what_gives_a_label_away_and_nothing_where_nothing_does():
    rng = np.random.default_rng(0)

    def members(names: list[str], gap: float) -> list[tuple[Clip, np.ndarray]]:
        return [
            (clip(who, fake), np.array([rng.normal(gap * fake, 1), rng.normal(), 5.0]))
            for who in names for fake in (False, True) for _ in range(5)
        ]  # fmt: skip

    telling = probe(members(PEOPLE[:10], 4.0), members(PEOPLE[10:], 4.0))
    silent = probe(members(PEOPLE[:10], 0.0), members(PEOPLE[10:], 0.0))
    assert telling.value > 0.95 and telling.low > 0.9
    assert silent.low < 0.5 < silent.high
    constant = [(clip(who, fake), np.ones(3)) for who in PEOPLE for fake in (False, True)]
    assert probe(constant, constant).value == 0.5


def test_facts_of_container_and_sound(video, tmp_path):
    small = written(video, tmp_path, Encoding(height=120))
    big, less = container_facts(video), container_facts(small)
    assert np.exp(big[:2]).round().tolist() == [320, 240] and np.exp(less[:2]).round().tolist() == [160, 120]
    assert big[5] == 30 and big[6] == pytest.approx(2, abs=0.1) and big[7:].tolist() == [1, 1]
    silent_first = np.concatenate([np.zeros(8_000), np.sin(np.arange(24_000) * 2 * np.pi * 1000 / 16_000)])
    facts = sound_facts(silent_first.astype(np.float32))
    assert facts.shape == (22,) and facts[-2] == pytest.approx(0.5, abs=0.02) and facts[-1] == pytest.approx(1, abs=0.1)
    assert np.isfinite(sound_facts(np.zeros(32_000, np.float32))).all()


def test_written_alike_only_the_bit_rate_of_the_container_differs(tmp_path):
    known = []
    for name, size, fps in (("a", (320, 240), 30), ("b", (128, 256), 25)):
        write_media(tmp_path / f"{name}.mp4", seconds=2.5, size=size, fps=fps)
        known.append(know(tmp_path, replace(clip(name), path=f"{name}.mp4")))
    write_media(tmp_path / "short.mp4", seconds=1.0)
    assert know(tmp_path, replace(clip("c"), path="short.mp4")) is None
    raw, alike = (np.abs(known[0][i].container - known[1][i].container) for i in (0, 1))
    assert (raw[[0, 1, 2, 5]] > 0.05).all()
    assert (np.delete(alike, 3) < 1e-6).all()


def test_few_of_each_takes_everybody_first():
    clips = [clip(who, number=number) for who in ("a", "b", "c") for number in range(4)]
    few = few_of_each(clips, 2)
    assert sorted(c.identity for c in few[:3]) == ["a", "b", "c"] and len(few) == 6 == len(set(few))
    assert few == few_of_each(reversed(clips), 2)


def test_voices_are_swapped_within_a_corpus_and_all_have_their_turn():
    def part(who: str, voice: float, corpus: str = "lrs3") -> EmbeddedClip:
        level = np.full(75, voice, np.float32)
        wide = level[:, None]
        return EmbeddedClip(
            clip(who, corpus=corpus), wide, wide, level, level > -1, level < -1, level, level, wide, level
        )

    parts = [part("a", 0), part("a", 1), part("a", 2), part("b", 3), part("b", 4), part("c", 5, "grid")]
    same = [(s.video[0, 0], s.audio[0, 0]) for s in swapped_segments(parts, same_identity=True)]
    assert {mouth for mouth, _ in same} == {0, 1, 2, 3, 4} and all(mouth != voice for mouth, voice in same)
    assert {voice for _, voice in same} == {0, 1, 2, 3, 4}
    other = [(s.video[0, 0], s.audio[0, 0]) for s in swapped_segments(parts, same_identity=False)]
    assert {voice for mouth, voice in other if mouth < 3} == {3, 4} and 5 not in {voice for _, voice in other}


def test_answers_without_evidence_are_inconclusive_and_left_out_of_rankings():
    unknown = answer(UNFITTED, clip("a"), [])
    assert (unknown.verdict, unknown.probability, unknown.evidence_s) == ("inconclusive", None, 0.0)
    assert by_identity([unknown, said(clip("b"), 0.3)], fake_probability) == {"b": [0.3]}
    report = Report()
    add_verdicts(report, "s", "r", [unknown, said(clip("b"), 0.9, "fake")])
    shares = {column: figure.value for column, figure in report.sections["s"]["r"].items()}
    assert shares == {"called fake": 0.5, "called real": 0, "inconclusive": 0, "too little evidence": 0.5}


def test_each_family_is_measured_by_what_never_saw_it():
    report, families = Report(), [left_out("Loopy", 0.9, 0.8), left_out("EDTalk", 0.1, 0.2)]
    tested = {one.clip.path for one in families[0].answers}
    unseen_generators(report, families, tested)
    (rows,) = report.sections.values()
    assert rows["family Loopy"]["all clips of the family"].value == 1
    assert rows["method EDTalk"]["all clips of the family"].value == 0
    assert rows["all"]["all clips of the family"].value == 0.5
    assert (
        rows["all"]["clips of test identities"].value == 1 and "clips of test identities" not in rows["family EDTalk"]
    )
    matched = Report()
    heights = {one.clip.path: 300 for each in families for one in (*each.answers, *each.real)}
    matched_by_size(matched, families, heights)
    (rows,) = matched.sections.values()
    assert list(rows) == ["height up to 320 pixels"]


def test_false_alarms_and_indecision_have_ceilings():
    everybody = [said(clip(who), 0.1) for who in PEOPLE[:-2]]
    everybody += [said(clip("x"), 0.95, "fake"), said(clip("y"), 0.6, "inconclusive")]
    report = Report()
    false_alarms(report, {"all": everybody, "nearly all": everybody[:-2]})
    assert [target.figure.value for target in report.targets] == [0.05, 0, 0.05]
    assert [target.met for target in report.targets] == [False, True, True]


def test_what_each_kind_of_evidence_adds_needs_no_sync(monkeypatch):
    monkeypatch.setattr("model.training.verdict_figures.answers", lambda detector, clips: [])
    report = Report()
    ablation(report, None, [], [left_out("Loopy", 0.9, 0.8)])
    (rows,) = report.sections.values()
    assert list(rows) == [
        "sync alone",
        "look of the mouth alone",
        "smoothness of motion alone",
        "colours alone",
        "all",
    ]


def test_offsets_are_judged_against_the_clip_and_against_the_person():
    def trial(found: int, own: int, usual: float | None, slip: int = 0) -> OffsetTrial:
        return OffsetTrial(clip("a"), found, {by: found + by + slip for by in SHIFTS}, own, usual)

    right, wrong = [trial(3, 3, 3.0)] * 4, [trial(3, 3, -2.0, slip=4)] * 4
    for trials, expected in ((right, (1, 1, 1)), (wrong, (0, 0.75, 0.5))):
        report = Report()
        constant_offsets(report, {"all": trials})
        row = [figure.value for figure in report.sections["Constant offset of 3 s"]["all"].values()]
        assert row[0] == 120
        assert tuple(row[1:]) == pytest.approx(expected)


def test_the_same_clips_are_degraded_every_time_and_only_those_of_known_families():
    people = [f"p{number}" for number in range(CLIPS_PER_SIDE + 5)]
    clips = [clip(who, number=n) for who in people for n in range(3)] + [clip("z", corpus="tcd_timit")]
    clips += [clip(who, True, method) for who in people for method in ("Loopy", "unheard of")]
    chosen = chosen_clips(clips)
    assert chosen == chosen_clips(reversed(clips))
    assert len([c for c in chosen if not c.fake]) == CLIPS_PER_SIDE and {c.corpus for c in chosen} == {"lrs3", "Loopy"}


def test_losses_are_counted_against_the_same_clips_written_anew():
    worse = "H.264, CRF 40"
    outcomes = [
        Outcome(
            clip(who, fake), condition, 0.2 + 0.5 * (fake and condition != worse),
            "fake" if not fake and condition == worse else "real", 120 if condition == worse else 80,
        )
        for who in PEOPLE for fake in (False, True) for condition in CONDITIONS
    ]  # fmt: skip
    report = Report()
    tabulate(report, outcomes)
    (rows,) = report.sections.values()
    assert rows[BASELINE]["AUC"].value == 1 and rows[BASELINE]["AUC lost"].value == 0
    assert rows[worse]["AUC lost"].value == 0.5 and rows[worse]["real called fake"].value == 1
    assert rows[worse]["same offset within one frame"].value == 1
    assert [target.figure.value for target in report.targets] == [0.5, 1] and worse in report.targets[0].name


def test_places_are_what_they_are_called():
    there = {place: {c for c in ("lrs3", "voxceleb2", "tcd_timit", "grid") if is_there(clip("a", corpus=c))}
             for place, is_there in PLACES.items()}  # fmt: skip
    assert list(there.values()) == [{"lrs3", "voxceleb2"}, {"voxceleb2", "tcd_timit"}, {"grid"}, {"tcd_timit"}]
