import pytest

from triptych.errors import NotAvailable, NotFound
from triptych.registry import Registry


def test_a_name_resolves_to_what_its_string_says() -> None:
    registry = Registry("thing", {"decoder": "json:JSONDecoder"})
    registry.register("encoder", "json:JSONEncoder")
    assert registry.names() == ["decoder", "encoder"]
    assert registry.resolve("encoder").__name__ == "JSONEncoder"


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(NotFound, match="Unknown thing 'x', known: a, b"):
        Registry("thing", {"b": "json:b", "a": "json:a"}).resolve("x")


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    registry = Registry("model", {"big": "no_such_library:Model"}, extras={"big": "torch"})
    with pytest.raises(
        NotAvailable, match=r'needs .no_such_library.*pip install "triptych\[torch\]"'
    ):
        registry.resolve("big")


def test_a_missing_module_of_our_own_is_a_bug_and_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError):
        Registry("thing", {"x": "triptych.no_such_module:X"}).resolve("x")
