"""Several models side by side: which one judges, what is said of it, and one that scores in the shadow of another."""

import asyncio
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import open_files, running, wait_for
from pydantic import ValidationError
from standin import ANALYSIS, INFO, assert_problem

from app.client import Client, ServiceError
from app.main import create_app
from app.problems import Problem
from app.schemas import AnalysisResponse
from app.settings import Allowance, Settings, explain
from app.shadow import Shadow
from model import Analysis
from model.engine import WEIGHTS
from model.results import VERSION
from model.weights import seal


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose rule calls nearly everything fake."""
    folder = tmp_path_factory.mktemp("models") / "candidate"
    shutil.copytree(WEIGHTS, folder)
    rule = json.loads((folder / "verdict.json").read_text())
    rule["fine"]["whole"]["bias"] += 9.0
    (folder / "verdict.json").write_text(json.dumps(rule))
    seal(folder, "9.9.9")
    return folder


def test_requests_choose_a_model_by_name(
    candidate: Path, talk: Callable[[int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    settings = Settings(
        port=0, temp_dir=tmp_path, device="cpu", keep_results_s=0, max_concurrent=2,
        models={"candidate": candidate}, shadow_model="candidate",
    )  # fmt: skip
    caplog.set_level(logging.INFO, "app")
    video = talk(0)
    with running(create_app(settings)) as live, Client(live.url) as client:
        wait_for(lambda: live.get("/healthz").status_code == 200, seconds=60)
        health = client.health()
        assert [(one.alias, one.version) for one in health.models] == [("default", VERSION), ("candidate", "9.9.9")]

        usual, other = client.analyze(video), client.analyze(video, model="candidate")
        assert (usual.model.alias, other.model.alias) == ("default", "candidate")
        assert usual.model.weights["lipsync.safetensors"] == other.model.weights["lipsync.safetensors"]
        assert usual.model.weights["verdict.json"] != other.model.weights["verdict.json"]
        assert usual.windows[0].offset_ms == other.windows[0].offset_ms
        assert usual.fake_probability < 0.9 < other.fake_probability

        job = client.wait(client.submit(video, model="candidate").job_id)
        assert job.result.model.alias == "candidate"
        assert job.result.fake_probability == other.fake_probability

        for ask in (client.analyze, client.submit):
            with pytest.raises(ServiceError) as refused:
                ask(video, model="newest")
            assert refused.value.code == "unknown_model"
            assert "default, candidate" in refused.value.detail
        wait_for(lambda: shadows(caplog), seconds=30)
    (line,) = shadows(caplog)
    difference = other.fake_probability - usual.fake_probability
    assert line.startswith("shadow candidate 9.9.9: ")
    assert f"where default {VERSION} said {usual.verdict} at {usual.fake_probability:.4f}" in line
    assert line.endswith(f"difference {difference:+.4f}")


def shadows(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the shadow said."""
    return [record.getMessage() for record in caplog.records if record.name == "app.shadow"]


class Workers:
    """A pool whose second model takes as long as it is told, and then cannot decode the video."""

    def __init__(self) -> None:
        self.models, self.has_time = {"default": INFO, "candidate": INFO}, True
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def analyze(self, model: str, path: str, options: dict, allowance: Allowance) -> Analysis:
        self.asked.append(Path(path).read_text())
        await self.go_on.wait()
        raise Problem("decoder_crashed")


def test_a_shadow_takes_what_it_has_time_for_and_keeps_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    video, allowance = tmp_path / "video", Settings().allowance
    video.write_text("first")
    answers = {alias: AnalysisResponse.of(ANALYSIS, alias, INFO, "7") for alias in ("default", "candidate")}

    async def shadowed() -> Workers:
        workers, shadow = Workers(), Shadow("candidate")

        def offer(alias: str = "default") -> None:
            shadow.offer(workers, str(video), {}, allowance, answers[alias])

        running = asyncio.create_task(shadow.run())
        offer("candidate")
        workers.has_time = False
        offer()
        workers.has_time = True
        offer()
        video.unlink()
        video.write_text("second")
        offer()
        while not workers.asked:
            await asyncio.sleep(0.01)
        workers.go_on.set()
        while open_files(tmp_path, os.getpid()):
            await asyncio.sleep(0.01)
        offer()
        while len(workers.asked) < 2:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        return workers

    assert asyncio.run(shadowed()).asked == ["first", "second"]
    assert not open_files(tmp_path, os.getpid())
    assert shadows(caplog)[0].startswith("shadow candidate failed where default did not: decoder_crashed")


def test_a_shadow_that_is_no_model_is_a_wrong_setting(tmp_path: Path):
    with pytest.raises(ValidationError) as wrong:
        Settings(temp_dir=tmp_path, shadow_model="candidate")
    assert explain(wrong.value) == "The settings are wrong:\nLIPSYNC_SHADOW_MODEL must be one of the models"
    with pytest.raises(ValidationError) as wrong:
        Settings(temp_dir=tmp_path, models={"../x": tmp_path})
    assert "LIPSYNC_MODELS" in explain(wrong.value)


def test_weights_that_are_refused_stop_the_service_from_getting_ready(
    candidate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "spoilt"
    shutil.copytree(candidate, folder)
    (folder / "temporal.safetensors").write_bytes(b"x")
    with running(create_app(Settings(port=0, temp_dir=tmp_path, device="cpu", models={"next": folder}))) as live:
        wait_for(lambda: live.get("/healthz").json()["code"] == "load_failed", seconds=60)
        assert_problem(live.get("/healthz"), 503, "load_failed")
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"the weights are refused: {folder}/temporal.safetensors: it is not the file")
