"""Each request seen from outside: counted, timed, and logged in one line."""

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import TOLD, Told
from app.metrics import REQUEST_S, REQUESTS

log = logging.getLogger("app.access")

PROBES = ("/healthz", "/livez", "/metrics")
"""They come every few seconds; the log has them at level debug only."""

HUNG_UP = "hung_up"


class Observing:
    """Around everything else that has to do with a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, told, sent = time.perf_counter(), Told(), _Sent()
        TOLD.set(told)

        async def send_and_note(message: Message) -> None:
            sent.note(message)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            code = told.code if sent.complete else HUNG_UP
            _conclude(scope["method"], _route(scope), sent, code, time.perf_counter() - began)


class _Sent:
    """What was sent of an answer."""

    def __init__(self) -> None:
        self.status, self.body_bytes, self.complete, self.request_id = 0, 0, False, "-"

    def note(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.request_id = Headers(raw=message["headers"]).get("x-request-id", "-")
        elif message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)


def _route(scope: Scope) -> str:
    """The address as it is documented, without what clients fill in."""
    return getattr(scope.get("route"), "path", "other")


def _conclude(method: str, route: str, sent: _Sent, code: str, took_s: float) -> None:
    REQUESTS.labels(route, sent.status, code).inc()
    REQUEST_S.labels(route).observe(took_s)
    facts = {
        "request_id": sent.request_id,
        "method": method,
        "route": route,
        "status": sent.status,
        "code": code,
        "duration_ms": round(1000 * took_s, 1),
        "bytes": sent.body_bytes,
    }
    level = logging.DEBUG if route in PROBES else logging.INFO
    words = "%s %s: %d%s, %d bytes in %.0f ms"
    log.log(
        level, words, method, route, sent.status, f" {code}" if code else "", sent.body_bytes, 1000 * took_s,
        extra={"facts": facts},
    )  # fmt: skip
