"""The workflow of CI: it runs what people run, and keeps the pictures that the tests took."""

from __future__ import annotations

import os

import yaml

from tests.page.conftest import ROOT, SHOTS

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
STEPS = WORKFLOW["jobs"]["test"]["steps"]


def test_ci_runs_what_people_run() -> None:
    commands = [step["run"] for step in STEPS if "run" in step]
    assert commands[-1] == ".ci/run" and os.access(ROOT / ".ci/run", os.X_OK)
    assert (ROOT / ".ci/run").read_text("utf-8").splitlines()[-1] == "make test"


def test_ci_keeps_the_screenshots_whatever_became_of_the_tests() -> None:
    (kept,) = [step for step in STEPS if "upload-artifact" in step.get("uses", "")]
    assert STEPS.index(kept) > STEPS.index({"run": ".ci/run"}) and kept["if"] == "always()"
    assert ROOT / kept["with"]["path"] == SHOTS
    assert kept["with"]["include-hidden-files"], "the folder's name begins with a dot"
