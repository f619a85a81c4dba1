"""How much of the long tests is run: what CI can afford, or as much as is asked for."""

import hypothesis
import pytest

pytest_plugins = ["tests.redis_fixtures"]

# how long an example takes says more about the machine than about us
hypothesis.settings.register_profile("triptych", deadline=None)
hypothesis.settings.load_profile("triptych")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triptych")
    group.addoption("--kills", type=int, default=500, help="how often a writer is killed")
    group.addoption("--damaged", type=int, default=2000, help="how many folders are damaged")
    group.addoption("--examples", type=int, default=200, help="runs of the collection's model")
    group.addoption("--seed", type=int, default=0, help="the first seed of the crash tests")
