"""What docs/integrations.md prints is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from triptych.integrations.mcp_tools import TOOLS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "integrations.md").read_text("utf-8")


@pytest.mark.parametrize("where", ["folder", "server"])
def test_its_python_runs(
    where: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "shoe.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "data"))
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 3
    if where == "server":
        live = request.getfixturevalue("live")
        for name in ("lang", "llama", "hay"):
            live.json("POST", "/v1/collections", {"name": name})
        blocks = [_served(block, live.url) for block in blocks]
    for block in blocks:
        scope: dict[str, object] = {}
        exec(compile(block, "integrations.md", "exec"), scope)
        assert capsys.readouterr().out
        scope["store"].close()  # type: ignore[attr-defined]


def _served(block: str, url: str) -> str:
    """Return what the page prints, with a server's collection where it opens a folder's."""
    changed = re.sub(
        r'triptych.open\("(\w+)"\)', rf'triptych.connect("{url}", collection="\1")', block
    )
    changed = changed.replace('path="hay"', f'url="{url}", name="hay"')
    assert changed != block
    return changed


def test_its_json_is_json_and_its_tools_are_those() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    assert json.loads(block)["mcpServers"]["triptych"]["command"] == "triptych"
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == set(TOOLS)
    for name, spec in TOOLS.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
        named = set(spec.arguments) - {"collection", "pictures"}
        assert named <= set(re.findall(r"\w+", row)), name
