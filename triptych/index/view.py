"""All vectors of a store at one moment, while it goes on being written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import apsw

from triptych.index.meta import Space, current_space, read_state
from triptych.index.spaces import Loaded, load_after


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """One state of a store. Any thread may use it, one at a time, until it is closed."""

    connection: apsw.Connection
    space: Space
    sequence: int
    last_row: int
    epoch: str
    count: int

    @classmethod
    def of(cls, connection: apsw.Connection) -> Self:
        """Return the state that `connection` sees."""
        state = read_state(connection)
        epoch = connection.execute("SELECT epoch FROM epochs ORDER BY rowid DESC LIMIT 1").get
        return cls(
            connection=connection,
            space=current_space(connection),
            sequence=state.sequence,
            last_row=state.last_row,
            epoch=epoch or "",
            count=state.count,
        )

    def chunks(self, size: int = 4096) -> Iterator[Loaded]:
        """Yield all items, rows ascending, at most `size` at a time."""
        row = 0
        while True:
            part = load_after(self.connection, self.space, row, size)
            if not len(part.rows_N) and not part.damaged:
                return
            yield part
            row = max([*part.rows_N[-1:].tolist(), *part.damaged])
