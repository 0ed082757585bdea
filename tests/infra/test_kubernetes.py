"""Kubernetes' manifests: the schema of each kind, and what they promise each other and the server."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from core.api import ENDPOINTS
from core.config import Settings
from core.web import PUBLIC
from handlers_onprem.workers import STOP_S
from tests.infra.documents import read_yaml
from tests.infra.tools import tool

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "kubernetes"
LABEL = {"app.kubernetes.io/name": "polysky"}
MANIFESTS = {name: read_yaml(FOLDER / name) for name in read_yaml(FOLDER / "kustomization.yaml")["resources"]}
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS.values()}
POD = BY_KIND["Deployment"]["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]


def valid(*files: Path) -> bool:
    """Tell whether files keep the schemas of their kinds, without a property too many."""
    line = [str(tool("kubernetes-validate")), "--strict", *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    # a kind without a schema is no error to it
    return done.returncode == 0 and (done.stdout + done.stderr).count("passed for resource") == len(files)


def test_every_manifest_keeps_the_schema_of_its_kind_and_is_in_the_kustomization() -> None:
    files = [file for file in sorted(FOLDER.glob("*.yaml")) if file.name != "kustomization.yaml"]
    assert {file.name for file in files} == set(MANIFESTS)
    assert valid(*files)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("deployment.yaml", "readinessProbe:", "readynessProbe:"),
        ("deployment.yaml", "containerPort: 8080", 'containerPort: "8080"'),
        ("deployment.yaml", "  selector:\n    matchLabels:\n      app.kubernetes.io/name: polysky\n", ""),
        ("service.yaml", "targetPort: http", "targetPort: [http]"),
        ("autoscaler.yaml", "minReplicas: 2", "minReplica: 2"),
        ("network-policy.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: Ingress"),
        ("storage.yaml", "accessModes: [ReadWriteMany]", "accessMode: [ReadWriteMany]"),
        ("disruption-budget.yaml", "policy/v1", "policy/v0"),
    ],
)
def test_one_broken_argument_is_noticed(tmp_path: Path, file: str, old: str, new: str) -> None:
    text = (FOLDER / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    assert not valid(tmp_path / file)


def test_all_kinds_of_the_stack_are_there() -> None:
    assert set(BY_KIND) == {
        "ServiceAccount",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }


def test_every_selector_finds_the_pods() -> None:
    assert POD["metadata"]["labels"] == LABEL
    spec = {kind: manifest.get("spec", {}) for kind, manifest in BY_KIND.items()}
    assert spec["Deployment"]["selector"]["matchLabels"] == LABEL
    assert spec["PodDisruptionBudget"]["selector"]["matchLabels"] == LABEL
    assert spec["NetworkPolicy"]["podSelector"]["matchLabels"] == LABEL
    assert spec["Service"]["selector"] == LABEL
    scaled = spec["HorizontalPodAutoscaler"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", BY_KIND["Deployment"]["metadata"]["name"])


def test_what_the_pods_refer_to_exists() -> None:
    names = {kind: manifest["metadata"]["name"] for kind, manifest in BY_KIND.items()}
    assert POD["spec"]["serviceAccountName"] == names["ServiceAccount"]
    assert [source["configMapRef"]["name"] for source in CONTAINER["envFrom"]] == [names["ConfigMap"]]
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert volumes["store"]["persistentVolumeClaim"]["claimName"] == names["PersistentVolumeClaim"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == set(volumes)


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_asks_an_endpoint_that_needs_no_token(probe: str) -> None:
    found = CONTAINER[probe]["httpGet"]
    public = {endpoint.path for endpoint in ENDPOINTS if endpoint.permission == PUBLIC}
    assert found["path"] in public
    assert found["port"] in {port["name"] for port in CONTAINER["ports"]}


def test_a_pod_that_cannot_predict_gets_no_requests_but_is_not_killed_for_it() -> None:
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/health/live"


def test_a_pod_that_is_to_end_answers_on_for_a_while_and_still_ends_by_itself() -> None:
    pause_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pause_s > 0
    assert pause_s + STOP_S + 3 < POD["spec"]["terminationGracePeriodSeconds"]


def test_an_upload_of_the_largest_size_finds_room() -> None:
    """A pod that writes more into a volume than its limit is ended."""
    (limit,) = (volume["emptyDir"]["sizeLimit"] for volume in POD["spec"]["volumes"] if volume["name"] == "tmp")
    assert int(limit.removesuffix("Gi")) << 30 > 2 * Settings().max_data_bytes


def test_the_ports_are_those_of_the_image() -> None:
    image = (FOLDER.parent / "docker" / "Dockerfile").read_text()
    exposed = re.findall(r"^EXPOSE (\d+)$", image, re.MULTILINE)
    assert [str(port["containerPort"]) for port in CONTAINER["ports"]] == exposed
    assert BY_KIND["Service"]["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    allowed = BY_KIND["NetworkPolicy"]["spec"]["ingress"][0]["ports"]
    assert [entry["port"] for entry in allowed] == [port["name"] for port in CONTAINER["ports"]]


def test_the_pods_run_as_the_images_user_without_any_power() -> None:
    image = (FOLDER.parent / "docker" / "Dockerfile").read_text()
    user = POD["spec"]["securityContext"]
    assert re.findall(r"^USER (\S+)$", image, re.MULTILINE) == [f"{user['runAsUser']}:{user['runAsGroup']}"]
    assert user["runAsNonRoot"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not POD["spec"]["automountServiceAccountToken"]
    assert not BY_KIND["ServiceAccount"]["automountServiceAccountToken"]


def test_what_the_autoscaler_measures_is_asked_for() -> None:
    metrics = BY_KIND["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert {metric["resource"]["name"] for metric in metrics} <= set(CONTAINER["resources"]["requests"])


def test_the_settings_are_settings() -> None:
    data: dict[str, Any] = BY_KIND["ConfigMap"]["data"]
    ours = {"POLYSKY_" + field.upper() for field in Settings._fields}
    assert set(data) <= ours | {"POLYSKY_WORKERS"}
    assert Settings.from_env(data).store == CONTAINER["volumeMounts"][0]["mountPath"]


def test_the_kustomization_names_the_release_of_the_image() -> None:
    found = read_yaml(FOLDER / "kustomization.yaml")
    version = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    assert found["images"] == [{"name": "polysky", "newTag": version}]
    assert found["namespace"]
    assert CONTAINER["image"] == f"polysky:{version}"
