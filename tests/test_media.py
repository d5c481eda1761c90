"""Pictures and sound come out at the right time, upright, whatever the file did to them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model.errors import CorruptMedia, MediaError, NotMedia, NoVideoStream, TooLarge, TooLong
from model.media import ANALYSIS_LONG_SIDE, GRID_FPS, SAMPLE_RATE, Limits, MediaFile, load_audio
from model.training.reencode import same_scheduling
from model.verdict import FINE_QUANTIZER

FLASH_S = 1.0


def write_video(
    path: Path,
    times_s: np.ndarray,
    *,
    size: tuple[int, int] = (64, 48),
    sound_from_s: float = 0.0,
    sound_s: float | None = 2.0,
    rate: int = 48_000,
    codecs: tuple[str, str] = ("libx264", "aac"),
) -> None:
    """Dark pictures, white from FLASH_S on; a quiet tone, loud from FLASH_S on. Times are those of the file."""
    with av.open(str(path), "w") as out:
        options = {"preset": "ultrafast"} if codecs[0] == "libx264" else {}
        video = out.add_stream(codecs[0], rate=25, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        tick = Fraction(1, 25) if codecs[0].startswith("mpeg") else Fraction(1, 90_000)
        video.codec_context.time_base = tick
        sound = out.add_stream(codecs[1], rate=rate, layout="mono") if sound_s else None
        for time_s in times_s:
            picture = av.VideoFrame.from_ndarray(
                np.full((size[1], size[0], 3), 235 if time_s >= FLASH_S - 1e-6 else 20, np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = round(time_s / tick), tick
            out.mux(video.encode(picture))
        out.mux(video.encode())
        if sound is not None:
            at = sound_from_s + np.arange(round(sound_s * rate)) / rate
            wave = np.sin(2 * np.pi * 440 * at) * np.where(at >= FLASH_S, 0.5, 0.01)
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, round(sound_from_s * rate), Fraction(1, rate)
            out.mux(sound.encode(frame))
            out.mux(sound.encode())


def flash_s(media: MediaFile) -> float:
    """When the picture turns white."""
    return next(frame.index for frame in media.frames() if frame.rgb.mean() > 128) / GRID_FPS


def bang_s(media: MediaFile) -> float:
    """When the sound turns loud."""
    return float(np.argmax(np.abs(load_audio(media)) > 0.2)) / SAMPLE_RATE


def write_pictures(path: Path, pictures: np.ndarray, codec: str, **options: str) -> None:
    """``pictures``: (T, H, W, 3) uint8."""
    with same_scheduling(), av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options=options)
        video.height, video.width, video.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for picture in pictures:
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())


def write_noise(path: Path, codec: str, **options: str) -> None:
    """Eight pictures of noise that no other picture predicts."""
    write_pictures(path, np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), np.uint8), codec, **options)


def quantizers(path: Path) -> list[float]:
    return [frame.quantizer for frame in MediaFile(path).frames()]


def test_how_coarsely_every_picture_of_h264_is_coded_is_known(tmp_path):
    for qp in ("12", "30", "45"):
        write_noise(tmp_path / "a.mp4", "libx264", qp=qp, preset="ultrafast", bf="0")
        found = quantizers(tmp_path / "a.mp4")
        assert len(found) == 8 and np.mean(found) == pytest.approx(int(qp), abs=1.5)


@pytest.mark.parametrize(
    ("name", "codec", "fine", "coarse"),
    [
        ("a.mp4", "libx265", {"x265-params": "qp=24:log-level=none"}, {"x265-params": "qp=36:log-level=none"}),
        ("a.webm", "libvpx-vp9", {"crf": "25", "b": "0"}, {"crf": "50", "b": "0"}),
        ("a.mkv", "libsvtav1", {"crf": "25", "preset": "10"}, {"crf": "50", "preset": "10"}),
    ],
)
def test_headers_say_how_coarsely_other_codecs_are_coded(tmp_path, name, codec, fine, coarse):
    found = []
    for options in (fine, coarse):
        write_noise(tmp_path / name, codec, **options)
        found.append(quantizers(tmp_path / name))
    assert all(len(set(of_file)) == 1 for of_file in found)
    assert 10 < found[0][0] < FINE_QUANTIZER - 2 and found[1][0] - found[0][0] == pytest.approx(12, abs=3)


def test_how_coarse_a_file_is_stays_unknown_of_other_codecs(tmp_path):
    write_noise(tmp_path / "a.avi", "mpeg4")
    write_noise(tmp_path / "a.webm", "libvpx")
    assert np.isnan([*quantizers(tmp_path / "a.avi"), *quantizers(tmp_path / "a.webm")]).all()
    assert av.logging.get_level() is None


def test_packets_that_could_hold_too_many_headers_are_not_read(tmp_path, monkeypatch):
    write_noise(tmp_path / "a.webm", "libvpx-vp9")
    assert not np.isnan(quantizers(tmp_path / "a.webm")).any()
    monkeypatch.setattr("model.coding.MOST_BYTES", 100)
    assert np.isnan(quantizers(tmp_path / "a.webm")).all()


def write_woven(path: Path, flagged: bool = True) -> None:
    """12 pictures of a bar that moves 4 pixels a field; even lines are filmed 20 ms after odd ones."""
    index, line, column = np.ogrid[:12, :96, :160]
    bar = np.abs(column - 20 - 4 * (2 * index + (line + 1) % 2)) < 6
    pictures = np.repeat(np.where(bar, 220, 40).astype(np.uint8)[..., None], 3, 3)
    flags = {"flags": "+ilme+ildct"} if flagged else {}
    write_pictures(path, pictures, "libx264", qp="10", preset="ultrafast", **flags)


def combs(path: Path) -> np.ndarray:
    """By picture, how much lines differ from those beside them."""
    greens = [frame.rgb[..., 1].astype(float) for frame in MediaFile(path).frames()]
    return np.array([np.abs(np.diff(green[10:-10], axis=0)).mean() for green in greens])


def test_two_instants_woven_into_one_picture_are_told_apart(tmp_path):
    for flagged in (True, False):
        write_woven(tmp_path / f"{flagged}.mkv", flagged)
    whole, combed = (combs(tmp_path / f"{flagged}.mkv") for flagged in (True, False))
    assert len(whole) == len(combed) == 12
    assert (combed > 8).all() and (whole < combed / 4).all()


def test_an_interlaced_picture_keeps_its_time_and_first_instant(tmp_path):
    write_woven(tmp_path / "a.mkv")
    for frame in MediaFile(tmp_path / "a.mkv").frames():
        bar = np.flatnonzero(frame.rgb[48, :, 1] > 130)
        assert bar.mean() == pytest.approx(20 + 8 * frame.index, abs=1.5)


@pytest.mark.parametrize("fps", [10, 15, 24, 30000 / 1001, 50, 60, 120])
def test_any_frame_rate_comes_out_at_25_a_second_and_in_time(tmp_path, fps):
    write_video(tmp_path / "a.mp4", np.arange(round(2 * fps)) / fps)
    media = MediaFile(tmp_path / "a.mp4")
    indices = [frame.index for frame in media.frames()]
    assert indices == list(range(len(indices)))
    assert len(indices) == pytest.approx(2 * GRID_FPS, abs=max(1, GRID_FPS / fps))
    assert flash_s(media) == pytest.approx(FLASH_S, abs=0.5 / fps + 0.021)
    assert media.info.fps == pytest.approx(fps, rel=0.05)


def test_variable_frame_rate_is_placed_by_timestamps(tmp_path):
    times = np.concatenate([np.arange(0, 0.8, 1 / 60), np.arange(0.8, 1.4, 1 / 12), np.arange(1.4, 2, 1 / 33)])
    times = np.sort(np.append(times, FLASH_S))
    write_video(tmp_path / "a.mkv", times)
    media = MediaFile(tmp_path / "a.mkv")
    assert flash_s(media) == pytest.approx(FLASH_S, abs=0.041)
    assert bang_s(media) == pytest.approx(FLASH_S, abs=0.01)


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [
        ("mp4", ("libx264", "aac")),
        ("mov", ("libx264", "aac")),
        ("mkv", ("libx264", "flac")),
        ("webm", ("libvpx", "libopus")),
        ("avi", ("mpeg4", "pcm_s16le")),
        ("mpg", ("mpeg2video", "mp2")),
        ("flv", ("libx264", "aac")),
        ("ts", ("libx264", "aac")),
    ],
)
def test_picture_and_sound_agree_in_every_container(tmp_path, suffix, codecs):
    write_video(tmp_path / f"a.{suffix}", np.arange(50) / 25, codecs=codecs)
    media = MediaFile(tmp_path / f"a.{suffix}")
    assert bang_s(media) == pytest.approx(flash_s(media), abs=0.045)


@pytest.mark.parametrize("late_s", [-0.3, 0.3])
def test_streams_that_start_at_different_times_keep_their_distance(tmp_path, late_s):
    first = max(0.0, -late_s)
    write_video(tmp_path / "a.mkv", first + np.arange(50) / 25, sound_from_s=first + late_s)
    media = MediaFile(tmp_path / "a.mkv")
    assert bang_s(media) - flash_s(media) == pytest.approx(0.0, abs=0.03)
    if late_s > 0:
        assert np.abs(load_audio(media)[: int(0.25 * SAMPLE_RATE)]).max() == 0


@pytest.mark.parametrize("sound_s", [0.5, 4.0, None])
def test_sound_may_be_shorter_or_longer_than_the_picture_or_missing(tmp_path, sound_s):
    write_video(tmp_path / "a.mp4", np.arange(50) / 25, sound_s=sound_s)
    media = MediaFile(tmp_path / "a.mp4")
    assert len(list(media.frames())) == 50
    assert len(load_audio(media)) / SAMPLE_RATE == pytest.approx(sound_s or 0, abs=0.06)
    assert (media.info.audio_codec is None) == (sound_s is None)


def test_a_long_gap_in_the_picture_is_a_gap_not_a_still(tmp_path):
    write_video(tmp_path / "a.mkv", np.concatenate([np.arange(0, 1, 0.04), np.arange(3, 4, 0.04)]))
    indices = [frame.index for frame in MediaFile(tmp_path / "a.mkv").frames()]
    assert 70 <= indices[-1] <= 100 and len(indices) < 70
    assert not any(40 < index < 74 for index in indices)


@pytest.mark.parametrize(("quarters", "corner"), [(0, (0, 0)), (1, (0, -1)), (2, (-1, -1)), (3, (-1, 0))])
def test_rotation_in_the_metadata_is_undone(tmp_path, quarters, corner):
    """``quarters`` turns clockwise to show it upright, as phones write it; a white corner tells."""
    path = tmp_path / "a.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") - 4 + 48
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    media = MediaFile(path)
    frame = next(media.frames())
    assert (media.info.width, media.info.height) == ((64, 48) if quarters % 2 == 0 else (48, 64))
    assert frame.rgb.shape[:2] == (media.info.height, media.info.width)
    assert frame.rgb[corner].mean() > 200 and frame.rgb.mean() < 80


def test_large_pictures_are_scaled_down_and_say_so(tmp_path):
    write_video(tmp_path / "a.mp4", np.arange(3) / 25, size=(1920, 1080), sound_s=None)
    media = MediaFile(tmp_path / "a.mp4")
    frame = next(media.frames())
    assert max(frame.rgb.shape) == ANALYSIS_LONG_SIDE and media.info.width == 1920
    assert frame.scale == pytest.approx(ANALYSIS_LONG_SIDE / 1920)


def test_what_is_no_video_is_refused_by_kind(tmp_path):
    def refused(name: str, content: bytes) -> type[MediaError]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError) as error:
            MediaFile(tmp_path / name)
        return error.type

    write_video(tmp_path / "good.mp4", np.arange(50) / 25)
    good = (tmp_path / "good.mp4").read_bytes()
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(good)
    assert refused("text.mp4", b"just some words, no video at all\n" * 50) is NotMedia
    assert refused("empty.mp4", b"") is NotMedia
    assert refused("playlist.mp4", f"#EXTM3U\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()) is NotMedia
    assert refused("list.mp4", f"ffconcat version 1.0\nfile {secret}\n".encode()) is NotMedia
    assert refused("cut.mp4", good[: len(good) // 3]) is CorruptMedia
    picture = av.CodecContext.create("png", "w")
    picture.width, picture.height, picture.pix_fmt, picture.time_base = 64, 48, "rgb24", Fraction(1, 25)
    png = b"".join(bytes(p) for p in picture.encode(av.VideoFrame(64, 48, "rgb24")) + picture.encode(None))
    assert refused("picture.mp4", png) is NotMedia


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="flt", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(NoVideoStream):
        MediaFile(tmp_path / "a.m4a")


def test_limits_hold_whatever_the_header_says(tmp_path):
    write_video(tmp_path / "a.mp4", np.arange(100) / 25)
    with pytest.raises(TooLong):
        MediaFile(tmp_path / "a.mp4", Limits(max_duration_s=2))
    with pytest.raises(TooLarge):
        MediaFile(tmp_path / "a.mp4", Limits(max_pixels=1000))
    media = MediaFile(tmp_path / "a.mp4", Limits(max_duration_s=10))
    media._limits = Limits(max_duration_s=1)
    with pytest.raises(TooLong):
        list(media.frames())
    with pytest.raises(TooLong):
        list(media.audio())


def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path):
    write_video(tmp_path / "a.ts", np.arange(100) / 25, size=(320, 240))
    data = bytearray((tmp_path / "a.ts").read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 3, 2 * len(data) // 3, 60):
        data[at] ^= 0xFF
    (tmp_path / "b.ts").write_bytes(data)
    media = MediaFile(tmp_path / "b.ts")
    assert len(list(media.frames())) > 50
