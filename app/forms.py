"""How forms with a video are documented."""

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from app.uploads import FILE_FIELD

Model = Annotated[str, Query(description="Which of the models that `GET /healthz` lists is to judge.")]

REFUSALS = (
    "rate_limited",
    "malformed_request",
    "missing_file",
    "duplicate_field",
    "unknown_field",
    "empty_file",
    "upload_stalled",
    "upload_too_large",
    "unsupported_content_type",
    "invalid_parameter",
    "unknown_model",
    "busy",
    "storage_full",
    "starting",
    "load_failed",
    "draining",
)
"""What may be wrong with any form, or with the service."""

BAD_MEDIA = (
    "not_media",
    "no_video_stream",
    "corrupt_media",
    "too_long",
    "resolution_too_high",
    "decoder_crashed",
    "too_expensive",
    "media_error",
)
"""What may be wrong with a video."""


def form_body(parameters: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI's ``requestBody`` of a form with a video and ``parameters``."""
    video = {
        "type": "string",
        "format": "binary",
        "contentMediaType": "application/octet-stream",
        "description": "The video, in any container and codec that FFmpeg reads, with its sound.",
    }
    form = {
        "type": "object",
        "required": [FILE_FIELD],
        "additionalProperties": False,
        "properties": {FILE_FIELD: video, **parameters.model_json_schema()["properties"]},
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}
