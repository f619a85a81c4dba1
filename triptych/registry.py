"""Names to implementations: "module:Class" strings, resolved on first use.

Entry points of the group `triptych.<kind>` (model, index, command) add more.

This is the only lazy import of the house: a model or a command costs nothing until it is named.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from triptych.errors import NotAvailable, NotFound


class Registry:
    """A mapping from a name to what `"module:attribute"` refers to."""

    def __init__(self, kind: str, targets: dict[str, str], *, extras: dict[str, str] | None = None):
        self.kind = kind
        self._targets = dict(targets)
        self._extras = extras or {}

    def register(self, name: str, target: str) -> None:
        """Add or replace `name`; `target` is `"module:attribute"`."""
        self._targets[name] = target

    def names(self) -> list[str]:
        """All known names, those of installed plug-ins included."""
        return sorted(self._all())

    def __contains__(self, name: str) -> bool:
        return name in self._targets or name in self._all()

    def resolve(self, name: str) -> Any:
        """Return what `name` refers to.

        Raises NotFound for an unknown name, NotAvailable when the library it needs is missing.
        """
        # plug-ins come last: to read their metadata takes as long as to open a collection
        target = self._targets.get(name) or self._all().get(name)
        if target is None:
            near = get_close_matches(name, self.names(), n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise NotFound(
                f"Unknown {self.kind} {name!r}{meant}, known: {', '.join(self.names())}."
            )
        module, _, attribute = target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing.split(".")[0] == "triptych":
                raise
            extra = self._extras.get(name)
            hint = (
                f'Run: pip install "triptych[{extra}]"' if extra else f"Run: pip install {missing}"
            )
            raise NotAvailable(
                f"{self.kind[:1].upper()}{self.kind[1:]} {name!r} needs {missing!r}.", hint=hint
            ) from None

    def _all(self) -> dict[str, str]:
        plugins = import_module("importlib.metadata").entry_points(group=f"triptych.{self.kind}")
        return {point.name: point.value for point in plugins} | self._targets
