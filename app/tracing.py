"""Traces by OpenTelemetry: FastAPI makes a span a request; in it is one for each stage, without a video's content.

Without the SDK, or without an address to send them to, all of this does nothing.
"""

import os

from opentelemetry import trace
from opentelemetry.propagate import extract, inject

from model import Analysis
from model.results import VERSION

ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The standard variables that say where traces go (OpenTelemetry specification, Protocol Exporter)."""

tracer = trace.get_tracer("lipsync")


class TracingUnavailable(RuntimeError):
    """Traces are wanted and can't be sent. The message says what to install."""


def start() -> None:
    """Send traces to where the environment says, if it does. Raises TracingUnavailable."""
    if not any(os.environ.get(name) for name in ADDRESSES):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        wanted = next(name for name in ADDRESSES if os.environ.get(name))
        raise TracingUnavailable(f"{wanted} is set, but the extra 'tracing' is not installed") from error
    os.environ.setdefault("OTEL_SERVICE_NAME", "lipsync-detector")
    provider = TracerProvider(resource=Resource.create({"service.version": VERSION}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def note_stages(analysis: Analysis) -> None:
    """Spans for the stages of an analysis that another process has done, in the span at hand."""
    for stage in analysis.stages:
        tracer.start_span(stage.name, start_time=stage.start_ns).end(stage.end_ns)
    timing, span = analysis.timing_ms, trace.get_current_span()
    span.set_attributes(
        {
            "lipsync.verdict": analysis.verdict,
            "lipsync.video_s": analysis.media.duration_s,
            "lipsync.windows": len(analysis.windows),
            "lipsync.media_ms": timing.media,
            "lipsync.faces_ms": timing.faces,
            "lipsync.detector_ms": timing.detector,
        }
    )


def carried() -> dict[str, str]:
    """The trace at hand, to be gone on with by `continued` later."""
    headers: dict[str, str] = {}
    inject(headers)
    return headers


def continued(headers: dict[str, str]) -> trace.Context:
    """The trace that `carried` told of."""
    return extract(headers)
