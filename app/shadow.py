"""A second model that scores what the first one judged, so that both can be compared before one replaces the other."""

import logging
import os
from asyncio import Queue
from dataclasses import dataclass
from typing import Any

from app.logs import REQUEST_ID
from app.metrics import SHADOW_DIFFERENCE, SHADOWED
from app.pool import Pool
from app.problems import Problem
from app.schemas import AnalysisResponse
from app.settings import Allowance
from model import MediaError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Case:
    """A video that was judged. ``video``: an open file of its own."""

    pool: Pool
    video: int
    options: dict[str, Any]
    allowance: Allowance
    answer: AnalysisResponse


class Shadow:
    """Scores by ``model``, one video at a time, and only while a worker has nothing else to do: nobody waits for it.

    What it finds is logged, with the difference from the answer that was given. Use it from the event loop's thread.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._cases: Queue[_Case] = Queue()
        self._busy = False

    def offer(
        self, pool: Pool, path: str, options: dict[str, Any], allowance: Allowance, answer: AnalysisResponse
    ) -> None:
        """Take a video that was just answered, unless it was by this model, or there is no time for it."""
        if answer.model.alias == self._model or self._busy or not pool.has_time:
            return
        self._busy = True
        self._cases.put_nowait(_Case(pool, os.open(path, os.O_RDONLY), options, allowance, answer))

    async def run(self) -> None:
        """Score what is taken, until cancelled."""
        while True:
            case = await self._cases.get()
            try:
                await self._score(case)
            finally:
                os.close(case.video)
                self._busy = False

    async def _score(self, case: _Case) -> None:
        REQUEST_ID.set(case.answer.request_id)
        path = f"/proc/{os.getpid()}/fd/{case.video}"
        try:
            found = await case.pool.analyze(self._model, path, case.options, case.allowance)
        except (MediaError, Problem) as error:
            log.warning("shadow %s failed where %s did not: %s", self._model, case.answer.model.alias, error)
            return
        given = case.answer
        SHADOWED.labels("yes" if found.verdict == given.verdict else "no").inc()
        if found.fake_probability is not None and given.fake_probability is not None:
            SHADOW_DIFFERENCE.observe(found.fake_probability - given.fake_probability)
        log.info(
            "shadow %s %s: %s at %s, where %s %s said %s at %s: difference %s",
            self._model, case.pool.models[self._model].version, found.verdict, _figure(found.fake_probability),
            given.model.alias, given.model.version, given.verdict, _figure(given.fake_probability),
            _difference(found.fake_probability, given.fake_probability),
        )  # fmt: skip


def _figure(probability: float | None) -> str:
    return "none" if probability is None else f"{probability:.4f}"


def _difference(found: float | None, given: float | None) -> str:
    return "none" if found is None or given is None else f"{found - given:+.4f}"
