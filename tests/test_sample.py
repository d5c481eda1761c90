"""The made-up talking face: its offset, its face and its voice are what they are said to be."""

from pathlib import Path

import av
import mediapipe
import numpy as np
import pytest
import silero_vad
import torch
from scipy.ndimage import gaussian_filter1d

from model.sample import CODECS, TRACK_HZ, TalkingFace, landmarks, main, make_sample, portrait, speech

STEP_HZ = 100  # rate at which picture and sound are compared
UPPER_LIP, LOWER_LIP = 13, 14  # FaceMesh landmarks of the lips' inner edges


def decode(path: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, int]:
    """RGB frames, their times in seconds, the mono waveform from time 0 on, and its rate."""
    with av.open(str(path)) as video:
        pictures = list(video.decode(video=0))
    with av.open(str(path)) as video:
        sounds = list(video.decode(audio=0))
    assert sounds[0].time == 0
    waveform = np.concatenate([sound.to_ndarray().mean(axis=0) for sound in sounds])
    return (
        [picture.to_ndarray(format="rgb24") for picture in pictures],
        np.array([picture.time for picture in pictures]),
        waveform / (2**15 if sounds[0].format.name.startswith("s16") else 1),
        sounds[0].sample_rate,
    )


def faces(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Landmarks of every face in every frame, float (faces, 468, 2) in shares of the frame."""
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=2) as mesh:
        found = [mesh.process(frame).multi_face_landmarks or [] for frame in frames]
    return [np.array([[(p.x, p.y) for p in face.landmark] for face in one]) for one in found]


def lateness_ms(opening: np.ndarray, times: np.ndarray, waveform: np.ndarray, rate: int) -> float:
    """How much later the loudness of the voice comes than the opening of the mouth, by correlation."""
    grid = np.arange(0, times[-1], 1 / STEP_HZ)
    mouth = np.interp(grid, times, opening)
    power = gaussian_filter1d(waveform**2, 0.025 * rate)
    loudness = np.sqrt(np.interp(grid, np.arange(len(power)) / rate, power))
    reach = STEP_HZ // 2
    middle = slice(reach, -reach)
    lags = range(-reach, reach + 1)
    scores = [np.corrcoef(mouth[middle], np.roll(loudness, -lag)[middle])[0, 1] for lag in lags]
    return 1000 / STEP_HZ * lags[int(np.argmax(scores))]


@pytest.mark.parametrize("offset_ms", [0, 200, -240])
def test_audio_is_late_by_the_offset_and_every_frame_has_one_face(tmp_path, offset_ms):
    make_sample(tmp_path / "talk.mp4", offset_ms=offset_ms, seconds=4)
    frames, times, waveform, rate = decode(tmp_path / "talk.mp4")
    found = faces(frames)
    assert [len(one) for one in found] == [1] * 100
    mesh = np.concatenate(found)
    opening = mesh[:, LOWER_LIP, 1] - mesh[:, UPPER_LIP, 1]
    assert lateness_ms(opening, times, waveform, rate) == pytest.approx(offset_ms, abs=40)


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_starts_with_the_same_picture_and_sound_and_lasts_as_long(tmp_path, suffix):
    path = tmp_path / f"talk{suffix}"
    make_sample(path, offset_ms=-40, seconds=1, fps=30, size=(320, 240), seed=1)
    frames, times, waveform, rate = decode(path)
    assert frames[0].shape == (240, 320, 3)
    assert times == pytest.approx(np.arange(30) / 30, abs=1e-3)
    assert len(waveform) / rate == pytest.approx(1, abs=0.025)  # AAC comes in frames of 21 ms
    voice = speech(1.04, rate, seed=1).waveform[round(0.04 * rate) :]
    shared = min(len(voice), len(waveform))
    match = np.fft.irfft(np.fft.rfft(waveform[:shared]) * np.fft.rfft(voice[:shared]).conj())
    assert np.argmax(match) == 0  # not even the codec's delay is heard
    assert np.std(waveform) == pytest.approx(np.std(voice), rel=0.1)


def test_same_seed_same_video_other_seed_other_video(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(3)]
    for path, seed in zip(paths, (5, 5, 6)):
        make_sample(path, seconds=0.8, seed=seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again != other


@pytest.mark.parametrize("seed", range(3))
def test_voice_is_heard_as_speech_with_pauses(seed):
    voice = speech(6, 16_000, seed)
    detector = silero_vad.load_silero_vad()
    chunks = torch.from_numpy(voice.waveform[: 6 * 16_000]).split(512)[:-1]
    heard = np.array([detector(chunk, 16_000).item() for chunk in chunks]) > 0.5
    loudness = np.array([chunk.square().mean().sqrt() for chunk in chunks])
    assert heard[loudness > 0.02].mean() > 0.9
    assert 0.6 < heard.mean() < 0.95
    assert np.abs(voice.waveform).max() <= 1


def test_a_clip_that_ends_before_the_first_word_is_quiet():
    assert np.abs(speech(0.1).waveform).max() < 0.01


def test_mouth_closes_in_pauses_and_opens_within_phrases():
    voice = speech(6)
    opening, width = np.array([voice.mouth(step / TRACK_HZ) for step in range(6 * TRACK_HZ)]).T
    assert opening.min() == 0 and opening.max() > 0.7
    assert width.min() < 0.2 and width.max() > 0.8
    loudness = np.sqrt(gaussian_filter1d(voice.waveform**2, 480))[::48][: len(opening)]
    assert opening[loudness < 0.002].mean() < 0.1 < opening[loudness > 0.1].mean()


def test_lips_part_and_narrow_as_told_while_the_rest_of_the_face_stays():
    photo = portrait()
    face = TalkingFace(photo)
    shut, wide, round_ = (landmarks(face.draw(*mouth)) for mouth in ((0, 0.5), (1, 0.5), (0.3, 0)))
    gap = [mesh[LOWER_LIP, 1] - mesh[UPPER_LIP, 1] for mesh in (shut, wide)]
    assert gap[0] < 2 and gap[1] > 12
    corners = [mesh[291, 0] - mesh[61, 0] for mesh in (shut, round_)]
    assert corners[1] < 0.9 * corners[0]
    assert np.array_equal(face.draw(1, 0)[:150], photo[:150])


def test_command_line_says_what_it_wrote(tmp_path, capsys):
    path = tmp_path / "talk.mp4"
    main(["--out", str(path), "--offset-ms", "-80", "--seconds", "0.4", "--seed", "2"])
    assert capsys.readouterr().out == f"{path}: 0.4 s of a talking face, audio late by -80 ms\n"
    make_sample(tmp_path / "same.mp4", offset_ms=-80, seconds=0.4, seed=2)
    assert path.read_bytes() == (tmp_path / "same.mp4").read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("talk.txt", {}, ".webm"), ("talk.mp4", {"seconds": 0}, "at least one frame")],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_sample(tmp_path / name, **{"seconds": 0.2, **options})


def test_encoder_errors_surface(tmp_path):
    with pytest.raises(av.FFmpegError):
        make_sample(tmp_path / "talk.mp4", seconds=0.2, size=(321, 241))
