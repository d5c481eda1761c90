"""What is shipped for operators says what the service is like, and is what Kubernetes and Compose take."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.main import ROUTERS
from app.settings import Settings

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted((KUBERNETES / "base").glob("[!k]*.yaml"))


class ComposeLoader(yaml.SafeLoader):
    """Knows Compose's own tags."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)


def documents(path: Path) -> list[dict[str, Any]]:
    """The parts of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def containers() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, pod and container of each workload."""
    found = []
    for path in MANIFESTS:
        for one in documents(path):
            if one["kind"] in ("Deployment", "StatefulSet"):
                pod = one["spec"]["template"]["spec"]
                found += [(one["metadata"]["name"], pod, container) for container in pod["containers"]]
    return found


def output_of(*command: str) -> str:
    """What a command prints; fails with what it complains of."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_the_manifests(path: Path):
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        validate.validate(document, "1.33", strict=True)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is what lays an overlay over the base")
@pytest.mark.parametrize(("overlay", "gpus"), [("cpu", None), ("gpu", "1")])
def test_kubernetes_takes_what_an_overlay_makes_of_them(overlay: str, gpus: str | None):
    validate = pytest.importorskip("kubernetes_validate")
    made = list(yaml.safe_load_all(output_of("kubectl", "kustomize", str(KUBERNETES / overlay))))
    assert len(made) == sum(len(documents(path)) for path in MANIFESTS)
    for document in made:
        validate.validate(document, "1.33", strict=True)
        assert document["metadata"]["namespace"] == "lipsync"
    (analyze,) = (one for one in made if one["kind"] == "Deployment")
    (container,) = analyze["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == gpus
    assert {one["name"] for one in container["env"]} >= {"LIPSYNC_GRACE_S", "LIPSYNC_KEYS_FILE"}


def test_a_wrong_manifest_would_be_noticed():
    validate = pytest.importorskip("kubernetes_validate")
    (deployment, *_) = documents(KUBERNETES / "base" / "analyze.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["readyness"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(deployment, "1.33", strict=True)


def test_workloads_are_what_the_image_is():
    settings = {
        field.validation_alias or f"{Settings.model_config['env_prefix']}{name}".upper()
        for name, field in Settings.model_fields.items()
    }
    addresses = {route.path for router in ROUTERS for route in router.routes}
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, pod, container in containers():
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert set(environment) <= settings, name
        assert {
            container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        } <= (addresses)
        assert container["ports"][0]["containerPort"] == 8000 and "EXPOSE 8000" in dockerfile
        assert pod["securityContext"]["runAsUser"] == int(re.search(r"USER (\d+)", dockerfile)[1])
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["terminationGracePeriodSeconds"] > float(environment["LIPSYNC_GRACE_S"])
        Settings.model_validate({"grace_s": environment["LIPSYNC_GRACE_S"]})
        mounted = {one["mountPath"] for one in container["volumeMounts"]}
        assert "/tmp" in mounted and ("/data" in mounted or environment["LIPSYNC_KEEP_RESULTS_S"] == "0")


def test_scaling_and_routing_name_what_there_is():
    everything = [one for path in MANIFESTS for one in documents(path)]
    names = {(one["kind"], one["metadata"]["name"]) for one in everything}
    addresses = {route.path for router in ROUTERS for route in router.routes} | {"/openapi.json"}
    for one in everything:
        if one["kind"] == "Ingress":
            for path in one["spec"]["rules"][0]["http"]["paths"]:
                assert ("Service", path["backend"]["service"]["name"]) in names
                assert any(address.startswith(path["path"]) for address in addresses), path
        if one["kind"] == "HorizontalPodAutoscaler":
            metric = one["spec"]["metrics"][0]["pods"]["metric"]["name"]
            assert f'"{metric}"' in (ROOT / "app" / "gauges.py").read_text()
            assert metric in (KUBERNETES / "metrics-adapter.yaml").read_text()
            assert ("Deployment", one["spec"]["scaleTargetRef"]["name"]) in names
    for overlay in ("cpu", "gpu"):
        folder = KUBERNETES / overlay
        (kustomization,) = documents(folder / "kustomization.yaml")
        assert all((folder / name).exists() for name in kustomization["resources"])
        for patch in kustomization.get("patches", ()):
            assert (folder / patch["path"]).exists()
            assert (patch["target"]["kind"], patch["target"]["name"]) in names


def test_compose_files_agree_with_the_image_and_the_files_there_are():
    compose = yaml.load((ROOT / "docker-compose.yml").read_text(), ComposeLoader)
    over = yaml.load((ROOT / "docker-compose.cpu.yml").read_text(), ComposeLoader)
    assert set(over["services"]) <= set(compose["services"])
    assert over["services"]["lipsync"]["deploy"] is None
    dockerfile = (ROOT / "Dockerfile").read_text()
    for argument in over["services"]["lipsync"]["build"]["args"]:
        assert f"ARG {argument}=" in dockerfile
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
        assert name == "lipsync" or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is what reads its files")
def test_compose_takes_its_file():
    services = yaml.safe_load(output_of("docker-compose", "--file", "docker-compose.yml", "config"))["services"]
    (device,) = services["lipsync"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["count"] == 1
    assert [name for name, service in services.items() if "profiles" not in service] == ["lipsync"]


def test_what_the_image_is_made_of_is_locked():
    for name in ("requirements.txt", "requirements-cuda.txt", "requirements-test.txt"):
        for line in re.split(r"\n(?=\w)", (ROOT / name).read_text())[1:]:
            assert re.match(r"[\w.-]+(\[\w+\])?==", line) and "--hash=sha256:" in line, line
        assert "://" not in (ROOT / name).read_text()
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "torch==2.13.0" in (ROOT / "requirements-cuda.txt").read_text() and "torch==2.13.0" in dockerfile
