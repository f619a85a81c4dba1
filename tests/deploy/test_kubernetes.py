"""The manifests, as Kustomize puts them together, against the schemas of Kubernetes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import triptych
from triptych.cli.serve import OPTIONS

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "k8s"
VERSIONS = ("1.32", "1.37")


def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    return [
        document for name in listed for document in yaml.safe_load_all((FOLDER / name).read_text())
    ]


def named(kind: str, name: str = "triptych") -> dict[str, Any]:
    (found,) = (
        one for one in documents() if one["kind"] == kind and one["metadata"]["name"] == name
    )
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents():
        if document["kind"] in ("StatefulSet", "Deployment"):
            yield document["metadata"]["name"], document["spec"]["template"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_keeps_the_schema(version: str) -> None:
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    document = named("HorizontalPodAutoscaler", "triptych-more")
    document["spec"]["maxReplica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_every_file_is_listed() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl here")
def test_kustomize_builds_it() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(documents())
    for document in built:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == "triptych"
    assert f"image: triptych:{triptych.__version__}" in done.stdout
    assert "image: triptych\n" not in done.stdout


@pytest.mark.parametrize("name", ["triptych-more", "triptych-readers"])
def test_it_scales_at_seventy_percent(name: str) -> None:
    spec = named("HorizontalPodAutoscaler", name)["spec"]
    (metric,) = spec["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    target = named("Deployment", spec["scaleTargetRef"]["name"])
    # a share of what was asked for: without a request there is nothing to take it of
    (container,) = target["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"]
    assert "replicas" not in target["spec"], "the autoscaler's number, not ours"


def test_one_pod_owns_the_disk_and_the_others_share_its_node() -> None:
    first, more = named("StatefulSet"), named("Deployment", "triptych-more")
    assert first["spec"]["replicas"] == 1
    (claim,) = first["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]  # of a node; OncePod would shut out
    name = f"{claim['metadata']['name']}-{first['metadata']['name']}-0"
    volumes = {one["name"]: one for one in more["spec"]["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == name
    for document in (first, more):
        template = document["spec"]["template"]
        (rule,) = template["spec"]["affinity"]["podAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        wanted = rule["labelSelector"]["matchLabels"]
        labels = {**template["metadata"]["labels"], "app.kubernetes.io/name": "triptych"}
        assert wanted.items() <= labels.items()  # its own too, or the first could not start


def test_both_kinds_of_pod_are_the_same_but_for_the_disk() -> None:
    first = named("StatefulSet")["spec"]["template"]["spec"]
    more = named("Deployment", "triptych-more")["spec"]["template"]["spec"]
    more["volumes"] = [one for one in more["volumes"] if one["name"] != "data"]
    assert first == more


def test_readers_follow_the_writer_from_any_node_and_disk() -> None:
    first = named("StatefulSet")["spec"]["template"]["spec"]
    template = named("Deployment", "triptych-readers")["spec"]["template"]
    assert "affinity" not in template["spec"]
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    assert "emptyDir" in volumes["data"]
    (container,), (writer,) = template["spec"]["containers"], first["containers"]
    said = {one["name"]: one for one in container["env"]}
    assert said["TRIPTYCH_FOLLOW"]["value"] == f"http://{named('Service')['metadata']['name']}"
    assert said["TRIPTYCH_FOLLOW_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "triptych-follow"
    same = ("image", "ports", "readinessProbe", "livenessProbe", "securityContext", "volumeMounts")
    assert [container[name] for name in same] == [writer[name] for name in same]
    own = {"app.kubernetes.io/component": "reader"}
    assert template["metadata"]["labels"] == own  # else they would get writes
    assert named("Service", "triptych-read")["spec"]["selector"] == own
    policy = named("NetworkPolicy", "triptych-readers")["spec"]
    assert policy["podSelector"]["matchLabels"] == own
    assert policy["egress"][0]["ports"] == [{"port": writer["ports"][0]["containerPort"]}]


def test_health_is_asked_where_it_is_told() -> None:
    (container,) = named("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")}
    assert probes["liveness"] == {"path": "/livez", "port": "http"}
    assert probes["readiness"] == {"path": "/readyz", "port": "http"}
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    grace = named("StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > container["lifecycle"]["preStop"]["sleep"]["seconds"] + 30  # it drains so long


def test_no_pod_may_do_more_than_it_must() -> None:
    for name, template in pods():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert not container["image"].endswith(":latest")


def test_the_variables_of_the_service_are_not_taken_for_ours() -> None:
    # of a Service triptych Kubernetes would make TRIPTYCH_PORT=tcp://10.0.0.1:80
    assert f"{named('Service')['metadata']['name'].upper()}_PORT" in {
        option.variable for option in OPTIONS
    }
    servers = [template for name, template in pods() if name != "triptych-redis"]
    assert [one["spec"]["enableServiceLinks"] for one in servers] == [False] * 3


def test_selectors_find_the_pods_they_are_for() -> None:
    labels = {name: template["metadata"]["labels"] for name, template in pods()}
    servers = {"app.kubernetes.io/component": "server"}
    assert named("Service")["spec"]["selector"] == servers
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == servers
    assert named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == servers
    assert [name for name, own in labels.items() if servers.items() <= own.items()] == [
        "triptych",
        "triptych-more",
    ]
    for document in documents():
        if document["kind"] in ("StatefulSet", "Deployment"):
            spec = document["spec"]
            wanted = spec["selector"]["matchLabels"].items()
            assert wanted <= spec["template"]["metadata"]["labels"].items()


def test_keys_come_from_a_secret_and_stand_in_no_manifest() -> None:
    spec = named("StatefulSet")["spec"]["template"]["spec"]
    (keys,) = (one for one in spec["volumes"] if one["name"] == "keys")
    assert keys["secret"]["secretName"] == "triptych-keys"
    assert not [one for one in documents() if one["kind"] == "Secret"]


def test_variables_are_those_that_the_server_knows() -> None:
    known = {option.variable for option in OPTIONS} | {"TRIPTYCH_API_KEY"}
    for path in FOLDER.parent.parent.rglob("*.yaml"):
        if "deploy" in path.parts:
            assert set(re.findall(r"TRIPTYCH_[A-Z_]+", path.read_text())) <= known
