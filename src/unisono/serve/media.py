"""Media of an item for a browser: its own file where browsers know the kind, thumbnails, and sketches of everything else; all bounded."""

from __future__ import annotations

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from unisono.core.errors import Unreadable
from unisono.core.media import media_bytes
from unisono.core.schema import Column
from unisono.modalities import pixels
from unisono.model.showing import Showcase
from unisono.serve.replies import Refused, Reply

#: Thumbnails have one of these longest sides, in pixels.
SIDES = (64, 128, 256, 512)
_CACHE_BYTES = 64 << 20
_FILE_BYTES = 64 << 20
_SAFE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox", "Cache-Control": "private, max-age=3600"}
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"), (b"\x1aE\xdf\xa3", "video/webm"),
)  # fmt: skip
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_STYLE = (
    "<style>*{fill:none;stroke:#5b7c72;stroke-width:1.2}text{fill:#5b7c72;stroke:none;font:9px sans-serif}"
    "rect,circle,.bar{fill:#5b7c72;stroke:none}.wave,.area{fill:#5b7c72}</style>"
)


def content_type(data: bytes) -> str:
    """The media type of a file by its first bytes; ``application/octet-stream`` where no browser should show it."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], "application/octet-stream")
    if data[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"M4A ": "audio/mp4"}.get(data[8:12], "video/mp4")
    if len(data) > 1 and data[0] == 0xFF and (data[1] & 0xE6) in (0xE2, 0xE4, 0xE6):
        return "audio/mpeg"
    return next((kind for magic, kind in _KINDS if data.startswith(magic)), "application/octet-stream")


@dataclass(frozen=True)
class _Rootless:
    """What ``Showcase`` asks of a table: the folder of its media. There is none, since cells come here with their content."""

    root: None = None


class Media:
    """Shows cells, remembering thumbnails up to a limit of bytes."""

    def __init__(self, *, cache_bytes: int = _CACHE_BYTES) -> None:
        """Begin with nothing remembered.

        Args:
            cache_bytes: how much is remembered.
        """
        self._limit, self._used = cache_bytes, 0
        self._kept: OrderedDict[Hashable, Reply] = OrderedDict()
        self._lock = threading.Lock()

    def original(self, value: Any) -> Reply:
        """The file itself.

        Raises:
            Refused: it cannot be read (404).
        """
        try:
            data = media_bytes(value, None, limit=_FILE_BYTES)
        except Unreadable as error:
            raise Refused(404, error.reason) from None
        return Reply(data, content_type(data), headers=_SAFE)

    def small(self, key: Hashable, cell: Callable[[], Any], column: Column, side: int) -> Reply:
        """A thumbnail of a picture, or a sketch of another cell.

        Args:
            key: what it is remembered by.
            cell: gives the value.
            column: its column.
            side: the longest side, rounded up to one of ``SIDES``.

        Raises:
            Refused: it cannot be shown (404).
        """
        side = next((s for s in SIDES if s >= side), SIDES[-1])
        with self._lock:
            if (key, side) in self._kept:
                self._kept.move_to_end((key, side))
                return self._kept[key, side]
        value = cell()
        if value is None:
            raise Refused(404, "the cell is missing", f"column {column.name!r}")
        reply = self._thumbnail(value, side) if column.modality == "image" and not column.many else self._sketch(value, column)
        self._keep((key, side), reply)
        return reply

    def _keep(self, key: Hashable, reply: Reply) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = reply
            self._used += len(reply.body)
            while self._used > self._limit:
                _, old = self._kept.popitem(last=False)
                self._used -= len(old.body)

    def _thumbnail(self, value: Any, side: int) -> Reply:
        from PIL import Image

        try:
            content = pixels.fetch(value, None, pixels.MAX_PIXELS)
        except Unreadable as error:
            raise Refused(404, error.reason) from None
        if not isinstance(content, bytes):
            return self._sketch(value, Column("picture", "image", "picture", 0))
        try:
            with Image.open(io.BytesIO(content)) as file:
                if file.width * file.height > pixels.MAX_PIXELS:
                    raise Refused(404, "the picture is too large to be shown")
                file.draft("RGB", (side, side))
                image: Any = file.convert("RGBA" if file.mode in {"RGBA", "LA", "P", "PA"} else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Refused(404, f"the picture cannot be shown: {error}") from None
        image.thumbnail((side, side))
        stream = io.BytesIO()
        if image.mode == "RGBA":
            image.save(stream, "PNG")
        else:
            image.save(stream, "JPEG", quality=85)
        return Reply(stream.getvalue(), "image/png" if image.mode == "RGBA" else "image/jpeg", headers=_SAFE)

    def _sketch(self, value: Any, column: Column) -> Reply:
        table: Any = _Rootless()
        drawn = Showcase(table).draw(value, column)[0]
        if drawn.svg:
            svg = str(drawn.svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
            return Reply(svg.replace(">", f">{_STYLE}", 1).encode(), "image/svg+xml", headers=_SAFE)
        if drawn.uri.startswith("data:image/"):
            kind, _, data = drawn.uri.removeprefix("data:").partition(";base64,")
            return Reply(base64.b64decode(data), kind, headers=_SAFE)
        raise Refused(404, drawn.text or "nothing to show", f"column {column.name!r}")
