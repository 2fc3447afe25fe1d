"""``unisono serve DIR|IDX``."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unisono.cli import common
from unisono.core.errors import UserError

if TYPE_CHECKING:
    from unisono.serve.service import Limits, Service

_UNITS = {"": 1, "b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a model folder, or an index folder")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the model that made the index (default: the folder that it records)")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port (default 8000; 0 for any that is free)")
    parser.add_argument("--queue", type=int, default=128, metavar="N", help="requests for the model at once, before 429 (default 128)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="rows that run together at most (default 32)")
    parser.add_argument("--max-upload", default="20MB", metavar="SIZE", help="the largest request (default 20MB)")
    parser.add_argument("--timeout", default="30s", metavar="TIME", help="for a request to arrive, and to be answered (default 30s)")
    common.add_output(parser)


def size(text: str) -> int:
    """Bytes from ``20MB``, ``500 kB`` or a number.

    Raises:
        UserError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?b?)\s*", text.lower())
    unit = "" if match is None else match.group(2)
    unit = f"{unit}b" if unit in {"k", "m", "g"} else unit
    if match is None or (found := int(float(match.group(1)) * _UNITS[unit])) < 1:
        raise UserError(f"--max-upload {text}: no size; write for example 20MB")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says stop."""
    from unisono.model.options import parse_duration
    from unisono.serve import app, server
    from unisono.serve.service import Limits

    common.show_notes(arguments.quiet)
    for name in ("queue", "batch"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} {getattr(arguments, name)}: at least 1")
    seconds = parse_duration(arguments.timeout)
    limits = Limits(queue=arguments.queue, upload=size(arguments.max_upload), seconds=seconds, batch=arguments.batch)
    listening = server.open_port(arguments.host, arguments.port)
    if not server.is_loopback(arguments.host):
        _say(f"warning: {arguments.host} can be reached from other machines, and nothing here asks who they are")
    service = _service(arguments.folder, arguments.model, limits)
    try:
        built = app.build(service, hosts=server.hosts_of(arguments.host))
        made = server.made(built, seconds=seconds, ready=lambda: _ready(arguments, server.address_of(listening)))
        made.run(sockets=[listening])
    finally:
        listening.close()
        service.close()
    if not arguments.quiet:
        _say("stopped")
    return 0


def _service(folder: Path, model: Path | None, limits: Limits) -> Service:
    """What a folder holds, ready to answer."""
    from unisono.model.estimator import Model
    from unisono.retrieve.index import Index
    from unisono.retrieve.store import MANIFEST
    from unisono.serve.service import Service

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give a model folder or an index folder")
    if not (folder / MANIFEST).is_file():
        if model is not None:
            raise UserError(f"{folder} is no index, so --model has nothing to say")
        return Service(Model.load(folder).predictor(), folder.name, limits=limits)
    index = Index(folder)
    made_by = model or index.model_folder
    if made_by is None or not made_by.is_dir():
        raise UserError(f"{folder}: the model that made this index is not where the index expects it; name its folder with --model DIR")
    known = Model.load(made_by)
    index.use(known.embedder())
    return Service(known.predictor(), folder.name, index, limits)


def _ready(arguments: argparse.Namespace, address: str) -> None:
    if arguments.json:
        common.print_json({"address": address, "folder": str(arguments.folder)})
        sys.stdout.flush()
    elif not arguments.quiet:
        _say(f"serving {arguments.folder} at {address} (stop with Ctrl-C)")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
