"""``POST /v1/analyze``."""

from contextlib import AsyncExitStack

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.forms import BAD_MEDIA, REFUSALS, Model, form_body
from app.middleware import REQUEST_ID_HEADER
from app.problems import documented
from app.schemas import AnalysisResponse, Parameters
from app.service import Service
from app.settings import DEFAULT_MODEL
from app.streams import DOCUMENTED, EventStream, follow, outcome, wanted_stream
from app.uploads import receive_upload

router = APIRouter(prefix="/v1", tags=["analysis"])


@router.post(
    "/analyze",
    summary="Judge one video",
    response_model=AnalysisResponse,
    response_description="The video was analysed; also when nothing could be said about it (`inconclusive`).",
    responses=documented(*REFUSALS, *BAD_MEDIA, "deadline_exceeded") | {200: {"content": DOCUMENTED}},
    openapi_extra={
        "requestBody": form_body(Parameters),
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
async def analyze(request: Request, model: Model = DEFAULT_MODEL) -> Response:
    """Do the lips of the speaking face belong to the voice, or were they made to fit it?

    The upload is deleted with the answer. Requests wait in line for their turn; when the line is full, the
    answer is 503 before the video is read.

    With `Accept: application/x-ndjson` or `text/event-stream` the answer is 200 as soon as the video has arrived, and
    a stream of events: `progress`, `windows` as they are scored, and at last `result` or `problem`.
    """
    service: Service = request.app.state.service
    async with AsyncExitStack() as held:
        pool = held.enter_context(service.accept(model))
        upload = await held.enter_async_context(receive_upload(request, request.app.state.settings))
        if media_type := wanted_stream(request):
            events = follow(lambda tell: outcome(service.analyze(request, model, upload, pool, tell)))
            return EventStream(events, media_type, held.pop_all())
        answer = await service.analyze(request, model, upload, pool)
        return Response(answer.model_dump_json(), media_type="application/json")
