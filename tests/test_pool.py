"""Real workers die, loop and eat memory, alone; the engine answers the same whatever the company."""

import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import pytest
import torch
from conftest import Live, open_files, running, wait_for

from app.batching import BatchingEngine
from app.main import create_app
from app.settings import Settings
from model.engine import Detector, load_detector
from model.sample import make_sample
from scripts.served import served


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It takes a worker some seconds, on fast machines, too."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    make_sample(path, seconds=50, size=(320, 376))
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The service with two real workers."""
    settings = Settings(port=0, temp_dir=tmp_path_factory.mktemp("uploads"), device="cpu", max_concurrent=2)
    with running(create_app(settings)) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200, seconds=60)
        yield live
    assert not multiprocessing.active_children()


def cpu_s(process: multiprocessing.process.BaseProcess) -> float:
    """Processor time that a worker has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_worker(before: dict[int, float]) -> multiprocessing.process.BaseProcess | None:
    """A worker that has computed since it had used ``before``."""
    return next((p for p in multiprocessing.active_children() if cpu_s(p) > before.get(p.pid, 1.0) + 0.3), None)


def code(response: httpx.Response) -> tuple[int, str | None]:
    """Status and problem code."""
    return response.status_code, response.json().get("code")


def test_a_worker_that_dies_costs_its_request_alone(live: Live, long_video: Path, plain_video: Path):
    before = {p.pid: cpu_s(p) for p in multiprocessing.active_children()}
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(live.analyze, long_video)
        wait_for(lambda: busy_worker(before))
        other = pool.submit(live.analyze, plain_video)
        busy_worker(before).kill()
        assert code(lost.result()) == (422, "decoder_crashed")
        assert other.result().status_code == 200
    assert [live.analyze(plain_video).status_code for _ in range(3)] == [200] * 3


def test_a_worker_that_died_idle_is_not_missed(live: Live, plain_video: Path):
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    assert [live.analyze(plain_video).status_code for _ in range(3)] == [200] * 3


def test_work_for_a_client_that_hung_up_stops(live: Live, long_video: Path, plain_video: Path):
    before = {p.pid: cpu_s(p) for p in multiprocessing.active_children()}
    with socket.create_connection(("127.0.0.1", live.port)) as wire:
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="v.mp4"\r\n\r\n'
        body = head + long_video.read_bytes() + b"\r\n--b--\r\n"
        line = b"POST /v1/analyze HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        wire.sendall(line + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: busy_worker(before))
        busy = busy_worker(before)
    wait_for(lambda: not busy.is_alive())
    wait_for(lambda: not live.uploads())
    assert live.analyze(plain_video).status_code == 200


@pytest.mark.parametrize("limit", [{"max_cpu_s": 1}, {"max_memory_mb": 512}])
def test_what_one_video_may_take_is_limited(tmp_path: Path, long_video: Path, plain_video: Path, limit: dict):
    heavy = long_video
    if "max_memory_mb" in limit:
        heavy = tmp_path / "heavy.mp4"
        make_sample(heavy, seconds=0.6, size=(3840, 2160))
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    settings = Settings(port=0, temp_dir=uploads, device="cpu", max_concurrent=1, **limit)
    with running(create_app(settings)) as live:
        wait_for(lambda: live.get("/healthz").status_code == 200, seconds=60)
        assert code(live.analyze(heavy)) in [(422, "too_expensive"), (422, "decoder_crashed")]
        assert live.analyze(plain_video).status_code == 200
        assert not live.uploads()


def test_killing_the_server_leaves_nothing_behind(tmp_path: Path, long_video: Path):
    with served(LIPSYNC_TEMP_DIR=tmp_path) as server, ThreadPoolExecutor() as pool:
        family = server.family()
        assert len(family) >= 3
        lost = pool.submit(httpx.post, f"{server.url}/v1/analyze", files={"file": long_video.read_bytes()}, timeout=60)
        time.sleep(1)
        os.kill(server.pid, signal.SIGKILL)
        assert isinstance(lost.exception(), httpx.TransportError)
        wait_for(lambda: all(has_ended(pid) for pid in family), seconds=20)
        assert not list(tmp_path.iterdir())


def test_an_upload_for_which_there_is_no_room_is_a_problem_of_its_own(tmp_path: Path, plain_video: Path):
    with served(LIPSYNC_TEMP_DIR=tmp_path) as server:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        answers = [
            httpx.post(f"{server.url}/v1/analyze", files={"file": content}, timeout=60)
            for content in (bytes(3 << 20), plain_video.read_bytes())
        ]
        assert code(answers[0]) == (503, "storage_full")
        assert int(answers[0].headers["Retry-After"]) > 0
        assert answers[1].status_code == 200
        assert not open_files(tmp_path, server.pid)
    assert not list(tmp_path.iterdir())


def test_what_was_accepted_is_answered_when_all_processes_are_told_to_stop(tmp_path: Path, long_video: Path):
    """As systemd does, and a terminal that is closed."""
    settings = {"LIPSYNC_TEMP_DIR": tmp_path, "LIPSYNC_MAX_CONCURRENT": 1, "LIPSYNC_GRACE_S": 60}
    with served(**settings) as server, ThreadPoolExecutor() as pool:
        video = long_video.read_bytes()
        accepted = [
            pool.submit(httpx.post, f"{server.url}/v1/analyze", files={"file": video}, timeout=60) for _ in range(2)
        ]
        wait_for(lambda: len(open_files(tmp_path, server.pid)) == 2)
        time.sleep(1)
        os.killpg(server.pid, signal.SIGTERM)
        assert [one.result().status_code for one in accepted] == [200, 200]
        assert server.process.wait(20) == 0
        wait_for(lambda: all(has_ended(pid) for pid in server.family()))
    assert not list(tmp_path.iterdir())


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has yet asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# --------------------------------------------------------------------------------------------------------------
# The engine
# --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("cpu")


@pytest.fixture(scope="module")
def questions() -> list[tuple[str, np.ndarray]]:
    """Some for each network."""
    rng = np.random.default_rng(0)
    asked = [("mouths", rng.integers(0, 255, (1, length, 96, 96), np.uint8)) for length in (30, 30, 50, 30)]
    asked += [("sequences", rng.integers(0, 255, (count, 24, 96, 96), np.uint8)) for count in (3, 1)]
    return asked + [("sound", rng.normal(0, 0.1, (1, 640 * length)).astype(np.float32)) for length in (30, 30)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_the_processor_does(detector: Detector, questions: list):
    on_gpu = load_detector("cuda")
    for question in questions:
        assert np.abs(on_gpu.run(*question) - detector.run(*question)).max() < 0.03


def test_answers_do_not_depend_on_the_company(detector: Detector, questions: list):
    alone = [detector.run(*question) for question in questions]
    engine = BatchingEngine({"default": detector.run}, most=8, wait_s=0.5)
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: engine("default", *question), questions))
    engine.close()
    assert engine.batch_sizes[2] >= 2 and engine.batch_sizes[3] == 1
    for one, other in zip(alone, together):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 0.01


def test_the_oldest_question_is_answered_first_and_a_full_batch_does_not_wait():
    order, first = [], Event()

    def run(kind: str, items: np.ndarray) -> np.ndarray:
        assert first.wait(10)
        order.append((kind, len(items)))
        return items

    engine = BatchingEngine({"a": run, "b": run}, most=2, wait_s=0.0)
    with ThreadPoolExecutor(6) as pool:
        asked = []
        for model, kind in (("a", "sound"), ("a", "mouths"), ("b", "mouths"), ("a", "mouths"), ("a", "mouths")):
            asked.append(pool.submit(engine, model, kind, np.full((1, 1), len(asked))))
            time.sleep(0.05)
        first.set()
        assert [one.result().item() for one in asked] == [0, 1, 2, 3, 4]
    engine.close()
    assert order == [("sound", 1), ("mouths", 2), ("mouths", 1), ("mouths", 1)]


def test_a_batch_that_is_too_large_for_the_device_is_halved():
    def run(kind: str, items: np.ndarray) -> np.ndarray:
        if len(items) > 2:
            raise torch.OutOfMemoryError
        return items * 2

    engine = BatchingEngine({"default": run}, most=8, wait_s=0.3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: engine("default", "sequences", np.full((1, 1), n)), range(8)))
    assert [answer.item() for answer in answers] == [2 * n for n in range(8)]
    with pytest.raises(torch.OutOfMemoryError):
        engine("default", "sequences", np.zeros((3, 1)))
    assert engine("default", "sequences", np.ones((1, 1))).item() == 2
    engine.close()
