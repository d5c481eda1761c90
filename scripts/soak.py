"""What the service endures: ``python -m scripts.soak [--files N] [--seconds S]``, or ``make soak``.

Sends it damaged and hostile files, ten times as many videos as it can take, kills its workers meanwhile, holds hundreds
of connections that do not behave, and stops it under load; counts the answers, and measures memory, open files and how
fast it says that it is well. Exit status 1 if anything was lost.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from model.sample import make_sample
from scripts.mutate import bombs, mutated, posing_as_video
from scripts.served import Served, served

SEEDS = ("mp4", "mov", "mkv", "webm", "avi")
CLIENTS = 8
CAPACITY = 4
"""Videos that the service of the overload test accepts at once."""

HEALTH_EVERY_S = 0.05

MISBEHAVING = 400
HEAD = b"POST /v1/analyze HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
BODY = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n\r\n'
HALVES = (
    b"", HEAD, HEAD + b"Content-Length: 100000\r\n\r\n" + BODY, HEAD + b"Content-Length: 9999\r\n\r\n" + BODY,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", HEAD + b"Content-Length: 0\r\n\r\n",
)  # fmt: skip
"""What a connection that does not behave sends."""

SLOW = 2
"""The kind that holds a place of the line, as slow uploads do."""

Answers = Counter[str]
Disturb = Callable[[Served, float, Answers], Coroutine[Any, Any, None]]
"""Called with the service, until when, and the answers so far."""


async def ask(client: httpx.AsyncClient, content: bytes, answers: Answers) -> None:
    """One analysis; counts how it ended."""
    try:
        response = await client.post("/v1/analyze", files={"file": ("v", content)})
        answers[str(response.status_code)] += 1
        if response.status_code not in (200, 503):
            answers[response.json()["code"]] += 1
    except httpx.TransportError as error:
        answers[type(error).__name__] += 1


async def fuzz(service: Served, folder: Path, files: int) -> Answers:
    """``files`` damaged ones, and every impostor and bomb, ``CLIENTS`` at a time."""
    for suffix in SEEDS:
        make_sample(folder / f"seed.{suffix}", seconds=1, size=(128, 152))
    seeds = [(folder / f"seed.{suffix}").read_bytes() for suffix in SEEDS]
    rng = np.random.default_rng(0)
    hostile = iter([*posing_as_video(folder).values(), *bombs(folder).values()])
    left, answers = files, Answers()

    async def client_loop(client: httpx.AsyncClient) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await ask(client, next(hostile, None) or mutated(seeds, rng), answers)

    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        await asyncio.gather(*(client_loop(client) for _ in range(CLIENTS)))
    return answers


async def endure(
    service: Served, video: bytes, seconds: float, clients: int, watcher: Executor, disturb: Disturb | None = None
) -> tuple[Answers, list[float]]:
    """So many clients who ask again and again, beside what ``disturb`` does, for so long.

    Returns the answers, and how long each health check took, in ms.
    """
    answers, until = Answers(), time.monotonic() + seconds

    async def client_loop(client: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            await ask(client, video, answers)
            await asyncio.sleep(0.05)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=limits) as client:
        watching = asyncio.get_running_loop().run_in_executor(watcher, watch_health, service.url, seconds)
        disturbing = [disturb(service, until, answers)] if disturb else []
        await asyncio.gather(*(client_loop(client) for _ in range(clients)), *disturbing)
        return answers, await watching


async def kill_workers(service: Served, until: float, answers: Answers) -> None:
    """The newest one, every few seconds."""
    while time.monotonic() < until:
        await asyncio.sleep(3)
        newest = max(service.family())
        if newest != service.pid:
            os.kill(newest, signal.SIGKILL)
            answers["killed"] += 1


async def misbehave(service: Served, until: float, _: Answers) -> None:
    """Half of the line held by slow uploads, and `MISBEHAVING` connections of the other kinds."""
    kinds = [SLOW] * (CAPACITY // 2) + [SLOW + 1 + number % (len(HALVES) - 1) for number in range(MISBEHAVING)]
    await asyncio.gather(*(hold_or_hang_up(service, kind % len(HALVES), until) for kind in kinds))


async def hold_or_hang_up(service: Served, kind: int, until: float) -> None:
    """One connection that says nothing, half a head, half a body byte by byte, or hangs up after half or all of it."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection(service.host, service.port)
            writer.write(HALVES[kind])
            await writer.drain()
            if kind <= SLOW:
                while time.monotonic() < until and not reader.at_eof():
                    if kind == SLOW:
                        writer.write(b"x")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 0.5)
            writer.close()
            await asyncio.sleep(0.2)
        except OSError:
            await asyncio.sleep(0.2)


async def stop_under_load(service: Served, video: bytes) -> tuple[Answers, int]:
    """SIGTERM to all processes while it is full. Returns the answers of what was sent before, and the exit status."""
    answers = Answers()
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
        asked = [asyncio.create_task(ask(client, video, answers)) for _ in range(10 * CAPACITY)]
        await asyncio.sleep(1)
        os.killpg(service.pid, signal.SIGTERM)
        await asyncio.gather(*asked)
    return answers, await asyncio.to_thread(service.process.wait, 60)


def watch_health(url: str, seconds: float) -> list[float]:
    """Milliseconds that each of many health checks took. For a process of its own, so that nothing else is timed."""
    gc.freeze()  # its own pauses are not the service's
    took_ms, end = [], time.monotonic() + seconds
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < end:
            began = time.perf_counter()
            client.get("/healthz").raise_for_status()
            took_ms.append(1000 * (time.perf_counter() - began))
            time.sleep(HEALTH_EVERY_S)
    return took_ms


def report(name: str, service: Served, before: tuple[float, int], answers: Answers) -> dict[str, object]:
    """Print what came of it."""
    row = {
        "what": name, "answers": dict(answers), "memory_mb": [round(before[0]), round(service.memory_mb())],
        "open_files": [before[1], service.open_files()],
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def report_health(took_ms: list[float]) -> None:
    """Print how long health checks took."""
    p50, p99 = np.percentile(took_ms, [50, 99])
    print(f"health: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {max(took_ms):.1f} ms", flush=True)


def lost(answers: Answers) -> int:
    """Requests without a proper answer."""
    return sum(count for answer, count in answers.items() if answer == "500" or answer.endswith(("Error", "Timeout")))


def main() -> int:
    """Command line: see ``--help``."""
    parser = argparse.ArgumentParser(description="Send the service what it should endure; print what came of it.")
    parser.add_argument("--files", type=int, default=3000, help="damaged files")
    parser.add_argument(
        "--seconds", type=float, default=60, help="of overload, again while workers are killed, and of misbehaviour"
    )
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder, uploads = Path(name), Path(name) / "uploads"
        uploads.mkdir()
        with served(LIPSYNC_TEMP_DIR=uploads, LIPSYNC_MAX_WAITING=CLIENTS) as service:
            before = service.memory_mb(), service.open_files()
            answers = asyncio.run(fuzz(service, folder, arguments.files))
            report("damaged files", service, before, answers)
            failures += lost(answers) + answers["503"] + len(list(uploads.iterdir()))
        video = folder / "talk.mp4"
        make_sample(video, seconds=3, size=(256, 304))
        settings = {"LIPSYNC_TEMP_DIR": uploads, "LIPSYNC_MAX_CONCURRENT": 2, "LIPSYNC_MAX_WAITING": CAPACITY - 2}
        with served(**settings) as service, ProcessPoolExecutor(1, get_context("spawn")) as watcher:
            for what, clients, disturb in (
                ("overload", 10 * CAPACITY, None),
                ("overload, workers killed", 10 * CAPACITY, kill_workers),
                (f"{MISBEHAVING} connections that misbehave", CAPACITY // 2, misbehave),
            ):
                before = service.memory_mb(), service.open_files()
                answers, health_ms = asyncio.run(
                    endure(service, video.read_bytes(), arguments.seconds, clients, watcher, disturb)
                )
                report(what, service, before, answers)
                report_health(health_ms)
                failures += lost(answers) + len(list(uploads.iterdir()))
            answers, status = asyncio.run(stop_under_load(service, video.read_bytes()))
            print(json.dumps({"what": "stopped under load", "answers": dict(answers), "exit status": status}))
            failures += lost(answers) + abs(status) + (answers["200"] < CAPACITY) + len(list(uploads.iterdir()))
    print("nothing was lost" if not failures else f"{failures} failures")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
