"""Frozen encoders in place of a tokeniser, and any ``nn.Module`` given in Python as one; model folders are in ``hf``.

The encoder runs on the host, in evaluation mode and without gradient, once for every distinct cell it meets; what it says is kept in
memory, and on disk where a ``FeatureCache`` is given, and mapped to the model's width by a learned projection. Its own weights are neither
trained nor part of the model's. The rounding of a batch's products depends on its size, and a resumed run has to see the same bits: with
features on disk these are the bits that were stored first, and model folders encode many cells at once; without, cells are encoded one by
one.

Letters: N samples, frames, points or values of an item, K states of an item, F features of a state, T tokens, D width.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError, UserError
from unisono.core.registry import Count, Traits
from unisono.core.schema import Column
from unisono.modalities.base import Cells, Items, Packed, Tokeniser, tokenisers
from unisono.modalities.features import FeatureCache, States
from unisono.modalities.signal import Signal
from unisono.modalities.video import Clip

#: Features of cells seen lately are kept up to this many bytes for each tokeniser.
KEPT_BYTES = 256 * 1024 * 1024
_FIT_ITEMS = 2

#: Grows when a cell is made ready for an encoder in another way.
_PREPARING = 1

logger = logging.getLogger("unisono")


class FrozenTokeniser(Tokeniser):
    """What frozen encoders have in common: states of every item once, averaged down to a few tokens."""

    tokens: int
    fit_cells: ClassVar[int | None] = 16

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, States] = OrderedDict()
        self._used = 0
        self._features: FeatureCache | None = None
        self._name: bytes | None = None
        self._trusted = False

    @abstractmethod
    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """The states (K, F) of each item, in order; an item's states depend on nothing but the item."""

    def encode_together(self, column: Column, items: Sequence[Any]) -> list[States]:
        """The same up to rounding, several items at once where the encoder can."""
        return self.encode(column, items)

    @abstractmethod
    def identity(self) -> str | None:
        """A text that differs for encoders that say different things; None where that cannot be known."""

    def keep(self, features: FeatureCache | None) -> None:
        """Keep states on disk from now on, or no longer."""
        self._features, self._trusted = features, False

    def fit(self, column: Column, chunks: Iterable[Cells]) -> dict[str, Any]:
        """Find out how many features the encoder gives; 0 when no training row has a cell, which then counts as missing for good.

        Raises:
            UserError: the encoder cannot read the column's cells.
        """
        for cells in chunks:
            items = Items.of(column, cells).arrays[:_FIT_ITEMS]
            if items:
                return {"features": int(self.states(column, items)[0].shape[1])}
        return {"features": 0}

    def states(self, column: Column, items: Sequence[Any]) -> list[States]:
        """States of items, each computed once while it is remembered."""
        keys = [_key(column, item) for item in items]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: item for key, item in zip(keys, items, strict=True) if key not in found}
        for key, states in self._stored(column, fresh).items():
            found[key] = states
            self._remember(key, states)
            del fresh[key]
        if fresh:
            disk = self._disk()
            made = (self.encode if disk is None else self.encode_together)(column, list(fresh.values()))
            new = {key: shrink(_checked(column, states), self.tokens) for key, states in zip(fresh, made, strict=True)}
            for key, states in new.items():
                found[key] = states
                self._remember(key, states)
            if disk is not None:
                disk.write({self._place(key): states for key, states in new.items()})
        return [found[key] for key in keys]

    def _disk(self) -> FeatureCache | None:
        """Where states are kept on disk, if they can be."""
        if self._features is None or not self._features.usable:
            return None
        if self._name is None:
            said = self.identity()
            if said is None:
                self._features = None
                return None
            self._name = hashlib.blake2b(f"{_PREPARING} {self.tokens} {said}".encode(), digest_size=16).digest()
        return self._features

    def _place(self, key: bytes) -> bytes:
        return (self._name or b"") + key

    def _stored(self, column: Column, wanted: Mapping[bytes, Any]) -> dict[bytes, States]:
        """What is on disk of the items wanted; the first one is encoded again, and if it differs nothing on disk is believed."""
        disk = self._disk() if wanted else None
        if disk is None:
            return {}
        places = {self._place(key): key for key in wanted}
        found = {places[place]: states for place, states in disk.read(list(places)).items()}
        if found and not self._trusted:
            key = next(iter(found))
            again = shrink(_checked(column, self.encode(column, [wanted[key]])[0]), self.tokens)
            if again.shape != found[key].shape or not np.allclose(again, found[key], rtol=1e-3, atol=1e-3 * float(np.abs(again).max())):
                logger.warning(
                    "the encoder of column %r says other things than what is stored of it; what is stored is not used", column.name
                )
                self._features = None
                return {}
            self._trusted = True
        return found

    def _remember(self, key: bytes, states: States) -> None:
        self._kept[key] = states
        self._used += states.nbytes
        while self._used > KEPT_BYTES and self._kept:
            self._used -= self._kept.popitem(last=False)[1].nbytes

    def pack(self, columns: Sequence[Column], cells: Mapping[str, Cells], draw: Draw | None) -> Packed:
        """States of every item present; in training they are the same, for a frozen encoder sees no augmentation."""
        (column,) = columns
        features = int(column.statistics["features"])
        items = Items.of(column, cells[column.name] if features else [])
        states = self.states(column, items.arrays)
        counts = np.array([len(s) for s in states], np.int64)
        for s in states:
            if s.shape[1] != features:
                raise UserError(f"the encoder of column {column.name!r} gives {s.shape[1]} features, the model was fitted with {features}")
        joined = np.concatenate(states) if states else np.zeros((0, features), np.float32)
        place = np.concatenate([np.arange(n) for n in counts]) if states else np.zeros(0, np.int64)
        return Packed.of(
            {"features": torch.from_numpy(joined)},
            np.repeat(items.sample, counts),
            column.index,
            item=np.repeat(items.item, counts),
            place=place,
        )

    def module(self, columns: Sequence[Column], width: int) -> nn.Module:
        """The projection to the model's width; the encoder is no part of it."""
        return Projected(max(1, int(columns[0].statistics["features"])), width)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_used": 0}


class Projected(nn.Module):
    """``y = W norm(x) + b``: the encoder's features, normalised, at the model's width.

    Args:
        features: F.
        width: D.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.norm, self.linear, self.dropout = nn.LayerNorm(features), nn.Linear(features, width), nn.Dropout(0.1)

    def forward(self, packed: Packed) -> Tensor:
        """Map (T, F) to (T, D)."""
        result: Tensor = self.linear(self.dropout(self.norm(packed.inputs["features"].to(self.linear.weight.dtype))))
        return result


def shrink(states_KF: States, tokens: int) -> States:
    """At most ``tokens`` states, each the mean over adjacent ones, and the mean over all of them as one more where there are several."""
    k = len(states_KF)
    if k <= 1:
        return states_KF
    group = np.arange(k) * min(tokens, k) // k
    sums = np.zeros((min(tokens, k), states_KF.shape[1]), np.float64)
    np.add.at(sums, group, states_KF)
    means = sums / np.bincount(group)[:, None]
    return np.concatenate([means, states_KF.mean(0, keepdims=True, dtype=np.float64)]).astype(np.float32)


def _array(item: Any) -> NDArray[Any]:
    """The numbers of a decoded cell."""
    return np.asarray(item.values if isinstance(item, Signal) else item.frames if isinstance(item, Clip) else item)


def _checked(column: Column, states: States) -> States:
    if states.ndim != 2 or 0 in states.shape:
        raise UserError(f"the encoder of column {column.name!r} has to give (features) or (states, features) an item, got {states.shape}")
    if not np.isfinite(states).all():
        raise UserError(f"the encoder of column {column.name!r} gives numbers that are not finite")
    return states


def _key(column: Column, item: Any) -> bytes:
    """A name for an item's content."""
    digest = hashlib.blake2b(column.modality.encode(), digest_size=16)
    if isinstance(item, str):
        digest.update(item.encode("utf-8", "surrogatepass"))
    else:
        array = np.ascontiguousarray(_array(item))
        digest.update(f"{array.dtype} {array.shape} {getattr(item, 'rate', '')}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.digest()


@contextmanager
def exactly() -> Iterator[None]:
    """Without gradient and in full precision, whatever precision the model around it runs in."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def as_states(said: Tensor) -> States:
    """What an encoder says of one item, as (K, F)."""
    return np.ascontiguousarray(said.float().reshape(-1, said.shape[-1]).numpy())


# -- modules given in Python --------------------------------------------------------------------------------------------------


@tokenisers.register("given", traits=Traits(exempt={"source": "whatever module a person gives"}, tags=frozenset({"frozen"})))
class Given(FrozenTokeniser):
    """What a frozen module says that was given in Python: ``fit(..., encoders={"photo": module})``.

    The module gets a batch of one item: an image (1, C, H, W) or video (1, N, C, H, W), bytes scaled to 0..1; a sound (1, N); a series
    (1, N, C); points (1, N, 3 + E); a cube (1, H, W, bands); a vector (1, N); a sequence (1, N), each residue's place in its alphabet; a
    text as a list of one string. It answers (1, F) or (1, K, F). It is copied, used in evaluation mode, and never trained.

    Args:
        name: the column it was given for.
        sha256: hash of its state, by which it is recognised when it is given again.
        tokens: tokens of an item at most, and one more for the mean of all states.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text", "image", "audio", "video", "series", "points", "sequence", "cube", "vector"})

    def __init__(self, *, name: str, sha256: str, tokens: Count = 16) -> None:
        super().__init__()
        self.name, self.sha256, self.tokens = name, sha256, tokens
        self._module: nn.Module | None = None

    @classmethod
    def of(cls, name: str, module: nn.Module, tokens: int = 16) -> Given:
        """A tokeniser with its module."""
        made = cls(name=name, sha256=module_hash(module), tokens=tokens)
        made._module = copy.deepcopy(module).to("cpu").eval().requires_grad_(False)
        return made

    def to_setting(self) -> dict[str, Any]:
        """How a recipe records it."""
        return {"type": "given", "name": self.name, "sha256": self.sha256, "tokens": self.tokens}

    def identity(self) -> str | None:
        """Weights, settings and code of the module; None where code cannot be read."""
        if self._module is None:
            return None
        code = _code_of(self._module)
        return None if code is None else f"given {self.sha256} {code}"

    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """Run the module, always on one item: it may have been written for one.

        Raises:
            ConfigError: the module was not given again.
            UserError: the module cannot read the items.
        """
        if self._module is None:
            raise ConfigError(f"the encoder of column {self.name!r} has to be given: encoders={{{self.name!r}: module}}")
        found: list[States] = []
        for item in items:
            try:
                with exactly():
                    said = self._module(_as_input(column, item))
            except Exception as error:
                raise UserError(f"the encoder of column {column.name!r} fails on its cells: {type(error).__name__}: {error}") from error
            if not isinstance(said, Tensor) or said.dim() not in {2, 3} or len(said) != 1:
                what = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
                raise UserError(f"the encoder of column {column.name!r} has to answer (1, features) or (1, states, features), got {what}")
            found.append(as_states(said))
        return found


def _code_of(module: nn.Module) -> str | None:
    """A hash of what a module's classes do and how its parts are set, beside its weights; None where it holds what no hash can tell."""
    digest = hashlib.sha256(repr(module).encode())
    usual = vars(nn.Module())
    for part in module.modules():
        for name, value in sorted(vars(part).items()):
            if name not in usual and not _add_value(digest, name, value):
                return None
        for kind in type(part).__mro__:
            if kind.__module__.split(".")[0] == "torch" or kind is object:
                continue
            digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
            functions = {n: v for n, v in sorted(vars(kind).items()) if isinstance(v, FunctionType)}
            if not all(_add_value(digest, n, v) for n, v in functions.items()):
                return None
    return digest.hexdigest()


def _add_value(digest: Any, name: str, value: Any) -> bool:
    """Add a plain value, or a function that refers to nothing but its arguments; whether it is either."""
    digest.update(name.encode())
    if isinstance(value, FunctionType):
        if set(value.__code__.co_freevars) - {"__class__"}:
            return False
        _add_code(digest, value.__code__)
        return True
    plain = isinstance(value, str | int | float | None) or (
        isinstance(value, tuple | list) and all(isinstance(v, str | int | float | None) for v in value)
    )
    digest.update(repr(value).encode() if plain else b"")
    return plain


def _add_code(digest: Any, code: CodeType) -> None:
    values = [repr(sorted(map(repr, c)) if isinstance(c, frozenset) else c) for c in code.co_consts if not isinstance(c, CodeType)]
    digest.update(code.co_code + repr((code.co_names, values)).encode())
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            _add_code(digest, inner)


def _as_input(column: Column, item: Any) -> Any:
    if isinstance(item, str):
        return [item]
    array = _array(item)
    scaled = torch.from_numpy(np.ascontiguousarray(array[None], np.float32)) * (1 / 255 if array.dtype == np.uint8 else 1.0)
    return scaled.movedim(-1, -3) if column.modality in {"image", "video"} else scaled


def module_hash(module: nn.Module) -> str:
    """The SHA-256 of a module's state: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().to("cpu").contiguous()
        digest.update(json.dumps([name, str(values.dtype), list(values.shape)]).encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()
