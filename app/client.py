"""The service from Python: `Client`, and `AsyncClient` with the same methods to await.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.analyze("talk.mp4")
        print(answer.verdict, answer.fake_probability)

Videos are streamed from disk. What the service refuses is a `ServiceError`; that it can't be reached, or that the
connection breaks, is an ``httpx.TransportError``.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self, TypedDict, Unpack
from urllib.parse import urlencode

import httpx
from pydantic import ValidationError

from app.schemas import AnalysisResponse, Health, Job, ProblemDocument, Progress, Window

NDJSON, SSE = "application/x-ndjson", "text/event-stream"

CONNECT_S = 10.0

RECONNECT_S = 1.0
"""Seconds until the events of a job are asked for again, after their connection broke."""

Video = str | os.PathLike[str] | BinaryIO
"""A path, or a file opened for reading bytes, which is read from its start."""

Event = Progress | list[Window] | AnalysisResponse | ProblemDocument
"""How far an analysis is; windows as they are scored, by the offset that their face has had so far; and in the end
either the answer or why there is none."""

OnEvent = Callable[[Progress | list[Window]], None]


class Parameters(TypedDict, total=False):
    """What may be asked of an analysis: `app.schemas.Parameters` has units, ranges and defaults.

    ``model``: one of those that `Client.health` lists.
    """

    model: str
    window_s: float
    hop_s: float
    max_faces: int
    playback: bool


class ServiceError(Exception):
    """The service said no. ``problem``: why; ``retry_after_s``: when to try again, if that makes sense."""

    def __init__(self, problem: ProblemDocument, retry_after_s: float | None = None) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """The kind of problem, for programs; ``http_502`` and the like if it was not the service that answered."""
        return self.problem.code

    @property
    def detail(self) -> str:
        """What is wrong, in a sentence for people."""
        return self.problem.detail

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @classmethod
    def of(cls, response: httpx.Response) -> "ServiceError":
        """From an answer that has been read, of the service or of something in between."""
        try:
            problem = ProblemDocument.model_validate_json(response.content)
        except ValidationError:
            problem = ProblemDocument(
                type="about:blank",
                title=response.reason_phrase,
                status=response.status_code,
                detail=f"{response.url.host} answered {response.status_code} {response.reason_phrase}.",
                code=f"http_{response.status_code}",
                request_id=response.headers.get("X-Request-ID", ""),
            )
        after = response.headers.get("Retry-After", "")
        return cls(problem, float(after) if after.isdecimal() else None)


# --------------------------------------------------------------------------------------------------------------
# Shared by both clients
# --------------------------------------------------------------------------------------------------------------


def _event(name: str, data: Any) -> Event | None:
    match name:
        case "progress":
            return Progress.model_validate(data)
        case "windows":
            return [Window.model_validate(window) for window in data["windows"]]
        case "result":
            return AnalysisResponse.model_validate(data)
        case "problem":
            return ProblemDocument.model_validate(data)
    return None  # of a later version


def _is_last(event: Event) -> bool:
    return isinstance(event, AnalysisResponse | ProblemDocument)


class _Lines:
    """Bytes as they come in; whole lines out."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that ``chunk`` completes."""
        *whole, self._begun = (self._begun + chunk).split(b"\n")
        return whole


class _JsonLines:
    """Events out of lines of JSON."""

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` completes."""
        for line in self._lines.feed(chunk):
            message = json.loads(line)
            if (event := _event(message["event"], message["data"])) is not None:
                yield event


class _ServerSentEvents:
    """Events out of a ``text/event-stream``. ``last_id``: of the last whole event."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self.ended = False
        self.begin()

    def begin(self) -> None:
        """Forget the unfinished event of a connection that broke."""
        self._lines = _Lines()
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` completes."""
        for line in self._lines.feed(chunk):
            name, _, value = line.decode().removesuffix("\r").partition(":")
            if name:
                before = f"{self._fields[name]}\n" if name == "data" and name in self._fields else ""
                self._fields[name] = before + value.removeprefix(" ")
            elif not value and (event := self._dispatch()) is not None:
                self.ended = _is_last(event)
                yield event

    def _dispatch(self) -> Event | None:
        fields, self._fields = self._fields, {}
        self.last_id = fields.get("id", self.last_id)
        return _event(fields.get("event", ""), json.loads(fields["data"])) if "data" in fields else None


@dataclass(slots=True)
class _Call:
    """One request, which may be sent more than once."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    file: BinaryIO | None = None

    def arguments(self) -> dict[str, Any]:
        """For httpx's ``stream``. A file goes to the service without its name."""
        files = {"file": ("video", self.file, "application/octet-stream")} if self.file else None
        return {"method": self.method, "url": self.path, "headers": self.headers, "data": self.data, "files": files}


class _Following:
    """The events of a job, over as many connections as it takes."""

    def __init__(self, job_id: str, retries: int) -> None:
        self._path = f"/v1/jobs/{job_id}/events"
        self._retries = self._left = retries
        self._reader = _ServerSentEvents()

    @property
    def ended(self) -> bool:
        """Whether the last event has come."""
        return self._reader.ended

    def call(self) -> _Call:
        """Ask for the events after those that came."""
        self._reader.begin()
        resume = {"Last-Event-ID": self._reader.last_id} if self._reader.last_id else {}
        return _Call("GET", self._path, {"Accept": SSE, **resume})

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that ``chunk`` completes."""
        for event in self._reader.feed(chunk):
            self._left = self._retries
            yield event

    def lost(self, error: httpx.TransportError | None) -> None:
        """The connection broke, or ended too early. Raises httpx.TransportError when that happens too often."""
        if not self._left:
            raise error or httpx.RemoteProtocolError("the events ended before the job did")
        self._left -= 1


@contextmanager
def _opened(video: Video) -> Iterator[BinaryIO]:
    if isinstance(video, str | os.PathLike):
        with Path(video).open("rb") as file:
            yield file
    else:
        yield video


def _form(parameters: Mapping[str, object]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
        if value is not None and name != "model"
    }


def _of_model(path: str, parameters: Mapping[str, object]) -> str:
    return f"{path}?{urlencode({'model': parameters['model']})}" if "model" in parameters else path


def _analysis(file: BinaryIO, parameters: Mapping[str, object], followed: bool) -> _Call:
    accept = f"{NDJSON}, application/json" if followed else "application/json"
    return _Call("POST", _of_model("/v1/analyze", parameters), {"Accept": accept}, _form(parameters), file)


def _submission(
    file: BinaryIO, idempotency_key: str | None, callback_url: str | None, parameters: Mapping[str, object]
) -> _Call:
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    form = _form({**parameters, "callback_url": callback_url})
    return _Call("POST", _of_model("/v1/jobs", parameters), headers, form, file)


def _answer(event: Event, on_event: OnEvent | None) -> AnalysisResponse | None:
    """The answer, if it is that; else ``on_event`` is told. Raises ServiceError."""
    if isinstance(event, AnalysisResponse):
        return event
    if isinstance(event, ProblemDocument):
        raise ServiceError(event)
    if on_event:
        on_event(event)
    return None


def _is_stream(response: httpx.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith(NDJSON)


def _cut_short() -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError("the connection ended before the answer came")


def _options(url: str, api_key: str | None, timeout_s: float, headers: Mapping[str, str] | None) -> dict[str, Any]:
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": url, "timeout": timeout, "headers": {**key, **(headers or {})}}


# --------------------------------------------------------------------------------------------------------------
# The clients
# --------------------------------------------------------------------------------------------------------------


class Client:
    """A service at ``url``. Use it in a ``with``, or close it.

    ``api_key``: where the service wants one. ``retries``: how often a request is sent again that the service refused
    for the moment (429, 503), after the seconds that it asks for; and how often in a row the events of a job are asked
    for again, when their connection breaks. ``timeout_s``: how long the service may be silent; it says nothing while it
    analyses, unless somebody listens to the events. ``headers`` go with every request, for what stands in front of the
    service.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: int = 5,
        timeout_s: float = 900,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.retries = retries
        self._http = httpx.Client(**_options(url, api_key, timeout_s, headers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def analyze(
        self, video: Video, *, on_event: OnEvent | None = None, **parameters: Unpack[Parameters]
    ) -> AnalysisResponse:
        """Send a video and wait for the answer. ``on_event`` is told how far it is, and of windows as they are scored.

        Raises ServiceError, httpx.TransportError, OSError.
        """
        with _opened(video) as file, self._send(_analysis(file, parameters, on_event is not None)) as response:
            if not _is_stream(response):
                return AnalysisResponse.model_validate_json(response.read())
            reader = _JsonLines()
            for chunk in response.iter_bytes():
                for event in reader.feed(chunk):
                    if answer := _answer(event, on_event):
                        return answer
        raise _cut_short()

    def submit(
        self,
        video: Video,
        *,
        idempotency_key: str | None = None,
        callback_url: str | None = None,
        **parameters: Unpack[Parameters],
    ) -> Job:
        """Have a video analysed without holding the line. A key that was used before gives the job of that time.

        Raises ServiceError, httpx.TransportError, OSError.
        """
        with _opened(video) as file:
            return Job.model_validate_json(self._read(_submission(file, idempotency_key, callback_url, parameters)))

    def job(self, job_id: str) -> Job:
        """How it is with a job. Raises ServiceError, httpx.TransportError."""
        return Job.model_validate_json(self._read(_Call("GET", f"/v1/jobs/{job_id}")))

    def events(self, job_id: str) -> Iterator[Event]:
        """What happens to a job, from its beginning to its answer or problem, over as many connections as it takes.

        Raises ServiceError, httpx.TransportError.
        """
        following = _Following(job_id, self.retries)
        while not following.ended:
            error = None
            try:
                with self._send(following.call()) as response:
                    for chunk in response.iter_bytes():
                        yield from following.feed(chunk)
            except httpx.TransportError as lost:
                error = lost
            if not following.ended:
                following.lost(error)
                time.sleep(RECONNECT_S)

    def wait(self, job_id: str, *, on_event: OnEvent | None = None) -> Job:
        """The job once it is over, `done` or `failed`. Raises ServiceError, httpx.TransportError."""
        for event in self.events(job_id):
            if on_event and not _is_last(event):
                on_event(event)
        return self.job(job_id)

    def forget(self, job_id: str) -> None:
        """End a job, and have its video and its answer deleted. Raises ServiceError, httpx.TransportError."""
        self._read(_Call("DELETE", f"/v1/jobs/{job_id}"))

    def health(self) -> Health:
        """What is ready to serve. Raises ServiceError, httpx.TransportError."""
        return Health.model_validate_json(self._read(_Call("GET", "/healthz")))

    def _read(self, call: _Call) -> bytes:
        with self._send(call) as response:
            return response.read()

    @contextmanager
    def _send(self, call: _Call) -> Iterator[httpx.Response]:
        left = self.retries
        while True:
            with self._http.stream(**call.arguments()) as response:
                if response.is_success:
                    yield response
                    return
                response.read()
            error = ServiceError.of(response)
            if not left or error.retry_after_s is None:
                raise error
            left -= 1
            time.sleep(error.retry_after_s)


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited; ``events`` is an asynchronous iterator."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: int = 5,
        timeout_s: float = 900,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.retries = retries
        self._http = httpx.AsyncClient(**_options(url, api_key, timeout_s, headers))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def analyze(
        self, video: Video, *, on_event: OnEvent | None = None, **parameters: Unpack[Parameters]
    ) -> AnalysisResponse:
        """See `Client.analyze`."""
        with _opened(video) as file:
            async with self._send(_analysis(file, parameters, on_event is not None)) as response:
                if not _is_stream(response):
                    return AnalysisResponse.model_validate_json(await response.aread())
                reader = _JsonLines()
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        if answer := _answer(event, on_event):
                            return answer
        raise _cut_short()

    async def submit(
        self,
        video: Video,
        *,
        idempotency_key: str | None = None,
        callback_url: str | None = None,
        **parameters: Unpack[Parameters],
    ) -> Job:
        """See `Client.submit`."""
        with _opened(video) as file:
            call = _submission(file, idempotency_key, callback_url, parameters)
            return Job.model_validate_json(await self._read(call))

    async def job(self, job_id: str) -> Job:
        """See `Client.job`."""
        return Job.model_validate_json(await self._read(_Call("GET", f"/v1/jobs/{job_id}")))

    async def events(self, job_id: str) -> AsyncIterator[Event]:
        """See `Client.events`."""
        following = _Following(job_id, self.retries)
        while not following.ended:
            error = None
            try:
                async with self._send(following.call()) as response:
                    async for chunk in response.aiter_bytes():
                        for event in following.feed(chunk):
                            yield event
            except httpx.TransportError as lost:
                error = lost
            if not following.ended:
                following.lost(error)
                await asyncio.sleep(RECONNECT_S)

    async def wait(self, job_id: str, *, on_event: OnEvent | None = None) -> Job:
        """See `Client.wait`."""
        async for event in self.events(job_id):
            if on_event and not _is_last(event):
                on_event(event)
        return await self.job(job_id)

    async def forget(self, job_id: str) -> None:
        """See `Client.forget`."""
        await self._read(_Call("DELETE", f"/v1/jobs/{job_id}"))

    async def health(self) -> Health:
        """See `Client.health`."""
        return Health.model_validate_json(await self._read(_Call("GET", "/healthz")))

    async def _read(self, call: _Call) -> bytes:
        async with self._send(call) as response:
            return await response.aread()

    @asynccontextmanager
    async def _send(self, call: _Call) -> AsyncIterator[httpx.Response]:
        left = self.retries
        while True:
            async with self._http.stream(**call.arguments()) as response:
                if response.is_success:
                    yield response
                    return
                await response.aread()
            error = ServiceError.of(response)
            if not left or error.retry_after_s is None:
                raise error
            left -= 1
            await asyncio.sleep(error.retry_after_s)
