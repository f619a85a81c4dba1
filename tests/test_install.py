"""What an installation holds: one faiss, the model, and names that others rely on."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distributions, entry_points
from pathlib import Path

import pytest

import triptych
from triptych.cli.main import COMMANDS
from triptych.settings import MODELS

PACKAGE = Path(triptych.__file__).parent
ROOT = PACKAGE.parent


def python(*arguments: str, folder: Path, path: Path = ROOT) -> str:
    env = os.environ | {"PYTHONPATH": str(path), "TRIPTYCH_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist of the tree, as pip builds them."""
    folder = tmp_path_factory.mktemp("built")
    for name in ("triptych", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    for kind in ("wheel", "sdist"):
        python("-c", f"import setuptools.build_meta as b; b.build_{kind}('.')", folder=folder)
    return folder


def named(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "triptych").rglob("*.*")}


@pytest.mark.slow
def test_a_wheel_holds_all_of_the_package_and_searches(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert named(site) == named(built)
    (tmp_path / "items.jsonl").write_text('{"id": "note", "text": "a red shoe"}\n')
    run = ("-m", "triptych")
    python(*run, "index", "items.jsonl", folder=tmp_path, path=site)
    assert "note" in python(*run, "search", "shoe", folder=tmp_path, path=site)


@pytest.mark.slow
def test_an_sdist_holds_the_package_and_no_half_of_the_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"triptych/py.typed", "triptych/encoders/default/text.onnx", "LICENSE"} <= names
    assert not [name for name in names if name.startswith("tests")]


def test_only_one_faiss_is_there() -> None:
    names = {dist.metadata["Name"].lower().replace("_", "-") for dist in distributions()}
    assert len({name for name in names if name.startswith("faiss-")}) == 1, (
        "faiss-cpu and faiss-gpu share one module; run: make install-gpu, or start a fresh .venv"
    )


def test_the_shipped_model_fits_in_40_mb() -> None:
    files = list((PACKAGE / "encoders" / "default").iterdir())
    assert {"MODEL_CARD.md", "model.json", "tokenizer.json.gz"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 40 * 1000**2


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_another_system_is_told_at_once(system: str) -> None:
    line = f"import sys; sys.platform = {system!r}; import triptych"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=60)
    assert f"ImportError: Triptych runs on Linux, this is {system}" in done.stderr


def test_the_names_that_others_rely_on() -> None:
    assert set(triptych.__all__) == {
        "Collection", "Hit", "Item", "Part", "Query", "Retriever", "RetrieverConfig", "TriptychError",
        "collections", "connect", "connect_async", "create", "drop", "open", "sheet",
    }  # fmt: skip
    for name in triptych.__all__:
        assert getattr(triptych, name) is not None
    assert {"index", "search", "serve", "eval", "demo", "info"} <= set(COMMANDS.names())
    assert {"default", "hashing", "open_clip", "vectors"} <= set(MODELS.names())


def test_commands_and_models_resolve() -> None:
    for registry in (COMMANDS, MODELS):
        for name in registry.names():
            assert registry.resolve(name) is not None


def test_the_console_script_is_declared() -> None:
    (script,) = entry_points(group="console_scripts", name="triptych")
    assert script.value == "triptych.cli.main:main"
