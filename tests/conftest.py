"""What all tests have: how much of the long ones is run, and a look at what was left open."""

import gc
from collections.abc import Callable, Iterator

import hypothesis
import pytest

pytest_plugins = ["tests.redis_fixtures"]

# how long an example takes says more about the machine than about us
hypothesis.settings.register_profile("triptych", deadline=None)
hypothesis.settings.load_profile("triptych")

_FIGURE = "figure"  # kept with a test's report, which comes from the process that ran it


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Tell of what a module left open in that module, not in whichever test comes later."""
    yield
    gc.collect()


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return what takes lines for the end of the run: how much was tried, how long it took."""
    return lambda line: record_property(_FIGURE, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = [
        one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)
    ]
    figures = [line for one in ended for name, line in one.user_properties if name == _FIGURE]
    if figures:
        terminalreporter.section("figures")
    for figure in figures:
        terminalreporter.line(str(figure))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triptych")
    group.addoption("--kills", type=int, default=500, help="how often a writer is killed")
    group.addoption("--damaged", type=int, default=2000, help="how many folders are damaged")
    group.addoption("--examples", type=int, default=200, help="runs of the collection's model")
    group.addoption("--seed", type=int, default=0, help="the first seed of the crash tests")
