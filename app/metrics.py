"""What the service counts and times, for Prometheus. docs/observability.md lists all of it.

Labels hold names that this code chooses, never anything that a client sent.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from model.drift import Reference
from model.results import Analysis

disable_created_metrics()
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

REQUESTS = Counter(
    "lipsync_requests",
    "Requests that ended, by address, HTTP status and problem code; `hung_up`: the client did.",
    ["route", "status", "code"],
    registry=REGISTRY,
)
REQUEST_S = Histogram(
    "lipsync_request_duration_seconds",
    "From a request's head to the end of its answer.",
    ["route"],
    buckets=SECONDS,
    registry=REGISTRY,
)
UPLOAD_BYTES = Counter("lipsync_upload_bytes", "Bytes of uploads that were complete.", registry=REGISTRY)
UPLOAD_S = Histogram(
    "lipsync_upload_duration_seconds", "How long complete uploads took.", buckets=SECONDS, registry=REGISTRY
)
STAGE_S = Histogram(
    "lipsync_stage_duration_seconds",
    "Of analyses: in line for a worker, decoding, finding faces, comparing; `total`: without the line.",
    ["stage"],
    buckets=SECONDS,
    registry=REGISTRY,
)
VIDEO_S = Counter("lipsync_video_seconds", "Seconds of video analysed.", registry=REGISTRY)
WINDOWS = Counter(
    "lipsync_windows", "Windows, by why there is no score; `scored`: there is.", ["note"], registry=REGISTRY
)
VERDICTS = Counter("lipsync_verdicts", "Analyses by model and verdict.", ["model", "verdict"], registry=REGISTRY)
INCONCLUSIVE = Counter(
    "lipsync_inconclusive", "Inconclusive analyses by their first reason.", ["reason"], registry=REGISTRY
)
JOBS = Counter("lipsync_jobs", "Jobs that are over, by state and problem code.", ["state", "code"], registry=REGISTRY)
CALLBACKS = Counter(
    "lipsync_callbacks", "Attempts to call back, by whether it was taken.", ["taken"], registry=REGISTRY
)
SHADOWED = Counter(
    "lipsync_shadow", "Analyses by the shadow model, by whether its verdict was the same.", ["same"], registry=REGISTRY
)
SHADOW_DIFFERENCE = Histogram(
    "lipsync_shadow_difference",
    "Fake probability by the shadow model less that which was answered.",
    buckets=(-0.5, -0.2, -0.1, -0.05, -0.01, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
    registry=REGISTRY,
)
RESTARTS = Counter("lipsync_worker_restarts", "Workers replaced, by cause.", ["cause"], registry=REGISTRY)
BATCHES = Histogram(
    "lipsync_batch_size",
    "Questions that the device answered at once, by network.",
    ["kind"],
    buckets=(1, 2, 3, 4, 6, 8, 16, 32),
    registry=REGISTRY,
)
COMPUTE_S = Counter("lipsync_compute_seconds", "Wall time of the networks.", ["kind"], registry=REGISTRY)


DRIFT = Counter(
    "lipsync_drift", "Analyses by feature and the bin of the reference they fall into.", ["feature", "bin"],
    registry=REGISTRY,
)  # fmt: skip
REFERENCE_SHARE = Gauge(
    "lipsync_drift_reference_share", "Share of the training data in a bin.", ["feature", "bin"], registry=REGISTRY
)


def expect_reference(reference: Reference) -> None:
    """Analyses are to be compared with it."""
    for feature, shares in reference.shares.items():
        for number, share in enumerate(shares):
            REFERENCE_SHARE.labels(feature, number).set(share)
            DRIFT.labels(feature, number)


def count_analysis(analysis: Analysis, model: str, reference: Reference | None) -> None:
    """An analysis by the model of that name is done."""
    for feature, number in reference.bins(analysis).items() if reference else ():
        DRIFT.labels(feature, number).inc()
    for stage in ("media", "faces", "detector", "total"):
        STAGE_S.labels(stage).observe(getattr(analysis.timing_ms, stage) / 1000)
    VIDEO_S.inc(analysis.media.duration_s)
    for window in analysis.windows:
        WINDOWS.labels(window.note or "scored").inc()
    VERDICTS.labels(model, analysis.verdict).inc()
    if analysis.verdict == "inconclusive":
        INCONCLUSIVE.labels(analysis.reasons[0].code).inc()
