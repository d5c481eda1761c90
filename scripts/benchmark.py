"""What an analysis costs and what the service sustains: ``python -m scripts.benchmark [--long]``, or ``make bench``.

On made videos: processor and wall time per second of video beside the floor (decoding alone; decoding and landmarks),
by stage, at 360p and 1080p; what the networks embed by batch size (`scripts.device`); start-up, memory, throughput and
latency by number of clients, beside LitServe (`scripts.throughput`). Prints tables, and writes them to
build/bench.json. ``--long`` adds 10 minutes of 1080p.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av

from model import load_detector
from model.sample import make_sample
from scripts.device import throughput
from scripts.served import ROOT
from scripts.throughput import CLIP_S, beside_the_peer, cpu_bound, sustained

PAUSE_S = 0.1  # between repetitions, for what encoders write before time zero
MOST_AT_ONCE = 32
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
    print(f"{video.stem}, {found['length']:.0f} s, one face, torch on one thread, {bit_rate_kbs(video):.0f} kb/s")
    print(f"{'':24}{'CPU s per s':>12}{'wall s per s':>14}{'x real time':>13}{'x floor':>9}")
    for name, row in found["rows"].items():
        cpu, wall = row["cpu_s_per_s"], row["wall_s_per_s"]
        print(f"{name:24}{cpu:12.4f}{wall:14.4f}{1 / wall:13.1f}{cpu / floor:9.2f}")
    print("stages, wall s per s:", ", ".join(f"{name} {value:.4f}" for name, value in found["stages"].items()))
    print(f"memory: peak {found['peak_mb']:.0f} MB, idle {found['idle_mb']:.0f} MB")
    return found


def bit_rate_kbs(video: Path) -> float:
    """Of all streams together."""
    with av.open(str(video)) as opened:
        return video.stat().st_size * 8e-3 / float(opened.duration / av.time_base)


def main() -> None:
    """Command line: see ``--help``."""
    parser = argparse.ArgumentParser(description="Measure what an analysis costs and what the service sustains.")
    parser.add_argument("--long", action="store_true", help="also 10 minutes of 1080p")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video, clip, large, long, hour = (
            folder / f"{part}.mp4" for part in ("360p", "clip", "1080p", "10 min of 360p", "10 min of 1080p")
        )
        for target, length_s, size in ((video, 20, (640, 360)), (clip, CLIP_S, (640, 360)), (large, 20, (1920, 1080))):
            make_sample(folder / "made.mp4", seconds=length_s, size=size)
            as_uploaded(folder / "made.mp4", target)
        repeat(video, long, 29)
        found: dict[str, object] = {}
        for name in (video, large):
            found[name.stem] = cost(name, clip)
        found["networks"] = throughput(load_detector(), MOST_AT_ONCE)
        found["cpu_bound_videos_per_s"] = cpu_bound(clip)
        found["service"] = sustained(clip, long)
        found["litserve"] = beside_the_peer(clip)
        if arguments.long:
            repeat(large, hour, 29)
            found[hour.stem] = cost(hour, clip)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
