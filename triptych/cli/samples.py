"""Sample pictures for the demo, from public packages, without root and without an account.

Debian's `tuxpaint-stamps-default` holds about 800 photos and drawings, each with a sentence in
up to 100 languages. Where apt cannot be had, the pictures inside the scikit-image wheel serve.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from triptych.errors import NotAvailable

logger = logging.getLogger(__name__)

_PACKAGE = "tuxpaint-stamps-default"
_STAMPS = PurePosixPath("usr/share/tuxpaint/stamps")
_KEPT = {".png", ".jpg", ".jpeg", ".txt"}  # sounds and vector drawings are left out


def fetch_samples(folder: Path, *, say: Callable[[str], object]) -> Path:
    """Return `folder` with sample pictures in it, fetching them unless they are there already."""
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    for fetch in (_fetch_stamps, _fetch_scikit_image):
        with tempfile.TemporaryDirectory(dir=_parent(folder), prefix=".fetch-") as scratch:
            try:
                unpacked = fetch(Path(scratch), say)
            except (OSError, subprocess.SubprocessError, tarfile.TarError) as error:
                say(f"  not to be had here ({type(error).__name__}).")
                continue
            unpacked.rename(folder)  # only a complete set of pictures ever gets the name
            return folder
    raise NotAvailable(
        "No sample pictures could be fetched.",
        hint="Use your own: make demo PHOTOS=~/Pictures, or triptych demo ~/Pictures",
    )


def _fetch_stamps(scratch: Path, say: Callable[[str], object]) -> Path:
    """Download the Debian package with package lists of our own, and unpack its pictures."""
    say("Fetching about 800 sample pictures: Debian's tuxpaint-stamps-default, 161 MB ...")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise FileNotFoundError("apt-get")
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    apt = [
        "apt-get", "-qq",
        "-o", f"Dir::State::lists={scratch / 'lists'}",
        "-o", f"Dir::Cache={scratch / 'cache'}",
        "-o", "Debug::NoLocking=1",
        "-o", "APT::Sandbox::User=",
    ]  # fmt: skip
    _run([*apt, "update"], scratch)
    _run([*apt, "download", _PACKAGE], scratch)
    pictures = scratch / "pictures"
    _unpack(next(scratch.glob("*.deb")), pictures)
    return pictures


def _unpack(package: Path, into: Path) -> None:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as unpacking,  # noqa: S603
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for member in archive:
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix in _KEPT and path.is_relative_to(_STAMPS):
                target = into / path.relative_to(_STAMPS)
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None, "a regular file has content"
                target.write_bytes(source.read())
    if unpacking.returncode != 0:
        raise subprocess.CalledProcessError(unpacking.returncode, command)


def _fetch_scikit_image(scratch: Path, say: Callable[[str], object]) -> Path:
    say("Fetching the pictures that scikit-image carries, about 15 MB ...")
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
         "--only-binary=:all:", "--dest", str(scratch), "scikit-image"],
        scratch,
    )  # fmt: skip
    pictures = scratch / "pictures"
    pictures.mkdir()
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            path = PurePosixPath(name)
            if path.parent == PurePosixPath("skimage/data") and path.suffix in _KEPT:
                (pictures / path.name).write_bytes(wheel.read(name))
    return pictures


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=900)  # noqa: S603


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent
