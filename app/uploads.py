"""The multipart form of a request in; one temporary file and checked parameters out.

The file's bytes go straight from the socket to disk: frameworks' form parsers would write them twice and look
at the size afterwards. File names are never looked at.
"""

import errno
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Generic, TypeVar

from anyio import AsyncFile, current_time, fail_after, wrap_file
from fastapi import Request
from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.metrics import UPLOAD_BYTES, UPLOAD_S
from app.problems import Problem, in_words
from app.schemas import Parameters
from app.settings import MIB, Settings
from app.tracing import tracer

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Parameters)

FILE_FIELD = "file"
MAX_FIELD_BYTES = 2048
MAX_FORM_BYTES = 1 << 16
"""How much larger than its file a form may be."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The file system, what the user may take of it, or what one file may take is full."""

WRITE_BYTES = 1 << 20
"""How much is gathered before a thread writes it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A received form. The file at ``path`` is there, for all processes of this user, while `receive_upload` says."""

    path: str
    parameters: Parameters


@asynccontextmanager
async def receive_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """Read the whole body; the file is gone after the ``async with``, however that ends.

    It never has a name in the directory, so that not even a server which is killed leaves it behind.
    Raises as `receive_form` does.
    """
    with TemporaryFile(dir=settings.temp_dir, buffering=0) as opened:
        parameters = await receive_form(request, opened, Parameters, settings.allowance.max_upload_mb, settings)
        yield Upload(path_of(opened), parameters)


def path_of(opened: IO[bytes]) -> str:
    """Of an open file, whether it has a name or not."""
    return f"/proc/{os.getpid()}/fd/{opened.fileno()}"


async def receive_form(request: Request, opened: IO[bytes], kind: type[P], max_mb: int, settings: Settings) -> P:
    """Read the whole body, the video of up to ``max_mb`` MiB into ``opened``; its other fields are returned.

    Raises Problem as soon as something is wrong with the form, ClientDisconnect when the client hangs up.
    """
    form = _Form(_boundary(request), kind, max_mb)
    if int(request.headers.get("content-length", 0)) > max_mb * MIB + MAX_FORM_BYTES:
        raise _too_large(max_mb)
    file = wrap_file(opened)
    began = current_time()
    over = current_time() + settings.upload_s
    try:
        with fail_after(min(settings.upload_idle_s, settings.upload_s)) as patience:
            with tracer.start_as_current_span("upload"):
                async for chunk in request.stream():
                    form.feed(chunk)
                    await _write(form, file, WRITE_BYTES)
                    patience.deadline = min(current_time() + settings.upload_idle_s, over)
    except TimeoutError:
        idle = f"No byte of the body came for {settings.upload_idle_s:g} s."
        slow = f"The body was not complete after {settings.upload_s:g} s."
        raise Problem("upload_stalled", f"{slow if current_time() >= over else idle} Send it again.") from None
    await _write(form, file, 1)
    parameters = form.finish()
    UPLOAD_BYTES.inc(form.file_bytes)
    UPLOAD_S.observe(current_time() - began)
    return parameters


async def _write(form: "_Form[P]", file: AsyncFile[bytes], at_least: int) -> None:
    if len(form.unwritten) < at_least:
        return
    unwritten = memoryview(form.unwritten)
    try:
        while unwritten:
            unwritten = unwritten[await file.write(unwritten) :]
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        log.error("an upload does not fit into the temporary directory: %s", error)
        raise Problem("storage_full") from error
    form.unwritten = bytearray()


def _boundary(request: Request) -> bytes:
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if not content_type:
        raise Problem("malformed_request", "The request has no Content-Type. Send multipart/form-data.")
    if content_type != b"multipart/form-data":
        name = content_type.decode("latin-1")
        raise Problem("unsupported_content_type", f"The request must be multipart/form-data, not {name}.")
    if not options.get(b"boundary"):
        raise Problem("malformed_request", "The Content-Type has no boundary.")
    return options[b"boundary"]


def _too_large(max_mb: int) -> Problem:
    return Problem(
        "upload_too_large", f"The video is larger than the limit of {max_mb} MiB. Send a shorter part of it."
    )


class _Form(Generic[P]):
    """Takes a form apart as it comes.

    ``unwritten``: bytes of the file for the caller to write and clear; ``file_bytes``: how many there were so far.
    """

    def __init__(self, boundary: bytes, kind: type[P], max_mb: int) -> None:
        self.unwritten = bytearray()
        self._kind = kind
        self._parameters = kind()
        self._max_mb = max_mb
        self._form_bytes = self.file_bytes = 0
        self._seen: dict[str, bytearray] = {}
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name_part,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Problem("malformed_request", f"The Content-Type is wrong: {error}.") from error

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        self._form_bytes += len(chunk)
        if self._form_bytes > self._max_mb * MIB + MAX_FORM_BYTES:
            raise _too_large(self._max_mb)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            wrong = f"The body is not well-formed multipart/form-data: {error}."
            raise Problem("malformed_request", wrong) from error

    def finish(self) -> P:
        """The parameters, once the body has ended."""
        if not self._complete:
            raise Problem("malformed_request")
        if FILE_FIELD not in self._seen:
            raise Problem("missing_file")
        if not self.file_bytes:
            raise Problem("empty_file")
        return self._parameters

    def _begin_part(self) -> None:
        self._header_name, self._header_value = bytearray(), bytearray()
        self._disposition = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        known = (FILE_FIELD, *self._kind.model_fields)
        if self._name not in known:
            unknown = f"The form has a field {self._name[:40]!r}; known are {', '.join(known)}."
            raise Problem("unknown_field", unknown)
        if self._name in self._seen:
            raise Problem("duplicate_field", f"The form has the field {self._name!r} more than once.")
        self._seen[self._name] = bytearray()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self.file_bytes += end - start
            if self.file_bytes > self._max_mb * MIB:
                raise _too_large(self._max_mb)
            self.unwritten += memoryview(data)[start:end]
        elif len(self._seen[self._name]) + end - start > MAX_FIELD_BYTES:
            raise Problem("invalid_parameter", f"{self._name}: longer than {MAX_FIELD_BYTES} bytes.")
        else:
            self._seen[self._name] += data[start:end]

    def _end_part(self) -> None:
        given = {name: bytes(value).decode("utf-8", "replace") for name, value in self._seen.items()}
        try:
            self._parameters = self._kind.model_validate(given)
        except ValidationError as error:
            raise Problem("invalid_parameter", in_words(error.errors())) from error

    def _end(self) -> None:
        self._complete = True
