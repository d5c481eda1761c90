"""``/v1/jobs``: analyses that outlast a request."""

from contextlib import AsyncExitStack
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import HTMLResponse, Response

from app.callbacks import NotPublic, check_address
from app.forms import REFUSALS, Model, form_body
from app.jobs import Jobs
from app.problems import Problem, documented
from app.report import render_html
from app.schemas import AnalysisResponse, Job, JobParameters
from app.settings import DEFAULT_MODEL, Settings
from app.streams import DOCUMENTED, SSE, EventStream
from app.uploads import receive_form

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

GONE = documented("job_not_found", "invalid_parameter")

JobId = Annotated[str, Path(description="The `job_id`.")]
Key = Annotated[
    str | None,
    Header(
        max_length=255,
        description="Your name for this job: sent again with the same video and parameters, as after a broken line, "
        "it makes no second job but finds the first, as long as that one is kept.",
    ),
]


def _jobs(request: Request) -> Jobs:
    return request.app.state.jobs


TheJobs = Annotated[Jobs, Depends(_jobs)]


@router.post(
    "",
    status_code=202,
    summary="Have a video analysed",
    response_model=Job,
    responses=documented(*REFUSALS, "callback_refused", "idempotency_conflict"),
    openapi_extra={"requestBody": form_body(JobParameters)},
)
async def submit(
    request: Request, jobs: TheJobs, model: Model = DEFAULT_MODEL, idempotency_key: Key = None
) -> Response:
    """Takes longer and larger videos than `POST /v1/analyze`, and answers as soon as the video has arrived.

    Jobs outlive the service's restarts. What came of one is at the address in `Location`, is sent to `callback_url`,
    and is kept until `expires_at`.
    """
    settings: Settings = request.app.state.settings
    async with jobs.receive(model) as new:
        parameters = await receive_form(request, new.opened, JobParameters, settings.max_job_upload_mb, settings)
        await _check_callback(parameters, settings)
        job_id, job = await jobs.submit(new, model, parameters, idempotency_key)
    return Response(job, 202, {"Location": f"/v1/jobs/{job_id}"}, "application/json")


@router.get(
    "/{job_id}",
    summary="How far is it?",
    response_model=Job,
    responses=GONE,
)
async def read(job_id: JobId, jobs: TheJobs) -> Response:
    """The job, and its result once it is done."""
    return Response(await jobs.get(job_id), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.delete(
    "/{job_id}",
    status_code=204,
    summary="Cancel and forget",
    responses=GONE,
)
async def forget(job_id: JobId, jobs: TheJobs) -> None:
    """Ends the analysis if it runs, and deletes the video and the result."""
    await jobs.forget(job_id)


@router.get(
    "/{job_id}/events",
    summary="Follow it",
    response_class=Response,
    responses=GONE | {200: {"content": {SSE: DOCUMENTED[SSE]}}},
)
async def events(
    job_id: JobId,
    jobs: TheJobs,
    last_event_id: Annotated[int, Header(ge=0, description="Only events after this one; browsers send it.")] = 0,
) -> EventStream:
    """Server-sent events: `progress`, `windows` as they are scored, and at last `result` or `problem`.

    Windows are scored by the offset that their face has had so far; the ones in the result are final. The stream
    ends early when the service stops; it can be taken up again with `Last-Event-ID`.
    """
    await jobs.check(job_id)
    return EventStream(jobs.events(job_id, last_event_id), SSE, AsyncExitStack())


@router.get(
    "/{job_id}/report",
    summary="Report for people",
    response_class=HTMLResponse,
    responses=GONE | documented("no_result"),
)
async def report(job_id: JobId, jobs: TheJobs) -> HTMLResponse:
    """One HTML page that needs nothing else: verdict, timeline, key frames if the job had `playback`."""
    answer = await jobs.result(job_id)
    page = await to_thread.run_sync(lambda: render_html(AnalysisResponse.model_validate_json(answer)))
    headers = {
        "Content-Disposition": f'attachment; filename="lipsync-{job_id[:8]}.html"',
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(page, headers=headers)


async def _check_callback(parameters: JobParameters, settings: Settings) -> None:
    if parameters.callback_url is None:
        return
    if settings.callback_secret is None:
        raise Problem("callback_refused", "The service has no key to sign callbacks with; poll the job instead.")
    try:
        await check_address(str(parameters.callback_url), settings.callback_networks)
    except NotPublic as error:
        raise Problem("callback_refused", f"callback_url: {error}.") from error
