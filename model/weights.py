"""Detector weights on disk: safetensors, which hold numbers only, so a foreign file can't run code."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def save_weights(detector: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of ``detector``, in half precision."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in detector.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    save_file(state, unfinished)
    unfinished.rename(path)


def load_weights(detector: nn.Module, path: Path) -> str:
    """Fill ``detector`` from ``path``. Returns the first 12 hex digits of the file's SHA-256.

    Raises FileNotFoundError, or RuntimeError when the file is of another network.
    """
    state: dict[str, torch.Tensor] = load_file(path)
    detector.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    return digest(path)


def digest(path: Path) -> str:
    """First 12 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
