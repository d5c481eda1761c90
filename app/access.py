"""Who may ask for what, and how often; decided before a byte of the body is read."""

import binascii
import math
import time
from base64 import b64decode
from contextvars import ContextVar

from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.keys import Key, Keys, rate_of
from app.problems import Problem
from app.settings import Settings

OWNER: ContextVar[str | None] = ContextVar("owner", default=None)
"""Name of the key of the request at hand; None where there are no keys, and everything is everybody's."""

CHALLENGES = 'Basic realm="lipsync", charset="UTF-8", Bearer realm="lipsync"'

PUBLIC = {
    "health": ("/healthz", "/livez"),
    "docs": ("/docs", "/openapi.json"),
    "metrics": ("/metrics",),
}
"""What `Settings.public` names, by the beginning of the address."""

READING = ("GET", "HEAD", "OPTIONS")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that has no others of its own."""


class Access:
    """Lets requests in that bring a key, if there are keys, as often as the key may.

    A key comes as ``Authorization: Bearer``, as ``X-API-Key``, or as the password of HTTP Basic, which is how
    browsers ask for it and send it with all that the page does.
    """

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys | None) -> None:
        self._app = app
        self._keys = keys
        self._public = tuple(path for name in settings.public for path in PUBLIC[name])
        self._usual_rate = rate_of(settings.rate_limit) if settings.rate_limit else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys is not None and not self._is_public(scope["path"]):
            try:
                key = self._admit(self._keys, Headers(scope=scope), scope["method"])
                if scope["method"] == "POST":
                    self._count(key)
            except Refused as refused:
                return await refused.problem.response(refused.headers)(scope, receive, send)
            OWNER.set(key.name)
        await self._app(scope, receive, send)

    def _is_public(self, path: str) -> bool:
        return any(path == one or path.startswith(f"{one}/") for one in self._public)

    def _admit(self, keys: Keys, headers: Headers, method: str) -> Key:
        presented, by_browser = _presented(headers)
        key = keys.find(presented) if presented else None
        if key is None:
            raise Refused(Problem("unauthorized"), {"WWW-Authenticate": CHALLENGES})
        asked_by = headers.get("sec-fetch-site", "none")
        if by_browser and method not in READING and asked_by not in ("same-origin", "none"):
            raise Refused(Problem("cross_site"))
        return key

    def _count(self, key: Key) -> None:
        rate = key.rate or self._usual_rate
        if rate is None or self._limiter.hit(rate, key.name):
            return
        again_s = self._limiter.get_window_stats(rate, key.name).reset_time - time.time()
        wait_s = max(1, math.ceil(again_s))
        limit = f"The key {key.name!r} may bring {rate.amount} videos in {rate.get_expiry()} s."
        problem = Problem("rate_limited", f"{limit} Try again in {wait_s} s.")
        raise Refused(problem, {"Retry-After": str(wait_s)})


class Refused(Exception):
    """The answer is ``problem``, with ``headers``."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.headers = headers


def _presented(headers: Headers) -> tuple[str, bool]:
    """The key, and whether a browser may have sent it unasked."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip(), False
    if scheme.lower() == "basic":
        try:
            return b64decode(value.strip(), validate=True).decode().partition(":")[2], True
        except (binascii.Error, UnicodeDecodeError):
            return "", True
    return headers.get("x-api-key", ""), False


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to answers that don't have them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
