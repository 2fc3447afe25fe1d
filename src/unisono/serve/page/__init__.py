"""The page's own files: read once, sent as they are, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


def files() -> dict[str, tuple[bytes, str]]:
    """Name -> content and media type of every file of the page."""
    here = Path(__file__).parent
    return {p.name: (p.read_bytes(), _TYPES[p.suffix]) for p in sorted(here.iterdir()) if p.suffix in _TYPES}
