"""The pictures of a request: strings and uploads to decoded pictures, within limits."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Mapping

from PIL import Image

from triptych.api.fetch import Fetcher
from triptych.encoders.pictures.picture import PictureLimits, load_picture, picture_bytes
from triptych.errors import PictureError

_AT_ONCE = 2  # a decoded picture takes hundreds of megabytes for a moment
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PART = "part:"


class Pictures:
    """Decodes what a caller sent; never a path of the server's."""

    def __init__(self, *, limits: PictureLimits, fetcher: Fetcher, at_once: int = _AT_ONCE) -> None:
        self._limits, self._fetcher = limits, fetcher
        self._turns = threading.BoundedSemaphore(at_once)

    def load(
        self,
        source: str | bytes,
        *,
        size_hint: int | None,
        files: Mapping[str, bytes] | None = None,
    ) -> Image.Image:
        """Return the picture; `files` are the parts that `part:NAME` may name.

        Raises PictureError, ApiError for a URL that is not allowed.
        """
        return self.decode(self.sent(source, files=files), size_hint=size_hint)

    def decode(self, data: bytes, *, size_hint: int | None) -> Image.Image:
        """Return the picture that these bytes are; raises PictureError."""
        try:
            with self._turns:
                return load_picture(data, limits=self._limits, size_hint=size_hint)
        except PictureError as error:
            if error.code != "picture_too_large":
                raise
            # who calls a server cannot raise its limits
            raise PictureError(error.code, error.message, hint="Make it smaller.") from None

    def sent(self, source: str | bytes, *, files: Mapping[str, bytes] | None = None) -> bytes:
        """Return the bytes of the picture that was sent, or that its URL names."""
        given = source if isinstance(source, bytes) else self._named(source, files or {})
        data = picture_bytes(given, limits=self._limits)
        assert data is not None, "bytes have bytes"
        return data

    def _named(self, source: str, files: Mapping[str, bytes]) -> bytes | str:
        if source[:5].lower() == "data:":
            return source
        if _URL.match(source):
            return self._fetcher.fetch(source)
        if source.startswith(_PART):
            name = source.removeprefix(_PART)
            if name not in files:
                raise PictureError(
                    "picture_missing", f"There is no part {name[:80]!r} in the body."
                )
            return files[name]
        return self._from_base64(source)

    def _from_base64(self, text: str) -> bytes:
        if len(text) * 3 // 4 > self._limits.max_bytes + 2:
            raise PictureError(
                "picture_too_large",
                f"The picture has over {self._limits.max_bytes:,} bytes.",
                hint="Make it smaller.",
            )
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise PictureError(
                "picture_data_uri",
                "A picture is a data URI, strict base64, part:NAME or an allowed URL.",
                hint="A path on the server is never read.",
            ) from None
