"""What an analysis costs, measured on made videos: ``python scripts/benchmark.py [--long]``.

Prints CPU seconds and wall seconds per second of one-face 360p video, with torch on one thread and by stage;
the time from start of the service to ready; and with ``--long`` the peak memory of a process that analyses
10 minutes of 1080p.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import av

from model.sample import make_sample

ROOT = Path(__file__).parent.parent
PORT = 8765
PAUSE_S = 0.1  # between repetitions, for what encoders write before time zero

ANALYSE = """
from model import analyze, load_detector
import resource, sys, time, torch
torch.set_num_threads(1)
detector = load_detector()
idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
analyze(sys.argv[2], detector)
cpu, wall = time.process_time(), time.perf_counter()
answer = analyze(sys.argv[1], detector)
cpu, wall, length = time.process_time() - cpu, time.perf_counter() - wall, answer.media.duration_s
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stages = ", ".join(f"{k} {getattr(answer.timing_ms, k) / 1000 / length:.4f}" for k in ("media", "faces", "detector"))
print(f"  CPU s per s of video    {cpu / length:.4f}")
print(f"  wall s per s of video   {wall / length:.4f}  ({stages})")
print(f"  peak memory, MB         {peak / 1024:.0f}  (idle {idle / 1024:.0f})")
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


def analyse(video: Path, warm_up: Path) -> None:
    """Analyse one file in a process of its own and print what it took."""
    subprocess.run([sys.executable, "-c", ANALYSE, str(video), str(warm_up)], cwd=ROOT, check=True)


def start_up_s() -> float:
    """Seconds from starting the service to ``/healthz`` answering 200."""
    began = time.perf_counter()
    environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(PORT)}
    service = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - began < 120:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=1)
                return time.perf_counter() - began
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.05)
        raise TimeoutError("the service did not get ready within two minutes")
    finally:
        service.terminate()
        service.wait()


def main() -> None:
    """Command line: see ``--help``."""
    parser = argparse.ArgumentParser(description="Measure what an analysis costs.")
    parser.add_argument("--long", action="store_true", help="also 10 minutes of 1080p")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "360p.mp4"
        make_sample(short, seconds=20, size=(640, 360))
        print("20 s of 360p, one face, torch on one thread")
        analyse(short, short)
        print(f"start of the service to ready, s  {start_up_s():.1f}")
        if arguments.long:
            part, long = Path(folder) / "part.mp4", Path(folder) / "1080p.mp4"
            make_sample(part, seconds=20, size=(1920, 1080))
            repeat(part, long, 30)
            print("600 s of 1080p, one face, torch on one thread")
            analyse(long, short)


if __name__ == "__main__":
    main()
