"""A server in a process of its own, for scripts that measure it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
START_S = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where it answers, its process, and how long it took to get ready."""

    host: str
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server itself."""
        return self.process.pid

    def family(self) -> list[int]:
        """Its process and all that come from it."""
        return [self.pid, *_descendants(self.pid)]

    def memory_mb(self) -> float:
        """Memory of all its processes, in MiB; what they share is counted once."""
        return sum(_proportional_kb(pid) for pid in self.family()) / 1024

    def open_files(self) -> int:
        """File descriptors of the server process."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def served(stderr: BinaryIO | int = subprocess.DEVNULL, **settings: object) -> Iterator[Served]:
    """Start the service with ``settings``, environment variables; stop it in the end. ``stderr``: where it logs."""
    settings = {"LIPSYNC_KEEP_RESULTS_S": 0} | settings
    with started([sys.executable, "-m", "app"], "/healthz", stderr, **settings) as service:
        yield service


@contextmanager
def started(
    command: Sequence[str], ready: str, stderr: BinaryIO | int = subprocess.DEVNULL, **settings: object
) -> Iterator[Served]:
    """Start a server, told its port by the environment, ``PORT``; wait until the path ``ready`` is 200."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = os.environ | {"HOST": HOST, "PORT": str(port)} | {k: str(v) for k, v in settings.items()}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
    )
    try:
        while not _ready(f"http://{HOST}:{port}{ready}"):
            if time.perf_counter() - began > START_S or process.poll() is not None:
                raise TimeoutError(f"{command} did not get ready")
            time.sleep(0.02)
        yield Served(HOST, port, process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(further for child in children for further in _descendants(child))]


def _proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
