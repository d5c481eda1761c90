"""The page at ``/``: its files, and what it has to know before it sends anything."""

from pathlib import Path

from fastapi import APIRouter, Request, Response

from app.routers.files import Files
from app.settings import Settings

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'none'",
}

router = APIRouter(include_in_schema=False)


files = Files(Path(__file__).parent.parent / "page", POLICY)


@router.api_route("/", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The page."""
    return await files.get_response("index.html", request.scope)


@router.get("/page/limits")
async def limits(request: Request) -> dict[str, float]:
    """What the service takes and keeps, so that the page can say so before an upload."""
    settings: Settings = request.app.state.settings
    return {
        "max_upload_mb": settings.max_job_upload_mb,
        "max_duration_s": settings.max_job_duration_s,
        "keep_results_s": settings.keep_results_s,
    }


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
async def file(request: Request, path: str) -> Response:
    """What the page is made of."""
    return await files.get_response(path, request.scope)
