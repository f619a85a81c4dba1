"""What the description permits, tried out: no request gets an error of ours."""

from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error

from tests.api.live import serving


@pytest.mark.slow
def test_no_request_gets_an_error_of_ours(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert len(operations) > 20
        for operation in operations:
            if operation.path.endswith("/events"):
                continue  # it ends with its job

            @hypothesis.settings(
                max_examples=10,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy())
            def holds(case: schemathesis.Case) -> None:
                case.call_and_validate(checks=[not_a_server_error])

            holds()
