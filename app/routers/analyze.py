"""``POST /v1/analyze``."""

import logging

from fastapi import APIRouter, Request

from app.logs import REQUEST_ID
from app.middleware import REQUEST_ID_HEADER
from app.problems import documented
from app.schemas import AnalysisResponse, Parameters
from app.service import Service
from app.uploads import FILE_FIELD, receive_upload

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", tags=["analysis"])

FORM = {
    "type": "object",
    "required": [FILE_FIELD],
    "additionalProperties": False,
    "properties": {
        FILE_FIELD: {
            "type": "string",
            "format": "binary",
            "contentMediaType": "application/octet-stream",
            "description": "The video, in any container and codec that FFmpeg reads, with its sound.",
        },
        **Parameters.model_json_schema()["properties"],
    },
}


@router.post(
    "/analyze",
    summary="Judge one video",
    response_description="The video was analysed; also when nothing could be said about it (`inconclusive`).",
    responses=documented(
        "malformed_request",
        "missing_file",
        "duplicate_field",
        "unknown_field",
        "empty_file",
        "upload_stalled",
        "upload_too_large",
        "unsupported_content_type",
        "not_media",
        "no_video_stream",
        "corrupt_media",
        "too_long",
        "resolution_too_high",
        "decoder_crashed",
        "too_expensive",
        "media_error",
        "invalid_parameter",
        "busy",
        "storage_full",
        "starting",
        "load_failed",
        "draining",
        "deadline_exceeded",
    ),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}},
        "parameters": [
            {
                "name": REQUEST_ID_HEADER,
                "in": "header",
                "description": "Your name for this request, of up to 64 letters, digits, dots, dashes and underscores; "
                "else it is given a random one.",
                "schema": {"type": "string"},
            }
        ],
    },
)
async def analyze(request: Request) -> AnalysisResponse:
    """Do the lips of the speaking face belong to the voice, or were they made to fit it?

    The upload is deleted with the answer. Requests wait in line for their turn; when the line is full, the
    answer is 503 before the video is read.
    """
    service: Service = request.app.state.service
    with service.accept() as pool:
        async with receive_upload(request, request.app.state.settings) as upload:
            analysis = await service.analyze(request, upload, pool)
    log.info(
        "%s: %.1f s of video, %d windows, in %.0f ms",
        analysis.verdict, analysis.media.duration_s, len(analysis.windows), analysis.timing_ms.total,
    )  # fmt: skip
    return AnalysisResponse.of(analysis, pool.info, REQUEST_ID.get())
