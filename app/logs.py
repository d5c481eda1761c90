"""Log lines that say which request they are about: for people, or as JSON for programs."""

import json
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from opentelemetry.trace import get_current_span

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request at hand; worker threads that it starts see it as well."""


@dataclass(slots=True)
class Told:
    """What a client is told by other means than the status. ``code``: of a problem."""

    code: str = ""


TOLD: ContextVar[Told | None] = ContextVar("told", default=None)
"""Of the request at hand; None outside of requests."""


def note_problem(code: str) -> None:
    """The request at hand ends with this problem."""
    if (told := TOLD.get()) is not None:
        told.code = code
        get_current_span().set_attribute("error.type", code)


LINE = "%(asctime)s %(levelname)s [%(request_id)s] %(name)s: %(message)s"


class WithRequestId(logging.Filter):
    """Adds ``request_id`` to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.request_id = REQUEST_ID.get()
        return True


class JsonLines(logging.Formatter):
    """One JSON object a record; what was logged with ``extra={"facts": {...}}`` is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", "-"),
            **getattr(record, "facts", {}),
        }
        if (span := get_current_span().get_span_context()).is_valid:
            facts |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts, ensure_ascii=False, default=str)


def log_config(level: str, form: Literal["line", "json"]) -> dict[str, Any]:
    """For `logging.config.dictConfig`: everything to standard error, other people's libraries from warnings on."""
    ours = {"level": level.upper()}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": WithRequestId}},
        "formatters": {"line": {"format": LINE}, "json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form, "filters": ["request_id"]}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"app": ours, "model": ours, "uvicorn": ours, "uvicorn.access": {"level": "WARNING"}},
    }
