"""What an installation holds: one faiss, the model, and names that others rely on."""

from importlib.metadata import distributions, entry_points
from pathlib import Path

import triptych
from triptych.cli.main import COMMANDS
from triptych.settings import MODELS

PACKAGE = Path(triptych.__file__).parent


def test_only_one_faiss_is_there() -> None:
    names = {dist.metadata["Name"].lower().replace("_", "-") for dist in distributions()}
    assert len({name for name in names if name.startswith("faiss-")}) == 1, (
        "faiss-cpu and faiss-gpu share one module; run: make install-gpu, or start a fresh .venv"
    )


def test_the_shipped_model_fits_in_40_mb() -> None:
    files = list((PACKAGE / "encoders" / "default").iterdir())
    assert {"MODEL_CARD.md", "model.json", "tokenizer.json.gz"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 40 * 1000**2


def test_the_names_that_others_rely_on() -> None:
    assert set(triptych.__all__) == {
        "Collection", "Hit", "Item", "Part", "Query", "Retriever", "RetrieverConfig", "TriptychError",
        "collections", "connect", "connect_async", "create", "drop", "open",
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
