"""What happens while a video is analysed, as events on the wire: server-sent events, or lines of JSON."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.logs import note_problem
from app.problems import Problem, problem_of
from app.schemas import QUEUED, AnalysisResponse, ProblemDocument, Progress, Windows
from model import MediaError
from model.progress import Follow
from model.progress import Progress as Reached
from model.results import Window

log = logging.getLogger(__name__)

SSE, NDJSON = "text/event-stream", "application/x-ndjson"

DOCUMENTED = {
    SSE: {
        "schema": {
            "type": "object",
            "description": "One event; `data` is a JSON document, see above.",
            "properties": {"event": {"type": "string"}, "data": {"type": "string"}, "id": {"type": "string"}},
        }
    },
    NDJSON: {
        "schema": {
            "type": "object",
            "description": "One line each; `data` is a JSON document, see above.",
            "properties": {"event": {"type": "string"}, "data": {"type": "object"}},
        }
    },
}
"""OpenAPI's ``content`` of a stream of events."""

REPEAT_S = 10.0
"""After so long without an event the last progress is sent again, so that nobody takes the line for dead."""

RETRY_MS = 2000

Name = Literal["progress", "windows", "result", "problem"]


@dataclass(frozen=True, slots=True)
class Event:
    """``data``: a JSON document of the kind that ``name`` stands for."""

    name: Name
    data: str

    @property
    def last(self) -> bool:
        """Whether no event comes after it."""
        return self.name in ("result", "problem")


def event_of(thing: Reached | tuple[Window, ...] | Progress | AnalysisResponse | ProblemDocument) -> Event:
    """The event that tells of it."""
    names: dict[type[BaseModel], Name] = {AnalysisResponse: "result", ProblemDocument: "problem", Progress: "progress"}
    if isinstance(thing, tuple):
        return Event("windows", Windows.model_validate({"windows": thing}).model_dump_json())
    if isinstance(thing, Reached):
        thing = Progress.model_validate(thing)
    return Event(names[type(thing)], thing.model_dump_json())


async def outcome(answer: Awaitable[AnalysisResponse]) -> Event:
    """The last event: of an answer, or of what came in its way."""
    try:
        return event_of(await answer)
    except (MediaError, Problem) as error:
        problem = problem_of(error)
    except ClientDisconnect:
        log.info("the client hung up")
        problem = Problem("internal_error")
    except Exception:
        log.exception("unexpected error")
        problem = Problem("internal_error")
    note_problem(problem.code)
    return event_of(problem.document())


def wanted_stream(request: Request) -> str | None:
    """The media type in which the client wants events, if it wants them."""
    accept = request.headers.get("accept", "")
    return next((kind for kind in (SSE, NDJSON) if kind in accept), None)


class EventStream(StreamingResponse):
    """Sends events; ``held`` is closed in the end, whatever happens."""

    def __init__(self, events: AsyncIterator[tuple[int, Event]], media_type: str, held: AsyncExitStack) -> None:
        encode = _sse if media_type == SSE else _ndjson
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((encode(number, event) async for number, event in events), 200, headers, media_type)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def follow(analyze: Callable[[Follow], Awaitable[Event]]) -> AsyncIterator[tuple[int, Event]]:
    """Events of an analysis, numbered, which ``analyze(tell)`` is; the last is what it returns.

    The analysis is cancelled when nobody listens any more.
    """
    told: asyncio.Queue[Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(thing: Reached | tuple[Window, ...]) -> None:
        loop.call_soon_threadsafe(told.put_nowait, event_of(thing))

    async def analyze_and_tell() -> None:
        told.put_nowait(await analyze(tell))

    running = asyncio.create_task(analyze_and_tell())
    try:
        number, event = 1, event_of(QUEUED)
        yield number, event
        latest = event
        while not event.last:
            try:
                event = await asyncio.wait_for(told.get(), REPEAT_S)
            except TimeoutError:
                event = latest
            latest = event if event.name == "progress" else latest
            number += 1
            yield number, event
    finally:
        running.cancel()
        await asyncio.wait([running])


def _sse(number: int, event: Event) -> bytes:
    return format_sse_event(data_str=event.data, event=event.name, id=str(number), retry=RETRY_MS)


def _ndjson(number: int, event: Event) -> bytes:
    return f'{{"event":"{event.name}","data":{event.data}}}\n'.encode()
