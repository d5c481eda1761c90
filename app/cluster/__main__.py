"""``python -m app.cluster``: two nodes on this machine, what they answer, and what is lost when parts of them die.

Prints figures; the exit status is 1 if an answer differs from that of one process, or an accepted request was lost.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "1")

import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from app.cluster.deployments import APP, application  # noqa: E402
from model.sample import make_sample  # noqa: E402
from scripts.served import served  # noqa: E402

PORT = 8700
URL = f"http://127.0.0.1:{PORT}"
OBJECT_STORE_BYTES = 300 << 20
NODE_CPUS = 4
"""Of each node, as Ray counts them; the machine may have fewer."""


def videos(folder: Path) -> list[Path]:
    """Made samples of several lengths and offsets."""
    made = []
    for number, (seconds, offset_ms) in enumerate(((3, 0), (4, 200), (6, -160), (8, 80))):
        made.append(folder / f"{number}.mp4")
        make_sample(made[-1], seconds=seconds, offset_ms=offset_ms, size=(320, 376))
    return made


def answer_of(url: str, video: bytes) -> tuple[int, dict[str, Any]]:
    """Status and what does not differ from one time to the next."""
    response = httpx.post(f"{url}/v1/analyze", files={"file": video}, timeout=600)
    answer = response.json()
    for name in ("request_id", "timing_ms"):
        answer.pop(name, None)
    return response.status_code, answer


def serve_application(decoders: int, detectors: int) -> None:
    """Start or change the application, and wait until it takes videos."""
    arguments = {
        "ingress": {"ray_actor_options": {"num_cpus": 0.1, "resources": {"head": 0.01}}},
        "decoder": {"num_replicas": decoders, "ray_actor_options": {"num_cpus": 1}},
        "detector": {"num_replicas": detectors, "ray_actor_options": {"num_cpus": 0.5}},
    }
    serve.run(application(arguments), name=APP)
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{URL}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.5)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A head with the ingress, and one more node."""
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": NODE_CPUS, "resources": {"head": 1}, "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        },
    )  # fmt: skip
    nodes.add_node(num_cpus=NODE_CPUS, object_store_memory=OBJECT_STORE_BYTES, resources={"worker": 1})
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    http = {"host": "127.0.0.1", "port": PORT, "request_timeout_s": 900}
    serve.start("HeadOnly", http, logging_config={"log_level": "ERROR"})
    try:
        yield nodes
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


def replicas(deployment: str) -> list[int]:
    """The process of each replica; Ray names them."""
    named = f"ray::ServeReplica:{APP}:{deployment}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(named):
                found.append(int(path.parent.name))
    return found


def under_load(
    videos: list[bytes], known: list[dict[str, Any]], harm: Callable[[], None], requests: int
) -> dict[str, Any]:
    """Send ``requests`` videos, two at a time, do ``harm`` meanwhile; what became of them."""
    outcome = {"accepted": requests, "answered": 0, "turned away": 0, "lost": 0, "differ": 0}

    def one(number: int) -> float:
        began = time.perf_counter()
        which = number % len(videos)
        try:
            status, answer = answer_of(URL, videos[which])
        except httpx.TransportError:
            status, answer = 0, {}
        if status == 200:
            outcome["answered"] += 1
            outcome["differ"] += answer != known[which]
        elif status == 503 and answer["code"] == "busy":
            outcome["accepted"] -= 1
            outcome["turned away"] += 1
        else:
            outcome["lost"] += 1
            print(f"lost: {status} {answer.get('code')}")
        return time.perf_counter() - began

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(one, number) for number in range(requests)]
        time.sleep(2)
        before = {*replicas("decoder"), *replicas("detector")}
        harm()
        time.sleep(0.5)
        outcome["replicas killed"] = len(before - {*replicas("decoder"), *replicas("detector")})
        times = [future.result() for future in running]
    return outcome | {"slowest_s": round(max(times), 1)}


def check(nodes: Cluster, folder: Path) -> list[str]:
    """What went wrong."""
    wrong: list[str] = []
    paths = videos(folder)
    content = [path.read_bytes() for path in paths]
    bad = [b"no video", content[0][:20_000], b""]
    with served(LIPSYNC_MAX_CONCURRENT=2) as single:
        expected = [answer_of(single.url, one) for one in (*content, *bad)]
    serve_application(decoders=2, detectors=2)
    found = [answer_of(URL, one) for one in (*content, *bad)]
    print(f"answers equal to those of one process: {sum(a == b for a, b in zip(expected, found))} of {len(found)}")
    wrong += [f"{a} is not {b}" for a, b in zip(expected, found) if a != b]
    known = [answer for _, answer in expected[: len(content)]]

    def kill(deployment: str) -> Callable[[], None]:
        return lambda: os.kill(replicas(deployment)[0], signal.SIGKILL)

    def kill_node() -> None:
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    harms = {"a decoder": kill("decoder"), "a detector": kill("detector"), "a node": kill_node}
    for what, harm in harms.items():
        print(f"replicas: {len(replicas('decoder'))} decoders, {len(replicas('detector'))} detectors")
        outcome = under_load(content, known, harm, requests=24)
        print(f"{what} killed under load: {json.dumps(outcome)}", flush=True)
        if outcome["lost"] or outcome["differ"]:
            wrong.append(f"{what}: {outcome}")
        serve_application(decoders=2, detectors=2)
    return wrong


def bench(folder: Path) -> None:
    """Videos a second at 1, 2 and 4 decoders, and of one process with as many workers."""
    path = folder / "bench.mp4"
    make_sample(path, seconds=6, size=(320, 376))
    content = path.read_bytes()
    print(f"{os.cpu_count()} processors; video of 6 s, 320 x 376")
    for count in (1, 2, 4):
        serve_application(decoders=count, detectors=1)
        rate, latency_s = throughput(URL, content, count)
        with served(LIPSYNC_MAX_CONCURRENT=count) as single:
            single_rate, single_s = throughput(single.url, content, count)
        print(
            f"{count} decoders: {rate:.2f} videos a second, one alone {latency_s:.2f} s; "
            f"one process with {count} workers: {single_rate:.2f}, {single_s:.2f} s",
            flush=True,
        )


def throughput(url: str, video: bytes, at_once: int, seconds: float = 25.0) -> tuple[float, float]:
    """Videos a second from twice ``at_once`` clients, and the median time of one that is alone."""
    alone = []
    for _ in range(4):
        began = time.perf_counter()
        assert answer_of(url, video)[0] == 200
        alone.append(time.perf_counter() - began)
    until, done = time.perf_counter() + seconds, [0] * (2 * at_once)

    def client(number: int) -> None:
        while time.perf_counter() < until:
            done[number] += answer_of(url, video)[0] == 200

    began = time.perf_counter()
    with ThreadPoolExecutor(len(done)) as pool:
        list(pool.map(client, range(len(done))))
    return sum(done) / (time.perf_counter() - began), statistics.median(alone)


def main() -> None:
    """Check, and measure if asked to."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description="Try the cluster on this machine.")
    parser.add_argument("--bench", action="store_true", help="also measure throughput")
    arguments = parser.parse_args()
    os.environ |= {"LIPSYNC_KEEP_RESULTS_S": "0", "LIPSYNC_MAX_CONCURRENT": "8", "LIPSYNC_DEVICE": "cpu"}
    with tempfile.TemporaryDirectory() as folder, cluster() as nodes:
        wrong = check(nodes, Path(folder))
        if arguments.bench:
            bench(Path(folder))
    print("\n".join(wrong) or "nothing was lost, nothing differed")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
