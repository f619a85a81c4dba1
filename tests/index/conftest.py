"""A store on the disk, for the tests of what happens to one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.index.small_store import entry, open_store
from triptych.index.sqlite.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(path)
    store.write([entry(f"i{at}", metadata={"n": at}) for at in range(100)], replace=False)
    yield store
    store.close()
