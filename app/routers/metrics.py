"""``GET /metrics``, for Prometheus."""

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.gauges import Now, exposition

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What is counted, timed and measured."""
    state = request.app.state
    text = await to_thread.run_sync(exposition, Now(state.settings, state.service, state.jobs))
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)
