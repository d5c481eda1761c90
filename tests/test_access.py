"""Keys, rates, whose jobs are whose, and what browsers may do."""

import re
import shutil
import sqlite3
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from conftest import Live, running, wait_for
from fastapi import FastAPI
from standin import ANALYSIS, StandIn, assert_problem

from app.access import SECURITY_HEADERS
from app.client import Client, ServiceError
from app.keys import Keys, KeysError, new_key
from app.main import create_app
from app.settings import Settings
from app.store import MIGRATIONS, Record, Store
from model.results import Playback
from scripts.served import served

sync_api = pytest.importorskip("playwright.sync_api")
needs_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's Chromium")

SHOWN = replace(ANALYSIS, playback=Playback((), (), 0.2, (), ()))
ALICE, ALICE_LINE = new_key("alice")
BOB, BOB_LINE = new_key("bob", "2/minute")


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """Two keys; the second one may bring two videos a minute."""
    path = tmp_path / "keys"
    path.write_text(f"# of the newsroom\n{ALICE_LINE}\n\n{BOB_LINE}  # a trial\n")
    return path


def app_with(tmp_path: Path, **settings: object) -> FastAPI:
    """The service with a stand-in for the detector."""
    (tmp_path / "uploads").mkdir(exist_ok=True)
    settings = {"port": 0, "temp_dir": tmp_path / "uploads", "data_dir": tmp_path / "jobs", **settings}
    return create_app(Settings(**settings), load=lambda given: StandIn(given, lambda *_: SHOWN))


@pytest.fixture
def live(tmp_path: Path, keys_file: Path) -> Iterator[Live]:
    """The service with keys."""
    with running(app_with(tmp_path, keys_file=keys_file, keep_results_s=60)) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200)
        yield live


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str, user: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{key}".encode()).decode()}


VIDEO = {"file": b"video"}


@pytest.mark.parametrize("headers", [bearer(ALICE), {"X-API-Key": ALICE}, basic(ALICE), basic(ALICE, "anybody")])
def test_a_key_lets_in(live: Live, headers: dict[str, str]):
    assert live.post("/v1/analyze", files=VIDEO, headers=headers).status_code == 200
    assert live.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, bearer("lsk_wrong"), {"Authorization": "Bearer"}, {"X-API-Key": ALICE[:-1]}, basic("wrong"),
        {"Authorization": "Basic !!!"},
        {"Authorization": f"Digest {ALICE}"}, {"Authorization": "Basic " + b64encode(b"\xff\xff").decode()},
        {"X-API-Key": ALICE_LINE.split()[1]},
    ],
)  # fmt: skip
def test_without_a_key_nothing_is_read(live: Live, headers: dict[str, str]):
    for path in ("/v1/analyze", "/v1/jobs"):
        answer = live.post(path, files={"file": bytes(1 << 20)}, headers=headers)
        assert_problem(answer, 401, "unauthorized")
        assert re.match('Basic realm="lipsync", .*Bearer', answer.headers["WWW-Authenticate"])
    for path in ("/", "/page/page.css", "/v1/jobs/1", "/metrics", "/nothing/here"):
        assert_problem(live.get(path, headers=headers), 401, "unauthorized")
    for path in ("/healthz", "/livez", "/docs", "/openapi.json"):
        assert live.get(path, headers=headers).status_code == 200


def test_what_is_public_is_a_setting(tmp_path: Path, keys_file: Path):
    with running(app_with(tmp_path, keys_file=keys_file, public={"metrics"})) as live:
        assert live.get("/metrics").status_code == 200
        for path in ("/healthz", "/docs", "/docs/start.js", "/openapi.json"):
            assert_problem(live.get(path), 401, "unauthorized")
        wait_for(lambda: live.get("/healthz", headers=bearer(ALICE)).status_code == 200)


def test_keys_are_changed_without_a_restart(live: Live, keys_file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "app")

    def lets_in(key: str) -> bool:
        return live.get("/metrics", headers=bearer(key)).status_code == 200

    carol, line = new_key("carol")
    assert lets_in(ALICE) and not lets_in(carol)
    another = keys_file.with_name("new")
    another.write_text(f"{line}\n")
    another.rename(keys_file)
    assert lets_in(carol) and not lets_in(ALICE)
    keys_file.write_text(f"{line}\nnonsense {carol}\n")
    assert lets_in(carol)
    keys_file.unlink()
    assert lets_in(carol) and not lets_in(ALICE)
    keys_file.write_text(f"{ALICE_LINE}\n")
    assert lets_in(ALICE) and not lets_in(carol)
    assert f"the keys stay as they were: {keys_file}, line 2: it is not NAME SHA256 [RATE]" in caplog.text
    assert "keys were read again: carol" in caplog.text
    assert carol not in caplog.text and ALICE not in caplog.text


def test_a_key_may_bring_so_many_videos(live: Live):
    for _ in range(2):
        assert live.post("/v1/jobs", files=VIDEO, headers=bearer(BOB)).status_code == 202
    answer = live.post("/v1/analyze", files=VIDEO, headers=bearer(BOB))
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert 55 <= int(answer.headers["Retry-After"]) <= 60
    assert live.get("/", headers=bearer(BOB)).status_code == 200
    assert live.post("/v1/analyze", files=VIDEO, headers=bearer(ALICE)).status_code == 200


def test_the_wait_that_is_asked_for_is_enough(tmp_path: Path, keys_file: Path):
    with running(app_with(tmp_path, keys_file=keys_file, rate_limit="1/2 second")) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200)
        began = time.monotonic()
        with Client(live.url, api_key=ALICE) as client:
            for _ in range(2):
                client.analyze(b"video")
        assert 1 < time.monotonic() - began < 5
        with pytest.raises(ServiceError, match="unauthorized"), Client(live.url, api_key="lsk_wrong") as client:
            client.analyze(b"video")


def test_jobs_are_of_the_key_that_brought_them(live: Live):
    same = {"files": VIDEO, "data": {"hop_s": "1"}}
    mine = live.post("/v1/jobs", headers=bearer(ALICE) | {"Idempotency-Key": "1"}, **same).json()["job_id"]
    again = live.post("/v1/jobs", headers=bearer(ALICE) | {"Idempotency-Key": "1"}, **same).json()["job_id"]
    other = live.post("/v1/jobs", headers=bearer(BOB) | {"Idempotency-Key": "1"}, files={"file": b"other"})
    assert again == mine != other.json()["job_id"]
    wait_for(lambda: live.get(f"/v1/jobs/{mine}", headers=bearer(ALICE)).json()["state"] == "done")
    for path in ("", "/events", "/report"):
        assert_problem(live.get(f"/v1/jobs/{mine}{path}", headers=bearer(BOB)), 404, "job_not_found")
        assert live.get(f"/v1/jobs/{mine}{path}", headers=bearer(ALICE)).status_code == 200
    assert_problem(live.request("DELETE", f"/v1/jobs/{mine}", headers=bearer(BOB)), 404, "job_not_found")
    assert live.request("DELETE", f"/v1/jobs/{mine}", headers=bearer(ALICE)).status_code == 204


def test_jobs_of_before_there_were_owners_are_kept(tmp_path: Path):
    (tmp_path / "uploads").mkdir()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1;")
        known = "job_id, request_id, state, created_at, parameters"
        db.execute(f"INSERT INTO jobs ({known}) VALUES ('a', 'r', 'done', 1, '{{}}')")
    store = Store(tmp_path)
    assert store.get("a", 2) == Record("a", "r", "done", 1, {})
    store.close()


def test_other_sites_cannot_use_what_a_browser_knows(live: Live):
    for site in ("cross-site", "same-site"):
        asked = {"Sec-Fetch-Site": site}
        assert_problem(live.post("/v1/jobs", files=VIDEO, headers=basic(ALICE) | asked), 403, "cross_site")
        assert live.post("/v1/analyze", files=VIDEO, headers=bearer(ALICE) | asked).status_code == 200
    assert live.post("/v1/analyze", files=VIDEO, headers=basic(ALICE) | {"Sec-Fetch-Site": "same-origin"}).is_success


def test_other_origins_are_let_in_by_setting_only(tmp_path: Path, live: Live, keys_file: Path):
    ask = {"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in live.request("OPTIONS", "/v1/analyze", headers=ask).headers
    assert "access-control-allow-origin" not in live.get("/healthz", headers=ask).headers
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    with running(app_with(elsewhere, keys_file=keys_file, cors_origins=["https://desk.example"])) as open_one:
        before = open_one.request("OPTIONS", "/v1/analyze", headers=ask)
        assert before.status_code == 200
        refused = open_one.post("/v1/analyze", headers={"Origin": "https://desk.example"})
        assert_problem(refused, 401, "unauthorized")
        for answer in (before, refused):
            assert answer.headers["access-control-allow-origin"] == "https://desk.example"
        other = open_one.get("/healthz", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/v1/jobs/1", "/metrics", "/nothing"])
def test_every_answer_has_security_headers(live: Live, path: str):
    for headers in ({}, bearer(ALICE)):
        answer = live.get(path, headers=headers)
        assert all(name in answer.headers for name in SECURITY_HEADERS)
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "it can't be read"), ("", "there is no key in it"), (f"{ALICE_LINE} often", "line 1: it is not"),
        (f"#\nalice {ALICE}", "line 2: it is not"), (f"a/b {ALICE_LINE.split()[1]}", "line 1: it is not"),
        (f"{BOB_LINE} more", "line 1: it is not"), ("alice", "line 1: it is not"),
    ],
)  # fmt: skip
def test_a_file_of_keys_that_is_wrong_stops_the_start(tmp_path: Path, content: str | None, said: str):
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KeysError) as wrong:
        Keys(path)
    assert said in str(wrong.value) and str(path) in str(wrong.value)
    assert ALICE not in str(wrong.value)


def test_secrets_are_not_logged(tmp_path: Path, keys_file: Path, plain_video: Path):
    log = tmp_path / "log"
    with log.open("wb") as stderr, served(stderr=stderr, LIPSYNC_KEYS_FILE=keys_file, LIPSYNC_LOG_LEVEL="debug") as one:
        for headers in (bearer(ALICE), basic(ALICE), {"X-API-Key": ALICE}, bearer("lsk_wrong")):
            httpx.post(f"{one.url}/v1/analyze", files={"file": plain_video.read_bytes()}, headers=headers, timeout=60)
    text = log.read_text()
    assert "401 unauthorized" in text and text.count("POST /v1/analyze: 200") == 3
    assert ALICE not in text and "lsk_" not in text and ALICE_LINE.split()[1] not in text
    assert b64encode(f":{ALICE}".encode()).decode() not in text


@needs_browser
def test_a_browser_asks_for_the_key_and_uses_it_for_everything(live: Live, plain_video: Path):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(http_credentials={"username": "me", "password": ALICE}).new_page()
        refused: list[str] = []
        page.on("response", lambda answer: refused.append(answer.url) if answer.status in (401, 403) else None)
        page.goto(live.url)
        page.set_input_files("input[type=file]", plain_video)
        sync_api.expect(page.locator("#verdict-sentence")).to_be_visible(timeout=30_000)
        with page.expect_download() as download:
            page.click("#save-report")
        assert "<!doctype html>" in Path(download.value.path()).read_text().lower()
        browser.close()
    assert refused == []


@needs_browser
def test_the_reference_needs_no_other_host(live: Live):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{live.url}/docs")
        page.get_by_text("/v1/analyze").first.wait_for()
        browser.close()
    assert said == []
    assert all(url.startswith((live.url, "data:")) for url in asked)
    assert not re.search(r"https?://(?!127)", (Path(__file__).parent.parent / "app/reference/index.html").read_text())
