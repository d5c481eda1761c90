"""Worker processes, one video each at a time, and the engine that computes for all of them.

Why not a library's pool: an analysis and the engine talk back and forth while it runs, and a worker must be killed
and replaced without the others noticing.
"""

import logging
import resource
import signal
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any, Literal

from anyio import CancelScope, CapacityLimiter, to_thread

from app.batching import BatchingEngine, Engine
from app.metrics import RESTARTS
from app.problems import Problem
from app.settings import DEFAULT_MODEL, Allowance, Settings
from app.turns import Turns
from app.worker import Job, Model, Setup, work
from model import Analysis, Detector, DetectorInfo, MediaError, load_detector
from model.engine import WEIGHTS
from model.progress import Follow

log = logging.getLogger(__name__)

START_S = 60.0
"""How long a worker may take to start."""

MOST_JOBS = 100
"""After so many a worker is replaced: decoders lose a little memory on damaged files."""

BATCH_ON_GPU = 8

_context = get_context("forkserver")
_context.set_forkserver_preload(["app.worker", "app.main"])  # the latter because workers import the main module


Cause = Literal["cancelled", "died", "exhausted", "failed", "tired"]
"""Why a worker is replaced."""


class WorkerDied(Exception):
    """The process is gone. The message is for the log."""


class JobFailed(Exception):
    """Code failed in the worker. The message, a traceback, is for the log."""


class Exhausted(Exception):
    """A job took more memory or processor time than it may. The message says which."""


class Worker:
    """One process and the conversation with it."""

    def __init__(self, setup: Setup) -> None:
        self._connection, theirs = _context.Pipe()
        self._process = _context.Process(target=work, args=(theirs, setup), daemon=True)
        self._process.start()
        theirs.close()
        self._ready = self._talking = False
        self._jobs = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def tired(self) -> bool:
        """Whether it has done its share."""
        return self._jobs >= MOST_JOBS

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 once it is gone."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * resource.getpagesize()

    def wait_until_ready(self) -> None:
        """Block. Raises WorkerDied if the worker does not start."""
        if not self._ready and not (self._connection.poll(START_S) and self._hear()[0] == "ready"):
            raise WorkerDied("a worker did not start")
        self._ready = True

    def analyze(self, job: Job, engine: Engine, follow: Follow | None) -> Analysis:
        """Block until the job is done; ``engine`` answers the worker's questions, ``follow`` is told how far it is.

        Raises MediaError, Exhausted, JobFailed, WorkerDied.
        """
        self._talking = True
        self._jobs += 1
        try:
            self.wait_until_ready()
            self._say(job)
            tag, payload = self._hear()
            while tag in ("ask", "tell"):
                if tag == "ask":
                    self._say(engine(*payload))
                elif follow is not None:
                    follow(payload)
                tag, payload = self._hear()
        finally:
            self._talking = False
        if tag == "done":
            return payload
        if tag == "refused":
            raise payload
        raise Exhausted(payload) if tag == "exhausted" else JobFailed(payload)

    def kill(self) -> None:
        """End the process at once; a conversation with it in another thread ends with WorkerDied."""
        self._process.kill()
        self._process.join()
        if not self._talking:
            self._connection.close()

    def _say(self, thing: object) -> None:
        try:
            self._connection.send(thing)
        except OSError:
            self._mourn()

    def _hear(self) -> tuple:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._mourn()

    def _mourn(self) -> None:
        self._process.join(5)
        self._connection.close()
        code = self._process.exitcode
        if code == -signal.SIGXCPU:
            raise Exhausted("processor time")
        raise WorkerDied(f"a worker died: {signal.Signals(-code).name if code and code < 0 else code}")


class Pool(Turns):
    """So many workers, always; whoever dies is replaced. Use it from the event loop's thread.

    ``models``: by name, the default one first; ``engine`` computes for them, and is closed with the pool.
    """

    def __init__(self, models: Mapping[str, Model], engine: Engine, settings: Settings) -> None:
        super().__init__(settings.max_concurrent)
        self._setup = Setup(models, settings.max_memory_mb << 20)
        self._engine = engine
        self._threads = CapacityLimiter(settings.max_concurrent)
        self._idle = [Worker(self._setup) for _ in range(settings.max_concurrent)]
        self._workers = set(self._idle)
        self.models: dict[str, DetectorInfo] = {name: model.info for name, model in models.items()}

    def wait_until_ready(self) -> None:
        """Block until one worker is. Raises WorkerDied."""
        self._idle[-1].wait_until_ready()

    def memory_bytes(self) -> int:
        """Resident memory of all workers. From any thread."""
        return sum(worker.memory_bytes() for worker in self._workers)

    async def analyze(
        self, model: str, path: str, options: dict[str, Any], allowance: Allowance, follow: Follow | None = None
    ) -> Analysis:
        """Analyse one video by a model, in turn. When this is cancelled, the work ends with its worker.

        ``options``: as of `model.analyze`. ``follow``: as there, called from another thread. Raises MediaError when
        the video can't be analysed, Problem when a worker fails at it.
        """
        async with self.turn():
            worker = self._idle.pop()
            worker = worker if worker.alive else await self._successor(worker, "died")
            job = Job(model, path, options, allowance.limits, allowance.max_cpu_s, follow is not None)
            harmed: Cause | None = "cancelled"
            try:
                analysis = await to_thread.run_sync(
                    worker.analyze, job, self._engine, follow, abandon_on_cancel=True, limiter=self._threads
                )
                harmed = None
            except MediaError:
                harmed = None
                raise
            except Exhausted as error:
                harmed = "exhausted"
                raise Problem("too_expensive", f"Analysing the video takes more {error} than it may.") from error
            except JobFailed as error:
                harmed = "failed"
                log.error("an analysis failed: %s", error)
                raise Problem("internal_error") from error
            except WorkerDied as error:
                harmed = "died"
                log.error("%s", error)
                raise Problem("decoder_crashed") from error
            finally:
                cause = harmed or ("tired" if worker.tired else None)
                self._idle.append(await self._successor(worker, cause) if cause else worker)
            return analysis

    def close(self) -> None:
        """End the workers and the engine."""
        for worker in self._idle:
            worker.kill()
        self._engine.close()

    async def _successor(self, worker: Worker, cause: Cause) -> Worker:
        """In a thread: on a busy machine it takes a while until one process has ended and another has begun.

        Where the system lets no process begin, the dead worker comes back, to be replaced another time.
        """
        log.info("a worker is replaced: %s", cause)
        RESTARTS.labels(cause).inc()
        with CancelScope(shield=True):
            await to_thread.run_sync(worker.kill)
            try:
                successor = await to_thread.run_sync(Worker, self._setup)
            except OSError:
                log.exception("no worker could be started")
                return worker
        self._workers = self._workers - {worker} | {successor}
        return successor


Load = Callable[[Settings], Pool]


def open_pool(settings: Settings) -> Pool:
    """Load the detector and start the workers. Blocks until they can work."""
    forkserver.ensure_running()  # it imports what workers need meanwhile
    detectors = load_detectors(settings)
    pool = Pool({name: Model.of(one) for name, one in detectors.items()}, open_engine(detectors, settings), settings)
    pool.wait_until_ready()
    return pool


def load_detectors(settings: Settings) -> dict[str, Detector]:
    """All models by name, the default one first."""
    folders = {DEFAULT_MODEL: WEIGHTS} | settings.models
    return {name: load_detector(settings.device, folder) for name, folder in folders.items()}


def open_engine(detectors: Mapping[str, Detector], settings: Settings) -> BatchingEngine:
    """The engine that computes for all of ``detectors``, on their device."""
    device = detectors[DEFAULT_MODEL].info.device
    most = settings.batch_most or (1 if device == "cpu" else BATCH_ON_GPU)
    return BatchingEngine({name: one.run for name, one in detectors.items()}, most, settings.batch_wait_ms / 1000)
