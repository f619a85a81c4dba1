"""WebDataset tars, honest and hostile."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.retrieval.fakes import BLUE, GREEN, RED, encoded
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.ingest import webdataset
from triptych.retrieval.ingest.offers import Failure, Offer
from triptych.retrieval.ingest.webdataset import Shard
from triptych.types import Item

Member = tuple[str, bytes] | tarfile.TarInfo


def pack(path: Path, *members: Member, format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            archive.addfile(info, BytesIO(data))
    return path


def read(path: Path) -> tuple[list[Item], list[Failure]]:
    found = list(Shard(str(path)).offers())
    items = [one.item for one in found if isinstance(one, Offer)]
    return items, [one for one in found if isinstance(one, Failure)]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def codes(failed: list[Failure]) -> list[tuple[str, str]]:
    return [(failure.place, failure.code) for failure in failed]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_one_name_make_one_item(tmp_path: Path, format: int) -> None:
    long = "deep/" * 18 + "k" * 90
    path = pack(
        tmp_path / "s-000.tar",
        ("./a.jpg", b"jpeg"), ("./a.txt", b"a cat\n"), ("./a.json", b'{"n": 1}'), ("./a.cls", b"7"),
        ("b.PNG", b"png"),
        ("c.txt", b"words"), ("c.cls", b"dog"), ("c.mp4", b"a film"),
        special("folder", tarfile.DIRTYPE),
        ("._d.jpg", b"of a Mac"),
        (f"{long}.webp", b"webp"),
        format=format,
    )  # fmt: skip
    items, failed = read(path)
    assert not failed
    assert [item.id for item in items] == [f"s-000.tar/{key}" for key in ("a", "b", "c", long)]
    assert (items[0].image, items[0].text, items[0].metadata) == (
        b"jpeg",
        "a cat",
        {"n": 1, "class": 7},
    )
    assert (items[2].image, items[2].text, items[2].metadata) == (None, "words", {"class": "dog"})


def test_hostile_members_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "a.tar",
        ("../../out.jpg", b"x"),
        ("/etc/abs.jpg", b"x"),
        special("sym.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "ok.jpg"),
        special("pipe.jpg", tarfile.FIFOTYPE),
        special("dev.jpg", tarfile.CHRTYPE),
        ("noending", b"x"),
        ("long.txt", b"x" * (2**20 + 1)),
        ("film.mp4", b"x"),
        ("latin.txt", b"caf\xe9"),
        ("bad.json", b"{"), ("bad.txt", b"x"),
        ("two.jpg", b"x"), ("two.png", b"x"),
        ("ok.jpg", b"fine"), ("ok.jpg", b"other"), ("ok.txt", b"words"),
        ("last.jpg", b"x"),
        ("ok.jpg", b"apart"),
    )  # fmt: skip
    before = set(tmp_path.iterdir())
    items, failed = read(path)
    assert [(item.id, item.image, item.text) for item in items] == [
        ("a.tar/ok", b"fine", "words"), ("a.tar/last", b"x", None),
    ]  # fmt: skip
    assert codes(failed) == [
        ("../../out.jpg", "tar_name"), ("/etc/abs.jpg", "tar_name"),
        ("sym.jpg", "tar_link"), ("hard.jpg", "tar_link"),
        ("pipe.jpg", "tar_not_file"), ("dev.jpg", "tar_not_file"),
        ("noending", "tar_name"), ("long.txt", "tar_too_large"),
        ("film", "tar_empty"), ("latin", "tar_encoding"), ("bad", "row_json"),
        ("two", "tar_pictures"), ("ok.jpg", "tar_duplicate"), ("ok", "row_duplicate"),
    ]  # fmt: skip
    assert set(tmp_path.iterdir()) == before


def test_ten_gigabytes_of_zeros_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("bomb.jpg")
    info.size = 10 * 2**30
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(info.size, os.SEEK_CUR)  # a hole: it takes no room on the disk
        file.write(tarfile.TarInfo("empty.txt").tobuf())
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    assert codes(read(path)[1]) == [("bomb.jpg", "tar_too_large"), ("empty", "tar_empty")]


def test_a_name_of_ten_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", ("a.txt", b"first"))
    content = path.read_bytes()[: 2 * tarfile.BLOCKSIZE]
    info = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 10 * 2**30
    with path.open("wb") as file:
        file.write(content + info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(11 * 2**30)
    items, [failure] = read(path)
    assert [item.text for item in items] == [] and failure.code == "tar_damaged"


def test_a_sparse_file_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {
        "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1",
    }  # fmt: skip
    path = pack(tmp_path / "a.tar", info, ("ok.txt", b"words"), format=tarfile.PAX_FORMAT)
    items, failed = read(path)
    assert [item.id for item in items] == ["a.tar/ok"] and codes(failed) == [
        ("a.jpg", "tar_not_file")
    ]


def test_a_size_below_zero_does_not_lead_round_for_ever(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", ("a.txt", b"first"), ("b.txt", b"second"), ("c.txt", b"third"))
    content = bytearray(path.read_bytes())
    header = content[1024:1536]
    header[124:136] = (256**12 - 2048).to_bytes(12, "big")  # base 256: -2048
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[1024:1536] = header
    path.write_bytes(content)
    items, failed = read(path)
    assert len(items) <= 1 and codes(failed)[-1][1] == "tar_damaged"


def test_headers_nested_ten_thousand_deep(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    name = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    name.size = 4
    block = name.tobuf(tarfile.GNU_FORMAT) + b"a.t\0".ljust(512, b"\0")
    first = pack(path, ("a.txt", b"first")).read_bytes()[:1024]
    path.write_bytes(first + block * 10_000 + bytes(1024))
    assert read(path)[1][-1].code == "tar_damaged"


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "MAX_MEMBERS", 5)
    path = pack(tmp_path / "a.tar", *((f"{at}.txt", b"x") for at in range(9)))
    items, failed = read(path)
    assert len(items) == 5 and codes(failed) == [("the end", "tar_too_many")]


@pytest.mark.parametrize("cut", [600, 1024, 1500, 2048, 2600, 4000])
def test_a_tar_that_is_cut_says_so_and_holds_no_half_items(tmp_path: Path, cut: int) -> None:
    members = [(f"{at}.{kind}", b"x" * 600) for at in range(4) for kind in ("jpg", "txt")]
    path = pack(tmp_path / "a.tar", *members)
    path.write_bytes(path.read_bytes()[:cut])
    items, failed = read(path)
    assert all(item.image and item.text for item in items)
    assert [failure.code for failure in failed] == ["tar_damaged"]


def test_any_flipped_byte_is_an_item_a_failure_or_one_error(tmp_path: Path) -> None:
    pictures = {"a": encoded(RED), "b": encoded(GREEN), "c": encoded(BLUE)}
    path = pack(tmp_path / "a.tar", *((f"{key}.png", data) for key, data in pictures.items()))
    content = path.read_bytes()[:6000]
    for at in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            items, failed = read(path)
        except InvalidInput:
            continue
        assert len(items) + len(failed) >= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda tar: b"", "no tar, expected a plain one"),
        (lambda tar: b"garbage" * 200, "no tar"),
        (lambda tar: __import__("gzip").compress(tar), "a compressed tar, .* Unpack it first"),
        (lambda tar: __import__("lzma").compress(tar), "a compressed tar"),
    ],
    ids=["empty", "garbage", "gzip", "xz"],
)
def test_what_is_no_tar(tmp_path: Path, content: Callable[[bytes], bytes], said: str) -> None:
    path = pack(tmp_path / "a.tar", ("a.txt", b"x"))
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(InvalidInput, match=said):
        Shard(str(path))
    with pytest.raises(NotFound):
        Shard(str(tmp_path / "none.tar"))
