"""Files that were moved or copied: their bytes are known, so nothing is decoded or embedded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from triptych.encoders.pictures.picture import PictureLimits, picture_bytes
from triptych.errors import InvalidInput
from triptych.index.sqlite.records import FileState, KnownFile
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.offers import Offer
from triptych.retrieval.ingest.scan import Found
from triptych.retrieval.maintenance.copying import Twin
from triptych.retrieval.prepare import content_of


class Twins:
    """What is stored already of files that come under another name; threads may share it.

    Of the `known` files those count that have the size of one of the `fresh`, and only such a
    fresh one is read for it. `gone` are the ids of known files that vanished.
    """

    def __init__(
        self, known: Mapping[str, KnownFile], fresh: Iterable[Found], gone: Iterable[str] = ()
    ) -> None:
        self._sizes = {id: file.state.size for id, file in known.items()}
        sizes = {one.state.size for one in fresh if self._sizes.get(one.path) != one.state.size}
        alike = {
            id: file.content
            for id, file in known.items()
            if file.content is not None and file.state.size in sizes
        }
        self._wanted = {self._sizes[id] for id in alike}
        self._ids = {content: id for id, content in alike.items()}
        self._gone: defaultdict[str, list[str]] = defaultdict(list)
        for id in gone:
            if id in alike:
                self._gone[alike[id]].append(id)

    @property
    def gone(self) -> list[str]:
        """Ids of vanished files that may have been moved, as far as is known by now."""
        return [id for ids in self._gone.values() for id in ids]

    def take(
        self, collection: Collection, block: Sequence[Offer], limits: PictureLimits
    ) -> dict[str, str]:
        """Store those of the block that have a twin, in one transaction; return id and content."""
        twins: dict[str, Twin] = {}
        for offer in block:
            if not self._may_have_one(offer):
                continue
            try:
                content = content_of(offer.item, picture_bytes(offer.place, limits=limits))
            except InvalidInput:  # whoever is to decode it says so
                continue
            if offer.file is not None and content in self._ids:
                twins[offer.item.id] = Twin(offer.file, content=content, of=self._ids[content])
        if not twins:
            return {}
        stored = collection.copying.again(twins)
        taken = {id: twin.content for id, twin in twins.items() if id in stored}
        self._ids.update((content, id) for id, content in taken.items())  # the old may go now
        return taken

    def moved(self, content: str) -> str | None:
        """Return a vanished file whose bytes have come under a new name; None where it is a copy.

        Each is returned once.
        """
        gone = self._gone.get(content)
        return gone.pop() if gone else None

    def _may_have_one(self, offer: Offer) -> bool:
        # of its old size it is most likely its old self, with another time
        size = offer.file.size if offer.file is not None else None
        return size in self._wanted and size != self._sizes.get(offer.item.id)


def num_moved(gone: Iterable[str], known: Mapping[str, KnownFile], fresh: Iterable[Found]) -> int:
    """Return how many of the vanished files seem to be there under a new name.

    By their size and time, which a file keeps that is moved.
    """
    new = Counter(_look(one.state) for one in fresh if one.path not in known)
    return (Counter(_look(known[id].state) for id in gone) & new).total()


def _look(state: FileState) -> tuple[int, int]:
    return state.size, state.mtime_ns
