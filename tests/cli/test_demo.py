"""The demo on one's own pictures, and how the samples are fetched and unpacked."""

import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from triptych.cli import samples
from triptych.errors import NotAvailable
from triptych.retrieval.library import Library

Run = Callable[..., tuple[int, str, str]]


def test_on_ones_own_pictures(run: Run, photos: Path, tmp_path: Path) -> None:
    code, out, _ = run("demo", str(photos), "--into", str(tmp_path / "demo"))
    assert code == 0
    assert "4 added" in out
    assert "$ triptych search 'people outdoors'" in out
    assert " + 'at night'" in out
    assert " - people" in out
    last = out.splitlines()[-1].partition(" search ")[2]
    assert run("search", *shlex.split(last))[0] == 0, "what it says to run next runs"
    served = re.search(r"In a browser: .* serve (--data .*)", out)
    assert served is not None
    assert served[1] == f"--data {tmp_path / 'demo'}"
    assert [one.startswith("demo-") for one in Library(tmp_path / "demo").list()] == [True]
    for name in ("contact-sheet.png", "map.png"):
        with Image.open(tmp_path / "demo" / name) as drawn:
            assert min(drawn.size) > 50
    assert not (tmp_path / "data").exists()  # nothing anywhere else
    _, out, _ = run("demo", str(photos), "--into", str(tmp_path / "demo"))
    assert "4 unchanged" in out


def test_what_it_says_to_run_next_is_what_started_it_where_the_shell_knows_no_triptych(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/triptych", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    _, out, _ = run("demo", str(photos), "--into", str(tmp_path / "demo"))
    assert out.splitlines()[-1].startswith("Now you:  .venv/bin/triptych search -c ")


def test_an_empty_folder_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("demo", str(tmp_path / "empty"), "--into", str(tmp_path / "demo"))
    assert code == 2
    assert "could be indexed" in err


def test_samples_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert samples.fetch_samples(tmp_path, say=lambda _: pytest.fail("fetched")) == tmp_path


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_pictures_are_unpacked_and_sounds_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    stamps = tree / "usr/share/tuxpaint/stamps/animals"
    stamps.mkdir(parents=True)
    for name in ("frog.png", "frog.ogg", "frog.txt"):
        (stamps / name).write_bytes(b"x")
    (tree / "DEBIAN").mkdir()
    control = "Package: stamps\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    package = tmp_path / "stamps.deb"
    subprocess.run(
        ["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True
    )
    samples._unpack(package, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert found == {"animals/frog.png", "animals/frog.txt"}


def test_without_apt_the_wheels_pictures_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(command: list[str], folder: Path) -> None:
        with zipfile.ZipFile(folder / "scikit_image.whl", "w") as wheel:
            for name in ("skimage/data/coffee.png", "skimage/data/tests/no.png", "skimage/io/x.py"):
                wheel.writestr(name, b"x")

    monkeypatch.setattr(samples.shutil, "which", lambda name: None)
    monkeypatch.setattr(samples, "_run", download)
    said: list[str] = []
    folder = samples.fetch_samples(tmp_path / "pictures", say=said.append)
    assert [path.name for path in folder.iterdir()] == ["coffee.png"]
    assert any("not to be had here" in line for line in said)


def test_where_nothing_can_be_had_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(command: list[str], folder: Path) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(samples, "_run", refused)
    with pytest.raises(NotAvailable, match="make demo PHOTOS="):
        samples.fetch_samples(tmp_path / "pictures", say=lambda _: None)
    assert not (tmp_path / "pictures").exists()
