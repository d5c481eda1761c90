"""Video file in; the same video as uploading, shrinking or converting it would leave it, out."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from model.media import ANALYSIS_LONG_SIDE, SAMPLE_RATE, MediaFile, load_audio
from model.sample import SAME_EVERYWHERE
from model.training.sounds import Sound

TICKS = 90_000
"""Of a second, in which the times of pictures are written."""

OPTIONS = {
    "libx264": {"preset": "veryfast", "threads": "1"} | SAME_EVERYWHERE,
    "libx265": {"preset": "veryfast", "threads": "1", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "5", "threads": "1", "b": "0"},
    "libsvtav1": {"preset": "9", "svtav1-params": "lp=1"},
}
"""Of encoders, beside their constant rate factor."""

os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is written anew, with AAC (mono, 16 kHz) in MP4.

    ``codec``: the encoder of the picture, one of `OPTIONS`. ``crf``: its constant rate factor. ``height``: in pixels,
    at most; None as it was. ``enlarged``: so many times as wide and high. ``square``: side in pixels of a square that
    the picture is fitted into, black around. ``fps``: None as it was; else every 1 / fps seconds the source's picture
    that is nearest in time. ``filters``: of FFmpeg, that the pictures go through first, as ``name=options,...``.
    ``audio_kbps``: of the sound. ``sound``: what is done to it, see `model.training.sounds`.
    """

    codec: str = "libx264"
    crf: int = 18
    height: int | None = None
    enlarged: float = 1.0
    square: int | None = None
    fps: Fraction | None = None
    filters: str | None = None
    audio_kbps: int = 64
    sound: Callable[[Sound], Sound] | None = None


ALIKE = Encoding(crf=23, square=256, fps=Fraction(25), audio_kbps=32)
"""Leaves nothing in the container, but its bit rate, by which files differ."""


def reencode(source: Path, target: Path, encoding: Encoding, seconds: float) -> None:
    """Write the first ``seconds`` of a file anew, always alike; time zero is its first picture, for both streams."""
    pictures = timed_pictures(source, seconds)
    if encoding.filters:
        pictures = filtered(pictures, encoding.filters)
    if encoding.fps:
        pictures = at_rate(pictures, encoding.fps)
    sound = load_audio(MediaFile(source))[: round(seconds * SAMPLE_RATE)]
    if encoding.sound:
        sound = encoding.sound(sound)
    write(target, pictures, sound, encoding)


def write(target: Path, pictures: Iterable[tuple[float, np.ndarray]], sound: Sound, encoding: Encoding) -> None:
    """Write pictures, with their times, and a sound, which may be empty, as ``encoding`` says."""
    with same_scheduling(), av.open(str(target), "w") as out:
        if len(sound):
            audio = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=1000 * encoding.audio_kbps)
        options = OPTIONS[encoding.codec] | {"crf": str(encoding.crf)}
        video = out.add_stream(encoding.codec, rate=encoding.fps or 25, options=options)
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
        for time_s, rgb in pictures:
            rgb = fitted(rgb, encoding)
            if not video.codec_context.is_open:
                video.height, video.width = rgb.shape[:2]
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            picture.pts, picture.time_base = round(time_s * TICKS), Fraction(1, TICKS)
            out.mux(video.encode(picture))
        out.mux(video.encode())
        if len(sound):
            heard = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
            heard.sample_rate, heard.pts = SAMPLE_RATE, 0
            out.mux(audio.encode(heard))
            out.mux(audio.encode())


@contextmanager
def same_scheduling() -> Iterator[None]:
    """SVT-AV1 makes the thread that calls it a real-time one, where it may, and leaves it so; all others starve."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def reencode_in_turn(source: Path, scratch: Path, encodings: Sequence[Encoding], seconds: float) -> Path:
    """Write a file anew in every way, each from the one before, into the folder ``scratch``. Returns the last."""
    for number, encoding in enumerate(encodings):
        target = scratch / f"{number}.mp4"
        reencode(source, target, encoding, seconds)
        source = target
    return source


def timed_pictures(source: Path, seconds: float) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds since the first picture, and upright RGB (H, W, 3) uint8 no larger than what is analysed of it."""
    with av.open(str(source)) as container:
        stream = container.streams.best("video")
        first_s = None
        for picture in container.decode(stream):
            first_s = picture.time if first_s is None else first_s
            if picture.time - first_s >= seconds:
                return
            width = picture.width * float(stream.sample_aspect_ratio or 1)
            scale = min(1.0, ANALYSIS_LONG_SIDE / max(width, picture.height))
            rgb = picture.to_ndarray(format="rgb24", width=round(width * scale), height=round(picture.height * scale))
            yield picture.time - first_s, np.rot90(rgb, picture.rotation // 90)


def filtered(pictures: Iterator[tuple[float, np.ndarray]], filters: str) -> Iterator[tuple[float, np.ndarray]]:
    """Pictures and their times after FFmpeg's ``filters``; a side that is odd loses a pixel."""
    graph = None
    for time_s, rgb in pictures:
        height, width = (side - side % 2 for side in rgb.shape[:2])
        even = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        picture = even.reformat(format="yuv420p")
        picture.pts, picture.time_base = round(time_s * TICKS), Fraction(1, TICKS)
        graph = graph or _graph(width, height, filters)
        graph.push(picture)
        yield from _ready(graph)
    if graph:
        graph.push(None)
        yield from _ready(graph)


def _graph(width: int, height: int, filters: str) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base=Fraction(1, TICKS))
    steps = [graph.add(name, options) for name, _, options in (one.partition("=") for one in filters.split(","))]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph


def _ready(graph: av.filter.Graph) -> Iterator[tuple[float, np.ndarray]]:
    with suppress(BlockingIOError, EOFError):
        while True:
            picture = graph.vpull()
            yield picture.time, picture.to_ndarray(format="rgb24")


def at_rate(pictures: Iterator[tuple[float, np.ndarray]], fps: Fraction) -> Iterator[tuple[float, np.ndarray]]:
    """Every 1 / ``fps`` seconds the picture that is nearest in time."""
    index, before = 0, None
    for time_s, rgb in pictures:
        while before is not None and index / fps < (before[0] + time_s) / 2:
            yield float(index / fps), before[1]
            index += 1
        before = time_s, rgb
    if before is not None and index / fps <= before[0] + 0.5 / fps:
        yield float(index / fps), before[1]


def fitted(rgb: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The picture in the size that the encoding asks for, even in both directions."""
    height, width = rgb.shape[:2]
    scale = encoding.enlarged * min(1.0, (encoding.height or height) / height)
    if encoding.square:
        scale = encoding.square / max(height, width)
    size = [max(2, 2 * round(side * scale / 2)) for side in (width, height)]
    if [width, height] != size:
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if encoding.square:
        left, top = ((encoding.square - side) // 2 for side in size)
        right, bottom = encoding.square - size[0] - left, encoding.square - size[1] - top
        rgb = cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(rgb)
