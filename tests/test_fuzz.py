"""Damaged and hostile files over the socket: each is answered 200 or 4xx, and leaves nothing behind.

``make soak`` does the same for longer, and prints figures.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Live

from model.sample import make_sample
from scripts.mutate import bombs, mutated, posing_as_video

SEEDS = ("mp4", "mov", "mkv", "webm", "avi")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    for suffix in SEEDS:
        make_sample(folder / f"seed.{suffix}", seconds=0.6, size=(128, 152))
    return [(folder / f"seed.{suffix}").read_bytes() for suffix in SEEDS]


def test_damaged_files_are_answered(live: Live, seeds: list[bytes]):
    rng = np.random.default_rng(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        response = live.analyze(mutated(seeds, rng))
        assert response.status_code in (200, 413, 415, 422), response.text
        assert (response.status_code == 200) == ("verdict" in response.json())
    assert live.get("/healthz").status_code == 200
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_files_that_pose_as_video_are_refused(live: Live, tmp_path: Path):
    for name, content in posing_as_video(tmp_path).items():
        response = live.analyze(content)
        assert response.status_code in (415, 422), (name, response.text)


def test_bombs_are_defused(live: Live, tmp_path: Path):
    for name, content in bombs(tmp_path).items():
        response = live.analyze(content)
        assert response.status_code in (200, 422), (name, response.text)
    assert live.get("/healthz").status_code == 200


def test_the_service_does_what_its_document_says(live: Live, tmp_path: Path):
    """Schemathesis makes requests out of the OpenAPI document, right ones and wrong ones.

    It takes any bytes for a video, so that it can't say which requests ought to succeed.
    """
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{live.url}/openapi.json", "--max-examples", "40",
        "--exclude-checks", "positive_data_acceptance", "--seed", "1", "--no-color", "--generation-database", "none",
    ]  # fmt: skip
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"[1-9]\d* generated, [1-9]\d* passed", run.stdout), run.stdout
