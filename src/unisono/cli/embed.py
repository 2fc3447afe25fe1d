"""``unisono embed DIR TABLE -o OUT``."""

from __future__ import annotations

import argparse

from unisono.cli.predict import add_arguments, stream

__all__ = ["add_arguments", "run"]


def run(arguments: argparse.Namespace) -> int:
    """Embed every row, in order."""
    return stream(arguments, "embeddings")
