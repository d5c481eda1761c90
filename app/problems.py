"""What can go wrong with a request: one table, and the `application/problem+json` (RFC 9457) made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.logs import REQUEST_ID, note_problem
from app.schemas import ProblemDocument
from model import MediaError

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. ``detail``: what is said unless the occasion says it better."""

    status: int
    title: str
    detail: str
    retry_after_s: int | None = None


KINDS = {
    "malformed_request": Kind(
        400, "Malformed request", "The body is not well-formed multipart/form-data: it ends before its last boundary."
    ),
    "missing_file": Kind(400, "No file", "The form has no field 'file'. Send the video as that field."),
    "duplicate_field": Kind(400, "Field sent twice", "The form has the field 'file' more than once. Send one video."),
    "unknown_field": Kind(
        400, "Unknown field", "The form has a field 'files'; known are file, window_s, hop_s, max_faces, playback."
    ),
    "empty_file": Kind(400, "Empty file", "The file has no bytes."),
    "not_found": Kind(404, "Not found", "There is nothing at this address. See /docs."),
    "unauthorized": Kind(
        401, "Key needed", "Send a valid key: Authorization: Bearer, X-API-Key, or as the password of HTTP Basic."
    ),
    "cross_site": Kind(
        403, "Another site asked", "A browser sent this for the page of another site. Send the key as a Bearer token."
    ),
    "rate_limited": Kind(
        429, "Too many videos", "The key 'newsroom' may bring 60 videos in 60 s. Try again in 12 s.", 12
    ),
    "job_not_found": Kind(
        404, "No such job", "There is no job of this name: it was never there, was deleted, or its time is over."
    ),
    "no_result": Kind(409, "No result", "The job has no result, or not yet. See its state."),
    "method_not_allowed": Kind(405, "Method not allowed", "This address does not take this method. See /docs."),
    "upload_stalled": Kind(408, "Upload stalled", "No byte of the body came for 30 s. Send it again."),
    "upload_too_large": Kind(
        413, "Upload too large", "The video is larger than the limit of 512 MiB. Send a shorter part of it."
    ),
    "unsupported_content_type": Kind(
        415, "Unsupported content type", "The request must be multipart/form-data, not application/json."
    ),
    "not_media": Kind(415, "Not a media file", "The file is not a video in any known container."),
    "no_video_stream": Kind(422, "No video stream", "The file has no video stream (a cover picture does not count)."),
    "corrupt_media": Kind(
        422,
        "Corrupt video",
        "No picture of the video stream can be decoded: the file is truncated or corrupt.",
    ),
    "too_long": Kind(422, "Video too long", "The video is longer than the limit of 600 s. Send a shorter part of it."),
    "resolution_too_high": Kind(
        422,
        "Resolution too high",
        "The picture has more than 9437184 pixels. Send the video at a lower resolution.",
    ),
    "decoder_crashed": Kind(
        422,
        "Decoder crashed",
        "The process that decoded the video died of it: the file is damaged, or made to do so.",
    ),
    "too_expensive": Kind(
        422, "Too expensive", "Analysing the video takes more processor time than it may. Send a shorter part of it."
    ),
    "media_error": Kind(422, "Video can't be analysed", "The video can't be analysed."),
    "invalid_parameter": Kind(422, "Invalid parameter", "hop_s: Input should be greater than or equal to 0.04."),
    "unknown_model": Kind(422, "Unknown model", "There is no model 'newest'; there are default, candidate."),
    "callback_refused": Kind(
        422, "Callback refused", "callback_url: 10.0.0.7 is not a public address, which callbacks must go to."
    ),
    "idempotency_conflict": Kind(
        422, "Key used before", "This Idempotency-Key came with another video or other parameters. Use a new one."
    ),
    "internal_error": Kind(
        500, "Internal error", "The service failed; its log has the cause, under this request's id."
    ),
    "busy": Kind(503, "Busy", "As many videos are waiting as the service accepts. Try again later.", 10),
    "storage_full": Kind(
        503, "Storage full", "The service has no room left for uploads. Try again later, or send a smaller file.", 30
    ),
    "starting": Kind(503, "Starting", "The detector is being loaded. Try again in a moment.", 3),
    "load_failed": Kind(503, "Out of order", "The detector could not be loaded; the log has the cause.", 60),
    "deadline_exceeded": Kind(
        504, "Too late", "The analysis was not finished in time, 900 s with waiting. Send a shorter part of the video."
    ),
    "draining": Kind(503, "Shutting down", "The service is stopping and takes no new videos.", 10),
}


class Problem(Exception):
    """Ends a request with the answer that ``code`` has in `KINDS`."""

    def __init__(self, code: str, detail: str | None = None) -> None:
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail or self.kind.detail
        super().__init__(f"{code}: {self.detail}")

    def document(self) -> ProblemDocument:
        """The answer's body, for the request at hand."""
        return describe(self.code, self.detail, REQUEST_ID.get())

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """The answer, for the request at hand; ``headers`` go with it."""
        note_problem(self.code)
        headers = dict(headers or {})
        if self.kind.retry_after_s is not None:
            headers.setdefault("Retry-After", str(self.kind.retry_after_s))
        return JSONResponse(self.document().model_dump(), self.kind.status, headers, MEDIA_TYPE)


def describe(code: str, detail: str, request_id: str) -> ProblemDocument:
    """The document for a problem of kind ``code``."""
    kind = KINDS[code]
    return ProblemDocument(
        type=f"urn:problem-type:lipsync:{code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=code,
        request_id=request_id,
    )


def problem_of(error: MediaError | Problem) -> Problem:
    """The problem that an error is."""
    return error if isinstance(error, Problem) else Problem(error.code, str(error))


def in_words(errors: Sequence[Any]) -> str:
    """What Pydantic found wrong with parameters."""
    return "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in errors) + "."


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's ``responses`` of an operation that may end with these problems, an example each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        response = responses.setdefault(
            kind.status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        response["description"] = "; ".join(filter(None, [response["description"], kind.title]))
        example = describe(code, kind.detail, "5f0c1d7e9b3a").model_dump()
        response["content"][MEDIA_TYPE]["examples"][code] = {"summary": kind.title, "value": example}
        if kind.retry_after_s is not None:
            response["headers"] = {
                "Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
            }
    return responses


def handle_problems(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Answer what the routes of ``routers`` raise, and requests that none of them takes."""

    @app.exception_handler(Problem)
    @app.exception_handler(MediaError)
    async def problem(request: Request, error: Problem | MediaError) -> JSONResponse:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def parameter_problem(request: Request, error: RequestValidationError) -> JSONResponse:
        return Problem("invalid_parameter", in_words(error.errors())).response()

    @app.exception_handler(HTTPException)
    async def routing_problem(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return Problem("not_found").response(error.headers)
        return Problem("method_not_allowed").response({"Allow": ", ".join(_methods_there(routers, request))})


def _methods_there(routers: Sequence[APIRouter], request: Request) -> list[str]:
    """All that the address of a request takes; the framework knows only those of its first route."""
    routes = [route for router in routers for route in router.routes]
    there = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in there for method in route.methods})
