"""What an analysis costs and what the service sustains: ``python -m scripts.benchmark [--long]``, or ``make bench``.

On made videos: processor and wall time per second of video beside the floor (decoding alone; decoding and landmarks),
by stage; start-up and memory; throughput and latency by number of clients; and what a short video waits for while a
long one is analysed. Prints tables, and writes them to build/bench.json. ``--long`` adds 10 minutes of 1080p.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import httpx
import numpy as np

from model.sample import make_sample
from scripts.served import ROOT, Served, served

PAUSE_S = 0.1  # between repetitions, for what encoders write before time zero
CLIENTS = (1, 4, 16, 64)
CLIP_S = 3.0
LEAST_REQUESTS = 16
UPLOAD = {"crf": "28", "preset": "medium"}

COST = """
from model import analyze, load_detector
import json, resource, sys, time, torch
from model.faces import FaceFinder, FaceTracker
from model.media import MediaFile
torch.set_num_threads(1)
detector = load_detector()
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
analyze(sys.argv[2], detector)

def decode():
    media = MediaFile(sys.argv[1])
    return sum(1 for _ in media.frames()), sum(1 for _ in media.audio())

def landmarks():
    media = MediaFile(sys.argv[1])
    sum(1 for _ in media.audio())
    with FaceFinder() as finder:
        tracker = FaceTracker(finder)
        for frame in media.frames():
            tracker.push(frame)

def cost(work):
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, {"cpu_s_per_s": time.process_time() - cpu, "wall_s_per_s": time.perf_counter() - wall}

rows = {"decode only": cost(decode)[1], "decode and landmarks": cost(landmarks)[1]}
answer, rows["whole analysis"] = cost(lambda: analyze(sys.argv[1], detector))
length = answer.media.duration_s
rows = {name: {key: value / length for key, value in row.items()} for name, row in rows.items()}
stages = {name: getattr(answer.timing_ms, name) / 1000 / length for name in ("media", "faces", "detector")}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"rows": rows, "stages": stages, "peak_mb": peak / 1024, "idle_mb": idle / 1024, "length": length}))
"""


def repeat(source: Path, target: Path, times: int) -> None:
    """Write the packets of ``source`` that many times in a row."""
    with av.open(str(target), "w") as out:
        streams = {}
        with av.open(str(source)) as video:
            length_s = float(video.duration / av.time_base) + PAUSE_S
            for stream in video.streams:
                streams[stream.index] = out.add_stream_from_template(stream)
        for turn in range(times):
            with av.open(str(source)) as video:
                for packet in video.demux():
                    if packet.dts is None:
                        continue
                    shift = round(turn * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)


def as_uploaded(source: Path, target: Path) -> None:
    """Write ``source`` anew at the bit rate that platforms hand out."""
    with av.open(str(source)) as video, av.open(str(target), "w") as out:
        pictures, sound = video.streams.video[0], video.streams.audio[0]
        stream = out.add_stream("libx264", rate=pictures.average_rate, options=UPLOAD)
        stream.width, stream.height, stream.pix_fmt = pictures.width, pictures.height, "yuv420p"
        copied = out.add_stream_from_template(sound)
        for packet in video.demux(pictures, sound):
            if packet.stream is sound and packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
            elif packet.stream is pictures:
                for frame in packet.decode():
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")))
        out.mux(stream.encode())


def cost(video: Path, warm_up: Path) -> dict[str, object]:
    """Analyse one file in a process of its own, torch on one thread, and print what it took."""
    run = subprocess.run(
        [sys.executable, "-c", COST, str(video), str(warm_up)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = json.loads(run.stdout.splitlines()[-1])
    floor = found["rows"]["decode and landmarks"]["cpu_s_per_s"]
    print(f"{'':24}{'CPU s per s':>12}{'wall s per s':>14}{'x real time':>13}{'x floor':>9}")
    for name, row in found["rows"].items():
        cpu, wall = row["cpu_s_per_s"], row["wall_s_per_s"]
        print(f"{name:24}{cpu:12.4f}{wall:14.4f}{1 / wall:13.1f}{cpu / floor:9.2f}")
    print("stages, wall s per s:", ", ".join(f"{name} {value:.4f}" for name, value in found["stages"].items()))
    print(f"memory: peak {found['peak_mb']:.0f} MB, idle {found['idle_mb']:.0f} MB; {bit_rate_kbs(video):.0f} kb/s")
    return found


def bit_rate_kbs(video: Path) -> float:
    """Of all streams together."""
    with av.open(str(video)) as opened:
        return video.stat().st_size * 8e-3 / float(opened.duration / av.time_base)


async def ask(client: httpx.AsyncClient, video: bytes) -> float:
    """Seconds until the answer."""
    began = time.perf_counter()
    (await client.post("/v1/analyze", files={"file": video})).raise_for_status()
    return time.perf_counter() - began


async def load(service: Served, video: bytes, clients: int) -> dict[str, float]:
    """Throughput and latency with so many clients, each asking again as soon as it is answered."""
    each = -(-max(LEAST_REQUESTS, 2 * clients) // clients)

    async def client_loop(client: httpx.AsyncClient) -> list[float]:
        return [await ask(client, video) for _ in range(each)]

    async with httpx.AsyncClient(base_url=service.url, timeout=600, limits=httpx.Limits()) as client:
        began = time.perf_counter()
        latencies = np.concatenate(await asyncio.gather(*(client_loop(client) for _ in range(clients))))
        spent = time.perf_counter() - began
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    per_s = clients * each / spent
    return {
        "clients": clients, "requests": clients * each, "videos_per_s": per_s, "x_real_time": per_s * CLIP_S,
        "p50_s": p50, "p95_s": p95, "p99_s": p99, "memory_mb": service.memory_mb(),
    }  # fmt: skip


async def short_beside_long(service: Served, short: bytes, long: bytes) -> dict[str, float]:
    """Latency of a short video alone, and while a long one is analysed."""
    async with httpx.AsyncClient(base_url=service.url, timeout=600) as client:
        alone = [await ask(client, short) for _ in range(5)]
        under_way = asyncio.create_task(ask(client, long))
        await asyncio.sleep(2)
        beside = [await ask(client, short) for _ in range(5)]
        if under_way.done():
            raise RuntimeError("the long video was over too soon")
        under_way.cancel()
    return {"alone_s": float(np.median(alone)), "beside_a_long_one_s": float(np.median(beside))}


def sustained(clip: Path, long: Path, clients: Sequence[int]) -> dict[str, object]:
    """Start the service and measure it under load."""
    with served(LIPSYNC_MAX_WAITING=max(clients)) as service:
        found: dict[str, object] = {"ready_s": service.ready_s, "idle_mb": service.memory_mb()}
        print(f"start to ready {service.ready_s:.1f} s; idle {found['idle_mb']:.0f} MB in all processes")
        print(f"{'clients':>8}{'videos/s':>10}{'x real time':>13}{'p50 s':>8}{'p95 s':>8}{'p99 s':>8}{'MB':>7}")
        found["load"] = []
        for count in clients:
            row = asyncio.run(load(service, clip.read_bytes(), count))
            found["load"].append(row)
            times = "".join(f"{row[name]:8.2f}" for name in ("p50_s", "p95_s", "p99_s"))
            print(f"{count:8}{row['videos_per_s']:10.2f}{row['x_real_time']:13.1f}{times}{row['memory_mb']:7.0f}")
        found["short"] = asyncio.run(short_beside_long(service, clip.read_bytes(), long.read_bytes()))
        print(f"{CLIP_S:g} s alone {found['short']['alone_s']:.2f} s, beside a long one", end=" ")
        print(f"{found['short']['beside_a_long_one_s']:.2f} s")
    return found


def main() -> None:
    """Command line: see ``--help``."""
    parser = argparse.ArgumentParser(description="Measure what an analysis costs and what the service sustains.")
    parser.add_argument("--long", action="store_true", help="also 10 minutes of 1080p")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made, video, clip, long = (folder / f"{part}.mp4" for part in ("made", "360p", "clip", "long"))
        make_sample(made, seconds=20, size=(640, 360))
        as_uploaded(made, video)
        make_sample(made, seconds=CLIP_S, size=(640, 360))
        as_uploaded(made, clip)
        repeat(video, long, 29)
        print("20 s of 360p, one face, torch on one thread")
        found = {"360p": cost(video, video), "service": sustained(clip, long, CLIENTS)}
        if arguments.long:
            part, hour = folder / "part.mp4", folder / "1080p.mp4"
            make_sample(part, seconds=20, size=(1920, 1080))
            repeat(part, hour, 30)
            print("600 s of 1080p, one face, torch on one thread")
            found["1080p"] = cost(hour, video)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
