"""Results on disk: one JSON object a line and metric, written a case at a time, and never repeated for the same inputs and code."""

from __future__ import annotations

import ast
import fcntl
import functools
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import Case, Measured, Row

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
_DATA = {".yaml", ".html", ".css", ".js", ".j2"}

Record = dict[str, Any]


def digest(parts: Sequence[bytes | str]) -> str:
    """A short hash of parts, their borders included."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:16]


def meaning(source: str) -> str:
    """A module's syntax tree as text, without comments and docstrings: what its figures can depend on."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:]
    return ast.dump(tree)


@functools.cache
def package_code(folder: Path) -> str:
    """A hash of a package: the meaning of its modules, the bytes of its recipes and templates."""
    parts: list[bytes | str] = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".py":
            parts += [path.relative_to(folder).as_posix(), meaning(path.read_text(encoding="utf-8"))]
        elif path.suffix in _DATA:
            parts += [path.relative_to(folder).as_posix(), path.read_bytes()]
    return digest(parts)


def sources(module: str, folder: Path = HERE) -> list[Path]:
    """The file of a row's module and of the benchmark modules that it imports, directly or not."""
    found: list[Path] = []
    wanted = [module.removeprefix("benchmarks.")]
    while wanted:
        path = folder / f"{wanted.pop().replace('.', '/')}.py"
        if path in found or not path.is_file():
            continue
        found.append(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            inside = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            inner = [(inside + n).removeprefix("benchmarks.") for n in names if (inside + n).startswith("benchmarks.")]
            wanted += [part for n in inner for part in (n, n.rpartition(".")[0])]
    return sorted(found)


@functools.cache
def row_code(module: str) -> tuple[str, ...]:
    """The meaning of a row's module and of what it imports of the benchmarks."""
    return tuple(meaning(path.read_text(encoding="utf-8")) for path in sources(module))


def key_of(row: Row, case: Case, package: Path | None = None) -> str:
    """What a case depends on, as a hash.

    Its arm, seed and inputs; the row's module with the benchmark modules that it imports; and the whole of the package, recipes and
    templates included: parts are looked up by name at run time, so no smaller set of files is sure to hold all that a run imports.
    Comments and docstrings do not count.
    """
    if package is None:
        import unisono

        package = Path(unisono.__file__).parent
    inputs = json.dumps([row.name, case.arm, case.seed, dict(case.inputs)], sort_keys=True)
    return digest([inputs, package_code(package), *row_code(row.module)])


def commit() -> str:
    """The commit that is checked out, with ``+`` where files differ from it; ``unknown`` outside of a repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", "../src", ":!results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """The kind of machine: processor, its instruction sets, cores, threads, and the libraries' versions; nothing that names it."""
    import torch

    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    flags = set(found.get("flags", "").split())
    return {
        "processor": found.get("model name", platform.machine()),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def records_of(row: Row, case: Case, measured: Measured, *, key: str, seconds: float) -> list[Record]:
    """One record for each metric of a case; each says how many there are, so that a torn write is found out."""
    common = {"command": f"python -m benchmarks {row.name}", "commit": commit(), "machine": machine()}
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return [
        {
            "bench": row.name, "arm": case.arm, "metric": metric, "value": value, "unit": unit, "seed": case.seed,
            "inputs": dict(case.inputs), **common, "key": key, "of": len(measured), "seconds": round(seconds, 2), "at": at,
        }
        for metric, (value, unit) in measured.items()
    ]  # fmt: skip


def append(path: Path, records: Sequence[Record]) -> None:
    """Append a case's records in one write, under a lock; a line that an earlier write left unfinished is ended first.

    Raises:
        ValueError: a value is not finite.
    """
    text = "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[Record]:
    """Read a results file; broken lines are passed over.

    Yields:
        Records in the order in which they were written.
    """
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"bench", "arm", "metric", "value", "unit", "seed", "inputs", "key", "of", "at"} <= record.keys():
            yield record


def complete(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each run of a case that was written as a whole, oldest first."""
    runs: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        runs.setdefault((record["key"], record["at"]), {})[record["metric"]] = record
    return [list(run.values()) for run in runs.values() if len(run) == next(iter(run.values()))["of"]]


def done(path: Path) -> set[str]:
    """The keys of the cases that need not be repeated."""
    return {run[0]["key"] for run in complete(list(read(path)))}
