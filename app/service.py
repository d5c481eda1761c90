"""The one detector of the process, and the bounded line of requests in front of it."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.problems import Problem
from app.settings import Settings
from app.uploads import Upload
from model import Analysis, Detector

log = logging.getLogger(__name__)

Load = Callable[[str | None], Detector]
Analyze = Callable[..., Analysis]


class Service:
    """Shared by all requests. Use it from the event loop's thread only.

    At most ``max_concurrent`` analyses run at once; ``max_waiting`` more requests may be uploading or waiting.
    """

    def __init__(self, settings: Settings, load: Load, analyze: Analyze) -> None:
        self._settings = settings
        self._load = load
        self._analyze = analyze
        self._workers = CapacityLimiter(settings.max_concurrent)
        self._accepted = 0
        self._detector: Detector | None = None
        self._load_failed = False
        self.draining = False

    async def load(self) -> None:
        """Load the detector in a thread. A failure is logged, and is what `detector` reports from then on.

        From then on PyTorch uses one thread an analysis: the detector needs little, several analyses run at
        once, and threads that wait for one another on a busy machine cost far more than they bring.
        """
        torch.set_num_threads(1)
        try:
            self._detector = await to_thread.run_sync(self._load, self._settings.device, abandon_on_cancel=True)
        except Exception:
            self._load_failed = True
            log.exception("the detector could not be loaded")
        else:
            info = self._detector.info
            log.info("%s %s is ready on %s", info.name, info.version, info.device)

    def drain(self) -> None:
        """From now on, take no new requests."""
        self.draining = True

    @property
    def idle(self) -> bool:
        """Whether no accepted request is left to answer."""
        return self._accepted == 0

    def detector(self) -> Detector:
        """The loaded detector. Raises Problem while there is none, or none for new requests."""
        if self.draining:
            raise Problem("draining")
        if self._load_failed:
            raise Problem("load_failed")
        if self._detector is None:
            raise Problem("starting")
        return self._detector

    @contextmanager
    def accept(self) -> Iterator[Detector]:
        """A place for one request, from before its body is read to its answer. Raises Problem if there is none."""
        detector = self.detector()
        if self._accepted >= self._settings.max_concurrent + self._settings.max_waiting:
            raise Problem("busy")
        self._accepted += 1
        try:
            yield detector
        finally:
            self._accepted -= 1

    async def analyze(self, request: Request, upload: Upload, detector: Detector) -> Analysis:
        """Analyse in a worker thread, in turn.

        Raises MediaError when the video can't be analysed, ClientDisconnect when the client hangs up before
        its turn; an analysis that has begun is finished first.
        """
        work = partial(
            self._analyze, upload.path, detector, **upload.parameters.model_dump(), limits=self._settings.limits
        )
        with _until_hang_up(request):
            return await to_thread.run_sync(work, limiter=self._workers)


@contextmanager
def _until_hang_up(request: Request) -> Iterator[None]:
    """Leave the ``with`` body with ClientDisconnect when the client hangs up. The request's body must be read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with CancelScope() as scope:
        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
    if scope.cancelled_caught:
        raise ClientDisconnect
