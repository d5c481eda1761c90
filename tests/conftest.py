"""Videos made on the spot, and the service behind a real socket."""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from signal import SIGTERM
from threading import Thread

import av
import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.server import Server
from app.settings import Settings
from model.sample import make_sample

CALLBACK_SECRET = "whsec_" + b64encode(b"a key of thirty-two random bytes").decode()


def write_media(
    path: Path, *, seconds: float = 2.0, size: tuple[int, int] | None = (160, 120), fps: int = 25, audio: bool = True
) -> Path:
    """A file with a moving grey picture of ``size`` (None: no picture) and, if ``audio``, a tone."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=Fraction(fps), options={"preset": "ultrafast"}) if size else None
        sound = out.add_stream("aac", rate=16_000, layout="mono") if audio else None
        if video:
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            for _ in range(round(seconds * fps)):
                shade = rng.integers(0, 255, (size[1] // 20, size[0] // 20, 1), np.uint8)
                picture = np.repeat(shade.repeat(20, 0).repeat(20, 1), 3, 2)
                out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(video.encode())
        if sound:
            tone = 0.1 * np.sin(np.arange(round(seconds * 16_000)) * 0.2, dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            out.mux(sound.encode(frame))
            out.mux(sound.encode())
    return path


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The made talking face, its audio late by so many milliseconds."""
    folder = tmp_path_factory.mktemp("talk")

    def made(offset_ms: int) -> Path:
        path = folder / f"{offset_ms}.mp4"
        if not path.exists():
            make_sample(path, offset_ms=offset_ms, seconds=4)
        return path

    return made


@pytest.fixture(scope="session")
def plain_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short video with sound and without a face."""
    return write_media(tmp_path_factory.mktemp("plain") / "plain.mp4")


@pytest.fixture(scope="session", autouse=True)
def _no_jobs_of_the_user() -> None:
    """Services keep no jobs unless a test says where."""
    os.environ["LIPSYNC_KEEP_RESULTS_S"] = "0"


def open_files(directory: Path, process: int) -> list[Path]:
    """Files of ``directory`` that a process has open, as paths that can be read, whether they have a name or not."""
    descriptors = Path(f"/proc/{process}/fd")
    return [one for one in descriptors.iterdir() if _lies_in(directory, one)]


def _lies_in(directory: Path, descriptor: Path) -> bool:
    try:
        return Path(os.readlink(descriptor)).parent == directory.resolve()
    except FileNotFoundError:
        return False


class Live:
    """A running service. ``get`` and ``post`` go over its socket."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self.server = server
        self.temp_dir = settings.temp_dir
        self.port: int = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._client = httpx.Client(base_url=self.url, timeout=60)
        self.get, self.post, self.request = self._client.get, self._client.post, self._client.request
        self.stream = self._client.stream

    def analyze(self, file: Path | bytes, name: str = "video.mp4", **fields: object) -> httpx.Response:
        """``POST /v1/analyze`` with a file and form fields."""
        content = file if isinstance(file, bytes) else file.read_bytes()
        return self.post("/v1/analyze", files={"file": (name, content)}, data={k: str(v) for k, v in fields.items()})

    def uploads(self) -> list[Path]:
        """What lies in the temporary directory, with a name or without."""
        return [*self.temp_dir.iterdir(), *open_files(self.temp_dir, os.getpid())]

    def stop(self) -> None:
        """As SIGTERM does."""
        self.server.handle_exit(SIGTERM, None)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once ``condition()`` is true; fail when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@contextmanager
def running(app: FastAPI) -> Iterator[Live]:
    """The service in a thread, stopped in the end."""
    server = Server(app)
    thread = Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    live = Live(server, app.state.settings)
    try:
        yield live
    finally:
        live.stop()
        thread.join(15)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def _real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = Settings(
        port=0,
        temp_dir=tmp_path_factory.mktemp("uploads"),
        max_upload_mb=4,
        max_duration_s=20,
        max_pixels=640 * 640,
        max_job_upload_mb=8,
        max_job_duration_s=40,
        data_dir=tmp_path_factory.mktemp("jobs"),
        keep_results_s=3600,
        callback_secret=CALLBACK_SECRET,
        callback_networks=["127.0.0.0/8"],
        device="cpu",
    )
    with running(create_app(settings)) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200, seconds=60)
        yield live


@pytest.fixture
def live(_real: Live) -> Iterator[Live]:
    """The service with the real detector; takes 2 MiB, 20 s and 640 x 640 pixels. No test may leave a file in it."""
    yield _real
    wait_for(lambda: not _real.uploads())
