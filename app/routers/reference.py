"""``/docs``: the API's reference to read and to try, by Swagger UI; it asks nothing of other hosts."""

from pathlib import Path

from fastapi import APIRouter, Request, Response

from app.routers.files import Files

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'none'",
}

router = APIRouter(include_in_schema=False)
files = Files(Path(__file__).parent.parent / "reference", POLICY)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def index(request: Request) -> Response:
    """The reference."""
    return await files.get_response("index.html", request.scope)


@router.api_route("/docs/{path:path}", methods=["GET", "HEAD"])
async def file(request: Request, path: str) -> Response:
    """What it is made of."""
    return await files.get_response(path, request.scope)
