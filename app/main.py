"""The service put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app.access import Access, SecurityHeaders
from app.jobs import Jobs
from app.keys import Keys
from app.middleware import EarlyAnswer, RequestContext
from app.observing import PROBES, Observing
from app.pool import Load, open_pool
from app.problems import documented, handle_problems
from app.routers import analyze as analyze_router
from app.routers import health, metrics, page, reference
from app.routers import jobs as jobs_router
from app.schemas import EXAMPLE, ProblemDocument
from app.service import Service
from app.settings import Settings
from model.results import VERSION

DESCRIPTION = """
Tells whether the lips in a talking-face video belong to its voice. Send a video to `POST /v1/analyze`,
or to `POST /v1/jobs` if it is long.

Times are in seconds after the first picture unless their name ends in `_ms`; probabilities are from 0 to 1.
Errors are `application/problem+json` (RFC 9457), told apart by `code`.
"""


ROUTERS = (analyze_router.router, jobs_router.router, health.router, metrics.router, reference.router, page.router)


SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, where the service has keys."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as the password; any user name."},
}


class App(FastAPI):
    """FastAPI whose OpenAPI document has what FastAPI leaves out: the schema of problems, and null in examples."""

    def openapi(self) -> dict[str, Any]:
        """The document."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        document["components"]["securitySchemes"] = SECURITY_SCHEMES
        document["security"] = [{}, *({name: []} for name in SECURITY_SCHEMES)]
        schemas["Problem"] = ProblemDocument.model_json_schema()
        schemas["AnalysisResponse"]["examples"] = [EXAMPLE]
        return document


def create_app(settings: Settings | None = None, load: Load = open_pool) -> FastAPI:
    """The service as an ASGI application; ``settings`` are from the environment if not given.

    It accepts connections while ``load(settings)`` runs in the background. Raises `app.keys.KeysError`,
    `app.store.InUse`, and OSError where the directory of jobs can't be used.
    """
    settings = settings or Settings()
    service = Service(settings, load)
    jobs = Jobs(settings, service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with create_task_group() as background:
            background.start_soon(jobs.run)
            background.start_soon(service.run_shadow)
            yield
            background.cancel_scope.cancel()
        service.close()

    app = App(
        title="Lip-sync deepfake detector",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        responses=documented("unauthorized", "cross_site", "not_found", "method_not_allowed", "internal_error"),
        telemetry={"operation_spans": False, "exclude": lambda scope: scope["path"] in PROBES},
    )
    app.state.settings = settings
    app.state.service = service
    app.state.jobs = jobs
    keys = Keys(settings.keys_file) if settings.keys_file else None
    app.add_middleware(Access, settings=settings, keys=keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Idempotency-Key", "Last-Event-ID"],
            expose_headers=["X-Request-ID", "Location", "Retry-After"],
        )
    app.add_middleware(RequestContext)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(EarlyAnswer)
    app.add_middleware(Observing)
    handle_problems(app, ROUTERS)
    for router in ROUTERS:
        app.include_router(router)
    return app
