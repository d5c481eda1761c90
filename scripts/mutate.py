"""Files that nobody should have to open: damaged videos, bombs, and other things that pose as video."""

import io
import wave
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER_BYTES = 4096


def mutated(seeds: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """One of ``seeds`` with one to four kinds of damage."""
    content = seeds[rng.integers(len(seeds))]
    for damage in rng.choice(len(DAMAGES), rng.integers(1, 5)):
        content = DAMAGES[damage](content, seeds, rng) or content
    return content


def _flip(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    array = np.frombuffer(content, np.uint8).copy()
    at = rng.integers(len(array), size=rng.integers(1, 40))
    array[at] ^= rng.integers(1, 256, len(at)).astype(np.uint8)
    return array.tobytes()


def _truncate(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return content[: rng.integers(1, len(content) + 1)]


def _cut_out(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:]


def _splice(content: bytes, seeds: Sequence[bytes], rng: np.random.Generator) -> bytes:
    other = seeds[rng.integers(len(seeds))]
    return content[: rng.integers(1, len(content) + 1)] + other[rng.integers(len(other)) :]


def _overwrite(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    filling = rng.integers(256, size=1, dtype=np.uint8).tobytes() * (end - start)
    return content[:start] + (filling if rng.random() < 0.5 else rng.bytes(end - start)) + content[end:]


def _extreme_number(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    number, size = int(rng.choice(EXTREMES)), int(rng.choice((2, 4)))
    piece = (number & (256**size - 1)).to_bytes(size, rng.choice(("big", "little")))
    at = int(rng.integers(max(1, len(content) - HEADER_BYTES), len(content) + 1)) if rng.random() < 0.5 else 0
    at = at or int(rng.integers(0, min(HEADER_BYTES, len(content)) + 1))
    return content[:at] + piece + content[at + size :]


def _span(content: bytes, rng: np.random.Generator) -> list[int]:
    return sorted(rng.integers(0, len(content) + 1, 2))


DAMAGES = (_flip, _truncate, _cut_out, _repeat, _splice, _overwrite, _extreme_number)


def posing_as_video(folder: Path) -> dict[str, bytes]:
    """Files without any picture that moves, by name; written in ``folder`` on the way."""
    secret = folder / "secret"
    secret.write_text("nobody should see this")
    picture = np.zeros((32, 32, 3), np.uint8)
    sound, archive = io.BytesIO(), io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(bytes(32_000))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("zeros", bytes(1 << 24))
    return {
        "text": b"This is not a video.\n" * 100,
        "html": b"<!doctype html><video src=/etc/passwd>",
        "zip": archive.getvalue(),
        "png": cv2.imencode(".png", picture)[1].tobytes(),
        "jpeg": cv2.imencode(".jpg", picture)[1].tobytes(),
        "wav": sound.getvalue(),
        "playlist": f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n".encode(),
        "concat": f"ffconcat version 1.0\nfile {secret}\n".encode(),
        "only a header": bytes.fromhex("0000001466747970") + b"isom" + bytes(8),
        "zeros": bytes(1 << 16),
        "sound in mp4": _sound_only(folder / "sound.mp4"),
    }


def bombs(folder: Path) -> dict[str, bytes]:
    """Small files that are large once decoded, by name."""
    return {
        "8000 x 8000 pixels": _pictures(folder / "huge.mp4", (8000, 8000), 1, 25),
        "60,000 tiny pictures in a minute": _pictures(folder / "many.mp4", (16, 16), 60_000, 1000),
        "a day between two pictures": _pictures(folder / "day.mp4", (64, 64), 2, Fraction(1, 86_400)),
    }


def _pictures(path: Path, size: tuple[int, int], count: int, rate: int | Fraction) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", options={"preset": "ultrafast"}, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame(*size, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for index in range(count):
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()


def _sound_only(path: Path) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path.read_bytes()
