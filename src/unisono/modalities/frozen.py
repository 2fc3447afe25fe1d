"""Frozen encoders in place of a tokeniser: a local Hugging Face model folder, or any ``nn.Module`` given in Python.

The encoder runs on the host, in evaluation mode and without gradient, once for every distinct cell it meets; what it says is kept in
memory and mapped to the model's width by a learned projection. Its own weights are neither trained nor part of the model's. Cells are
encoded one by one: the rounding of a batch's products depends on its size, and a resumed run has to see the same bits.

Letters: N samples, frames, points or values of an item, K states of an item, F features of a state, T tokens, D width.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.draw import Draw
from unisono.core.errors import ConfigError, DependencyError, UserError
from unisono.core.registry import Count, Traits
from unisono.core.schema import Column
from unisono.modalities.base import Cells, Items, Packed, Tokeniser, tokenisers
from unisono.modalities.pixels import to_channels
from unisono.modalities.signal import Signal, resample
from unisono.modalities.video import Clip

#: Features of cells seen lately are kept up to this many bytes for each tokeniser.
KEPT_BYTES = 256 * 1024 * 1024
_FIT_ITEMS = 2
_RGB = 3
#: What a model folder may consist of; anything else in it, code and pickles above all, is neither read nor copied.
SUFFIXES = frozenset({".json", ".txt", ".safetensors", ".model", ".jinja"})

States = NDArray[np.float32]


class FrozenTokeniser(Tokeniser):
    """What frozen encoders have in common: states of every item once, averaged down to a few tokens."""

    tokens: int
    fit_cells: ClassVar[int | None] = 16

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, States] = OrderedDict()
        self._used = 0

    @abstractmethod
    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """The states (K, F) of each item, in order; an item's states depend on nothing but the item."""

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
        if fresh:
            made = self.encode(column, list(fresh.values()))
            for key, states in zip(fresh, made, strict=True):
                found[key] = shrink(_checked(column, states), self.tokens)
                self._remember(key, found[key])
        return [found[key] for key in keys]

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
def _exactly() -> Iterator[None]:
    """Without gradient and in full precision, whatever precision the model around it runs in."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def _states(said: Tensor) -> States:
    """What an encoder says of one item, as (K, F)."""
    return np.ascontiguousarray(said.float().reshape(-1, said.shape[-1]).numpy())


# -- Hugging Face model folders -----------------------------------------------------------------------------------------------


@tokenisers.register("hf", source="arXiv:1910.03771", traits=Traits(tags=frozenset({"frozen"})))
class HuggingFace(FrozenTokeniser):
    """The last hidden states of a frozen encoder from a local Hugging Face model folder, for text, images and sound (extra ``hf``).

    Weights are read from safetensors alone, nothing is downloaded, and no code of the folder is run.

    Args:
        path: the model folder.
        sha256: what the folder's content has to hash to; empty for anything.
        tokens: tokens of an item at most, and one more for the mean of all states.
        link: a saved model refers to the folder by its path instead of holding a copy.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text", "image", "audio"})

    def __init__(self, *, path: str, sha256: str = "", tokens: Count = 16, link: bool = False) -> None:
        super().__init__()
        self.path, self.sha256, self.tokens, self.link = path, sha256, tokens, link

    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """Run the encoder.

        Raises:
            UserError: the folder is no model folder, or its model does not read this modality.
        """
        model, processor = _load(self.path, self.sha256, column.modality)
        try:
            with _exactly():
                said = [model(**_PREPARE[column.modality](processor, item, model)).last_hidden_state for item in items]
            return [_states(hidden) for hidden in said]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"the encoder {self.path} cannot read column {column.name!r} ({column.modality}): {error}") from None


@functools.lru_cache(maxsize=4)
def _load(path: str, sha256: str, modality: str) -> tuple[Any, Any]:
    """Model and processor of a folder, whose hash tells changed content apart."""
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise UserError(f"the encoder {path}: no Hugging Face model folder, config.json is missing")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"the encoder {path}: holds no weights in safetensors (pickled weights are not read)")
    try:
        import transformers
    except ImportError:
        raise DependencyError("transformers", "hf", "a Hugging Face encoder") from None
    library: Any = transformers
    kinds = {"text": library.AutoTokenizer, "image": library.AutoImageProcessor, "audio": library.AutoFeatureExtractor}
    logging: Any = library.utils.logging
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    showed, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model = library.AutoModel.from_pretrained(folder, use_safetensors=True, **local).float().eval()
        processor: Any = kinds[modality].from_pretrained(folder, **local)
    except Exception as error:
        raise UserError(f"the encoder {path} cannot be read by transformers {transformers.__version__}: {error}") from None
    finally:
        logging.set_verbosity(level)
        if showed:
            logging.enable_progress_bar()
    return getattr(model, "encoder", model) if getattr(model.config, "is_encoder_decoder", False) else model, processor


def _prepare_text(processor: Any, text: str, model: Any) -> dict[str, Tensor]:
    longest = min(int(processor.model_max_length), int(getattr(model.config, "max_position_embeddings", 512) or 512))
    return {k: v for k, v in processor(text, truncation=True, max_length=longest, return_tensors="pt").items() if v.numel()}


def _prepare_image(processor: Any, array: NDArray[Any], model: Any) -> dict[str, Tensor]:
    pixels = to_channels(np.asarray(array), _RGB)
    if pixels.dtype != np.uint8:
        low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
        pixels = np.nan_to_num((pixels - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    return {
        "pixel_values": processor(images=[np.ascontiguousarray(pixels)], return_tensors="pt", input_data_format="channels_last")[
            "pixel_values"
        ]
    }


def _prepare_audio(processor: Any, signal: Signal, model: Any) -> dict[str, Tensor]:
    rate = float(getattr(processor, "sampling_rate", 16000))
    values = resample(signal.values, signal.rate, rate) if signal.rate == signal.rate else signal.values
    return dict(processor(np.asarray(values, np.float32), sampling_rate=int(rate), return_tensors="pt").items())


_PREPARE: dict[str, Any] = {"text": _prepare_text, "image": _prepare_image, "audio": _prepare_audio}


def folder_hash(folder: Path) -> str:
    """The SHA-256 of a model folder's content: of the names and the content of the files that may be read."""
    digest = hashlib.sha256()
    for path in model_files(folder):
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that may be read, by name."""
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in SUFFIXES)


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

    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """Run the module.

        Raises:
            ConfigError: the module was not given again.
            UserError: the module cannot read the items.
        """
        if self._module is None:
            raise ConfigError(f"the encoder of column {self.name!r} has to be given: encoders={{{self.name!r}: module}}")
        found: list[States] = []
        for item in items:
            try:
                with _exactly():
                    said = self._module(_as_input(column, item))
            except Exception as error:
                raise UserError(f"the encoder of column {column.name!r} fails on its cells: {type(error).__name__}: {error}") from error
            if not isinstance(said, Tensor) or said.dim() not in {2, 3} or len(said) != 1:
                what = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
                raise UserError(f"the encoder of column {column.name!r} has to answer (1, features) or (1, states, features), got {what}")
            found.append(_states(said))
        return found


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
