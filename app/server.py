"""The application behind a socket."""

import time
from asyncio import TimerHandle, Transport
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.jobs import Jobs
from app.service import Service
from app.settings import Settings

CLOSING_S = 3
"""How long connections have to take their answers, once nothing is left to analyse."""

HEAD_S = 20.0
"""How long a client may take for the head of a request, from the moment it connects or begins."""

MAX_HEAD_BYTES = 1 << 20
"""More than this without the head of a request being complete is not read."""


class Protocol(HttpToolsProtocol):
    """One connection; it is closed when the head of a request is too slow or too large, so that nobody hoards them."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience: TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: Transport) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much."""
        if self._patience is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                return self.transport.close()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Of another request on the same connection, the head is awaited anew."""
        super().on_message_begin()
        if self._patience is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._patience = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


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
                http=Protocol,
                lifespan="on",
                ws="none",
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )
        self.cut_short = False
        self._service: Service = app.state.service
        self._jobs: Jobs = app.state.jobs
        self._grace_s = settings.grace_s
        self._deadline = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM and SIGINT."""
        self._deadline = 0.0 if self._service.draining else time.monotonic() + self._grace_s
        self._service.drain()
        self._jobs.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop."""
        if self._service.draining and self._service.idle:
            return True
        if time.monotonic() >= self._deadline:
            self.cut_short = True
            self.config.timeout_graceful_shutdown = 0
            return True
        return await super().on_tick(counter)
