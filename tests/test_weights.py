"""Weights are what their manifest says, or refused."""

import shutil
from pathlib import Path

import pytest
import torch

from model.detector import LipSyncDetector
from model.engine import WEIGHTS, load_detector
from model.results import VERSION
from model.seed_detector import SeedLipSyncDetector
from model.temporal import TemporalDetector
from model.weights import WeightsError, WeightsFolder, load_weights, save_weights, seal


def test_weights_survive_a_round_trip_and_foreign_ones_are_refused(tmp_path):
    detector = LipSyncDetector()
    save_weights(detector, tmp_path / "a.safetensors")
    again = LipSyncDetector()
    load_weights(again, tmp_path / "a.safetensors")
    assert torch.allclose(again.video.stem.weight, detector.video.stem.weight, atol=1e-3)
    with pytest.raises(WeightsError, match="another network than SeedLipSyncDetector"):
        load_weights(SeedLipSyncDetector(), tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError):
        load_weights(again, tmp_path / "none.safetensors")


def test_the_shipped_weights_are_the_sealed_ones():
    folder = WeightsFolder.open(WEIGHTS)
    assert folder.version == VERSION
    assert {file.name for kind in ("*.safetensors", "*.json") for file in WEIGHTS.glob(kind)} == {
        *folder.files, "manifest.json",
    }  # fmt: skip
    for name in folder.files:
        folder.read(name)


class Bomb:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def foreign(kind: str, folder: Path) -> str:
    """Spoil a folder of weights; returns what must be said of it."""
    file = folder / "temporal.safetensors"
    if kind == "none":
        (folder / "manifest.json").unlink()
        return "manifest.json: there is none"
    if kind == "no manifest":
        (folder / "manifest.json").write_text("[]")
        return "manifest.json: it is no manifest"
    if kind == "missing":
        file.unlink()
        return "temporal.safetensors: it is missing"
    if kind == "another":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        return "temporal.safetensors: it is not the file that manifest.json names"
    if kind == "unnamed":
        file.rename(folder / "other.safetensors")
        seal(folder)
        return "it does not name temporal.safetensors"
    said = {
        "pickle": "temporal.safetensors: it is no safetensors file",
        "network": "temporal.safetensors: it is of another network than TemporalDetector",
        "numbers": "temporal.safetensors: some of its numbers are not finite",
        "rule": "verdict.json: it is no verdict rule",
    }
    if kind == "pickle":
        torch.save(Bomb(folder / "exploded"), file)
    elif kind == "network":
        save_weights(SeedLipSyncDetector(), file)
    elif kind == "numbers":
        network = TemporalDetector()
        next(network.parameters()).data.fill_(float("inf"))
        save_weights(network, file)
    else:
        (folder / "verdict.json").write_text("{}")
    seal(folder)
    return said[kind]


@pytest.mark.parametrize(
    "kind", ["none", "no manifest", "missing", "another", "unnamed", "pickle", "network", "numbers", "rule"]
)
def test_weights_that_are_not_what_they_should_be_are_refused_and_never_unpickled(tmp_path: Path, kind: str):
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    said = foreign(kind, folder)
    with pytest.raises(WeightsError) as refused:
        load_detector("cpu", folder)
    assert said in str(refused.value)
    assert str(folder) in str(refused.value)
    assert not (folder / "exploded").exists()
