"""The cluster: what is retried, told once, and sized; and its manifest. ``make cluster`` tries it for real."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import yaml
from standin import ANALYSIS

from app.problems import Problem
from app.settings import Settings
from model.errors import NotMedia
from model.progress import Progress
from model.results import Window
from scripts.sizing import Cost, fleet

MANIFEST = Path(__file__).parent.parent / "deploy" / "ray" / "rayservice.yaml"

SPEC = {"serveConfigV2", "rayClusterConfig", "serveService", "upgradeStrategy", "rayClusterDeletionDelaySeconds"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
HEAD = {"rayStartParams", "template", "serviceType", "headService", "enableIngress"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"}
"""Fields of KubeRay's API, ray.io/v1 (ray-operator/apis/ray/v1 of github.com/ray-project/kuberay)."""


def test_the_manifest_has_only_fields_that_kuberay_knows():
    validate = pytest.importorskip("kubernetes_validate")
    service = yaml.safe_load(MANIFEST.read_text())
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(service["spec"]) <= SPEC
    cluster = service["spec"]["rayClusterConfig"]
    assert set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD and {"rayStartParams", "template"} <= set(cluster["headGroupSpec"])
    pin = next(line for line in (MANIFEST.parents[2] / "requirements-cluster.txt").open() if line.startswith("ray=="))
    assert cluster["rayVersion"] == pin.split()[0].removeprefix("ray==")
    names = {f"LIPSYNC_{name}".upper() for name in Settings.model_fields}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group is cluster["headGroupSpec"] or set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        validate.validate(pod, "1.33", strict=True)
        given = {one["name"] for one in pod["spec"]["containers"][0]["env"]}
        assert {name for name in given if name.startswith("LIPSYNC")} <= names


def test_serve_takes_the_configuration():
    schema = pytest.importorskip("ray.serve.schema")
    service = yaml.safe_load(MANIFEST.read_text())
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    deployments = __import__(module, fromlist=[name])
    getattr(deployments, name)(application.args)


class Decoders:
    """They answer in turn: with messages, or by being lost."""

    def __init__(self, *turns: list) -> None:
        self.turns = list(turns)
        self.ended = 0

    async def __call__(self, *what: Any) -> AsyncGenerator:
        try:
            for message in self.turns.pop(0):
                if isinstance(message, Exception):
                    raise message
                yield message
        finally:
            self.ended += 1


def analyze(decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Any = None) -> Any:
    """By a pool of these decoders."""
    pool = pytest.importorskip("app.cluster.pool", reason="needs the extra 'cluster'")
    monkeypatch.setattr(pool, "_in_pieces", lambda path: [])
    monkeypatch.setattr(pool, "PAUSE_S", 0.0)
    remote = pool.RemotePool({}, decoders, Settings(temp_dir=tmp_path))
    try:
        return asyncio.run(remote.analyze("default", "video", {}, Settings().allowance, follow))
    finally:
        assert remote.running == remote.waiting == 0


LOST = ConnectionError("lost")


def test_another_decoder_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decoders = Decoders([LOST], [("tell", None), LOST], [("done", ANALYSIS)])
    assert analyze(decoders, tmp_path, monkeypatch) == ANALYSIS
    assert decoders.ended == 3


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        (("refused", NotMedia("no")), NotMedia, "no"),
        (("problem", ("decoder_crashed", "again")), Problem, "decoder_crashed: again"),
    ],
)
def test_a_video_that_is_refused_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: tuple, error: type, said: str
):
    decoders = Decoders([message], [("done", ANALYSIS)])
    with pytest.raises(error, match=said):
        analyze(decoders, tmp_path, monkeypatch)
    assert decoders.ended == 1


def test_in_the_end_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Problem, match="busy"):
        analyze(Decoders(*[[LOST]] * 9), tmp_path, monkeypatch)


def test_progress_goes_onwards_and_no_window_is_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    windows = tuple(Window(0, at, at + 1, None, None, None, None, True, "no_speech") for at in range(4))
    half, start = Progress("watching", 2, 4, 0.5), Progress("listening", 1, 4, 0.1)
    told: list = []
    decoders = Decoders(
        [("tell", start), ("tell", windows[:2]), ("tell", half), LOST],
        [("tell", start), ("tell", windows[:1]), ("tell", windows[1:3]), LOST],
        [("tell", windows), ("done", ANALYSIS)],
    )
    analyze(decoders, tmp_path, monkeypatch, told.append)
    shares = [one.share for one in told if isinstance(one, Progress)]
    assert shares == sorted(shares) and shares[-1] == 0.5
    assert tuple(window for one in told if isinstance(one, tuple) for window in one) == windows


def test_a_fleet_has_what_the_busiest_time_takes():
    need = fleet(Cost(0.1, 0.02), videos_per_day=86_400, seconds=10, megabytes=1, peak=2, busy=0.5)
    assert (need.cores, need.decoding_cores) == (4, 4)
    assert need.uploads_mbit_s == pytest.approx(16)
