"""How much the networks embed on their device, by batch size, beside what the device can do.

Operations are counted (`torch.utils.flop_counter`), and compared with what a large matrix product reaches; bytes that
cross to the device, with what a large copy reaches.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.crops import CROP_SIZE
from model.detector import LipSyncDetector
from model.engine import BATCH_FRAMES, Detector, Kind, halves
from model.media import GRID_FPS, SAMPLES_PER_FRAME
from model.temporal import FRAMES, TemporalDetector

BATCHES = (1, 2, 4, 8, 16, 32)
LEAST_S = 1.0
PRODUCT = 2048
COPIED_BYTES = 1 << 26

PIECES: dict[Kind, np.ndarray] = {
    "mouths": np.zeros((1, BATCH_FRAMES, CROP_SIZE, CROP_SIZE), np.uint8),
    "sound": np.zeros((1, BATCH_FRAMES * SAMPLES_PER_FRAME), np.float32),
    "sequences": np.zeros((1, FRAMES, CROP_SIZE, CROP_SIZE), np.uint8),
}
"""What a piece of a video is to each network."""


def throughput(detector: Detector, most: int) -> list[dict[str, float | str]]:
    """For each network and each batch size up to ``most``: pieces and windows of 1 s a second, and shares of limits."""
    torch.set_num_threads(1)  # as the service does
    device = torch.device(detector.info.device)
    operations_per_s, bytes_per_s = _operations_per_s(device), _bytes_per_s(device)
    print(
        f"{device}: {operations_per_s / 1e9:.0f} GFLOP/s in matrix products, {bytes_per_s / 1e9:.1f} GB/s copied there"
    )
    print(f"{'network':>10}{'batch':>7}{'pieces/s':>10}{'ms':>8}{'of GFLOP/s':>12}{'of GB/s':>9}")
    rows: list[dict[str, float | str]] = []
    for kind, piece in PIECES.items():
        operations = _operations(kind, piece)
        for size in (size for size in BATCHES if size <= most):
            batch = np.concatenate([piece] * size)
            took_s = _seconds(partial(detector.run, kind, batch))
            row = {
                "network": kind, "batch": size, "pieces_per_s": size / took_s, "ms": 1000 * took_s,
                "share_of_operations": size * operations / took_s / operations_per_s,
                "share_of_copying": batch.nbytes / took_s / bytes_per_s,
            }  # fmt: skip
            if kind == "mouths":
                row["windows_per_s"] = size * BATCH_FRAMES / GRID_FPS / took_s
            rows.append(row)
            shares = f"{row['share_of_operations']:12.1%}{row['share_of_copying']:9.1%}"
            print(f"{kind:>10}{size:7}{row['pieces_per_s']:10.1f}{row['ms']:8.1f}{shares}")
    return rows


def _operations(kind: Kind, piece: np.ndarray) -> int:
    """Multiplications and additions for one piece."""
    network, temporal, items = LipSyncDetector().eval(), TemporalDetector().eval(), torch.from_numpy(piece)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        if kind == "mouths":
            network.encode_video(items[:, :, None].float())
        elif kind == "sound":
            network.encode_audio(items[:, None])
        else:
            temporal(items)
    return counter.get_total_flops()


def _operations_per_s(device: torch.device) -> float:
    kind = torch.bfloat16 if halves(device) else torch.float32
    square = torch.ones(PRODUCT, PRODUCT, dtype=kind, device=device)
    return 2 * PRODUCT**3 / _seconds(lambda: _finished(square @ square))


def _bytes_per_s(device: torch.device) -> float:
    here = torch.ones(COPIED_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty_like(here, device=device)
    return COPIED_BYTES / _seconds(lambda: _finished(there.copy_(here)))


def _finished(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize()


def _seconds(work: Callable[[], object]) -> float:
    """Of one call, the mean over at least a second of them, after some that don't count."""
    for _ in range(3):
        work()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < LEAST_S:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls
