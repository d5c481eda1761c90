"""How the service is right now, for Prometheus."""

import shutil
from collections.abc import Iterator

import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.jobs import Jobs
from app.metrics import REGISTRY
from app.service import Service
from app.settings import Settings


class Now(Collector):
    """Asks when it is asked."""

    def __init__(self, settings: Settings, service: Service, jobs: Jobs) -> None:
        self._settings, self._service, self._jobs = settings, service, jobs

    def collect(self) -> Iterator[Metric]:
        """All gauges."""
        pool, queued = self._service.loaded, self._jobs.count("queued")
        ready = pool is not None and not self._service.draining
        running, waiting = (pool.running, pool.waiting) if pool else (0, 0)
        yield _gauge("lipsync_ready", "Whether videos are taken.", ready)
        yield _gauge("lipsync_running", "Analyses that a worker is at.", running)
        yield _gauge("lipsync_waiting", "Analyses and jobs that are accepted and wait for a worker.", waiting + queued)
        yield _gauge("lipsync_places", "Analyses that can run or wait at once.", self._service.places)
        jobs = {state: self._jobs.count(state) for state in ("queued", "running")}
        yield _gauges("lipsync_open_jobs", "Jobs that are not over.", "state", jobs)
        directories = {"temp": self._settings.temp_dir, "data": self._settings.data_dir}
        free = {name: shutil.disk_usage(path).free for name, path in directories.items() if path.exists()}
        yield _gauges("lipsync_disk_free_bytes", "Room for uploads, and for jobs.", "directory", free)
        if pool is not None:
            yield _gauge("lipsync_workers_memory_bytes", "Resident memory of all workers.", pool.memory_bytes())
            models = GaugeMetricFamily(
                "lipsync_model_info", "What is served.", labels=["model", "name", "version", "device", "weights"]
            )
            for alias, info in pool.models.items():
                weights = "-".join(digest for _, digest in sorted(info.weights.items()))
                models.add_metric([alias, info.name, info.version, info.device, weights], 1)
            yield models
        if torch.cuda.is_available():
            free_bytes, total_bytes = torch.cuda.mem_get_info()
            memory = {"used": total_bytes - free_bytes, "total": total_bytes, "tensors": torch.cuda.memory_allocated()}
            yield _gauges("lipsync_device_memory_bytes", "Of the GPU, by whoever uses it.", "what", memory)


def exposition(now: Now) -> bytes:
    """Everything that was counted so far, and how it is now, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(now)
    return generate_latest(REGISTRY) + generate_latest(registry)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _gauges(name: str, documentation: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
