"""What runs in a worker process: decoding, faces, crops and the verdict; the networks are asked for by message.

Decoders meet whatever strangers upload. A crash, a loop or a hunger for memory ends this process and no other.
"""

import os
import resource
import signal
import traceback
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
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

Tag = Literal["ready", "ask", "done", "refused", "exhausted", "failed"]
Message = tuple[Tag, Any]
"""To the server: that the worker is ready; a question for the networks; and of a job, its `Analysis`, the `MediaError`
that refuses it, what it ran out of, or a traceback."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is started with; ``scale`` as in `Detector`."""

    info: DetectorInfo
    rule: VerdictRule
    scale: float
    max_memory_bytes: int
    max_cpu_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """One video: where it is, and the keyword arguments of `model.analyze`."""

    path: str
    options: dict[str, Any]
    limits: Limits


def work(connection: Connection, setup: Setup) -> None:
    """Do jobs that come through ``connection`` until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (setup.max_memory_bytes, setup.max_memory_bytes))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = Detector(setup.info, setup.rule, setup.scale, partial(_ask, connection))
    try:
        connection.send(("ready", None))
        while True:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            job = connection.recv()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may be sent to all processes of a service that drains
            _allow_cpu(setup.max_cpu_s)
            connection.send(_outcome(job, detector, setup.max_memory_bytes))
    except (EOFError, ConnectionError):
        return


def _ask(connection: Connection, kind: Kind, items: np.ndarray) -> np.ndarray:
    connection.send(("ask", (kind, items)))
    return connection.recv()


def _outcome(job: Job, detector: Detector, max_memory_bytes: int) -> Message:
    try:
        analysis: Analysis = analyze(job.path, detector, **job.options, limits=job.limits)
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
