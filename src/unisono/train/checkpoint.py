"""Checkpoints: tensors as safetensors, everything else as JSON, written so that a complete one exists at every instant.

A checkpoint is first written under another name, flushed to the disk, and then renamed into place; its predecessor is removed
only afterwards. Killed anywhere in between, ``load`` finds the new one or the one before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from unisono.core.errors import ModelFolderError, ResourceError

VERSION = 1
FOLDER, PREVIOUS, PARTIAL = "checkpoint", "checkpoint.old", "checkpoint.tmp-"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after a whole number of steps.

    Attributes:
        state: what JSON can hold: step, epoch, place in the epoch, best so far, plan.
        tensors: file name (without suffix) -> name -> tensor; ``model`` is always there, ``optimiser``, ``average`` and
            ``best`` where they apply.
    """

    state: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, a shared tensor under its first name only."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory that later updates leave alone."""
    return {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}


@torch.no_grad()
def put_back(module: nn.Module, tensors: Mapping[str, Tensor], where: str = "checkpoint") -> None:
    """Copy tensors into a module's parameters and buffers.

    Raises:
        ModelFolderError: the names or shapes are not the module's.
    """
    own = named_tensors(module)
    if own.keys() != tensors.keys():
        odd = sorted(own.keys() ^ tensors.keys())
        raise ModelFolderError(
            f"{where}: its weights are not those of this model (differing: {', '.join(odd[:5])}); use the recipe of the run"
        )
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ModelFolderError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, the model needs {tuple(tensor.shape)}")
        tensor.copy_(tensors[name])


def optimiser_tensors(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors ``INDEX.KEY`` and, beside them, the numbers that are no tensors."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entry in optimiser.state_dict()["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                numbers[f"{index}.{key}"] = value
    return tensors, numbers


def put_back_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Restore what ``optimiser_tensors`` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *numbers.items()]:
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def write_file(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and flush them to the disk; the file is not built in memory first."""
    save_tensors({k: t.cpu().contiguous() for k, t in tensors.items()}, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that at every instant the old or the new one is whole.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    partial = path.with_name(path.name + f".tmp-{os.getpid()}")
    try:
        write_file(partial, (json.dumps(content, indent=2) + "\n").encode())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ResourceError(f"{path}: cannot be written ({error.strerror or error}); free some space, or choose another folder") from error


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can flush a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder/checkpoint`` in place of its predecessor.

    Raises:
        ResourceError: the disk is full or not writable; the predecessor is intact.
    """
    final, previous, partial = folder / FOLDER, folder / PREVIOUS, folder / f"{PARTIAL}{os.getpid()}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, tensors in checkpoint.tensors.items():
            _write_tensors(partial / f"{name}.safetensors", tensors)
        files = sorted(checkpoint.tensors)
        write_file(partial / STATE, json.dumps({"version": VERSION, "files": files, **checkpoint.state}, indent=1).encode())
        _flush_folder(partial)
        if final.exists():
            shutil.rmtree(previous, ignore_errors=True)
            final.rename(previous)
        partial.rename(final)
        _flush_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{final}: the checkpoint cannot be written ({reason}); the one before is intact: free some space and go on with --resume"
        ) from error
    shutil.rmtree(previous, ignore_errors=True)


def exists(folder: Path) -> bool:
    """Whether the folder holds a complete checkpoint."""
    return (folder / FOLDER).is_dir() or (folder / PREVIOUS).is_dir()


def load(folder: Path) -> Checkpoint:
    """Read the last complete checkpoint of a folder.

    Raises:
        ModelFolderError: there is none, it is damaged, or a newer version wrote it.
    """
    place = folder / FOLDER if (folder / FOLDER).is_dir() else folder / PREVIOUS
    if not place.is_dir():
        raise ModelFolderError(f"{folder} holds no checkpoint; train without --resume")
    try:
        state = json.loads((place / STATE).read_text())
        version, files = state.pop("version"), state.pop("files")
        if not isinstance(version, int) or version > VERSION:
            raise ModelFolderError(f"{place}: written by a newer version of unisono (format {version}, known {VERSION}); upgrade unisono")
        if not isinstance(files, list) or any(not isinstance(f, str) or not f.isidentifier() for f in files):
            raise ModelFolderError(f"{place / STATE}: damaged (names of files)")
        tensors = {f: load_tensors((place / f"{f}.safetensors").read_bytes()) for f in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelFolderError(f"{place}: the checkpoint is damaged ({error}); train again with --force") from error
    return Checkpoint(state, tensors)


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The best weights of an unfinished run (the moving average or the last ones where there are no best)."""
    found = load(folder)
    weights = {**found.tensors["model"], **found.tensors.get("average", {})}
    return {**weights, **found.tensors.get("best", {})}


def clear_partial(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for partial in folder.glob(PARTIAL + "*"):
        shutil.rmtree(partial, ignore_errors=True)
    if (folder / FOLDER).is_dir():
        shutil.rmtree(folder / PREVIOUS, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder's checkpoints, once the finished model is saved beside them."""
    for name in (FOLDER, PREVIOUS):
        shutil.rmtree(folder / name, ignore_errors=True)
    clear_partial(folder)
