"""Keys of a server: what is kept of them, and what a file that is none says."""

import json
import stat
from pathlib import Path

import pytest

from triptych.cli.main import main
from triptych.errors import InvalidInput, NotAvailable
from triptych.keys import Key, Keys, kept, new_key, read_keys, write_keys


def test_a_key_is_found_again_and_no_other() -> None:
    secret, key = new_key("a", tenant="shop", role="write")
    keys = Keys([key, new_key("b")[1]])
    assert keys.find(secret) == key
    assert keys.find(secret.encode()) == key
    for wrong in ("", secret[:-1], f"{secret} ", secret.upper(), "\udc80", b"\xff" * 100):
        assert keys.find(wrong) is None


def test_the_file_holds_no_secret_and_is_for_its_owner(tmp_path: Path) -> None:
    secret, key = new_key("a", rate=2.5, daily=10)
    path = tmp_path / "keys.json"
    write_keys(path, [key])
    assert read_keys(path) == [key]
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["keys.json"]


def test_roles_include_the_lower_ones() -> None:
    _, key = new_key("a", role="write")
    assert [key.may(role) for role in ("read", "write", "admin")] == [True, True, False]


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"keys": {}}', '{"keys": [1]}', '{"keys": [{"name": "a"}]}',
        '{"keys": [{"name": "a", "sha256": "00"}]}',
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "role": "root"}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "tenant": "../b"}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "rate": -1}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "rate": float("nan")}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "rate": float("inf")}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "colour": "red"}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64}, {"name": "a", "sha256": "1" * 64}]}),
    ],
)  # fmt: skip
def test_a_file_that_is_none_says_so(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(InvalidInput):
        read_keys(path)


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable, match="triptych keys add"):
        read_keys(tmp_path / "keys.json")


def test_a_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="32 characters"):
        kept("password", name="a")


@pytest.mark.parametrize("end", ["\n", " ", "\r\n", "é", "\0"])
def test_a_key_that_nobody_can_present_is_refused_and_not_shown(end: str) -> None:
    secret = "a-key-of-the-environment-of-a-server" + end
    with pytest.raises(InvalidInput, match="strip the line end") as caught:
        kept(secret, name="a")
    assert secret[:8] not in str(caught.value)


def test_the_command_prints_a_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    assert main(["keys", "add", str(path), "--name", "me", "--role", "admin"]) == 0
    secret = capsys.readouterr().out.strip()
    found = Keys(read_keys(path)).find(secret)
    assert found == Key(name="me", sha256=found.sha256 if found else "", role="admin")
    assert main(["keys", "add", str(path), "--name", "me"]) == 2
    assert main(["keys", "list", str(path)]) == 0
    assert capsys.readouterr().out == "me\tdefault\tadmin\n"
    assert main(["keys", "remove", str(path), "--name", "you"]) == 2
    assert main(["keys", "remove", str(path), "--name", "me"]) == 0
    assert read_keys(path) == []
