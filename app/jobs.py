"""Videos that are analysed while nobody holds the line: accepted, run in turn, told of, kept for a while, forgotten."""

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from tempfile import TemporaryFile
from typing import IO, TypeVar
from uuid import uuid4

from anyio import CapacityLimiter, create_task_group, to_thread

from app.access import OWNER
from app.callbacks import BACK_OFF_S, deliver
from app.logs import REQUEST_ID
from app.metrics import CALLBACKS, JOBS
from app.pool import Pool
from app.problems import Problem
from app.schemas import QUEUED, Job, JobParameters, JobState, ProblemDocument, Progress
from app.service import Service
from app.settings import DEFAULT_MODEL, Settings
from app.store import Record, Store
from app.streams import REPEAT_S, Event, event_of, outcome
from app.tracing import carried, continued, tracer
from app.uploads import path_of
from model.progress import Progress as Reached
from model.results import Window

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_ATTEMPTS = 3
"""A job that was under way so many times when the service ended is not tried again."""

UNFETCHED_S = 600.0
"""How long a result that is to be kept for no time waits to be fetched."""

TIDY_EVERY_S = 30.0


@dataclass(slots=True, eq=False)
class _Live:
    """What is known of a job only while it is open. ``events``: from its beginning on."""

    upload: IO[bytes] | None = None
    events: list[Event] = field(default_factory=list)
    progress: Progress = field(default_factory=lambda: QUEUED)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[Event] | None = None

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Jobs:
    """All jobs of the service. Use it from the event loop's thread only."""

    def __init__(self, settings: Settings, service: Service) -> None:
        """Raises `app.store.InUse`, and OSError where the directory of jobs can't be used."""
        self._settings = settings
        self._service = service
        self._keeps = settings.keep_results_s > 0
        self._store = Store(settings.data_dir if self._keeps else None)
        self._one_at_a_time = CapacityLimiter(1)
        self._live: dict[str, _Live] = {record.job_id: _Live() for record in self._store.recover()}
        self._work = asyncio.Semaphore(0)
        self._callbacks_due = asyncio.Event()

    async def run(self) -> None:
        """Have the service loaded, then work until cancelled.

        One job fewer at a time than there are workers, so that others need not wait.
        """
        for _ in self._live:
            self._work.release()
        try:
            await self._service.load()
            async with create_task_group() as group:
                if (pool := self._service.loaded) is not None:
                    for _ in range(max(1, self._settings.max_concurrent - 1)):
                        group.start_soon(self._run_jobs, pool)
                group.start_soon(self._call_back)
                group.start_soon(self._tidy)
        finally:
            self._store.close()

    def count(self, state: JobState) -> int:
        """How many open jobs are in a state."""
        running = sum(live.running is not None for live in list(self._live.values()))
        return running if state == "running" else len(self._live) - running

    def drain(self) -> None:
        """Let all listeners go: what was accepted goes on after the next start, and they may come again then."""
        for live in self._live.values():
            live.wake()

    @asynccontextmanager
    async def receive(self, model: str) -> AsyncIterator["NewJob"]:
        """A place for a new job, from before its upload to `submit`. Raises Problem as `Service.accept` does."""
        with self._service.accept(model, "job", open_jobs=len(self._live)), self._spooled(uuid4().hex) as new:
            yield new

    async def submit(
        self, new: "NewJob", model: str, parameters: JobParameters, idempotency_key: str | None
    ) -> tuple[str, str]:
        """Keep a received job, or find the one that came before it with the same key: its id, and the `Job` as JSON.

        Raises Problem `idempotency_conflict` when that one was not the same.
        """
        callback_url = str(parameters.callback_url) if parameters.callback_url else None
        options = {"model": model, "trace": carried(), **parameters.model_dump(exclude={"callback_url"})}
        owner = OWNER.get()
        asked = f"{model} {parameters.model_dump_json()}"
        fingerprint = await to_thread.run_sync(_fingerprint, new.opened, asked) if idempotency_key else None
        record = Record(
            job_id=new.job_id,
            request_id=REQUEST_ID.get(),
            state="queued",
            created_at=time.time(),
            parameters=options,
            callback_url=callback_url,
            callback="pending" if callback_url else None,
            idempotency_key=f"{owner}:{idempotency_key}" if owner and idempotency_key else idempotency_key,
            fingerprint=fingerprint,
            owner=owner,
        )
        kept = await self._ask(self._store.add, record)
        if kept.job_id != new.job_id:
            if kept.fingerprint != fingerprint:
                raise Problem("idempotency_conflict")
            return kept.job_id, self._described(kept)
        new.kept = True
        self._live[new.job_id] = _Live(None if self._keeps else new.opened)
        self._work.release()
        return kept.job_id, self._described(kept)

    async def get(self, job_id: str) -> str:
        """A `Job` as it is, as JSON. Raises Problem `job_not_found`."""
        record = await self._record(job_id)
        if not self._keeps and record.answer is not None:
            await self._ask(self._store.forget, job_id)
        return self._described(record)

    async def check(self, job_id: str) -> None:
        """Raises Problem `job_not_found`."""
        await self._record(job_id)

    async def result(self, job_id: str) -> str:
        """The `AnalysisResponse` of a job that is done, as JSON. Raises Problem `job_not_found`, `no_result`."""
        record = await self._record(job_id)
        if record.answer is None:
            raise Problem("no_result")
        return record.answer

    async def forget(self, job_id: str) -> None:
        """End a job and forget it. Raises Problem `job_not_found`."""
        await self._record(job_id)
        live = self._live.get(job_id)
        if live is not None:
            if live.running is not None:
                live.running.cancel()
                await asyncio.wait([live.running])
            self._let_go(job_id, live, event_of(Problem("job_not_found").document()))
        if not await self._ask(self._store.forget, job_id):
            raise Problem("job_not_found")

    async def events(self, job_id: str, after: int) -> AsyncIterator[tuple[int, Event]]:
        """Events of a job beyond number ``after``, as they come, the last one again to whoever comes late.

        They end early when the service stops. Raises Problem `job_not_found` before the first.
        """
        live = self._live.get(job_id)
        if live is None:
            record = await self._record(job_id)
            last = Event("problem", record.problem) if record.answer is None else Event("result", record.answer)
            yield max(after, 0) + 1, last
            return
        if not live.events:
            yield 0, event_of(live.progress)
        number = min(after, len(live.events))
        while not self._service.draining:
            news = live.news
            for event in live.events[number:]:
                number += 1
                yield number, event
                if event.last:
                    return
            try:
                await asyncio.wait_for(news.wait(), REPEAT_S)
            except TimeoutError:
                yield number, event_of(live.progress)

    async def _run_jobs(self, pool: Pool) -> None:
        while True:
            await self._work.acquire()
            if (record := await self._insist(self._store.claim)) is None:
                continue  # it was forgotten before its turn
            if (live := self._live.get(record.job_id)) is None:
                continue
            live.running = asyncio.create_task(self._outcome(record, live, pool))
            try:
                await asyncio.wait([live.running])
            except asyncio.CancelledError:
                live.running.cancel()
                await asyncio.wait([live.running])
                raise
            if not live.running.cancelled():
                await self._finish(record, live, live.running.result())

    async def _outcome(self, record: Record, live: _Live, pool: Pool) -> Event:
        REQUEST_ID.set(record.request_id)
        if record.attempts > MOST_ATTEMPTS:
            often = f"The service ended {MOST_ATTEMPTS} times while it analysed the video."
            return event_of(Problem("decoder_crashed", often).document())
        path = path_of(live.upload) if live.upload else str(self._store.upload_path(record.job_id))
        loop = asyncio.get_running_loop()

        def tell(thing: Reached | tuple[Window, ...]) -> None:
            loop.call_soon_threadsafe(note, thing)

        def note(thing: Reached | Progress | tuple[Window, ...]) -> None:
            if isinstance(thing, Reached):
                thing = live.progress = Progress.model_validate(thing)
            live.tell(event_of(thing))

        parameters = JobParameters.model_validate(record.parameters)
        model = record.parameters.get("model", DEFAULT_MODEL)
        with tracer.start_as_current_span("job", continued(record.parameters.get("trace", {}))):
            return await outcome(self._service.judge(pool, model, path, parameters, self._settings.job_allowance, tell))

    async def _finish(self, record: Record, live: _Live, event: Event) -> None:
        now = time.time()
        over = replace(
            record,
            state="done" if event.name == "result" else "failed",
            finished_at=now,
            expires_at=now + (self._settings.keep_results_s or UNFETCHED_S),
            progress=live.progress.model_dump_json(),
            answer=event.data if event.name == "result" else None,
            problem=event.data if event.name == "problem" else None,
        )
        await self._insist(self._store.finish, over)
        JOBS.labels(over.state, ProblemDocument.model_validate_json(over.problem).code if over.problem else "").inc()
        await self._ask(self._store.drop_upload, record.job_id)
        self._let_go(record.job_id, live, event)
        self._callbacks_due.set()

    def _let_go(self, job_id: str, live: _Live, event: Event) -> None:
        self._live.pop(job_id, None)
        if live.upload is not None:
            live.upload.close()
        live.tell(event)

    async def _call_back(self) -> None:
        while True:
            self._callbacks_due.clear()
            with suppress(Problem):
                for record in await self._ask(self._store.due_callbacks, time.time()):
                    await self._call_one_back(record)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._callbacks_due.wait(), min(BACK_OFF_S))

    async def _call_one_back(self, record: Record) -> None:
        settings = self._settings
        if settings.callback_secret is None or record.callback_url is None:
            return
        secret = settings.callback_secret.get_secret_value()
        body = _describe(replace(record, callback="delivered")).encode()
        taken = await deliver(record.callback_url, record.job_id, body, secret, settings.callback_networks)
        CALLBACKS.labels("yes" if taken else "no").inc()
        if taken and not self._keeps:
            await self._ask(self._store.forget, record.job_id)
            return
        if taken or record.callback_attempts >= len(BACK_OFF_S):
            state, next_at = ("delivered" if taken else "failed"), None
        else:
            state, next_at = "pending", time.time() + BACK_OFF_S[record.callback_attempts]
        await self._ask(self._store.note_callback, record.job_id, state, next_at)

    async def _tidy(self) -> None:
        while True:
            with suppress(Problem):
                await self._ask(self._store.forget_expired, time.time())
            await asyncio.sleep(TIDY_EVERY_S)

    async def _record(self, job_id: str) -> Record:
        record = await self._ask(self._store.get, job_id, time.time())
        if record is None or OWNER.get() not in (None, record.owner):
            raise Problem("job_not_found")
        return record

    async def _insist(self, statement: Callable[..., T], *values: object) -> T:
        """As `_ask`, again and again until the store can be written."""
        while True:
            try:
                return await self._ask(statement, *values)
            except Problem:
                await asyncio.sleep(TIDY_EVERY_S)

    async def _ask(self, statement: Callable[..., T], *values: object) -> T:
        """What the store says. Raises Problem `storage_full` where it can't be written."""
        try:
            return await to_thread.run_sync(statement, *values, limiter=self._one_at_a_time)
        except sqlite3.OperationalError as error:
            log.error("the jobs can't be kept: %s", error)
            raise Problem("storage_full") from error

    def _described(self, record: Record) -> str:
        live = self._live.get(record.job_id)
        return _describe(record, live.progress if live else None)

    @contextmanager
    def _spooled(self, job_id: str) -> Iterator["NewJob"]:
        path = self._store.upload_path(job_id)
        opened = TemporaryFile(dir=self._settings.temp_dir, buffering=0) if path is None else open(path, "xb+", 0)  # noqa: SIM115
        new = NewJob(job_id, opened)
        try:
            yield new
        finally:
            if not new.kept or self._keeps:
                opened.close()
            if not new.kept:
                self._store.drop_upload(job_id)


@dataclass(slots=True)
class NewJob:
    """A job whose upload comes into ``opened``. ``kept``: it was submitted, so that the upload must stay."""

    job_id: str
    opened: IO[bytes]
    kept: bool = False


def _fingerprint(opened: IO[bytes], asked: str) -> str:
    opened.seek(0)
    content = hashlib.file_digest(opened, "sha256").hexdigest()
    return f"{content} {asked}"


def _describe(record: Record, progress: Progress | None = None) -> str:
    """A `Job` as JSON; the result goes in as it is, for reading and writing a long one takes a tenth of a second."""
    created_at, finished_at, expires_at = (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC)
        for seconds in (record.created_at, record.finished_at, record.expires_at)
    )
    job = Job(
        job_id=record.job_id,
        state=record.state,
        created_at=created_at,
        finished_at=finished_at,
        expires_at=expires_at,
        progress=Progress.model_validate_json(record.progress) if record.progress else progress or QUEUED,
        callback=record.callback,
        result=None,
        problem=ProblemDocument.model_validate_json(record.problem) if record.problem else None,
    )
    return job.model_dump_json().replace('"result":null', f'"result":{record.answer or "null"}', 1)
