"""What happens around every request, whatever it asks for."""

import logging
import re
from asyncio import CancelledError
from uuid import uuid4

from anyio import move_on_after
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import REQUEST_ID
from app.problems import Problem

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

LINGER_S = 2.0
LINGER_BYTES = 64 << 20


class RequestContext:
    """Gives the request its id, and an answer even where the code fails.

    The id is the client's, if it is sane, and goes back in the same header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        proposed = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = proposed if SANE_REQUEST_ID.fullmatch(proposed) else uuid4().hex
        REQUEST_ID.set(request_id)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        async def answer_with(problem: Problem) -> None:
            if not started:
                await problem.response()(scope, receive, send_with_id)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("the client hung up")
        except CancelledError:
            log.warning("not answered before the server had to stop")
            await answer_with(Problem("draining", "The service had to stop before the video was analysed."))
        except Exception:
            log.exception("unexpected error")
            await answer_with(Problem("internal_error"))


class EarlyAnswer:
    """Ends the connection of a request that was answered before all of its body was read.

    Closing at once would reset the connection, and the answer might never be seen: for a moment, what the
    client had already sent is thrown away first.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def receive_watched() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def send_then_close(message: Message) -> None:
            if unread and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            if unread and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await throw_away_the_rest()
                message = {"type": "http.response.body"}
            await send(message)

        async def throw_away_the_rest() -> None:
            thrown = 0
            with move_on_after(LINGER_S):
                while unread and thrown < LINGER_BYTES:
                    thrown += len((await receive_watched()).get("body", b""))

        await self._app(scope, receive_watched, send_then_close)
