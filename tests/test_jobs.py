"""Jobs and streams over a real socket: their life, restarts, callbacks, and what is left of them."""

import hmac
import json
import sqlite3
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path
from threading import Thread

import anyio
import httpx
import pytest
from conftest import CALLBACK_SECRET, Live, wait_for
from standin import ANALYSIS, Held, assert_problem, stand_in

from app import callbacks, jobs
from app.callbacks import _allowed
from app.schemas import Job
from app.store import InUse, Record, Store

SAME = {"request_id", "timing_ms"}
"""What differs between two answers to one video."""


def submit(live: Live, file: Path | bytes = b"video", key: str | None = None, **fields: object) -> httpx.Response:
    content = file if isinstance(file, bytes) else file.read_bytes()
    form = {name: str(value) for name, value in fields.items()}
    headers = {"Idempotency-Key": key} if key else {}
    return live.post("/v1/jobs", files={"file": ("v.mp4", content)}, data=form, headers=headers)


def address(response: httpx.Response) -> str:
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['job_id']}"
    return response.headers["location"]


def job_at(live: Live, where: str) -> Job:
    return Job.model_validate_json(live.get(where).text)


def finished(live: Live, where: str, seconds: float = 30) -> Job:
    wait_for(lambda: job_at(live, where).finished_at, seconds)
    return job_at(live, where)


def events_in(text: str) -> list[tuple[int, str, dict]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def without(answer: dict, *names: str) -> dict:
    return {name: value for name, value in answer.items() if name not in {*SAME, *names}}


def test_a_job_is_accepted_followed_read_reported_and_forgotten(live: Live, talk):
    alone = live.analyze(talk(0)).json()
    where = address(submit(live, talk(0), playback=True))
    events = events_in(live.get(f"{where}/events").text)
    assert [name for _, name, _ in events][-1] == "result" and {name for _, name, _ in events} > {"progress"}
    shares = [data["share"] for _, name, data in events if name == "progress"]
    assert shares == sorted(shares) and shares[-1] == 1
    job = job_at(live, where)
    assert job.state == "done" and job.created_at < job.finished_at < job.expires_at
    assert json.loads(job.result.model_dump_json()) == events[-1][2]
    assert without(events[-1][2], "playback") == without(alone, "playback")
    assert job.result.playback.places[0].boxes
    report = live.get(f"{where}/report")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert events_in(live.get(f"{where}/events").text)[-1][1] == "result"
    assert live.request("DELETE", where).status_code == 204
    for path in (where, f"{where}/events", f"{where}/report"):
        assert_problem(live.get(path), 404, "job_not_found")
    assert_problem(live.request("DELETE", where), 404, "job_not_found")


def test_a_video_that_cannot_be_analysed_fails_as_a_job_and_in_a_stream(live: Live, plain_video):
    for file, code in ((b"text", "not_media"), (plain_video.read_bytes()[:2000], "corrupt_media")):
        where = address(submit(live, file))
        job = finished(live, where)
        assert (job.state, job.problem.code, job.result) == ("failed", code, None)
        assert_problem(live.get(f"{where}/report"), 409, "no_result")
        [*_, (_, name, problem)] = events_in(live.get(f"{where}/events").text)
        assert (name, problem) == ("problem", json.loads(job.problem.model_dump_json()))
        streamed = live.post("/v1/analyze", files={"file": ("v", file)}, headers={"Accept": "application/x-ndjson"})
        assert streamed.status_code == 200
        last = json.loads(streamed.text.splitlines()[-1])
        assert last["event"] == "problem" and last["data"]["code"] == code


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/event-stream"])
def test_an_analysis_streams_its_progress_and_then_the_same_answer(live: Live, talk, kind):
    alone = live.analyze(talk(0)).json()
    answer = live.post("/v1/analyze", files={"file": ("v", talk(0).read_bytes())}, headers={"Accept": kind})
    assert answer.headers["content-type"].startswith(kind) and answer.headers["cache-control"] == "no-store"
    if kind == "text/event-stream":
        events = [(name, data) for _, name, data in events_in(answer.text)]
    else:
        events = [(line["event"], line["data"]) for line in map(json.loads, answer.text.splitlines())]
    assert events[0] == ("progress", {"stage": "queued", "done_s": 0, "duration_s": None, "share": 0})
    assert events[-1][0] == "result" and without(events[-1][1]) == without(alone)


def test_a_refused_form_is_a_problem_and_no_stream(live: Live):
    answer = live.post("/v1/analyze", data={"x": "1"}, files={"y": b""}, headers={"Accept": "text/event-stream"})
    assert_problem(answer, 400, "unknown_field")
    assert_problem(live.post("/v1/jobs", files={"file": b""}), 400, "empty_file")
    assert_problem(submit(live, bytes(9 << 20)), 413, "upload_too_large")
    assert_problem(submit(live, b"v", callback_url="ftp://a"), 422, "invalid_parameter")


def test_who_hangs_up_on_a_stream_ends_its_analysis(tmp_path):
    held = Held()
    with stand_in(tmp_path, held, max_concurrent=1) as live:
        asked = {"files": {"file": b"v"}, "headers": {"Accept": "text/event-stream"}}
        with live.stream("POST", "/v1/analyze", **asked) as answer:
            parts = answer.iter_text()
            next(parts)
            wait_for(lambda: held.running)
        wait_for(lambda: not live.uploads())
        held.let_go.set()
        assert live.analyze(b"video").status_code == 200


def test_events_are_taken_up_where_they_were_left(live: Live, talk):
    where = address(submit(live, talk(0)))
    with live.stream("GET", f"{where}/events") as first:
        text = ""
        for part in first.iter_text():
            text += part
            if "id: 2\n" in text:
                break
    heard = [number for number, _, _ in events_in(text[: text.rindex("\n\n")])]
    again = events_in(live.get(f"{where}/events", headers={"Last-Event-ID": str(heard[-1])}).text)
    assert [number for number, _, _ in again] == list(range(heard[-1] + 1, again[-1][0] + 1))
    assert again[-1][1] == "result"


@pytest.fixture
def kept(tmp_path) -> dict:
    """Settings with which jobs are kept."""
    return {"data_dir": tmp_path / "jobs", "keep_results_s": 3600, "temp_dir": tmp_path, "max_concurrent": 1}


@contextmanager
def serving(kept: dict, analyze: Callable, **settings: object) -> Iterator[Live]:
    settings = kept | settings
    with stand_in(settings.pop("temp_dir"), analyze, **settings) as live:
        yield live


def uploads(kept: dict) -> list[Path]:
    return list((kept["data_dir"] / "uploads").iterdir())


def test_jobs_survive_a_restart_and_results_too(kept):
    held = Held()
    with serving(kept, held) as live:
        done = address(submit(live))
        held.let_go.set()
        first = finished(live, done)
        held.let_go.clear()
        running, waiting = address(submit(live)), address(submit(live))
        wait_for(lambda: job_at(live, running).state == "running")
        assert job_at(live, waiting).state == "queued"
        live.stop()
    assert len(uploads(kept)) == 2
    (kept["data_dir"] / "uploads" / "stray").write_bytes(b"of an upload that was cut off")
    held.let_go.set()
    with serving(kept, lambda path, options: ANALYSIS) as live:
        assert job_at(live, done) == first
        for where in (running, waiting):
            assert finished(live, where).state == "done"
        assert not uploads(kept)


def test_a_job_during_which_the_service_ends_again_and_again_is_given_up(kept):
    with serving(kept, Held()) as live:
        where = address(submit(live))
        wait_for(lambda: job_at(live, where).state == "running")
    for _ in range(2):
        with serving(kept, Held()) as live:
            wait_for(lambda: job_at(live, where).state == "running")
    with serving(kept, Held()) as live:
        job = finished(live, where)
    assert (job.state, job.problem.code) == ("failed", "decoder_crashed")


def test_one_directory_serves_one_service(tmp_path):
    store = Store(tmp_path / "jobs")
    with pytest.raises(InUse):
        Store(tmp_path / "jobs")
    store.close()
    Store(tmp_path / "jobs").close()


def test_a_job_sent_twice_with_a_key_is_one(kept):
    with serving(kept, lambda path, options: ANALYSIS) as live:
        where = address(submit(live, key="k"))
        assert address(submit(live, key="k")) == where
        assert address(submit(live)) != where
        assert_problem(submit(live, b"another", key="k"), 422, "idempotency_conflict")
        assert_problem(submit(live, key="k", hop_s=1), 422, "idempotency_conflict")
        live.request("DELETE", where)
        assert address(submit(live, key="k")) != where
        wait_for(lambda: not uploads(kept))


def test_a_job_is_cancelled_and_makes_room(kept):
    held = Held()
    with serving(kept, held, max_jobs=1) as live:
        where = address(submit(live))
        wait_for(lambda: held.running)
        assert_problem(submit(live), 503, "busy")
        assert len(uploads(kept)) == 1
        assert live.request("DELETE", where).status_code == 204
        assert not uploads(kept)
        held.let_go.set()
        assert finished(live, address(submit(live))).state == "done"


def test_a_result_outlasts_a_full_disk(kept, monkeypatch):
    monkeypatch.setattr(jobs, "TIDY_EVERY_S", 0.05)
    finish, fails = Store.finish, iter(range(3))

    def at_first_full(store: Store, over: Record) -> None:
        if next(fails, None) is not None:
            raise sqlite3.OperationalError("database or disk is full")
        finish(store, over)

    monkeypatch.setattr(Store, "finish", at_first_full)
    with serving(kept, lambda path, options: ANALYSIS) as live:
        where = address(submit(live))
        assert events_in(live.get(f"{where}/events").text)[-1][1] == "result"
        assert next(fails, None) is None and not uploads(kept)


def test_results_are_forgotten_in_time(kept, monkeypatch):
    monkeypatch.setattr(jobs, "TIDY_EVERY_S", 0.05)
    with serving(kept, lambda path, options: ANALYSIS, keep_results_s=0.5) as live:
        where = address(submit(live))
        assert finished(live, where).state == "done"
        wait_for(lambda: live.get(where).status_code == 404)
    assert b"There is no face" not in (kept["data_dir"] / "jobs.sqlite3").read_bytes()


def test_without_retention_nothing_is_on_disk_and_a_result_is_given_out_once(tmp_path):
    held = Held()
    folder = tmp_path / "jobs"
    with stand_in(tmp_path, held, data_dir=folder, keep_results_s=0) as live:
        where = address(submit(live))
        wait_for(lambda: held.running)
        assert not folder.exists() and not list(tmp_path.iterdir()) and len(live.uploads()) == 1
        held.let_go.set()
        events = events_in(live.get(f"{where}/events").text)
        assert events[-1][1] == "result"
        wait_for(lambda: not live.uploads())
        assert job_at(live, where).result is not None
        assert_problem(live.get(where), 404, "job_not_found")


class Receiver(ThreadingHTTPServer):
    """Takes callbacks, answering with ``statuses`` one after the other, then 204."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.taken: list[tuple[dict, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.taken.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def start(*statuses: int) -> Receiver:
        made.append(Receiver(*statuses))
        Thread(target=made[-1].serve_forever, daemon=True).start()
        return made[-1]

    yield start
    for one in made:
        one.shutdown()


CALLBACKS = {"callback_secret": CALLBACK_SECRET, "callback_networks": ["127.0.0.0/8"]}


def test_a_callback_is_signed_tried_again_and_redirected_nowhere(kept, receiver, monkeypatch):
    monkeypatch.setattr(jobs, "BACK_OFF_S", (0.1, 0.1, 0.1))
    hook = receiver(500, 302)
    with serving(kept, lambda path, options: ANALYSIS, **CALLBACKS) as live:
        where = address(submit(live, callback_url=hook.url))
        wait_for(lambda: job_at(live, where).callback == "delivered")
        job = job_at(live, where)
    assert len(hook.taken) == 3
    headers, body = hook.taken[-1]
    assert Job.model_validate_json(body) == job
    key = b64decode(CALLBACK_SECRET.removeprefix("whsec_"))
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = b64encode(hmac.digest(key, message, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}" and headers["webhook-id"] == job.job_id
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 10


def test_a_callback_that_nobody_takes_fails_in_the_end(kept, receiver, monkeypatch):
    monkeypatch.setattr(jobs, "BACK_OFF_S", (0.05, 0.05))
    hook = receiver(*[500] * 9)
    with serving(kept, lambda path, options: ANALYSIS, **CALLBACKS) as live:
        where = address(submit(live, callback_url=hook.url))
        wait_for(lambda: job_at(live, where).callback == "failed")
    assert len(hook.taken) == 3


def test_callbacks_go_to_public_addresses_only(kept):
    with serving(kept, lambda path, options: ANALYSIS, callback_secret=CALLBACK_SECRET) as live:
        for url in (
            "http://127.0.0.1/",
            "http://localhost:8/",
            "http://[::1]/",
            "http://169.254.169.254/",
            "http://u:p@1.1.1.1/",
        ):
            assert_problem(submit(live, callback_url=url), 422, "callback_refused")
        assert not uploads(kept)
    with serving(kept, lambda path, options: ANALYSIS) as live:
        assert_problem(submit(live, callback_url="https://1.1.1.1/"), 422, "callback_refused")


PRIVATE = "10.1.2.3 192.168.0.1 127.0.0.1 0.0.0.0 169.254.169.254 100.64.0.1 224.0.0.1 ::1 fe80::1 fc00::1"
DISGUISED = "::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::"


@pytest.mark.parametrize("address", [*PRIVATE.split(), *DISGUISED.split()])
def test_an_address_that_is_not_public_is_told(address):
    assert not _allowed(ip_address(address), [])
    assert _allowed(ip_address("10.0.0.1"), [ip_network("10.0.0.0/8")])
    assert _allowed(ip_address("1.1.1.1"), []) and _allowed(ip_address("2606:4700::1111"), [])


async def _deliver(url: str) -> bool:
    return await callbacks.deliver(url, "id", b"{}", CALLBACK_SECRET)


def test_a_name_that_turns_private_after_it_was_looked_at_is_not_connected_to(receiver):
    """The check is made on the address that is connected to."""
    hook = receiver()
    assert anyio.run(_deliver, hook.url.replace("127.0.0.1", "localhost")) is False
    assert hook.taken == []
