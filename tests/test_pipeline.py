"""Whole videos, made by the product, through the whole path with the shipped weights."""

import gc
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from model import Detector, analyze, load_detector
from model.crops import as_grey
from model.motion import MotionMeter, typical_motion
from model.progress import Progress
from model.sample import make_sample
from model.training.prepare import prepare_clip
from model.training.reencode import Encoding, reencode
from model.watching import WatchedFace


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("videos")


def rewrite(source: Path, target: Path, *, picture=None, sound=None, keep_sound: bool = True) -> Path:
    """Copy a video with each picture (H, W, 3) and the whole sound (n,) changed by a function."""
    with av.open(str(source)) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with av.open(str(source)) as video:
        waves = [frame.to_ndarray()[0] for frame in video.decode(audio=0)]
    wave = np.concatenate(waves)
    if picture:
        pictures = [picture(index, rgb.copy()) for index, rgb in enumerate(pictures)]
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        audio = out.add_stream("aac", rate=48_000, layout="mono") if keep_sound else None
        for rgb in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        out.mux(stream.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray((sound(wave) if sound else wave)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return target


@pytest.fixture(scope="module")
def talk(folder) -> Path:
    make_sample(folder / "talk.mp4", seconds=5, seed=1)
    return folder / "talk.mp4"


@pytest.mark.parametrize("offset_ms", [0, 200, -240])
def test_the_offset_that_was_put_in_is_found(detector: Detector, folder, offset_ms):
    make_sample(folder / "offset.mp4", offset_ms=offset_ms, seed=2)
    answer = analyze(folder / "offset.mp4", detector)
    assert answer.sync.offset_ms == pytest.approx(offset_ms, abs=80)
    assert 0 <= answer.fake_probability <= 1


def test_every_part_of_the_answer_is_there_and_agrees(detector: Detector, talk):
    answer = analyze(talk, detector, window_s=1.0, hop_s=0.4)
    assert [track.track_id for track in answer.tracks] == [0]
    track = answer.tracks[0]
    assert track.windows == len(answer.windows) == 11
    assert [w.start_s for w in answer.windows] == pytest.approx(np.arange(11) * 0.4)
    assert (track.start_s, track.end_s) == (0.0, 5.0)
    left, top, width, height = track.box
    assert 100 < left < 250 and 100 < width < 250 and 150 < height < 300 and top > 0
    assert track.speaking_share > 0.8
    assert any(window.speech for window in answer.windows)
    for window in answer.windows:
        known = window.note is None
        assert known == (window.sync_score is not None) == (window.content_score is not None)
        assert known or window.fake_probability is None
    assert answer.media.duration_s == pytest.approx(5, abs=0.1)
    assert (answer.media.width, answer.media.height, answer.media.fps) == (512, 600, 25.0)
    assert (answer.media.video_codec, answer.media.audio_codec, answer.media.sample_rate) == ("h264", "aac", 48_000)
    timing = answer.timing_ms
    assert 0 < timing.media + timing.faces + timing.detector <= timing.total


def test_the_same_file_gives_the_same_answer_whatever_was_between(detector: Detector, talk, folder):
    elsewhere = rewrite(talk, folder / "elsewhere.mp4", picture=lambda i, rgb: np.roll(rgb, 150, axis=1)[:, 100:500])
    first, _, again = (analyze(video, detector, max_faces=2) for video in (talk, elsewhere, talk))
    fresh = analyze(talk, load_detector())
    assert (first.windows, first.tracks) == (again.windows, again.tracks) == (fresh.windows, fresh.tracks)
    assert first.fake_probability == again.fake_probability == fresh.fake_probability


def codes(answer) -> set[str]:
    assert answer.verdict == "inconclusive" and answer.fake_probability is None
    assert answer.sync.offset_ms is None and answer.sync.confidence is None
    return {reason.code for reason in answer.reasons}


def test_what_can_not_be_judged_is_inconclusive_with_a_reason(detector: Detector, talk, folder):
    def rewritten(name: str, **changes):
        return analyze(rewrite(talk, folder / name, **changes), detector)

    assert codes(rewritten("mute.mp4", keep_sound=False)) == {"no_audio"}
    assert codes(rewritten("silent.mp4", sound=np.zeros_like)) == {"no_speech"}
    assert codes(rewritten("grey.mp4", picture=lambda i, rgb: np.full_like(rgb, 90))) == {"no_face"}

    def half_a_second(wave: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(wave)) < 0.7 * 48_000, wave, 0).astype(np.float32)

    assert codes(rewritten("word.mp4", sound=half_a_second)) == {"too_little_speech"}
    with av.open(str(talk)) as video:
        still = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert codes(rewritten("still.mp4", picture=lambda i, rgb: still)) == {"mouth_still"}


def test_what_is_coded_coarsely_is_judged_by_less_or_not_at_all_but_its_offset_is_known(detector: Detector, folder):
    make_sample(folder / "late.mp4", offset_ms=200, seed=2)
    reencode(folder / "late.mp4", folder / "coarse.mp4", Encoding(crf=32), seconds=6)
    answer = analyze(folder / "coarse.mp4", detector)
    assert "coarse_picture" in {reason.code for reason in answer.reasons} and answer.fake_probability is not None
    assert answer.sync.offset_ms == pytest.approx(200, abs=80)

    reencode(folder / "late.mp4", folder / "coarser.mp4", Encoding(crf=40), seconds=6)
    answer = analyze(folder / "coarser.mp4", detector)
    assert answer.verdict == "inconclusive" and answer.fake_probability is None
    assert [reason.code for reason in answer.reasons] == ["too_compressed", "constant_offset"]
    assert "QP" in answer.reasons[0].detail and answer.sync.offset_ms == pytest.approx(200, abs=80)
    assert any(window.note is None for window in answer.windows)
    assert all(window.fake_probability is None for window in answer.windows)


def test_filmed_video_of_few_pictures_a_second_is_not_smooth(folder):
    smooth = []
    for fps in (10, 25):
        make_sample(folder / f"{fps}.mp4", seconds=4, fps=fps, seed=1)
        clip, motion = prepare_clip(folder / f"{fps}.mp4"), MotionMeter()
        for pixels, sampled, held in zip(clip["crops"], clip["sampled"], clip["held"]):
            motion.push(as_grey(pixels), sampled, pixels, held)
        smooth.append(typical_motion(motion.measured())[:3])
        assert clip["held"].mean() == pytest.approx(1 - fps / 25, abs=0.02)
    assert (smooth[0] < smooth[1]).all()


def test_a_face_is_let_go_when_its_track_ends(detector: Detector, talk, folder, monkeypatch):
    """One shot in two, from 0.8 s to 0.8 s: the pictures of a shot that is over are not kept."""

    def shot(index: int, rgb: np.ndarray) -> np.ndarray:
        return rgb if index // 20 % 2 == 0 else np.vstack([np.full_like(rgb[:100], 255), rgb[:-100]])

    held: list[int] = []
    keep = WatchedFace.keep

    def counted(self: WatchedFace, crops):
        held.append(sum(isinstance(thing, WatchedFace) for thing in gc.get_objects()))
        return keep(self, crops)

    monkeypatch.setattr(WatchedFace, "keep", counted)
    answer = analyze(rewrite(talk, folder / "cuts.mp4", picture=shot), detector, window_s=0.4)
    assert [track.track_id for track in answer.tracks] == list(range(len(answer.tracks)))
    assert len(answer.tracks) >= 5
    assert max(held) <= 2


def test_the_face_that_speaks_is_judged(detector: Detector, talk, folder):
    with av.open(str(talk)) as video:
        still = next(video.decode(video=0)).to_ndarray(format="rgb24")
    path = rewrite(talk, folder / "two.mp4", picture=lambda i, rgb: np.hstack([still, rgb]))
    answer = analyze(path, detector)
    shares = {("right" if track.box[0] > 512 else "left"): track.speaking_share for track in answer.tracks}
    assert shares["right"] > 0.8 and shares["left"] < 0.2
    assert answer.sync.offset_ms == pytest.approx(0, abs=80)


@pytest.mark.parametrize("parameter", [{"window_s": 0.1}, {"hop_s": 0}, {"max_faces": 0}, {"window_s": float("nan")}])
def test_parameters_out_of_range_are_refused(detector: Detector, talk, parameter):
    with pytest.raises(ValueError, match=next(iter(parameter))):
        analyze(talk, detector, **parameter)


def test_who_follows_an_analysis_hears_of_its_progress_and_of_nearly_the_same_windows(detector: Detector, folder):
    make_sample(folder / "long.mp4", seconds=12, seed=1)
    heard: list = []
    answer = analyze(folder / "long.mp4", detector, follow=heard.append)
    progress = [one for one in heard if isinstance(one, Progress)]
    shares = [one.share for one in progress]
    assert shares == sorted(shares) and shares[-1] == 1
    assert [one.stage for one in progress[:1] + progress[-1:]] == ["listening", "judging"]
    assert all(one.duration_s == pytest.approx(12, abs=0.1) for one in progress)
    early = [window for one in heard if isinstance(one, tuple) for window in one]
    final = {window.start_s: window for window in answer.windows}
    assert len(early) > len(final) / 2
    assert [window.start_s for window in early] == sorted({window.start_s for window in early})
    agree = [final[w.start_s].note == w.note and final[w.start_s].offset_ms == w.offset_ms for w in early]
    assert all(agree)


def test_playback_says_where_and_when(detector: Detector, talk):
    assert analyze(talk, detector).playback is None
    playback = analyze(talk, detector, playback=True).playback
    assert len(playback.waveform) == pytest.approx(125, abs=2) and 0.05 < max(playback.waveform) <= 1
    assert all(0 <= start < end <= 5.1 for start, end in playback.speech)
    [places] = playback.places
    assert len(places.boxes) == len(places.mouths) == 25
    for (left, top, width, height), (x, y, side, turned) in zip(places.boxes, places.mouths):
        assert left < x < left + width and top + height / 2 < y < top + height
        assert 0.3 * width < side < 1.5 * width and abs(turned) < 20
    times = [one.time_s for one in playback.key_frames]
    assert times == sorted(times) and 1 <= len(times) <= 6
    for one in playback.key_frames:
        picture, mouth = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1) for jpeg in (one.picture, one.mouth))
        assert max(picture.shape) == 480 and mouth.shape == (96, 96, 3)
