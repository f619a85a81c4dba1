"""The layout is the architecture: modules import downwards only, and torch stays in its rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "triptych"

LAYERS: list[set[str]] = [
    {"types", "errors", "filters", "filter_text"},
    {"registry", "metrics", "pairs", "control", "keys", "lengths", "deadline", "spans"},
    {"encoders", "moe", "cache", "index"},
    {"model", "embedder"},
    {"retrieval", "training"},
    {"settings"},
    {"api", "cli", "client"},
    {"__main__"},
    {"integrations"},  # its MCP server has the keys and the checks of the HTTP API
]
TORCH_ROOMS = {"training", "moe", "model"}
TORCH_ENCODERS = {"towers", "cross_modal", "structure", "scorers", "hubness", "open_clip"}
TORCH_FREE = {("moe", "serving"), ("moe", "metrics"), ("moe", "plot")}
# the steps inside the bottom layer
SAME_LAYER = {
    ("types", "errors"),
    ("filters", "errors"),
    ("filters", "types"),
    ("filters", "filter_text"),
    ("filter_text", "errors"),
}


def modules() -> list[tuple[str, ...]]:
    return [
        path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))
    ]


def imports(module: tuple[str, ...]) -> set[str]:
    tree = ast.parse(PACKAGE.joinpath(*module).with_suffix(".py").read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            found.add(node.module or "")
    return found


def layer(room: str) -> int:
    return next(at for at, rooms in enumerate(LAYERS) if room in rooms)


@pytest.mark.parametrize("module", modules(), ids=".".join)
def test_imports_point_downwards(module: tuple[str, ...]) -> None:
    room = module[0]
    if room == "__init__":
        pytest.skip("the package root re-exports by name")
    for name in imports(module):
        assert name != "triptych", "import from the module that defines a name, not the root"
        if not name.startswith("triptych."):
            continue
        other = name.split(".")[1]
        if other != room and (room, other) not in SAME_LAYER:
            assert layer(other) < layer(room), f"{'.'.join(module)} imports {name}"


@pytest.mark.parametrize("module", modules(), ids=".".join)
def test_torch_stays_in_its_rooms(module: tuple[str, ...]) -> None:
    roots = {name.split(".")[0] for name in imports(module)}
    if roots & {"torch", "torchvision", "open_clip", "torch_geometric"}:
        assert module not in TORCH_FREE
        in_room = module[0] in TORCH_ROOMS and module[-1] != "__init__"
        assert in_room or (module[0] == "encoders" and module[1] in TORCH_ENCODERS)


def test_nobody_imports_training() -> None:
    for module in modules():
        if module[0] != "training":
            assert not any(name.startswith("triptych.training") for name in imports(module))


def test_only_settings_reads_the_environment() -> None:
    for module in modules():
        text = PACKAGE.joinpath(*module).with_suffix(".py").read_text("utf-8")
        if module != ("settings",):
            assert "os.environ" not in text and "getenv" not in text, module


def test_only_the_silenced_runtime_is_used() -> None:
    for module in modules():
        assert module == ("encoders", "runtime") or "onnxruntime" not in imports(module), module


@pytest.mark.parametrize("folder", ["benchmarks", "tests", "examples"])
def test_nobody_else_imports_it_unsilenced(folder: str) -> None:
    for path in sorted((PACKAGE.parent / folder).rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:  # a function runs later
            names = [alias.name for alias in getattr(node, "names", [])]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            assert not any(name.split(".")[0] == "onnxruntime" for name in modules), path


def test_functions_and_files_keep_the_measure() -> None:
    for module in modules():
        text = PACKAGE.joinpath(*module).with_suffix(".py").read_text("utf-8")
        assert len(text.splitlines()) <= 400, f"{module}: over 400 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 60, f"{module}: {node.name} is too long"


def test_importing_and_searching_loads_no_torch() -> None:
    code = (
        "import sys, triptych, triptych.cli.main, triptych.cli.search, triptych.retrieval.collection\n"
        "triptych.open\n"
        "assert not {'torch', 'pyarrow', 'open_clip'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_serving_experts_loads_no_torch() -> None:
    code = (
        "import sys, triptych.moe.serving, triptych.moe.metrics, triptych.moe.plot\n"
        "assert not {'torch', 'onnx', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_unpickles() -> None:
    for module in modules():
        roots = {name.split(".")[0] for name in imports(module)}
        assert not roots & {"pickle", "shelve", "dill", "joblib", "marshal"}, module


def test_torch_reads_nothing_but_weights() -> None:
    for module in modules():
        text = PACKAGE.joinpath(*module).with_suffix(".py").read_text("utf-8")
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) in ("torch.load", "torch.jit.load") or (
                ast.unparse(call.func).endswith(".load_checkpoint")
            ):
                said = {word.arg: ast.unparse(word.value) for word in call.keywords}
                assert said.get("weights_only") == "True", f"{module}: {ast.unparse(call)}"
