"""Videos a second and latency by number of clients, of the service and of LitServe with the same networks."""

import asyncio
import base64
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np
import torch

from model import Detector, analyze, load_detector
from model.detector import EMBEDDING
from model.engine import Kind
from model.media import SAMPLES_PER_FRAME
from scripts.served import Served, served, started

CLIENTS = (1, 4, 16, 64)
CLIP_S = 3.0
LEAST_REQUESTS = 16
CPUS = len(os.sched_getaffinity(0))
BATCH, WAIT_MS = 8, 2.0
"""Batch settings of the comparison."""

STARTING_S, COUNTING_S = 20.0, 10.0

Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def cpu_bound(clip: Path) -> float:
    """Videos a second that the machine could analyse if the networks took no time."""
    begin_at = time.time() + STARTING_S
    with ProcessPoolExecutor(CPUS, get_context("spawn")) as pool:
        per_s = sum(pool.map(partial(_without_networks, begin_at), [clip] * CPUS))
    print(f"all but the networks, {CPUS} processes: {per_s:.2f} videos of {CLIP_S:g} s a second")
    return per_s


def sustained(clip: Path, long: Path) -> dict[str, object]:
    """The service with 1 to 64 clients, and a short video while a ``long`` one is analysed."""
    video = clip.read_bytes()
    with served(LIPSYNC_MAX_WAITING=max(CLIENTS)) as service:
        found: dict[str, object] = {"ready_s": service.ready_s, "idle_mb": service.memory_mb()}
        print(f"start to ready {service.ready_s:.1f} s; idle {found['idle_mb']:.0f} MB in all processes")
        found["load"] = _table(service, partial(_upload, video), CLIENTS)
        found["short"] = short = asyncio.run(_short_beside_long(service, video, long.read_bytes()))
        print(f"{CLIP_S:g} s alone {short['alone_s']:.2f} s, beside a long one {short['beside_a_long_one_s']:.2f} s")
    return found


def beside_the_peer(clip: Path) -> dict[str, object]:
    """The service and `scripts.peer`, with the same batch settings and as many workers."""
    video = clip.read_bytes()
    encoded = base64.b64encode(video).decode()
    batch = f"batches of {BATCH}, {WAIT_MS:g} ms"
    print(f"LitServe, {CPUS} workers, {batch}")
    arguments = ["--workers", str(CPUS), "--batch", str(BATCH), "--wait-ms", str(WAIT_MS)]
    with started([sys.executable, "-m", "scripts.peer", *arguments], "/health") as peer:
        found: dict[str, object] = {"peer": _table(peer, partial(_send, encoded), CLIENTS)}
    print(f"the service, {batch}")
    settings = {"LIPSYNC_BATCH_MOST": BATCH, "LIPSYNC_BATCH_WAIT_MS": WAIT_MS, "LIPSYNC_MAX_WAITING": max(CLIENTS)}
    with served(**settings) as service:
        found["service"] = _table(service, partial(_upload, video), CLIENTS)
    return found


def _table(service: Served, ask: Ask, clients: Sequence[int]) -> list[dict[str, float]]:
    print(f"{'clients':>8}{'videos/s':>10}{'x real time':>13}{'p50 s':>8}{'p95 s':>8}{'p99 s':>8}{'MB':>7}")
    rows = []
    for count in clients:
        rows.append(row := asyncio.run(_load(service, ask, count)))
        times = "".join(f"{row[name]:8.2f}" for name in ("p50_s", "p95_s", "p99_s"))
        print(f"{count:8}{row['videos_per_s']:10.2f}{row['x_real_time']:13.1f}{times}{row['memory_mb']:7.0f}")
    return rows


async def _load(service: Served, ask: Ask, clients: int) -> dict[str, float]:
    """So many clients, each asking again as soon as it is answered."""
    each = -(-max(LEAST_REQUESTS, 2 * clients) // clients)

    async def client_loop(client: httpx.AsyncClient) -> list[float]:
        return [await _timed(ask, client) for _ in range(each)]

    async with httpx.AsyncClient(base_url=service.url, timeout=600, limits=httpx.Limits()) as client:
        await _timed(ask, client)
        began = time.perf_counter()
        latencies = np.concatenate(await asyncio.gather(*(client_loop(client) for _ in range(clients))))
        spent = time.perf_counter() - began
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    per_s = clients * each / spent
    return {
        "clients": clients, "requests": clients * each, "videos_per_s": per_s, "x_real_time": per_s * CLIP_S,
        "p50_s": p50, "p95_s": p95, "p99_s": p99, "memory_mb": service.memory_mb(),
    }  # fmt: skip


async def _short_beside_long(service: Served, short: bytes, long: bytes) -> dict[str, float]:
    """Latency of a short video alone, and while a long one is analysed."""
    ask = partial(_upload, short)
    async with httpx.AsyncClient(base_url=service.url, timeout=600) as client:
        alone = [await _timed(ask, client) for _ in range(5)]
        under_way = asyncio.create_task(_timed(partial(_upload, long), client))
        await asyncio.sleep(2)
        beside = [await _timed(ask, client) for _ in range(5)]
        if under_way.done():
            raise RuntimeError("the long video was over too soon")
        under_way.cancel()
    return {"alone_s": float(np.median(alone)), "beside_a_long_one_s": float(np.median(beside))}


async def _timed(ask: Ask, client: httpx.AsyncClient) -> float:
    """Seconds until the answer."""
    began = time.perf_counter()
    (await ask(client)).raise_for_status()
    return time.perf_counter() - began


def _upload(video: bytes, client: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return client.post("/v1/analyze", files={"file": video})


def _send(encoded: str, client: httpx.AsyncClient) -> Awaitable[httpx.Response]:
    return client.post("/predict", json={"video": encoded})


def _without_networks(begin_at: float, clip: Path) -> float:
    """Videos a second of one process, from ``begin_at`` on."""
    torch.set_num_threads(1)
    served_one = load_detector()
    detector = Detector(served_one.info, served_one.rule, served_one.scale, _at_once)
    analyze(clip, detector)
    time.sleep(max(0.0, begin_at - time.time()))
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < COUNTING_S:
        analyze(clip, detector)
        count += 1
    return count / (time.perf_counter() - began)


def _at_once(kind: Kind, items: np.ndarray) -> np.ndarray:
    """What `model.engine.Networks` would return, of zeros."""
    if kind == "sequences":
        return np.zeros(len(items), np.float32)
    frames = items.shape[1] if kind == "mouths" else items.shape[1] // SAMPLES_PER_FRAME
    return np.zeros((len(items), frames, EMBEDDING), np.float32)
