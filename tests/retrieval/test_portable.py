from __future__ import annotations

import fcntl
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.retrieval.fakes import BLUE, DIM, GREEN, RED, CountingModel, encoded, paint, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.errors import CollectionDamaged, InvalidInput, NotAvailable, NotFound, TriptychError
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE, open_store
from triptych.retrieval.ingest.run import index_folder
from triptych.retrieval.maintenance import portable
from triptych.retrieval.maintenance.archive import MANIFEST
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.verify import verify
from triptych.types import Item

MODEL = CallerVectors("own", DIM)
ODD = [
    Item(id="lone \ud800 surrogate", text="also \udfff here", uri="/a/\udc80", metadata={"a": 1}),
    Item(
        id="\N{GRINNING FACE} '\"\\\n\t", text="x\0y", metadata={"deep": {"list": [1, None, 1.5]}}
    ),
    Item(id="a pair \ud800\udfff of halves", text="no \U000103ff", uri="/\udbff\udc00\ud800\udc00"),
    Item(id="a pair \U000103ff of halves", text="one character"),
    Item(id="huge", text="numbers", metadata={"n": 2**100, "f": 1e-320, "t": True, "k\ud800": ""}),
]

NUM = 302 + len(ODD)


def export(folder: Path, path: Path, **options: Any) -> Path:
    store = open_store(folder)
    try:
        export_collection(store, path, **options)
    finally:
        store.close()
    return path


def everything(folder: Path, model: Any) -> list[Any]:
    """All that is stored, and answers with their scores to the last bit."""
    with Collection.open(folder, embedder=model) as collection:
        store = open_store(folder)
        with store.view() as view:
            entries = [one for part in view.entries() for one in part]
            found = [
                (e.id, e.modality, e.text, e.uri, e.metadata, e.content, e.file, e.thumbnail)
                for e in entries
            ]
            vectors = [e.vector.tobytes() for e in entries]
        store.close()
        hits = [
            [(hit.id, hit.score) for hit in collection.search(vector=v, limit=7)]
            for v in unit_vectors(20, seed=9, dim=model.dim)
        ]
        words = [hit.id for hit in collection.search(vector=unit_vectors(1)[0], limit=3)]
    return [found, vectors, hits, words]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of pictures, texts and odd things, some deleted."""
    root = tmp_path_factory.mktemp("photos")
    for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE)):
        paint(root / "pictures" / f"{name}.png", colour)
    with Collection.open(root / "collection", embedder=CountingModel()) as collection:
        index_folder(collection, root / "pictures")
        collection.add(ODD)
        collection.add([{"id": "up", "image": encoded(RED), "text": "red"}])
        collection.add({"id": f"note {at}", "text": f"word{at}"} for at in range(300))
        collection.delete(["note 7", "note 8"])
    return root / "collection"


@pytest.fixture(scope="module")
def archive(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(photos, tmp_path_factory.mktemp("archive") / "photos.tar")


def test_all_comes_back_bit_for_bit(photos: Path, archive: Path, tmp_path: Path) -> None:
    done = import_collection(archive, tmp_path / "copy")
    assert done.count == NUM and done.model == CountingModel().name
    assert everything(tmp_path / "copy", CountingModel()) == everything(photos, CountingModel())
    assert verify(tmp_path / "copy").ok
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names - {f"{STORE}-wal", f"{STORE}-shm"} <= {
        "pictures",
        STORE,
        GENERATION,
        "index",
        "lock",
        "reserve",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    again = export(tmp_path / "copy", tmp_path / "again.tar")
    with tarfile.open(archive) as first, tarfile.open(again) as second:
        part = "items-00000.parquet"
        assert first.extractfile(part).read() == second.extractfile(part).read()  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_vectors_keep_their_bits(tmp_path: Path, precision: Any) -> None:
    with Collection.open(tmp_path / "a", embedder=MODEL, precision=precision) as collection:
        collection.add(Item(id=f"{at}", vector=v) for at, v in enumerate(unit_vectors(700)))
    import_collection(export(tmp_path / "a", tmp_path / "a.tar"), tmp_path / "b")
    assert everything(tmp_path / "a", MODEL) == everything(tmp_path / "b", MODEL)
    assert verify(tmp_path / "b").ok
    assert Collection.peek(tmp_path / "b").precision == precision  # type: ignore[union-attr]


def test_an_imported_folder_is_known_again(photos: Path, archive: Path, tmp_path: Path) -> None:
    import_collection(archive, tmp_path / "copy")
    with Collection.open(tmp_path / "copy", embedder=CountingModel()) as collection:
        report = index_folder(collection, photos.parent / "pictures")
    assert (report.unchanged, report.added, report.updated) == (3, 0, 0)


def test_many_parts_are_one_collection(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable, "_PART_BYTES", 1)
    progress: list[tuple[int, int]] = []
    path = export(photos, tmp_path / "p.tar", progress=lambda *at: progress.append(at))
    assert progress == [(256, NUM), (NUM, NUM)]
    with tarfile.open(path) as tar:
        names = [name for name in tar.getnames() if not name.startswith("pictures/")]
        assert names == ["items-00000.parquet", "items-00001.parquet", MANIFEST]
    import_collection(path, tmp_path / "copy")
    assert everything(tmp_path / "copy", CountingModel()) == everything(photos, CountingModel())


def test_others_can_read_the_parts(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("items-00000.parquet")
        assert member is not None
        table = pq.read_table(io.BytesIO(member.read()))
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["note 9"]["text"] == "word9" and rows["note 9"]["thumbnail"] is None
    assert rows["up"]["thumbnail"][:2] == b"\xff\xd8"
    assert np.linalg.norm(rows["up"]["vector"]) == pytest.approx(1, abs=1e-6)
    assert json.loads(rows["huge"]["metadata"])["n"] == 2**100


def test_an_empty_collection_travels_too(tmp_path: Path) -> None:
    Collection.open(tmp_path / "a", embedder=MODEL).close()
    archive = export(tmp_path / "a", tmp_path / "a.tar")
    for _ in range(2):  # to where nothing is, and to where another empty one is
        assert import_collection(archive, tmp_path / "b").count == 0
        found = Collection.peek(tmp_path / "b")
        assert verify(tmp_path / "b").ok and found is not None and found.dim == DIM


def test_only_an_empty_collection_is_replaced(archive: Path, tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", embedder=MODEL) as collection:
        collection.add([Item(id="x", vector=unit_vectors(1)[0])])
    with pytest.raises(InvalidInput, match="has 1 items"):
        import_collection(archive, tmp_path / "c")
    with Collection.open(tmp_path / "c", embedder=MODEL) as collection:
        assert collection.get("x")[0] is not None
        collection.delete("x")
    import_collection(archive, tmp_path / "c")
    assert verify(tmp_path / "c").ok
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        assert len(collection) == NUM
    (tmp_path / "folder").mkdir()
    import_collection(archive, tmp_path / "folder")
    assert verify(tmp_path / "folder").ok
    assert not list(tmp_path.glob("**/*import*"))


def test_an_export_is_one_state_and_replaces_only_when_told(photos: Path, tmp_path: Path) -> None:
    path = export(photos, tmp_path / "a.tar")
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="exists already"):
        export(photos, path)
    assert path.read_bytes() == before
    export(photos, path, replace=True)
    for replace in (False, True):
        with pytest.raises(InvalidInput, match=r"is a folder, expected a file to write\. Name"):
            export(photos, tmp_path, replace=replace)
    with pytest.raises(NotFound):
        export(photos, tmp_path / "nowhere" / "a.tar")
    assert [one.name for one in tmp_path.iterdir()] == ["a.tar"]


def test_an_import_takes_nothing_from_a_folder_that_is_in_use(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "from", embedder=CountingModel()) as collection:
        collection.add([{"id": "1", "image": encoded(RED)}])
    file = export(tmp_path / "from", tmp_path / "c.tar")
    own = tmp_path / "to" / "pictures" / "holiday" / "a.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    import_collection(file, tmp_path / "to")
    assert own.read_bytes() == b"mine"
    with Collection.open(tmp_path / "to", embedder=CountingModel()) as collection:
        assert collection.picture("1") == encoded(RED)
    assert verify(tmp_path / "to").ok


@pytest.mark.parametrize("length", [245, 300])
def test_a_name_too_long_is_a_sentence(photos: Path, tmp_path: Path, length: int) -> None:
    with pytest.raises(NotAvailable, match="cannot be written: File name too long"):
        export(photos, tmp_path / ("x" * length))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_item_is_not_exported(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "c")
    raw = bytearray((tmp_path / "c" / STORE).read_bytes())
    at = raw.index(b"word123")
    raw[at] ^= 1
    (tmp_path / "c" / STORE).write_bytes(raw)
    with pytest.raises(CollectionDamaged, match="verify --repair"):
        export(tmp_path / "c", tmp_path / "a.tar")
    assert [one.name for one in tmp_path.iterdir()] == ["c"]


def test_every_damage_is_found_or_harmless(photos: Path, archive: Path, tmp_path: Path) -> None:
    raw = archive.read_bytes()
    expected = None
    rng = random.Random(5)
    cuts = [raw[: rng.randrange(len(raw))] for _ in range(20)]
    flips = []
    for _ in range(100):
        damaged = bytearray(raw)
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        flips.append(bytes(damaged))
    refused = 0
    for number, content in enumerate([*cuts, *flips]):
        path, target = tmp_path / "damaged.tar", tmp_path / f"{number}"
        path.write_bytes(content)
        try:
            import_collection(path, target)
        except (InvalidInput, CollectionDamaged, NotAvailable):
            refused += 1
            assert not target.exists()
        else:  # what pads a tar, or dates a member, says nothing
            expected = expected or everything(photos, CountingModel())
            assert everything(target, CountingModel()) == expected
    assert refused >= 100
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def packed(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, raw in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


def forged(archive: Path, path: Path, change: Callable[[pa.Table], pa.Table], **said: Any) -> Path:
    """An archive with other rows, whose hashes are right."""
    import hashlib

    contents = members(archive)
    name = "items-00000.parquet"
    table = change(pq.read_table(io.BytesIO(contents[name])))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    raw = buffer.getvalue()
    body = json.loads(contents[MANIFEST])
    del body["checksum"]
    body["count"] = len(table)
    body["parts"] = [
        {
            "name": name,
            "items": len(table),
            "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
        }
    ]
    body |= said
    body["checksum"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    kept = {name: one for name, one in contents.items() if name.startswith("pictures/")}
    return packed(path, {**kept, name: raw, MANIFEST: json.dumps(body).encode()})


def column(name: str, values: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        new = pa.array(values(table.column(name).to_pylist()), field.type)
        return table.set_column(table.schema.get_field_index(name), field, new)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["text"]), {}),
        (lambda table: table.append_column("more", pa.array([1] * len(table))), {}),
        (column("id", lambda old: ["same"] * len(old)), {}),
        (column("id", lambda old: ["", *old[1:]]), {}),
        (column("modality", lambda old: ["sound", *old[1:]]), {}),
        (column("metadata", lambda old: ["[1]", *old[1:]]), {}),
        (column("metadata", lambda old: ["{", *old[1:]]), {}),
        (column("metadata", lambda old: ["[" * 9999, *old[1:]]), {}),
        (column("exact", lambda old: ['{"id": 5}', *old[1:]]), {}),
        (column("exact", lambda old: ["[]", *old[1:]]), {}),
        (column("size", lambda old: [None] * len(old)), {}),
        (column("vector", lambda old: [[float("nan")] * DIM, *old[1:]]), {}),
        (column("vector", lambda old: [[0.0] * DIM, *old[1:]]), {}),
        (column("vector", lambda old: [[9.0] * DIM, *old[1:]]), {}),
        (lambda table: table, {"dim": DIM + 1}),
        (lambda table: table, {"dim": "32"}),
        (lambda table: table, {"precision": "fp16"}),
        (lambda table: table, {"precision": "fp8"}),
        (lambda table: table, {"count": 3}),
        (lambda table: table, {"model": None}),
        (lambda table: table, {"parts": []}),
        (lambda table: table, {"parts": [{"name": "../../x"}]}),
        (lambda table: table, {"format": 4}),
        (lambda table: table, {"surplus": 1}),
    ],
)
def test_a_forged_archive_is_refused(
    archive: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], said: dict[str, Any]
) -> None:
    path = forged(archive, tmp_path / "forged.tar", change, **said)
    with pytest.raises(TriptychError):
        import_collection(path, tmp_path / "target")
    assert [one.name for one in tmp_path.iterdir()] == ["forged.tar"]


def test_a_forged_archive_would_do_if_it_were_right(archive: Path, tmp_path: Path) -> None:
    path = forged(archive, tmp_path / "forged.tar", lambda table: table)
    assert import_collection(path, tmp_path / "target").count == NUM


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {**found, "../evil": b"x"},
        lambda found: {**found, "/tmp/evil": b"x"},
        lambda found: {**found, "items-00009.parquet": b"x"},
        lambda found: {"items-00000.parquet": found["items-00000.parquet"]},
        lambda found: {MANIFEST: found[MANIFEST]},
        lambda found: {MANIFEST: b"", "items-00000.parquet": found["items-00000.parquet"]},
        lambda found: {**found, MANIFEST: b"[" * 100_000},
        lambda found: {},
    ],
)
def test_other_members_are_refused(
    archive: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]
) -> None:
    path = packed(tmp_path / "other.tar", change(members(archive)))
    with pytest.raises((InvalidInput, CollectionDamaged)):
        import_collection(path, tmp_path / "target")
    assert [one.name for one in tmp_path.iterdir()] == ["other.tar"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_only_regular_files_are_read(archive: Path, tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "links.tar"
    contents = members(archive)
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("items-00000.parquet")
        link.type, link.linkname = kind, "/etc/passwd"
        tar.addfile(link)
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(contents[MANIFEST])
        tar.addfile(member, io.BytesIO(contents[MANIFEST]))
    with pytest.raises(InvalidInput, match="items-00000"):
        import_collection(path, tmp_path / "target")


def test_what_is_no_tar_is_refused(archive: Path, tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(2000), random.Random(1).randbytes(3000)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InvalidInput):
            import_collection(tmp_path / "x", tmp_path / "target")
    with pytest.raises(NotFound):
        import_collection(tmp_path / "nothing", tmp_path / "target")
    with pytest.raises(NotAvailable):
        import_collection(tmp_path, tmp_path / "target")
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def killed(job: str, source: Path, scratch: Path) -> list[Path]:
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.retrieval.killing", job, source, scratch]
    kills = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert kills > 3
    return [scratch / str(step) for step in range(1, kills + 1)]


@pytest.mark.slow
def test_a_killed_export_is_no_archive(photos: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(photos, source / "collection")
    (source / "exported").write_bytes(b"an older one")
    whole = 0
    for left in killed("export", source, tmp_path / "scratch"):
        if (left / "exported").read_bytes() == b"an older one":
            continue
        whole += 1
        assert import_collection(left / "exported", left / "copy").count == NUM
    assert whole <= 2


@pytest.mark.slow
@pytest.mark.parametrize("empty", [False, True])
def test_a_killed_import_is_no_collection(archive: Path, tmp_path: Path, empty: bool) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(archive, source / "archive")
    if empty:
        Collection.open(source / "imported", embedder=CountingModel()).close()
    for left in killed("import", source, tmp_path / "scratch"):
        target = left / "imported"
        known = Collection.peek(target)
        if known is not None:
            assert verify(target).ok
            with Collection.open(target, embedder=CountingModel()) as collection:
                assert len(collection) in ((0, NUM) if empty else (NUM,))
                done = len(collection) == NUM
        if known is None or not done:
            import_collection(archive, target)
            assert verify(target).ok


def test_what_a_killed_export_left_is_swept(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", embedder=MODEL) as collection:
        collection.add([{"id": "a", "vector": unit_vectors(1)[0]}])
    left, other, running = (
        tmp_path / name for name in (".[x].0001.part", ".y.0002.part", ".[x].0003.part")
    )
    for path in (left, other, running):
        path.write_bytes(b"half")
    with running.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        export(tmp_path / "c", tmp_path / "[x]")
    assert not left.exists() and other.exists() and running.exists()
