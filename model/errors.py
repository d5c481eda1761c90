"""What can be wrong with an input file, one exception class a kind.

Every class has a stable ``code`` for programs; the message is for people and says what to do next.
A video that can be read but not judged (no face, silence, ...) is not an error: it is analysed as
``inconclusive``.
"""


class MediaError(Exception):
    """The input can't be analysed. ``code`` names the kind."""

    code = "media_error"


class NotMedia(MediaError):
    """The file is not audio or video in any container that FFmpeg reads."""

    code = "not_media"


class NoVideoStream(MediaError):
    """The file is media, but holds no moving picture."""

    code = "no_video_stream"


class CorruptMedia(MediaError):
    """The file is a video, but nothing usable can be decoded from it."""

    code = "corrupt_media"


class TooLong(MediaError):
    """The video is longer than the limit."""

    code = "too_long"


class TooLarge(MediaError):
    """The picture is larger than the limit."""

    code = "resolution_too_high"
