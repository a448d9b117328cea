"""The manifests: what they set is what the service takes, and it starts with that."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from course_service.__main__ import COMMANDS
from course_service.exposure import check_exposure
from course_service.settings import Settings
from tests.conftest import ROOT


def pods_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = manifest.get("spec", {})
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    return [spec["template"]["spec"]] if "template" in spec else []


FOLDER = ROOT / "deploy" / "kubernetes"
MANIFESTS: list[dict[str, Any]] = [
    manifest for path in sorted(FOLDER.glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())
]
PODS = [pod for manifest in MANIFESTS for pod in pods_of(manifest)]
(DEPLOYMENT,) = (each for each in MANIFESTS if each["kind"] == "Deployment")
(POD,) = pods_of(DEPLOYMENT)
(SERVICE,) = POD["containers"]


def settings_of(container: dict[str, Any]) -> dict[str, str]:
    secret = {"COURSE_DATABASE_URL": "postgresql://course:secret@db/course"}
    return {each["name"]: each.get("value", secret.get(each["name"], "")) for each in container["env"]}


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_what_a_manifest_sets_is_a_setting_and_starts(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    given = settings_of(container)
    assert all(name.startswith("COURSE_") for name in given)
    settings = Settings.model_validate({name.removeprefix("COURSE_").lower(): value for name, value in given.items()})
    check_exposure(settings)


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_a_pod_has_no_rights(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # they look like settings
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= container["resources"].keys()


def test_jobs_run_commands_that_there_are() -> None:
    commands = {pod["containers"][0]["command"][-1]: pod["containers"][0]["command"] for pod in PODS if pod is not POD}
    assert commands == {name: ["python", "-m", "course_service", name] for name in ("migrate", "purge")}
    assert commands.keys() <= COMMANDS.keys()


def test_ports_and_files_are_those_that_the_settings_name() -> None:
    settings = settings_of(SERVICE)
    ports = {port["containerPort"] for port in SERVICE["ports"]}
    assert ports == {int(value.rpartition(":")[2]) for name, value in settings.items() if name.endswith("_ADDRESS")}
    health = int(settings["COURSE_HEALTH_ADDRESS"].rpartition(":")[2])
    assert {SERVICE[f"{probe}Probe"]["grpc"]["port"] for probe in ("startup", "liveness", "readiness")} == {health}
    mounts = {mount["mountPath"] for mount in SERVICE["volumeMounts"]}
    files = {value for name, value in settings.items() if name.endswith("_FILE")}
    assert {str(Path(file).parent) for file in files} == mounts
    assert {volume["name"] for volume in POD["volumes"]} == {mount["name"] for mount in SERVICE["volumeMounts"]}
    for volume in POD["volumes"]:  # a key that everybody may read is refused
        assert "secret" not in volume or volume["secret"]["defaultMode"] == 0o440


def test_a_pod_has_the_time_that_a_stop_takes() -> None:
    drain = float(settings_of(SERVICE)["COURSE_DRAIN_SECONDS"])
    assert POD["terminationGracePeriodSeconds"] > drain + 2 * 10
    assert DEPLOYMENT["spec"]["minReadySeconds"] >= 10  # callers are back before the next one stops
    assert DEPLOYMENT["spec"]["replicas"] == 3
    (budget,) = (each for each in MANIFESTS if each["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["minAvailable"] == 2
