"""Blocks of offers through a few lanes, each of which reads, decodes, embeds and writes a block.

While one lane decodes another embeds and a third waits for the disk, so the cores are never idle
and nothing is handed from stage to stage. In memory are, per lane, one block of encoded and at
most `_BATCH_PIXELS` of decoded pictures, and one picture more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TypeVar

from triptych.encoders.pictures.picture import PictureLimits, load_picture, picture_bytes, thumbnail
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.offers import Offer
from triptych.retrieval.ingest.twins import Twins
from triptych.retrieval.prepare import Prepared, check_item, content_of

_BLOCK = 32
_BLOCK_BYTES = 32 * 2**20
_BATCH_PIXELS = 32_000_000  # pictures that are not JPEG come in full size
T = TypeVar("T")


@dataclass(slots=True)
class Done:
    """What became of a block.

    `copied` are the contents of what came under a new name, `lost` ids of which what they held
    before is surely not true any more.
    """

    added: int = 0
    updated: int = 0
    copied: list[str] = field(default_factory=list)
    unchanged: list[Offer] = field(default_factory=list)
    failed: list[tuple[Offer, InvalidInput]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many offers it was."""
        written = self.added + self.updated + len(self.copied)
        return written + len(self.unchanged) + len(self.failed)


class Lane:
    """Takes blocks into a collection; several threads may share it."""

    def __init__(
        self, collection: Collection, limits: PictureLimits, twins: Twins | None = None
    ) -> None:
        self._collection = collection
        self._limits = limits
        self._twins = twins
        # as the model itself would decode it: a picture and its query then give one vector
        self._size_hint: int | None = getattr(collection.embedder, "picture_size", None)

    def take(self, block: list[Offer]) -> Done:
        """Store what of the block is new or different, each batch in one durable transaction."""
        known = self._collection.contents([offer.item.id for offer in block])
        done = Done()
        taken = self._twins.take(self._collection, block, self._limits) if self._twins else {}
        done.updated = len(taken.keys() & known.keys())
        done.copied = [content for id, content in taken.items() if id not in known]
        batch: list[tuple[Offer, Prepared]] = []
        pixels = 0
        for offer in block:
            if offer.item.id in taken:
                continue
            try:
                prepared = self._prepared(offer, known.get(offer.item.id), done)
            except InvalidInput as error:
                done.failed.append((offer, error))
                continue
            if prepared is None:
                done.unchanged.append(offer)
                continue
            batch.append((offer, prepared))
            width, height = getattr(prepared.item.image, "size", (0, 0))
            pixels += width * height
            if pixels > _BATCH_PIXELS:
                self._write(batch, known.keys(), done)
                batch, pixels = [], 0
        self._write(batch, known.keys(), done)
        return done

    def _prepared(self, offer: Offer, known: str | None, done: Done) -> Prepared | None:
        """Return what is to be embedded, None where the same content is stored."""
        item = offer.item
        check_item(item)
        data: bytes | None = None
        if item.image is not None:
            try:
                data = picture_bytes(item.image, limits=self._limits)
            except InvalidInput as error:
                # that a file cannot be read now says nothing of the picture; that it is empty does
                if error.code in ("picture_empty", "picture_too_large"):
                    done.lost.append(item.id)
                raise
        content = content_of(item, data)
        if known == content:
            return None
        if data is None:
            return Prepared(item=item, content=content, file=offer.file)
        try:
            picture = load_picture(data, limits=self._limits, size_hint=self._size_hint)
        except InvalidInput:
            done.lost.append(item.id)
            raise
        return Prepared(
            item=replace(item, image=picture),
            thumbnail=thumbnail(picture),
            content=content,
            file=offer.file,
        )

    def _write(self, batch: list[tuple[Offer, Prepared]], known: Iterable[str], done: Done) -> None:
        if not batch:
            return
        try:
            self._collection.put([prepared for _, prepared in batch])
        except InvalidInput as error:
            if len(batch) == 1:
                done.failed.append((batch[0][0], error))
                done.lost.append(batch[0][0].item.id)
                return
            # one that the model cannot place must not take its neighbours with it
            for one in batch:
                self._write([one], known, done)
            return
        updated = sum(offer.item.id in known for offer, _ in batch)
        done.updated += updated
        done.added += len(batch) - updated


def blocks(offers: Iterable[T], num_bytes: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield lists of at most 32 offers, or fewer that hold much."""
    block: list[T] = []
    held = 0
    for offer in offers:
        block.append(offer)
        held += num_bytes(offer)
        if len(block) >= _BLOCK or held > _BLOCK_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def in_lanes(
    take: Callable[[list[T]], Done], some: Iterable[list[T]], *, lanes: int
) -> Generator[Done, None, None]:
    """Yield what came of each block, as they end; one more than there are lanes is read ahead."""
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        running: set[Future[Done]] = set()
        try:
            for block in some:
                running.add(pool.submit(take, block))
                while len(running) > lanes:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ended)
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ended)
        finally:
            for future in running:
                future.cancel()
