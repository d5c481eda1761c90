"""Detector weights on disk: numbers only, as safetensors and JSON, so a foreign file can't run code.

A folder of weights has a ``manifest.json`` with a version and the SHA-256 of every file. ``python -m model.weights
FOLDER --version X`` writes one for a folder that was trained, or copied, on purpose.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from model.results import VERSION

MANIFEST, REFERENCE = "manifest.json", "reference.json"
SHOWN_DIGITS = 12
"""Of a SHA-256, where people read it."""


class WeightsError(RuntimeError):
    """Weights that can't be used. The message names the file and says why."""


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """Weights as they were sealed. ``files``: SHA-256 in hexadecimal, by file name."""

    path: Path
    version: str
    files: dict[str, str]

    @classmethod
    def open(cls, path: Path) -> "WeightsFolder":
        """Raises WeightsError without a manifest that can be read."""
        manifest = path / MANIFEST
        try:
            facts = json.loads(manifest.read_bytes())
            return cls(path, str(facts["version"]), dict(facts["files"]))
        except FileNotFoundError as error:
            raise WeightsError(f"{manifest}: there is none, so the weights can't be verified") from error
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{manifest}: it is no manifest of weights") from error

    def read(self, name: str) -> bytes:
        """The content of a file, verified. Raises WeightsError."""
        if name not in self.files:
            raise WeightsError(f"{self.path / MANIFEST}: it does not name {name}")
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise WeightsError(f"{self.path / name}: it is missing") from error
        found, known = hashlib.sha256(content).hexdigest(), self.files[name]
        if found != known:
            short = f"its SHA-256 begins {found[:SHOWN_DIGITS]}, not {known[:SHOWN_DIGITS]}"
            raise WeightsError(f"{self.path / name}: it is not the file that {MANIFEST} names: {short}")
        return content

    def fill(self, network: nn.Module, name: str) -> None:
        """Load a file into ``network``. Raises WeightsError, also when it is of another network."""
        content = self.read(name)
        try:
            fill(network, content)
        except WeightsError as error:
            raise WeightsError(f"{self.path / name}: {error}") from error

    def digest(self, name: str) -> str:
        """The start of a file's SHA-256."""
        return self.files[name][:SHOWN_DIGITS]


def seal(path: Path, version: str = VERSION) -> None:
    """Write the manifest of the weights that are in a folder now."""
    names = sorted(file.name for kind in ("*.safetensors", "*.json") for file in path.glob(kind))
    files = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names if name != MANIFEST}
    (path / MANIFEST).write_text(json.dumps({"version": version, "files": files}, indent=2) + "\n")


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of ``network``, in half precision."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    save_file(state, unfinished)
    unfinished.rename(path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill ``network`` from a file of one's own making. Raises FileNotFoundError, or WeightsError as `fill` does."""
    fill(network, path.read_bytes())


def fill(network: nn.Module, content: bytes) -> None:
    """Fill ``network`` from a safetensors file. Raises WeightsError when it is none, or of another network."""
    try:
        state: dict[str, torch.Tensor] = load(content)
    except SafetensorError as error:
        raise WeightsError(f"it is no safetensors file ({error})") from error
    floats = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    if not all(value.isfinite().all() for value in floats.values()):
        raise WeightsError("some of its numbers are not finite")
    try:
        network.load_state_dict(floats)
    except RuntimeError as error:
        raise WeightsError(f"it is of another network than {type(network).__name__}") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the manifest of a folder of weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", default=VERSION)
    arguments = parser.parse_args()
    seal(arguments.folder, arguments.version)
