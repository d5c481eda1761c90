"""The parts of the service as Ray Serve deployments.

ingress (one, with the jobs) -> decoders (CPUs; a worker process each) -> detectors (GPUs; one engine each)
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import ray
import torch
from anyio import to_thread
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from app.cluster.pool import Message, RemotePool, decode_by
from app.main import create_app
from app.pool import Pool, load_detectors, open_engine
from app.problems import Problem
from app.settings import Allowance, Settings
from app.uploads import path_of
from app.worker import Model
from model import MediaError
from model.engine import Kind

APP = "lipsync"

ASK_AGAIN_S = 120.0
"""How long a decoder looks for a detector that answers."""


@serve.deployment(name="detector", max_ongoing_requests=256)
class DetectorReplica:
    """Holds the networks, and batches what all decoders ask of them meanwhile."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        detectors = load_detectors(Settings())
        self._models = {name: Model.of(detector) for name, detector in detectors.items()}
        self._engine = open_engine(detectors, Settings())

    def models(self) -> dict[str, Model]:
        """All of them by name."""
        return self._models

    async def compute(self, model: str, kind: Kind, items: np.ndarray) -> np.ndarray:
        """See `app.batching.BatchingEngine`."""
        return await to_thread.run_sync(self._engine, model, kind, items)


class RemoteEngine:
    """The detectors, for a decoder; from threads that run no event loop. A question that is lost is asked again."""

    def __init__(self, detector: DeploymentHandle) -> None:
        self._detector = detector

    def __call__(self, model: str, kind: Kind, items: np.ndarray) -> np.ndarray:
        """See `app.batching.Engine`."""
        until = time.monotonic() + ASK_AGAIN_S
        while True:
            try:
                return self._detector.compute.remote(model, kind, items).result()
            except (RayError, RayServeException):
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    def close(self) -> None:
        """It is not this one's to end."""


@serve.deployment(name="decoder", max_ongoing_requests=1)
class DecoderReplica:
    """Analyses a video at a time, in a worker process, as the service on one machine does."""

    async def __init__(self, detector: DeploymentHandle) -> None:
        models = await detector.models.remote()
        settings = Settings(max_concurrent=1)
        self._pool = Pool(models, RemoteEngine(detector), settings)
        self._temp_dir = settings.temp_dir
        await to_thread.run_sync(self._pool.wait_until_ready)

    async def analyze(
        self, pieces: list[ray.ObjectRef], model: str, options: dict[str, Any], allowance: Allowance, followed: bool
    ) -> AsyncGenerator[Message, None]:
        """What becomes of a video. Cancelled, the work ends."""
        messages: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(thing: object) -> None:
            loop.call_soon_threadsafe(messages.put_nowait, ("tell", thing))

        with TemporaryFile(dir=self._temp_dir, buffering=0) as file:
            for piece in pieces:
                await to_thread.run_sync(file.write, await piece)
            work = self._pool.analyze(model, path_of(file), options, allowance, tell if followed else None)
            running = asyncio.create_task(_outcome(work))
            running.add_done_callback(lambda task: messages.put_nowait(("ended", None)))
            try:
                while (message := await messages.get())[0] == "tell":
                    yield message
                yield running.result()
            finally:
                running.cancel()
                await asyncio.wait([running])

    def __del__(self) -> None:
        self._pool.close()


async def _outcome(work: Any) -> Message:
    try:
        return "done", await work
    except MediaError as error:
        return "refused", error
    except Problem as problem:
        return "problem", (problem.code, problem.detail)


def _application() -> FastAPI:
    return create_app(Settings(), load=_open_remote_pool)


def _open_remote_pool(settings: Settings) -> Any:
    detector = serve.get_deployment_handle("detector", APP)
    models = detector.models.remote().result()
    decoder = serve.get_deployment_handle("decoder", APP)
    return RemotePool({name: model.info for name, model in models.items()}, decode_by(decoder), settings)


@serve.deployment(name="ingress", num_replicas=1, max_ongoing_requests=10_000, health_check_period_s=5)
@serve.ingress(_application)
class Ingress:
    """The HTTP API, jobs and page, as on one machine. One replica: jobs live in one directory."""

    def __init__(self, decoder: DeploymentHandle) -> None:
        self._decoder = decoder


def application(arguments: dict[str, Any]) -> Any:
    """The graph, for `serve.run` and Serve's configuration files (``app.cluster.deployments:application``).

    ``arguments``: options of `serve.deployment` by deployment. Settings are environment variables of all nodes.
    """
    ingress, decoder, detector = (
        part.options(**arguments.get(name, {}))
        for name, part in (("ingress", Ingress), ("decoder", DecoderReplica), ("detector", DetectorReplica))
    )
    return ingress.bind(decoder.bind(detector.bind()))


os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
