"""The one pool of workers of the service, and the bounded line of requests in front of it."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from anyio import CancelScope, fail_after, to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.logs import REQUEST_ID
from app.metrics import count_analysis, expect_reference
from app.pool import Load, Pool
from app.problems import Problem
from app.schemas import AnalysisResponse, Parameters
from app.settings import DEFAULT_MODEL, Allowance, Settings
from app.shadow import Shadow
from app.tracing import note_stages, tracer
from app.uploads import Upload
from model.drift import Reference, load_reference
from model.engine import WEIGHTS
from model.progress import Follow
from model.weights import WeightsError

log = logging.getLogger(__name__)

Kind = Literal["analysis", "job"]


class Service:
    """Shared by all requests. Use it from the event loop's thread only.

    At most ``max_concurrent`` analyses run at once; ``max_waiting`` more requests may be uploading or waiting.
    Beside them, ``max_jobs`` jobs may be uploading, waiting or under way.
    """

    def __init__(self, settings: Settings, load: Load) -> None:
        self._settings = settings
        self._load = load
        self._accepted: Counter[Kind] = Counter()
        self._pool: Pool | None = None
        self._load_failed = False
        self._reference: Reference | None = None
        self._shadow = Shadow(settings.shadow_model) if settings.shadow_model else None
        self.draining = False

    async def load(self) -> None:
        """Load the detector and start the workers, in a thread.

        A failure is logged, and is what `pool` reports from then on. From now on PyTorch uses one thread: there is
        one engine, and threads that wait for one another on a busy machine cost far more than they bring.
        """
        torch.set_num_threads(1)
        try:
            pool = await to_thread.run_sync(self._load, self._settings, abandon_on_cancel=True)
            self._reference = load_reference(self._settings.models.get(DEFAULT_MODEL, WEIGHTS))
        except WeightsError as error:
            self._load_failed = True
            log.error("the weights are refused: %s", error)
        except Exception:
            self._load_failed = True
            log.exception("the detector could not be loaded")
        else:
            self._pool = pool
            if self._reference:
                expect_reference(self._reference)
            gc.collect()
            gc.freeze()  # else every full collection goes through all modules, for a tenth of a second
            for name, info in self._pool.models.items():
                log.info("model %s is ready: %s %s on %s", name, info.name, info.version, info.device)

    async def run_shadow(self) -> None:
        """Have the shadow model score, if there is one, until cancelled."""
        if self._shadow is not None:
            await self._shadow.run()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()

    def drain(self) -> None:
        """From now on, take no new requests."""
        self.draining = True

    @property
    def idle(self) -> bool:
        """Whether no accepted request is left to answer."""
        return not self._accepted.total()

    def pool(self) -> Pool:
        """The workers. Raises Problem while there is none, or none for new requests."""
        if self.draining:
            raise Problem("draining")
        if self._load_failed:
            raise Problem("load_failed")
        if self._pool is None:
            raise Problem("starting")
        return self._pool

    @property
    def places(self) -> int:
        """Analyses that can run or wait at once."""
        return self._settings.max_concurrent + self._settings.max_waiting

    @property
    def loaded(self) -> Pool | None:
        """The workers, if there are any."""
        return self._pool

    @contextmanager
    def accept(self, model: str, kind: Kind = "analysis", open_jobs: int = 0) -> Iterator[Pool]:
        """A place for one request, from before its body is read to its answer.

        Raises Problem if there is none, or no such ``model``.
        """
        pool = self.pool()
        check_model(pool, model)
        places = {
            "analysis": self.places,
            "job": self._settings.max_jobs - open_jobs,
        }
        if self._accepted[kind] >= places[kind]:
            raise Problem("busy")
        self._accepted[kind] += 1
        try:
            yield pool
        finally:
            self._accepted[kind] -= 1

    async def analyze(
        self, request: Request, model: str, upload: Upload, pool: Pool, follow: Follow | None = None
    ) -> AnalysisResponse:
        """Analyse in a worker process, in turn.

        Raises MediaError when the video can't be analysed, Problem when that fails or takes too long,
        ClientDisconnect when the client hangs up; the work ends with it.
        """
        with _until_hang_up(request):
            return await self.judge(pool, model, upload.path, upload.parameters, self._settings.allowance, follow)

    async def judge(
        self,
        pool: Pool,
        model: str,
        path: str,
        parameters: Parameters,
        allowance: Allowance,
        follow: Follow | None = None,
    ) -> AnalysisResponse:
        """Analyse a video in a worker process, in turn, for the request at hand.

        Raises MediaError when the video can't be analysed, Problem when that fails or takes too long, or without
        ``model``.
        """
        check_model(pool, model)
        options = parameters.model_dump(include=set(Parameters.model_fields))
        try:
            with tracer.start_as_current_span("analysis"), fail_after(allowance.deadline_s):
                analysis = await pool.analyze(model, path, options, allowance, follow)
                note_stages(analysis)
        except TimeoutError:
            waited = f"The analysis was not finished in time, {allowance.deadline_s:g} s with waiting."
            raise Problem("deadline_exceeded", f"{waited} Send a shorter part of the video.") from None
        count_analysis(analysis, model, self._reference)
        log.info(
            "%s: %.1f s of video, %d windows, in %.0f ms",
            analysis.verdict, analysis.media.duration_s, len(analysis.windows), analysis.timing_ms.total,
        )  # fmt: skip
        answer = AnalysisResponse.of(analysis, model, pool.models[model], REQUEST_ID.get())
        if self._shadow is not None:
            self._shadow.offer(pool, path, options, allowance, answer)
        return answer


def check_model(pool: Pool, model: str) -> None:
    """Raises Problem `unknown_model`."""
    if model not in pool.models:
        raise Problem("unknown_model", f"There is no model {model[:40]!r}; there are {', '.join(pool.models)}.")


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
