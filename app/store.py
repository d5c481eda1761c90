"""Jobs on disk: one SQLite file, and the uploads that still wait.

Use a `Store` from one thread at a time. Why not an ORM: there is one table, and seven statements about it.
"""

import fcntl
import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        job_id TEXT PRIMARY KEY,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at REAL NOT NULL,
        finished_at REAL,
        expires_at REAL,
        progress TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        parameters TEXT NOT NULL,
        answer BLOB,
        problem TEXT,
        callback_url TEXT,
        callback TEXT,
        callback_attempts INTEGER NOT NULL DEFAULT 0,
        callback_at REAL,
        idempotency_key TEXT UNIQUE,
        fingerprint TEXT
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, created_at);
    """,
    "ALTER TABLE jobs ADD COLUMN owner TEXT",
)
"""Each takes the file from one version, `PRAGMA user_version`, to the next."""

UPLOADS = "uploads"


class InUse(Exception):
    """Another service works with the same directory."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row. Times are seconds since 1970; ``progress``, ``answer``, ``problem`` are JSON
    documents.
    ``owner``: name of the key that brought it, if there was one; ``idempotency_key`` begins with it."""

    job_id: str
    request_id: str
    state: str
    created_at: float
    parameters: dict[str, Any]
    finished_at: float | None = None
    expires_at: float | None = None
    attempts: int = 0
    progress: str | None = None
    answer: str | None = None
    problem: str | None = None
    callback_url: str | None = None
    callback: str | None = None
    callback_attempts: int = 0
    callback_at: float | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    owner: str | None = None


class Store:
    """The jobs of a directory, or of this process only, and then nothing is written to any disk."""

    def __init__(self, directory: Path | None) -> None:
        """Raises InUse, and OSError where the directory can't be made or written to."""
        self._directory = directory
        self._lock: BinaryIO | None = None
        if directory is not None:
            (directory / UPLOADS).mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            self._lock = _locked(directory / "lock")
        where = ":memory:" if directory is None else directory / "jobs.sqlite3"
        self._db = sqlite3.connect(where, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA secure_delete = ON; PRAGMA auto_vacuum = FULL;")
        self._migrate()

    def close(self) -> None:
        """Let the directory go."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def upload_path(self, job_id: str) -> Path | None:
        """Where the upload of a job lies until the job is over; None where nothing is kept on disk."""
        return None if self._directory is None else self._directory / UPLOADS / job_id

    def add(self, record: Record) -> Record:
        """Keep a new job. If there is one with its ``idempotency_key``, that one is returned."""
        with self._transaction():
            known = self._one("SELECT * FROM jobs WHERE idempotency_key = ?", record.idempotency_key)
            if known is not None:
                return known
            self._db.execute(
                "INSERT INTO jobs (job_id, request_id, state, created_at, parameters, callback_url, callback, "
                "idempotency_key, fingerprint, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.job_id,
                    record.request_id,
                    record.state,
                    record.created_at,
                    json.dumps(record.parameters),
                    record.callback_url,
                    record.callback,
                    record.idempotency_key,
                    record.fingerprint,
                    record.owner,
                ),
            )
            return record

    def get(self, job_id: str, now: float) -> Record | None:
        """A job that is not forgotten."""
        return self._one("SELECT * FROM jobs WHERE job_id = ? AND ifnull(expires_at, ?) >= ?", job_id, now, now)

    def claim(self) -> Record | None:
        """The oldest queued job, which runs from now on."""
        return self._one(
            "UPDATE jobs SET state = 'running', attempts = attempts + 1 WHERE job_id = "
            "(SELECT job_id FROM jobs WHERE state = 'queued' ORDER BY created_at LIMIT 1) RETURNING *"
        )

    def finish(self, over: Record) -> None:
        """A job is over, with an answer or a problem."""
        self._db.execute(
            "UPDATE jobs SET state = ?, finished_at = ?, expires_at = ?, progress = ?, answer = ?, problem = ?, "
            "callback_at = 0 WHERE job_id = ?",
            (
                over.state,
                over.finished_at,
                over.expires_at,
                over.progress,
                zlib.compress(over.answer.encode()) if over.answer is not None else None,
                over.problem,
                over.job_id,
            ),
        )

    def due_callbacks(self, now: float) -> list[Record]:
        """Jobs that are over and whose callback is to be tried now."""
        return self._all(
            "SELECT * FROM jobs WHERE callback = 'pending' AND callback_at <= ? AND expires_at >= ? LIMIT 8", now, now
        )

    def note_callback(self, job_id: str, callback: str, next_at: float | None) -> None:
        """One more try was made; another, if it is still pending, is due at ``next_at``."""
        self._db.execute(
            "UPDATE jobs SET callback = ?, callback_attempts = callback_attempts + 1, callback_at = ? WHERE job_id = ?",
            (callback, next_at, job_id),
        )

    def forget(self, job_id: str) -> bool:
        """Whether there was such a job; there is none now, nor its upload."""
        self.drop_upload(job_id)
        return self._db.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,)).rowcount > 0

    def forget_expired(self, now: float) -> int:
        """How many jobs were past their time; they are gone."""
        return self._db.execute("DELETE FROM jobs WHERE expires_at < ?", (now,)).rowcount

    def drop_upload(self, job_id: str) -> None:
        """The upload is needed no more."""
        if (path := self.upload_path(job_id)) is not None:
            path.unlink(missing_ok=True)

    def recover(self) -> list[Record]:
        """After a start: jobs that ran when the service ended are queued again, uploads without a job deleted.

        Returns the jobs that are queued.
        """
        self._db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        queued = self._all("SELECT * FROM jobs WHERE state = 'queued'")
        if self._directory is not None:
            known = {record.job_id for record in queued}
            for path in (self._directory / UPLOADS).iterdir():
                if path.name not in known:
                    path.unlink()
        return queued

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            self._db.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    def _one(self, statement: str, *values: object) -> Record | None:
        return next(iter(self._all(statement, *values)), None)

    def _all(self, statement: str, *values: object) -> list[Record]:
        return [_record(row) for row in self._db.execute(statement, values).fetchall()]


def _record(row: sqlite3.Row) -> Record:
    facts = dict(row)
    facts["parameters"] = json.loads(facts["parameters"])
    if facts["answer"] is not None:
        facts["answer"] = zlib.decompress(facts["answer"]).decode()
    return Record(**facts)


def _locked(path: Path) -> BinaryIO:
    file = open(path, "wb")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InUse(f"Another service keeps its jobs in {path.parent}.") from None
    return file
