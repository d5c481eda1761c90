"""How many processors, GPUs and bytes a stream of videos takes, from what `make bench` measured on a machine.

Run: ``python -m scripts.sizing --videos-per-day 1000000 --seconds 30``; by default with the figures of
docs/cluster.md, or with ``--bench build/bench.json`` with those of the machine where that was written.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one processor that a second of video takes: all of it, and the networks' part."""

    cpu_s_per_s: float
    networks_s_per_s: float


COSTS = {"360p": Cost(0.136, 0.019), "1080p": Cost(0.377, 0.019)}
"""By `make bench`, on two cores of a processor with matrix units."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """``cores`` with the networks on them; ``decoding_cores`` with them on GPUs. ``uploads_mbit_s`` comes in."""

    cores: int
    decoding_cores: int
    workers_gb: float
    uploads_mbit_s: float


WORKER_GB = 0.3
"""Resident memory of a worker, its share of what all share not counted."""


def fleet(cost: Cost, videos_per_day: float, seconds: float, megabytes: float, peak: float, busy: float) -> Fleet:
    """What is needed at the busiest time, ``peak`` times the day's mean, with processors ``busy`` of the time."""
    video_s_per_s = peak * videos_per_day * seconds / DAY_S
    cores = math.ceil(video_s_per_s * cost.cpu_s_per_s / busy)
    decoding = math.ceil(video_s_per_s * (cost.cpu_s_per_s - cost.networks_s_per_s) / busy)
    return Fleet(cores, decoding, cores * WORKER_GB, peak * videos_per_day * megabytes * 8 / DAY_S)


def measured(path: Path) -> dict[str, Cost]:
    """What `make bench` wrote."""
    found = json.loads(path.read_text())
    return {
        size: Cost(found[size]["rows"]["whole analysis"]["cpu_s_per_s"], found[size]["stages"]["detector"])
        for size in ("360p", "1080p")
    }


def main() -> None:
    """Print a row for each size of picture."""
    parser = argparse.ArgumentParser(description="Size a fleet.")
    parser.add_argument("--videos-per-day", type=float, default=1e6)
    parser.add_argument("--seconds", type=float, default=30.0, help="mean length of a video")
    parser.add_argument("--megabytes", type=float, default=8.0, help="mean size of a video")
    parser.add_argument("--peak", type=float, default=2.5, help="busiest time over the day's mean")
    parser.add_argument("--busy", type=float, default=0.7, help="share of the time that processors are to be busy")
    parser.add_argument("--bench", type=Path, help="build/bench.json of your own machine")
    given = parser.parse_args()
    costs = measured(given.bench) if given.bench else COSTS
    for size, cost in costs.items():
        need = fleet(cost, given.videos_per_day, given.seconds, given.megabytes, given.peak, given.busy)
        print(
            f"{size}: {need.cores} cores with the networks on them, or {need.decoding_cores} and GPUs; "
            f"{need.workers_gb:.0f} GB of memory for workers; {need.uploads_mbit_s:.0f} Mbit/s of uploads"
        )


if __name__ == "__main__":
    main()
