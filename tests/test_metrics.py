"""What the service tells of itself, and that dashboard and alerts ask for nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import yaml
from conftest import Live, wait_for
from prometheus_client.parser import text_string_to_metric_families

from app.observing import HUNG_UP
from model import analyze, load_detector
from model.drift import BINS, FEATURES, Reference, load_reference, reference_of, stability_index
from model.engine import WEIGHTS
from model.sample import make_sample

MONITORING = Path(__file__).parent.parent / "deploy" / "monitoring"
DOCS = Path(__file__).parent.parent / "docs" / "observability.md"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "lipsync.json"


def samples(live: Live) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All values by name and labels."""
    answer = live.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


class Difference:
    """What a value grew by since this was made."""

    def __init__(self, live: Live) -> None:
        self._live, self._before = live, samples(live)

    def __call__(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return samples(self._live).get(key, 0.0) - self._before.get(key, 0.0)


def test_requests_are_counted_by_outcome_and_cause(live: Live, plain_video: Path):
    grown = Difference(live)
    live.analyze(plain_video)
    live.analyze(b"no video")
    stream = live.post("/v1/analyze", files={"file": b"no video"}, headers={"Accept": "application/x-ndjson"})
    assert stream.status_code == 200
    live.get("/v1/jobs/secret-id")
    live.get("/no/such/secret")
    assert grown("lipsync_requests_total", route="/v1/analyze", status="200", code="") == 1
    assert grown("lipsync_requests_total", route="/v1/analyze", status="415", code="not_media") == 1
    assert grown("lipsync_requests_total", route="/v1/analyze", status="200", code="not_media") == 1
    assert grown("lipsync_requests_total", route="/v1/jobs/{job_id}", status="404", code="job_not_found") == 1
    assert grown("lipsync_requests_total", route="other", status="404", code="not_found") == 1
    assert grown("lipsync_request_duration_seconds_count", route="/v1/analyze") == 3
    assert grown("lipsync_upload_bytes_total") == plain_video.stat().st_size + 2 * len("no video")
    assert "secret" not in live.get("/metrics").text


def test_a_client_that_hangs_up_is_counted(live: Live):
    grown = Difference(live)
    job = a_job(live)
    with httpx.Client(base_url=live.url) as client, client.stream("GET", f"/v1/jobs/{job}/events") as events:
        next(events.iter_bytes())
    wait_for(lambda: grown("lipsync_requests_total", route="/v1/jobs/{job_id}/events", status="200", code=HUNG_UP) == 1)
    live.request("DELETE", f"/v1/jobs/{job}")


def a_job(live: Live) -> str:
    """One that takes a while."""
    video = live.temp_dir.parent / "slow.mp4"
    make_sample(video, seconds=20, size=(320, 376))
    job = live.post("/v1/jobs", files={"file": video.read_bytes()}).json()["job_id"]
    wait_for(lambda: live.get(f"/v1/jobs/{job}").json()["state"] == "running")
    assert samples(live)["lipsync_open_jobs", (("state", "running"),)] == 1
    return job


def test_an_analysis_is_counted_in_every_respect(live: Live, talk: Callable[[int], Path]):
    grown = Difference(live)
    answer = live.analyze(talk(0)).json()
    assert grown("lipsync_verdicts_total", model="default", verdict=answer["verdict"]) == 1
    assert grown("lipsync_windows_total", note="scored") == sum(one["note"] is None for one in answer["windows"])
    assert grown("lipsync_video_seconds_total") == pytest.approx(answer["media"]["duration_s"])
    for stage in ("waiting", "media", "faces", "detector", "total"):
        assert grown("lipsync_stage_duration_seconds_count", stage=stage) == 1
    assert grown("lipsync_stage_duration_seconds_sum", stage="total") == pytest.approx(
        answer["timing_ms"]["total"] / 1000
    )
    for kind in ("mouths", "sound", "sequences"):
        assert (
            grown("lipsync_batch_size_count", kind=kind) > 0 and grown("lipsync_compute_seconds_total", kind=kind) > 0
        )
    for feature in FEATURES:
        assert sum(grown("lipsync_drift_total", feature=feature, bin=str(number)) for number in range(BINS)) == 1
    if answer["verdict"] == "inconclusive":
        assert grown("lipsync_inconclusive_total", reason=answer["reasons"][0]["code"]) == 1
    now = {name: value for (name, _), value in samples(live).items()}
    assert now["lipsync_ready"] == 1 and now["lipsync_places"] > 1 and now["lipsync_workers_memory_bytes"] > 1e8
    assert now["lipsync_running"] == now["lipsync_waiting"] == 0


def test_dashboard_alerts_and_documentation_name_what_there_is(live: Live):
    told = {
        family.name + suffix
        for family in text_string_to_metric_families(live.get("/metrics").text)
        for suffix in ("", "_total", "_bucket", "_sum", "_count")
    } | {"lipsync_device_memory_bytes"}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]
    ]
    asked += [rule["expr"] for rule in rules]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    names = {name for text in asked for name in re.findall(r"\b(?:lipsync|process)[a-z_:0-9]*", text)} - {"lipsync"}
    assert names - recorded <= told
    documented = set(re.findall(r"`(lipsync_[a-z_]+)`", DOCS.read_text()))
    counted = {name for name in told if name.startswith("lipsync_")} - {"lipsync_device_memory_bytes"}
    assert {name for name in documented if name not in told} == set()
    assert all(any(name.startswith(one.removesuffix("_total")) for one in documented) for name in counted)


def test_panels_do_not_lie_on_one_another():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Prometheus")
def test_alerts_fire_when_they_should():
    run = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=MONITORING, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_reference_has_a_fifth_of_the_people_in_each_bin(talk: Callable[[int], Path]):
    one = analyze(talk(0), load_detector("cpu"))
    made = []
    for number in range(100):
        windows = tuple(replace(w, sync_score=number / 100) if w.note is None else w for w in one.windows)
        made += [(str(number), replace(one, windows=windows))] * (1 + number % 3)
    reference = reference_of(made)
    assert reference.edges["sync_score"] == pytest.approx((0.2, 0.4, 0.6, 0.8), abs=0.011)
    assert reference.shares["sync_score"] == pytest.approx((0.2,) * 5, abs=0.011)
    assert reference.shares["fps"] == (1.0,) and reference.bins(one)["fps"] == 0
    assert Reference.parse(reference.as_json().encode()) == reference
    shipped = load_reference(WEIGHTS)
    assert set(shipped.shares) == set(FEATURES)
    assert all(sum(shares) == pytest.approx(1, abs=1e-3) for shares in shipped.shares.values())


def test_the_stability_index():
    assert stability_index((0.2,) * 5, (0.2,) * 5) == 0
    assert stability_index((0.9, 0.1), (0.5, 0.5)) == pytest.approx(0.879, abs=1e-3)
    assert stability_index((1.0, 0.0), (0.5, 0.5)) > 2
