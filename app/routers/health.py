"""Whether the service can be used, and whether it is there at all."""

from dataclasses import asdict

from fastapi import APIRouter, Request

from app.problems import documented
from app.schemas import Alive, Health
from app.service import Service
from app.settings import DEFAULT_MODEL

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Ready?", responses=documented("starting", "load_failed", "draining"))
async def healthz(request: Request) -> Health:
    """200 with what is loaded when videos are taken; 503 before that, and while the service is stopping."""
    service: Service = request.app.state.service
    models = {alias: asdict(info) for alias, info in service.pool().models.items()}
    served = [{"alias": alias, **info} for alias, info in models.items()]
    return Health.model_validate({**models[DEFAULT_MODEL], "models": served})


@router.get("/livez", summary="Alive?")
async def livez() -> Alive:
    """200 as long as the process answers at all."""
    return Alive()
