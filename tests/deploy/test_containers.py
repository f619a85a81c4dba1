"""The Dockerfiles and the compose file: their fields, their files, and what they promise."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import yaml

import triptych
from tests.client.serving import served
from triptych.cli.serve import OPTIONS

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = [ROOT / "deploy/docker/Dockerfile", ROOT / "deploy/docker/Dockerfile.gpu"]

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
NAMED = {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}


def exactly(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "additionalProperties": False}


SERVICE = exactly(
    build=exactly(context=TEXT, dockerfile=TEXT),
    image=TEXT,
    command=TEXTS,
    environment=NAMED,
    ports=TEXTS,
    volumes=TEXTS,
    tmpfs=TEXTS,
    user=TEXT,
    read_only={"type": "boolean"},
    cap_drop=TEXTS,
    security_opt=TEXTS,
    secrets=TEXTS,
    profiles=TEXTS,
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    stop_grace_period={"type": "string", "pattern": r"^\d+s$"},
    healthcheck=exactly(test=TEXTS, interval=TEXT, timeout=TEXT, retries={"type": "integer"}),
    depends_on={
        "oneOf": [
            TEXTS,
            {
                "type": "object",
                "additionalProperties": exactly(
                    condition={"enum": ["service_started", "service_healthy"]},
                    required={"type": "boolean"},
                ),
            },
        ]
    },
)
COMPOSE = exactly(
    name=TEXT,
    services={"type": "object", "additionalProperties": SERVICE},
    volumes={"type": "object", "additionalProperties": {"type": ["object", "null"]}},
    secrets={"type": "object", "additionalProperties": exactly(environment=TEXT, file=TEXT)},
)
"""The part of the compose specification that is used here; anything else would be a slip."""


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_compose_file_keeps_the_schema() -> None:
    jsonschema.validate(compose(), COMPOSE)
    wrong = compose()
    wrong["services"]["api"]["port"] = ["8000:8000"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, COMPOSE)


def test_what_the_compose_file_names_is_there() -> None:
    whole = compose()
    for name, service in whole["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (ROOT / source).exists() if source[0] == "." else source in whole["volumes"]
            assert there, (name, volume)
        assert set(service.get("secrets", [])) <= set(whole["secrets"])
        assert set(service.get("depends_on", [])) <= set(whole["services"])
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).exists()


def test_nothing_is_open_to_the_network_and_no_key_is_written_down() -> None:
    services = compose()["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert services["api"]["environment"]["TRIPTYCH_API_KEY"].startswith("${TRIPTYCH_API_KEY:?")
    assert "ports" not in services["redis"]
    monitoring = {name for name, one in services.items() if one.get("profiles") == ["monitoring"]}
    assert monitoring == {"prometheus", "grafana"}
    assert services["api"]["image"] == f"triptych:{triptych.__version__}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_does_not_run_as_root_and_says_how_it_is(path: Path) -> None:
    text = path.read_text()
    lines = re.sub(r"\\\n", " ", text).splitlines()
    words = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    assert [rest for word, rest in words if word == "USER"] == ["10001:10001"]
    (health,) = (rest for word, rest in words if word == "HEALTHCHECK")
    command = json.loads(health[health.index("CMD") + 3 :])
    compile(command[-1], "healthcheck", "exec")
    assert "/readyz" in command[-1]
    for word, rest in words:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
        if word in ("ENTRYPOINT", "CMD"):
            json.loads(rest)  # as a list: a shell would not pass SIGTERM on
    assert words[-1] == ["CMD", '["serve"]']


@pytest.mark.parametrize(
    "path", [*DOCKERFILES, ROOT / "docker-compose.yml"], ids=lambda path: path.name
)
def test_variables_are_those_that_the_server_knows(path: Path) -> None:
    known = {option.variable for option in OPTIONS} | {"TRIPTYCH_API_KEY"}
    assert set(re.findall(r"TRIPTYCH_[A-Z_]+", path.read_text())) <= known


def test_with_the_variables_of_an_image_it_is_ready_for_all_who_ask(tmp_path: Path) -> None:
    (line,) = re.findall(r"TRIPTYCH_DATA=.*", DOCKERFILES[0].read_text())
    variables = dict(pair.split("=") for pair in line.split())
    assert variables.keys() == {"TRIPTYCH_DATA", "TRIPTYCH_HOST", "TRIPTYCH_PORT"}
    key = "k" * 40
    with served(tmp_path, TRIPTYCH_HOST=variables["TRIPTYCH_HOST"], TRIPTYCH_API_KEY=key) as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        until = time.monotonic() + 20
        # a kubelet asks by the pod's address, Prometheus and the others by a name
        for path, host in [("/livez", "10.1.2.3:8000"), ("/readyz", "10.1.2.3:8000")]:
            while httpx2.get(url + path, headers={"Host": host}).status_code != 200:
                assert time.monotonic() < until, path
                time.sleep(0.05)
        assert httpx2.get(f"{url}/metrics", headers={"Host": "api:8000"}).status_code == 401
        shown = {"Host": "api:8000", "Authorization": f"Bearer {key}"}
        assert "triptych_ready 1.0" in httpx2.get(f"{url}/metrics", headers=shown).text


def test_what_is_copied_into_an_image_is_let_through() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    for path in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE):
            assert set(sources.split()) <= allowed


def test_prometheus_asks_with_the_key() -> None:
    config = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    secret = compose()["services"]["prometheus"]["secrets"][0]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert job["static_configs"][0]["targets"] == ["api:8000"]


def test_the_dashboard_asks_for_numbers_that_the_server_has() -> None:
    folder = ROOT / "deploy/monitoring/grafana"
    board = json.loads((folder / "dashboards/triptych.json").read_text())
    (source,) = yaml.safe_load((folder / "datasources.yml").read_text())["datasources"]
    code = "\n".join(path.read_text() for path in (ROOT / "triptych/api").rglob("*.py"))
    shown = {f"triptych_{name}" for name in re.findall(r'"triptych_([a-z_]+)"', code)}
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
        for target in panel["targets"]:
            for name in re.findall(r"triptych_[a-z_]+", target["expr"]):
                assert re.sub("_(total|bucket)$", "", name) in shown, name
