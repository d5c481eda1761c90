"""The detector in this program, without a service: as protected against what a file does to its decoder."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from app.client import OnEvent, Parameters, ServiceError
from app.pool import open_pool
from app.problems import Problem
from app.schemas import AnalysisResponse, Progress, Window
from app.settings import DEFAULT_MODEL, Settings
from model.progress import Progress as Reached
from model.results import Window as Scored


class LocalDetector:
    """Analyses one file after the other in a worker process. Use it in a ``with``.

    Videos may be as long as those that the service takes as jobs. Raises pydantic.ValidationError when the
    environment has wrong settings, FileNotFoundError when weights are missing, RuntimeError without the ``device``.
    """

    def __init__(self, device: str | None = None) -> None:
        given = {"device": device} if device else {}
        settings = Settings(max_concurrent=1, **given)
        self._allowance = settings.job_allowance
        self._pool = open_pool(settings)
        self._runner = asyncio.Runner()
        self.version = self._pool.models[DEFAULT_MODEL].version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()
        self._pool.close()

    def analyze(self, path: Path, on_event: OnEvent, parameters: Parameters) -> AnalysisResponse:
        """The answer for a file; ``on_event`` is told how far it is, from another thread.

        Raises MediaError, ServiceError, OSError.
        """

        def tell(thing: Reached | tuple[Scored, ...]) -> None:
            if isinstance(thing, tuple):
                on_event([Window.model_validate(window) for window in thing])
            else:
                on_event(Progress.model_validate(thing))

        options = dict(parameters)
        model = options.pop("model", DEFAULT_MODEL)
        with path.open("rb"):  # whether it can be read is said better here than by the decoder
            pass
        try:
            analysis = self._runner.run(self._pool.analyze(model, str(path), options, self._allowance, tell))
        except Problem as error:
            raise ServiceError(error.document()) from error
        return AnalysisResponse.of(analysis, model, self._pool.models[model], "")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Meanwhile, what libraries in C write to standard error is thrown away; what Python writes is not."""
    sys.stderr.flush()
    python, known = sys.stderr, os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    if python is sys.__stderr__:
        sys.stderr = os.fdopen(os.dup(known), "w", buffering=1, errors="backslashreplace")
    try:
        yield
    finally:
        os.dup2(known, 2)
        os.close(known)
        sys.stderr = python
