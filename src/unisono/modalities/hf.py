"""Frozen encoders from local Hugging Face model folders.

Letters: K states of an item, F features of a state.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unisono.core.errors import DependencyError, UserError
from unisono.core.registry import Count, Traits
from unisono.core.schema import Column
from unisono.modalities.base import tokenisers
from unisono.modalities.features import States
from unisono.modalities.frozen import FrozenTokeniser, as_states, exactly
from unisono.modalities.pixels import to_channels
from unisono.modalities.signal import Signal, resample

#: What a model folder may consist of; anything else in it, code and pickles above all, is neither read nor copied.
SUFFIXES = frozenset({".json", ".txt", ".safetensors", ".model", ".jinja"})
#: Cells that are encoded at once, and that are made ready at once.
_TOGETHER, _WINDOW = 32, 256
_RGB = 3


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

    def identity(self) -> str:
        """The folder's content, and the library that makes cells ready for it."""
        try:
            library = importlib.metadata.version("transformers")
        except importlib.metadata.PackageNotFoundError:
            library = ""
        return f"hf {self.sha256 or folder_hash(Path(self.path))} {library}"

    def encode(self, column: Column, items: Sequence[Any]) -> list[States]:
        """Run the encoder, one by one.

        Raises:
            UserError: the folder is no model folder, or its model does not read this modality.
        """
        return self._encode(column, items, together=False)

    def encode_together(self, column: Column, items: Sequence[Any]) -> list[States]:
        """Run the encoder on several at once, texts filled up to one length under a mask, other cells with those of their shape.

        Raises:
            UserError: the folder is no model folder, or its model does not read this modality.
        """
        return self._encode(column, items, together=True)

    def _encode(self, column: Column, items: Sequence[Any], *, together: bool) -> list[States]:
        model, processor = _load(self.path, self.sha256, column.modality)
        found: list[States] = []
        try:
            with exactly():
                for start in range(0, len(items), _WINDOW):
                    ready = [_PREPARE[column.modality](processor, item, model) for item in items[start : start + _WINDOW]]
                    found += _together(model, ready, _padding(processor)) if together else [_last(model, one) for one in ready]
            return found
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


def _last(model: Any, inputs: Mapping[str, Tensor]) -> States:
    """The last hidden states of one cell."""
    return as_states(model(**inputs).last_hidden_state)


def _padding(processor: Any) -> int | None:
    """The number that texts are filled up with on their right; None where they cannot be."""
    number = getattr(processor, "pad_token_id", None)
    return None if number is None or getattr(processor, "padding_side", "") != "right" else int(number)


def _together(model: Any, ready: Sequence[Mapping[str, Tensor]], padding: int | None) -> list[States]:
    """The last hidden states of several cells, those of one shape at once; texts are filled up, and what is filled up is masked."""
    texts = padding is not None and all({"input_ids", "attention_mask"} <= set(one) <= _TEXT_INPUTS for one in ready)
    groups: dict[Any, list[int]] = {}
    for place, one in enumerate(ready):
        groups.setdefault(None if texts else tuple((n, tuple(t.shape)) for n, t in sorted(one.items())), []).append(place)
    found: dict[int, States] = {}
    for members in groups.values():
        members.sort(key=lambda place: sum(t.shape[-1] for t in ready[place].values()))
        for start in range(0, len(members), _TOGETHER):
            part = members[start : start + _TOGETHER]
            inputs = _joined([ready[place] for place in part], padding if texts else None)
            hidden = model(**inputs).last_hidden_state
            if len(hidden) != len(part):
                raise ValueError(f"{len(part)} cells, but states of {len(hidden)}")
            for place, states in zip(part, hidden, strict=True):
                found[place] = as_states(states[: ready[place]["input_ids"].shape[-1]] if texts else states)
    return [found[place] for place in range(len(ready))]


_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


def _joined(cells: Sequence[Mapping[str, Tensor]], padding: int | None) -> dict[str, Tensor]:
    """One batch of several."""
    if padding is None:
        return {name: torch.cat([c[name] for c in cells]) for name in cells[0]}
    longest = max(c["input_ids"].shape[-1] for c in cells)
    fill = {"input_ids": padding}
    return {
        name: torch.cat([nn.functional.pad(c[name], (0, longest - c[name].shape[-1]), value=fill.get(name, 0)) for c in cells])
        for name in cells[0]
    }


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
