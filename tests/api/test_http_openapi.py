"""What the description permits, tried out: every reply is one of those described."""

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.live import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.slow
@pytest.mark.parametrize("there", [{}, {"name": "photos", "id": "0"}], ids=["any", "there"])
def test_every_reply_is_as_described(there: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        items = [{"id": "0", "text": "a", "metadata": {"0": None}}, {"id": "1", "text": "b"}]
        live.json("PUT", "/v1/collections/photos/items", {"items": items})
        live.json("POST", "/v1/collections/photos/jobs", {"items": items})
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 20
        for operation in operations:
            assert not vague(operation.definition.raw["responses"]), operation.label
            if operation.path.endswith("/events"):
                continue  # it ends with its job
            drops = operation.label == "DELETE /v1/collections/{name}"
            try_out(operation, {} if drops else there)


def try_out(operation: Any, there: dict[str, str]) -> None:
    """Send what the description permits, of what is there in the place of any name."""

    @hypothesis.settings(
        max_examples=10,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def holds(case: schemathesis.Case) -> None:
        for name in there.keys() & case.path_parameters.keys():
            case.path_parameters[name] = there[name]
        case.call_and_validate(checks=CHECKS)

    holds()


def vague(responses: dict[str, Any]) -> list[str]:
    """Return the statuses whose JSON is not described."""
    return [
        status
        for status, reply in responses.items()
        if reply.get("content", {}).get("application/json", {"schema": "none"}).get("schema") == {}
    ]
