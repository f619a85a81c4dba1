"""Checkpoints: what is read back, and what is refused with its reason."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from triptych.errors import InvalidInput, NotAvailable  # noqa: E402
from triptych.training.checkpoint import MANIFEST, Checkpoint, load, save  # noqa: E402

CONFIG = {"steps": 10, "mixture": {"a": 0.5}, "sets": ("a", "b")}


def written(folder: Path, *, step: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    save(
        folder,
        Checkpoint(
            step=step,
            config=CONFIG,
            tensors={"weight": torch.arange(1000.0), "count": torch.tensor(7)},
            numbers={"threshold": 0.1 + 0.2},
        ),
    )
    return folder / f"checkpoint-{step}.safetensors"


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    found = load(tmp_path, config=CONFIG)
    assert found is not None and found.step == 3
    assert torch.equal(found.tensors["weight"], torch.arange(1000.0))
    assert found.numbers == {"threshold": 0.1 + 0.2}, "to the last bit"


def test_there_is_one_and_none_before_the_first(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    first, second = written(tmp_path), written(tmp_path, step=4)
    assert not first.exists() and second.exists()


def test_a_half_written_one_leaves_the_last(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "checkpoint-9.safetensors").write_bytes(b"half of")
    found = load(tmp_path, config=CONFIG)
    assert found is not None and found.step == 3


@pytest.mark.parametrize("offset", [0, 8, 200, -1])
def test_a_flipped_byte_is_refused(tmp_path: Path, offset: int) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotAvailable, match=r"has the sum .* expected"):
        load(tmp_path)


def test_a_truncated_one_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(NotAvailable, match="has 4"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(NotAvailable, match="is missing"):
        load(tmp_path)


def test_that_of_another_configuration_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(InvalidInput, match="steps: 10, expected 11"):
        load(tmp_path, config={**CONFIG, "steps": 11})
    with pytest.raises(InvalidInput, match="more: None, expected 1"):
        load(tmp_path, config={**CONFIG, "more": 1})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"step": "x"}', json.dumps({"step": 1})])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    written(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(NotAvailable, match="cannot be read"):
        load(tmp_path)


def test_a_flipped_bit_of_a_manifest_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / MANIFEST
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = load(tmp_path, config=CONFIG)
        except NotAvailable:
            continue
        assert found is not None and found.numbers == {"threshold": 0.1 + 0.2} and found.step == 3
