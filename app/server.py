"""The application behind a socket."""

import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.service import Service
from app.settings import Settings

CLOSING_S = 3
"""How long connections have to take their answers, once nothing is left to analyse."""


class Server(uvicorn.Server):
    """Uvicorn that, told to stop, first goes on accepting connections, to say that it is stopping.

    It stops once every accepted request is answered, or ``grace_s`` is over, or it is told a second time.
    ``cut_short``: whether it stopped before that; those requests are answered 503 `draining`.
    """

    def __init__(self, app: FastAPI) -> None:
        settings: Settings = app.state.settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                lifespan="on",
                ws="none",
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self.cut_short = False
        self._service: Service = app.state.service
        self._grace_s = settings.grace_s
        self._deadline = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM and SIGINT."""
        self._deadline = 0.0 if self._service.draining else time.monotonic() + self._grace_s
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        if self._service.draining and self._service.idle:
            return True
        if time.monotonic() >= self._deadline:
            self.cut_short = True
            self.config.timeout_graceful_shutdown = 0
            return True
        return await super().on_tick(counter)
