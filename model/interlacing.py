"""Pictures in which two instants are woven into one in; whole pictures out.

Broadcast video is often interlaced: of each picture, every other line was filmed 20 ms later. Lines then part along
everything that moves, and a mouth so combed looks rendered.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

from av import VideoFrame
from av.error import FFmpegError
from av.filter import Graph

ANY_TIME_BASE = Fraction(1, 90_000)

Timed = tuple[float, VideoFrame]
"""When it is to be seen, in seconds, and a picture."""


def deinterlaced(pictures: Iterator[Timed]) -> Iterator[Timed]:
    """The same pictures, but interlaced ones as of their first instant, by FFmpeg's bwdif.

    From the first interlaced one on, a picture comes out after the next went in.
    """
    filtering: _Filtering | None = None
    for time_s, picture in pictures:
        if filtering is not None and not filtering.takes(picture):
            yield from filtering.finish()
            filtering = None
        if filtering is None and picture.interlaced_frame:
            with suppress(FFmpegError):
                filtering = _Filtering(picture)
        yield from filtering.push(time_s, picture) if filtering else [(time_s, picture)]
    if filtering is not None:
        yield from filtering.finish()


class _Filtering:
    """Of pictures of one size and format. Raises FFmpegError where that can't be."""

    def __init__(self, like: VideoFrame) -> None:
        self._kind = _kind(like)
        self._times: deque[float] = deque()
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=like.time_base or ANY_TIME_BASE
        )
        whole = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._graph.link_nodes(source, whole, self._graph.add("buffersink")).configure()

    def takes(self, picture: VideoFrame) -> bool:
        return _kind(picture) == self._kind

    def push(self, time_s: float, picture: VideoFrame) -> list[Timed]:
        self._times.append(time_s)
        self._graph.push(picture)
        return self._ready()

    def finish(self) -> list[Timed]:
        self._graph.push(None)
        return self._ready()

    def _ready(self) -> list[Timed]:
        ready = []
        with suppress(BlockingIOError, EOFError):
            while True:
                picture = self._graph.vpull()
                ready.append((self._times.popleft(), picture))
        return ready


def _kind(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name
