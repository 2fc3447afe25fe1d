"""Make an index, and add, replace, delete and tidy its rows; every change counts whole or not at all."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unisono.core.errors import ResourceError, TableError, UserError
from unisono.retrieve.approximate import Graph
from unisono.retrieve.build import Added, Target, add_rows, present_file, side_file, side_gallery, write_copies
from unisono.retrieve.embedder import Embedder
from unisono.retrieve.fields import MAX_MEDIA
from unisono.retrieve.hubness import corrections
from unisono.retrieve.scan import mapped, rows_in_chunk
from unisono.retrieve.store import ArrowFile, Files, open_arrow, write_manifest
from unisono.table.read import TableSource

logger = logging.getLogger("unisono")

#: Rows from which approximate search is worth its error: below, exact search takes some hundredths of a second.
LARGE = 5_000_000


_OURS = re.compile(r"(side\d+|present|dead|keys|fields|graph\d+)-[\d-]+\.(f32|bf16|int8|bounds|u8|arrow|faiss)")


@dataclass(frozen=True)
class Settings:
    """How an index is made.

    Attributes:
        approximate: also build graphs for approximate search; None for when there are many rows.
        fields: the columns to keep; None for all but lists of numbers.
        max_media: the largest cell of media that is kept, in bytes.
        correction: what is done against hubs and crowding, such as ``dbnorm`` or ``invgc(rate=0.3)``; None for nothing.
    """

    approximate: bool | None = None
    fields: Sequence[str] | None = None
    max_media: int = MAX_MEDIA
    correction: str | None = None

    def __post_init__(self) -> None:
        if self.correction is not None:
            corrections.build(self.correction, where="correction")
            if self.approximate:
                raise UserError("an index with a correction is searched exactly; leave out approximate, or the correction")
        if self.max_media < 0:
            raise UserError(f"max_media is {self.max_media!r}; it is a number of bytes, at least 0")

    def wants_graphs(self, rows: int) -> bool:
        """Whether so many rows get graphs."""
        return self.correction is None and (rows >= LARGE if self.approximate is None else self.approximate)


def create(folder: Path, embedder: Embedder, source: TableSource, settings: Settings) -> dict[str, Any]:
    """Write a new index beside its final place, and put it there when it is whole.

    Args:
        folder: the index's folder; it must not exist, or be empty.
        embedder: the model.
        source: the table.
        settings: how.

    Raises:
        UserError: the folder holds something already, or the table cannot be indexed.
        ResourceError: the disk is full or the folder cannot be written.
    """
    if "row" in embedder.sources:
        raise UserError("a column is called 'row', which is the name of the side of whole rows; rename the column and fit again")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: there is something already; choose another folder, or delete it first")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    with _explained(folder):
        temporary.mkdir(parents=True)
    files = Files(temporary)
    try:
        with _explained(folder):
            content = _fresh(embedder, settings, folder)
            content = _grown(files, content, embedder, source, settings)
            if content["dimension"] == 0 or content["without_vector"] == content["rows"]:
                raise TableError(f"{source.name}: no row has a vector: none of its cells is one that the model reads")
            write_manifest(temporary, content)
            if folder.exists():
                folder.rmdir()
            temporary.replace(folder)
    except BaseException:
        files.abandon()
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return content


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written: {error.strerror or error}") from None


def _fresh(embedder: Embedder, settings: Settings, folder: Path) -> dict[str, Any]:
    """The manifest of an index without rows."""
    made_by = None if embedder.folder is None else os.path.relpath(embedder.folder.resolve(), folder.resolve())
    return {
        "model": {"folder": made_by, "sha256": embedder.fingerprint, "aligned": embedder.aligned},
        "key": None, "keyed": None, "next": 0, "dimension": 0, "rows": 0, "dead": 0, "dead_file": None, "generation": 0,
        "without_vector": 0, "parts": [], "files": {}, "graphs": {},
        "sides": [{"name": name} for name in ("row", *embedder.sources)],
        "columns": dict(embedder.columns), "dropped": [], "shortened": {},
        "settings": {**asdict(settings), "fields": settings.fields and list(settings.fields)},
    }  # fmt: skip


def settings_of(content: Mapping[str, Any]) -> Settings:
    """The settings that an index was made with."""
    return Settings(**content["settings"])


def _grown(files: Files, content: dict[str, Any], embedder: Embedder, source: TableSource, settings: Settings) -> dict[str, Any]:
    """The manifest with a table's rows added."""
    generation, begin = content["generation"], content["rows"]
    target = Target(
        files, generation, len(content["parts"]), content["dimension"], content["next"], content["keyed"],
        settings.fields if not content["parts"] else content["kept"], settings.max_media,
        None if not content["parts"] else open_arrow(files.folder / content["parts"][0]["fields"]).schema,
    )  # fmt: skip
    added = add_rows(target, embedder, source)
    files.settle()
    sides = write_copies(files, generation, content["sides"], (begin, begin + added.rows), added.dimension)
    files.settle()
    return _with(content, files, added, sides, embedder, source)


def _with(content: dict[str, Any], files: Files, added: Added, sides: list[Any], embedder: Embedder, source: TableSource) -> dict[str, Any]:
    keyed = embedder.key is not None and embedder.key in source.schema.names
    shortened = {**content["shortened"]}
    for name, count in added.shortened.items():
        shortened[name] = shortened.get(name, 0) + count
        logger.warning("%s: %d cell%s of %r were too large to keep in the index", source.name, count, "s" * (count != 1), name)
    if added.without:
        logger.warning("%s: %d rows have no cell that the model reads; no search finds them", source.name, added.without)
    if not content["parts"] and added.dropped:
        logger.info("not kept as fields: %s (lists of numbers; --field keeps a column all the same)", ", ".join(added.dropped))
    grown = {
        **content, "rows": content["rows"] + added.rows, "next": content["next"] + added.rows, "dimension": added.dimension,
        "key": embedder.key if keyed else None, "keyed": keyed, "sides": sides, "parts": [*content["parts"], added.part],
        "without_vector": content["without_vector"] + added.without, "shortened": shortened,
        "dropped": content["dropped"] or added.dropped,
        "kept": content.get("kept") or [n for n in source.schema.names if n not in added.dropped],
    }  # fmt: skip
    grown = with_graphs(files, grown)
    return {**grown, "files": files.pieces}


def with_graphs(files: Files, content: dict[str, Any]) -> dict[str, Any]:
    """The manifest with graphs over all rows, where there are to be some and those there are cover too few rows."""
    rows = content["rows"]
    if not settings_of(content).wants_graphs(rows - content["dead"]):
        return content
    graphs = dict(content["graphs"])
    present = mapped(files.folder / present_file(content["generation"]), np.bool_, (rows, len(content["sides"])))
    for number, side in enumerate(content["sides"]):
        old = graphs.get(side["name"])
        if old is not None and old["rows"] >= Graph.COVERED * rows:
            continue
        graph = Graph.build(side_gallery(files.folder, content, number), np.ascontiguousarray(present[:, number]))
        name = f"graph{number}-{content['generation']}-{rows}.faiss"
        files.append(name, graph.to_bytes())
        if old is not None:
            del files.pieces[old["file"]]
        graphs[side["name"]] = {"file": name, "rows": rows, "recall": graph.recall, "effort": graph.effort}
        logger.info("%s: approximate search finds %.2f %% of the ten nearest of your rows", side["name"], 100 * graph.recall)
    files.settle()
    return {**content, "graphs": graphs}


def grow(folder: Path, content: dict[str, Any], embedder: Embedder, source: TableSource) -> tuple[dict[str, Any], Any]:
    """Add a table's rows behind those of an index, without making them count yet.

    Returns:
        The manifest to write, and the keys of the new rows.
    """
    files = Files(folder, content["files"])
    try:
        with _explained(folder):
            grown = _grown(files, content, embedder, source, settings_of(content))
    finally:
        files.abandon()
    return grown, open_arrow(folder / grown["parts"][-1]["keys"]).column("key")


def with_dead(folder: Path, content: dict[str, Any], dead_N: NDArray[np.bool_]) -> dict[str, Any]:
    """The manifest with a file of deleted rows."""
    files = Files(folder, content["files"])
    serial = 1 + int((content["dead_file"] or "dead-0-0.u8").split("-")[1])
    name = f"dead-{serial}-{content['generation']}.u8"
    if content["dead_file"]:
        del files.pieces[content["dead_file"]]
    with _explained(folder):
        files.append(name, dead_N.tobytes())
        files.settle()
    return {**content, "files": files.pieces, "dead_file": name, "dead": int(dead_N.sum())}


def compacted(folder: Path, content: dict[str, Any], dead_N: NDArray[np.bool_]) -> dict[str, Any]:
    """The manifest of the same index written anew without its deleted rows."""
    old, new = content["generation"], content["generation"] + 1
    files = Files(folder)
    live = np.flatnonzero(~dead_N)
    rows, size, count = content["rows"], content["dimension"], len(content["sides"])
    with _explained(folder):
        present = mapped(folder / present_file(old), np.bool_, (rows, count))
        files.append(present_file(new), np.ascontiguousarray(present[live]).tobytes())
        for number in range(count):
            vectors = mapped(folder / side_file(number, old, "f32"), np.float32, (rows, size))
            step = rows_in_chunk(size)
            for begin in range(0, len(live), step):
                files.append(side_file(number, new, "f32"), np.ascontiguousarray(vectors[live[begin : begin + step]]).tobytes())
        files.settle()
        parts = list(_kept_parts(files, content, dead_N))
        sides = [{"name": side["name"]} for side in content["sides"]]
        sides = write_copies(files, new, sides, (0, len(live)), size)
        files.settle()
    without = int((~present[live, 0]).sum())
    fresh = {
        **content, "rows": len(live), "dead": 0, "dead_file": None, "generation": new, "parts": parts, "sides": sides, "graphs": {},
        "without_vector": without,
    }  # fmt: skip
    return {**with_graphs(files, fresh), "files": files.pieces}


def _kept_parts(files: Files, content: dict[str, Any], dead_N: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    begin = 0
    for number, part in enumerate(content["parts"]):
        keep = ~dead_N[begin : begin + part["rows"]]
        begin += part["rows"]
        if not keep.any():
            continue
        names = {}
        for kind in ("fields", "keys"):
            names[kind] = f"{kind}-{content['generation'] + 1}-{number}.arrow"
            table, done = open_arrow(files.folder / part[kind]), 0
            file = ArrowFile(files, names[kind], table.schema)
            for batch in table.to_batches(max_chunksize=4096) if table.num_columns else ():
                chosen = pa.array(keep[done : done + batch.num_rows])
                file.write(batch.filter(chosen))
                done += batch.num_rows
            file.close()
            files.settle()
        yield {**names, "rows": int(keep.sum()), "root": part["root"]}


def commit(folder: Path, content: dict[str, Any]) -> None:
    """Make a change count, and remove the index's own files that no longer do."""
    write_manifest(folder, content)
    for path in folder.iterdir():
        if path.is_file() and _OURS.fullmatch(path.name) and path.name not in content["files"]:
            path.unlink(missing_ok=True)
