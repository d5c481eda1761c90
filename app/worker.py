"""What runs in a worker process: decoding, faces, crops and the verdict; the networks are asked for by message.

Decoders meet whatever strangers upload. A crash, a loop or a hunger for memory ends this process and no other.
"""

import os
import resource
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import cv2
import numpy as np
import torch

from model import Analysis, Detector, DetectorInfo, Limits, MediaError, analyze
from model.engine import Kind
from model.verdict import VerdictRule

NEARLY_ALL = 0.8
"""Share of the memory limit above which a failure is put down to it."""

NICE = 5
"""Workers give way to the server, so that it answers and computes for the others while they are busy."""

Tag = Literal["ready", "ask", "tell", "done", "refused", "exhausted", "failed"]
Message = tuple[Tag, Any]
"""To the server: that the worker is ready; a question for the networks; and of a job, how far it is, its `Analysis`,
the `MediaError` that refuses it, what it ran out of, or a traceback."""


@dataclass(frozen=True, slots=True)
class Model:
    """A detector but for its networks; ``scale`` as in `Detector`."""

    info: DetectorInfo
    rule: VerdictRule
    scale: float

    @classmethod
    def of(cls, detector: Detector) -> "Model":
        """What a worker must know of it."""
        return cls(detector.info, detector.rule, detector.scale)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is started with: models by name."""

    models: Mapping[str, Model]
    max_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """One video: where it is, and ``options``, keyword arguments of `model.analyze`. ``followed``: tell of it."""

    model: str
    path: str
    options: dict[str, Any]
    limits: Limits
    max_cpu_s: float
    followed: bool


class Line:
    """This end of the conversation. Several threads may speak; one at a time may ask."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = Lock()

    def say(self, tag: Tag, payload: Any) -> None:
        """Send a message."""
        with self._lock:
            self._connection.send((tag, payload))

    def hear(self) -> Any:
        """Wait for what the server sends."""
        return self._connection.recv()

    def ask(self, model: str, kind: Kind, items: np.ndarray) -> np.ndarray:
        """Have the networks of a model compute."""
        self.say("ask", (model, kind, items))
        return self.hear()


def work(connection: Connection, setup: Setup) -> None:
    """Do jobs that come through ``connection`` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (setup.max_memory_bytes, setup.max_memory_bytes))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    line = Line(connection)
    detectors = {
        name: Detector(model.info, model.rule, model.scale, partial(line.ask, name))
        for name, model in setup.models.items()
    }
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what MediaPipe and FFmpeg have to say is not for the log
    try:
        line.say("ready", None)
        while True:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            job = line.hear()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may be sent to all processes of a service that drains
            _allow_cpu(job.max_cpu_s)
            line.say(*_outcome(job, detectors[job.model], line, setup.max_memory_bytes))
    except (EOFError, ConnectionError):
        return


def _outcome(job: Job, detector: Detector, line: Line, max_memory_bytes: int) -> Message:
    follow = partial(line.say, "tell") if job.followed else None
    try:
        analysis: Analysis = analyze(job.path, detector, **job.options, limits=job.limits, follow=follow)
    except MediaError as error:
        return "refused", error
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        # Libraries report failed allocations in many ways; what was allocated is still held by the traceback.
        if isinstance(error, MemoryError) or _memory_bytes() > NEARLY_ALL * max_memory_bytes:
            return "exhausted", "memory"
        return "failed", traceback.format_exc()
    finally:
        detector.settle()
    return "done", analysis


def _memory_bytes() -> int:
    """What the limit is about: private memory that this process has written to or may."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _allow_cpu(seconds: float) -> None:
    """From now on; beyond it the kernel sends SIGXCPU, which ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 1, hard))
