"""PNG without compression: the same bytes on every machine, whatever its zlib, and quick to write."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_BLOCK = 65535


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored(raw: bytes) -> bytes:
    """Wrap bytes as a zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    parts = [b"\x78\x01"]
    for start in range(0, len(raw), _BLOCK):
        piece = raw[start : start + _BLOCK]
        last = start + _BLOCK >= len(raw)
        parts += [struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF), piece]
    return b"".join([*parts, struct.pack(">I", zlib.adler32(raw))])


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels of shape (row, column) as grey or (row, column, 3) as RGB, eight bits a channel."""
    rows, columns = pixels.shape[:2]
    flat = pixels.reshape(rows, -1)
    lines = np.zeros((rows, flat.shape[1] + 1), dtype=np.uint8)
    lines[:, 1:] = flat
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(lines.tobytes())) + _chunk(b"IEND", b"")
