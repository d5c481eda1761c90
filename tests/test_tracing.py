"""Traces go to a collector, a span a stage, as parts of the caller's trace; logs as JSON name them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from conftest import wait_for

from scripts.served import ROOT, served

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402
from opentelemetry.proto.trace.v1.trace_pb2 import Span  # noqa: E402

TRACE = "0af7651916cd43dd8448eb211c80319c"


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """Its address, and what it was sent."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in of_resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()


def test_a_request_is_a_trace_with_a_span_for_each_stage(plain_video: Path, tmp_path: Path):
    log = tmp_path / "log"
    with collector() as (address, spans), log.open("wb") as stderr:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_BSP_SCHEDULE_DELAY": 100,
            "LIPSYNC_LOG_FORMAT": "json",
        }
        with served(stderr=stderr, **settings) as service:
            video = ("private-name.mp4", plain_video.read_bytes())
            caller = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            answer = httpx.post(
                f"{service.url}/v1/analyze?model=default", files={"file": video}, headers=caller, timeout=60
            )
            assert answer.status_code == 200
            job = httpx.post(f"{service.url}/v1/jobs", files={"file": video}, headers=caller).json()["job_id"]
            ended = f"{service.url}/v1/jobs/{job}"
            wait_for(lambda: httpx.get(ended).json()["state"] == "done")
            assert httpx.post(f"{service.url}/v1/analyze", files={"file": b"no video"}, headers=caller).is_error
            wait_for(lambda: sum(span.name == "judging" for span in spans) == 2)
    ours = [span for span in spans if span.trace_id.hex() == TRACE]
    by_id = {span.span_id: span for span in ours}

    def path(span: Span) -> str:
        parent = by_id.get(span.parent_span_id)
        return f"{path(parent)} > {span.name}" if parent else span.name

    stages = {"waiting", "listening", "watching", "judging"}
    assert {path(span) for span in ours} == {
        "POST /v1/analyze", "POST /v1/analyze > upload", "POST /v1/analyze > analysis",
        *(f"POST /v1/analyze > analysis > {stage}" for stage in stages),
        "POST /v1/jobs", "POST /v1/jobs > upload", "POST /v1/jobs > job", "POST /v1/jobs > job > analysis",
        *(f"POST /v1/jobs > job > analysis > {stage}" for stage in stages),
    }  # fmt: skip
    for span in ours:
        assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
        parent = by_id.get(span.parent_span_id)
        assert parent is None or parent.start_time_unix_nano <= span.start_time_unix_nano
    roots = [{one.key: one.value for one in span.attributes} for span in ours if span.name == "POST /v1/analyze"]
    assert {one["http.route"].string_value for one in roots} == {"/v1/analyze"}
    assert sorted(one["http.response.status_code"].int_value for one in roots) == [200, 415]
    assert [one["error.type"].string_value for one in roots if "error.type" in one] == ["not_media"]
    assert not any("healthz" in str(span) for span in spans)
    assert "private" not in str(spans)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    access = next(line for line in lines if line["logger"] == "app.access" and line["route"] == "/v1/analyze")
    assert (access["method"], access["status"], access["code"]) == ("POST", 200, "")
    assert access["request_id"] == answer.json()["request_id"] and access["trace_id"] == TRACE
    assert access["bytes"] == len(answer.content) and access["duration_ms"] > 0
    assert "private" not in log.read_text()
    assert not any(line["logger"] == "app.access" and line["route"] == "/healthz" for line in lines)


def test_traces_that_cannot_be_sent_stop_the_start(tmp_path: Path):
    hidden = "import sys; sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None; "
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", hidden + "from app.__main__ import main; main()"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr == "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra 'tracing' is not installed\n"
