"""How common words are, read out of wordfreq's files."""

import gzip
from pathlib import Path

import msgpack
import pytest

from triptych.errors import InvalidInput
from triptych.training.frequencies import frequencies, simplified


def write_list(folder: Path, name: str, *steps: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    packed = msgpack.packb([{"format": "cB", "version": 1}, *steps])
    (folder / f"{name}.msgpack.gz").write_bytes(gzip.compress(packed))


def test_a_step_is_a_centibel(tmp_path: Path) -> None:
    write_list(tmp_path / "data", "small_de", ["und"], *[[]] * 99, ["Hund", "Katze"])
    assert frequencies(tmp_path, "de") == pytest.approx({"und": 1.0, "Hund": 0.1, "Katze": 0.1})


def test_the_longer_list_is_read(tmp_path: Path) -> None:
    write_list(tmp_path, "small_zh", ["狗"])
    write_list(tmp_path, "large_zh", ["狗", "鸟"])
    assert [*frequencies(tmp_path, "zh-hant")] == ["狗", "鸟"]


def test_a_language_without_a_list_has_none(tmp_path: Path) -> None:
    assert frequencies(tmp_path, "de") == {} and simplified(tmp_path) == {}


def test_simplified_characters_for_traditional_ones(tmp_path: Path) -> None:
    packed = gzip.compress(msgpack.packb({ord("鳥"): "鸟"}))
    (tmp_path / "_chinese_mapping.msgpack.gz").write_bytes(packed)
    assert "小鳥".translate(simplified(tmp_path)) == "小鸟"


@pytest.mark.parametrize(
    "data",
    [b"no gzip", gzip.compress(b"\xc1"), gzip.compress(b"")],
    ids=["no gzip", "no MessagePack", "nothing"],
)
def test_a_damaged_list_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "small_de.msgpack.gz").write_bytes(data)
    with pytest.raises(InvalidInput, match="cannot be read as a list of words"):
        frequencies(tmp_path, "de")
