"""Video file in; upright RGB frames on a 25 fps grid and 16 kHz mono audio out, on one time axis.

Why PyAV and not a subprocess: FFmpeg's libraries give each frame its own timestamp, and the timestamps are
what lip-sync is about. Time zero is the first picture; both streams are placed by their timestamps, so
that differing start times, variable or odd frame rates and gaps do not move sound against picture.
Everything streams: no more than a few frames or a second of sound is held.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from model.coding import AS_H264, picture_quantizer, stream_quantizer
from model.errors import CorruptMedia, NotMedia, NoVideoStream, TooLarge, TooLong
from model.interlacing import deinterlaced

GRID_FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // GRID_FPS

ANALYSIS_LONG_SIDE = 1280
"""Frames larger than this, in pixels, are scaled down while they are converted to RGB."""

MAX_HOLD_S = 0.5
"""A picture older than this is not repeated: the grid has a gap there."""

AUDIO_JITTER_S = 0.02
"""Audio timestamps that are off by less than this are rounding, not a gap."""

READ_BYTES = 1 << 18

NOT_VIDEO_FORMATS = {"tty", "image2", "hls", "dash", "concat", "concatf", "ffmetadata", "lavfi", "rawvideo"}

av.logging.set_level(None)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused: a longer video (seconds), a larger picture (pixels, width x height)."""

    max_duration_s: float = 4 * 3600.0
    max_pixels: int = 4096 * 2304


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Facts of the chosen streams. ``width`` and ``height``: upright picture with square pixels."""

    width: int
    height: int
    fps: float
    video_codec: str
    audio_codec: str | None
    sample_rate: int | None


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of the grid: ``index`` / 25 seconds after time zero.

    ``rgb``: (H, W, 3) uint8, upright. ``scale``: pixels of ``rgb`` per pixel of the upright source. ``quantizer``: how
    coarsely it was coded, see `model.coding`; nan where that is not known.
    """

    index: int
    rgb: np.ndarray
    scale: float
    quantizer: float = np.nan


class MediaFile:
    """A video file, checked when made. ``frames()`` and ``audio()`` each decode it once from the start.

    ``expected_s``: how long it says it is, in seconds; None if it does not. ``end_s``: how long what was decoded is.

    Raises
    ------
    NotMedia, NoVideoStream, CorruptMedia, TooLong, TooLarge
        When the file can't be analysed; ``frames()`` and ``audio()`` raise the last two as well.
    """

    def __init__(self, path: str | os.PathLike[str], limits: Limits = Limits()) -> None:
        self._path = Path(path)
        self._limits = limits
        self.damaged_packets = 0
        self.end_s = 0.0
        self.expected_s: float | None = None
        with self._open() as container:
            if container.duration:
                self.expected_s = container.duration / av.time_base
                self._check_duration(self.expected_s)
            video = _main_video_stream(container)
            audio = _main_audio_stream(container)
            self._start_s, first = self._first_picture(container, video)
            size = _upright_size(first, video)
            self.info = StreamInfo(
                *size,
                fps=round(float(video.average_rate or video.guessed_rate or 0), 3),
                video_codec=video.codec_context.codec.canonical_name,
                audio_codec=audio.codec_context.name if audio else None,
                sample_rate=audio.codec_context.sample_rate if audio else None,
            )

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures in order; each grid time takes the picture whose timestamp is nearest."""
        with self._open() as container:
            stream = _main_video_stream(container)
            converter = VideoReformatter()
            of_stream = self._stream_quantizer()
            stream.codec_context.options = {"export_side_data": "venc_params"}
            converted: tuple[av.VideoFrame, np.ndarray, float] | None = None
            for index, picture in _on_grid(deinterlaced(self._timed_pictures(container, stream))):
                if converted is None or converted[0] is not picture:
                    converted = (picture, *_to_upright_rgb(picture, stream, converter))
                self._extend((index + 1) / GRID_FPS)
                yield Frame(index, converted[1], converted[2], picture_quantizer(picture, of_stream))

    def audio(self) -> Iterator[np.ndarray]:
        """Yield consecutive pieces, (n,) float32 in [-1, 1], from time zero on; gaps are zeros.

        Yields nothing when the file has no audio stream.
        """
        with self._open() as container:
            stream = _main_audio_stream(container)
            if stream is None:
                return
            position = 0
            for time_s, samples in self._timed_samples(container, stream):
                gap = round(time_s * SAMPLE_RATE) - position
                if position > 0 and abs(gap) < AUDIO_JITTER_S * SAMPLE_RATE:
                    gap = 0
                self._extend((position + max(gap, 0) + len(samples)) / SAMPLE_RATE)
                if gap > 0:
                    yield np.zeros(gap, np.float32)
                samples = samples[max(-gap, 0) :]
                position += max(gap, 0) + len(samples)
                if len(samples):
                    yield samples

    def picture_at(self, time_s: float) -> Frame | None:
        """The first picture at or after ``time_s``; None if there is none that can be decoded."""
        with self._open() as container:
            stream = _main_video_stream(container)
            with suppress(FFmpegError):
                container.seek(max(0, int((time_s + self._start_s) * av.time_base)))
            for picture in self._decode(container, stream):
                at_s = _timestamp_s(picture, stream, 0) - self._start_s
                if at_s >= time_s - 0.5 / GRID_FPS:
                    rgb, scale = _to_upright_rgb(picture, stream, VideoReformatter())
                    return Frame(round(at_s * GRID_FPS), rgb, scale)
        return None

    def _stream_quantizer(self) -> float:
        if self.info.video_codec not in AS_H264:
            return np.nan
        with self._open() as container:
            return stream_quantizer(container, _main_video_stream(container))

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        with open(self._path, "rb") as file:
            try:
                container = av.open(
                    file, metadata_errors="replace", io_open=_refuse_other_files, buffer_size=READ_BYTES
                )
            except (FFmpegError, OSError, ValueError) as error:
                if _begins_like_a_video(self._path):
                    raise CorruptMedia(
                        "The file begins like a video but can't be opened: truncated or corrupt."
                    ) from error
                raise NotMedia("The file is not a video in any known container.") from error
            with container:
                names = set(container.format.name.split(","))
                if names & NOT_VIDEO_FORMATS or any(name.endswith("_pipe") for name in names):
                    raise NotMedia(f"The file is not a video (it reads as {container.format.name}).")
                yield container

    def _first_picture(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> tuple[float, av.VideoFrame]:
        context = stream.codec_context
        if context.width * context.height > self._limits.max_pixels:
            raise TooLarge(_too_large(self._limits))
        for picture in self._decode(container, stream):
            return _timestamp_s(picture, stream, 0), picture
        raise CorruptMedia("No picture of the video stream can be decoded: the file is truncated or corrupt.")

    def _timed_pictures(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[tuple[float, av.VideoFrame]]:
        last_s = -1.0
        for count, picture in enumerate(self._decode(container, stream)):
            time_s = _timestamp_s(picture, stream, count) - self._start_s
            if picture.width * picture.height > self._limits.max_pixels:
                raise TooLarge(_too_large(self._limits))
            if time_s > last_s:
                last_s = time_s
                self._check_duration(time_s)
                yield time_s, picture

    def _timed_samples(
        self, container: av.container.InputContainer, stream: av.AudioStream
    ) -> Iterator[tuple[float, np.ndarray]]:
        resampler = _mono_resampler()
        next_s = 0.0
        for sound in self._decode(container, stream):
            try:
                pieces = resampler.resample(sound)
            except ValueError:  # the stream changed its rate or layout on the way
                resampler = _mono_resampler()
                pieces = resampler.resample(sound)
            for piece in pieces:
                time_s = next_s if piece.pts is None else float(piece.pts * piece.time_base) - self._start_s
                next_s = time_s + piece.samples / SAMPLE_RATE
                self._check_duration(next_s)
                yield time_s, piece.to_ndarray()[0]

    def _decode(self, container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(4, os.cpu_count() or 1)
        try:
            for packet in container.demux(stream):
                try:
                    yield from packet.decode()
                except MemoryError:
                    raise
                except FFmpegError:
                    self.damaged_packets += 1
        except MemoryError:
            raise
        except (FFmpegError, OSError):
            self.damaged_packets += 1

    def _extend(self, end_s: float) -> None:
        self._check_duration(end_s)
        self.end_s = max(self.end_s, end_s)

    def _check_duration(self, time_s: float) -> None:
        if time_s > self._limits.max_duration_s + 1.0:
            raise TooLong(_too_long(self._limits))


def load_audio(media: MediaFile) -> np.ndarray:
    """Whole audio of ``media``, (n,) float32 at 16 kHz; empty when there is none. For short files."""
    pieces = list(media.audio())
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _begins_like_a_video(path: Path) -> bool:
    """By the first bytes of MP4 and MOV, Matroska and WebM, AVI, FLV, and MPEG program streams."""
    with open(path, "rb") as file:
        head = file.read(12)
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat")
        or (head[:4] == b"RIFF" and head[8:] == b"AVI ")
        or (head.startswith((b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba")))
    )


def _refuse_other_files(url: str, flags: int, options: dict) -> None:
    raise NotMedia(f"The file refers to another file or address, which is not followed: {url!r}")


def _main_video_stream(container: av.container.InputContainer) -> av.VideoStream:
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    moving = [s for s in moving if s.codec_context is not None]
    if not moving:
        raise NoVideoStream("The file has no video stream (a cover picture does not count).")
    return max(moving, key=lambda s: s.codec_context.width * s.codec_context.height)


def _main_audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    streams = [s for s in container.streams.audio if s.codec_context is not None]
    default = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return next(iter(default or streams), None)


def _timestamp_s(picture: av.VideoFrame, stream: av.VideoStream, count: int) -> float:
    if picture.pts is not None and picture.time_base:
        return float(picture.pts * picture.time_base)
    return count / float(stream.average_rate or stream.guessed_rate or GRID_FPS)


def _on_grid(pictures: Iterator[tuple[float, av.VideoFrame]]) -> Iterator[tuple[int, av.VideoFrame]]:
    index = 0
    previous: tuple[float, av.VideoFrame] | None = None
    spacing_s = 1 / GRID_FPS
    for time_s, picture in pictures:
        if previous is not None:
            spacing_s = time_s - previous[0]
            middle_s = previous[0] + spacing_s / 2
            while index / GRID_FPS < min(middle_s, previous[0] + MAX_HOLD_S):
                yield index, previous[1]
                index += 1
            index = max(index, int(np.ceil((middle_s if spacing_s <= 2 * MAX_HOLD_S else time_s) * GRID_FPS - 1e-6)))
        previous = (time_s, picture)
    if previous is not None:
        while index / GRID_FPS < previous[0] + min(spacing_s, MAX_HOLD_S) / 2:
            yield index, previous[1]
            index += 1


def _pixel_aspect(stream: av.VideoStream) -> float:
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 and abs(aspect - 1) > 0.01 else 1.0


def _upright_size(picture: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    width, height = round(picture.width * _pixel_aspect(stream)), picture.height
    return (height, width) if picture.rotation % 180 else (width, height)


def _to_upright_rgb(
    picture: av.VideoFrame, stream: av.VideoStream, converter: VideoReformatter
) -> tuple[np.ndarray, float]:
    width, height = picture.width * _pixel_aspect(stream), picture.height
    scale = min(1.0, ANALYSIS_LONG_SIDE / max(width, height))
    size = {"width": max(2, round(width * scale)), "height": max(2, round(height * scale))}
    rgb = converter.reformat(picture, **size, format="rgb24", interpolation="AREA", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, picture.rotation // 90)), scale


def _mono_resampler() -> av.AudioResampler:
    return av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)


def _too_long(limits: Limits) -> str:
    return f"The video is longer than the limit of {limits.max_duration_s:g} s. Send a shorter part of it."


def _too_large(limits: Limits) -> str:
    return f"The picture has more than {limits.max_pixels} pixels. Send the video at a lower resolution."
