"""The second epoch on frozen encoders against the first: features are computed once, then read.

A text encoder of six layers and 384 channels and a vision transformer of twelve layers and 192 channels at 224 x 224 pixels, with random
weights: their cost is that of small encoders as they are used, and no file is downloaded. Only projections, one layer and the head train.
No source is dropped in training, so that the first epoch meets every cell; with source dropout the rest is encoded when it is first shown.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import unisono
from benchmarks import Goal, Measured, row
from unisono.data import shapes
from unisono.model import fit as fitting
from unisono.train.calibrate import make_stepper
from unisono.train.devices import choose_precision
from unisono.train.distribute import join

ROWS, BATCH = 400, 50


def text_encoder(folder: Path, words: list[str]) -> Path:
    """A model folder of a text encoder that knows some words."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=len(words) + 5, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}', encoding="utf-8")
    return folder


def picture_encoder(folder: Path) -> Path:
    """A model folder of a vision transformer."""
    import transformers

    config = transformers.ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)
    transformers.ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 224, "width": 224}, "do_rescale": true,'
        ' "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}',
        encoding="utf-8",
    )
    return folder


def epochs(learner: Any, rows: Any, settings: Any, count: int) -> list[float]:
    """Seconds of each of the first epochs, batches and updates."""
    device = torch.device("cpu")
    stepper = make_stepper(learner, settings, join(device), device, choose_precision(settings.precision, device), 0)
    lr, found = settings.highest_lr(rows.num_rows), []
    for epoch in range(count):
        begin = time.perf_counter()
        learner.network.train()
        for step, batch in enumerate(rows.epoch(epoch, skip=0, rank=0, world=1, batch_rows=BATCH)):
            stepper(batch, step, lr)
        found.append(time.perf_counter() - begin)
    return found


def timed(table: Any, encoders: dict[str, Path], features: Path | str, count: int, seed: int) -> list[float]:
    """Prepare the table as ``fit`` does, and time epochs in place of training."""
    found: list[float] = []

    class Done(Exception):  # noqa: N818 - no error: it leaves the fit
        """The epochs are over."""

    def instead(learner: Any, rows: Any, settings: Any, **_: Any) -> None:
        found.extend(epochs(learner, rows, settings, count))
        raise Done

    settings = [
        "objective=supervised(drop_sources=0)",
        "width=64",
        "defaults.mixer=attention(heads=2)",
        "trunk=[{name: meet, scope: sample}, {read: mean}]",
    ]
    with mock.patch.object(fitting, "train", instead), suppress(Done):
        unisono.fit(
            table, "shape=category", split="split", key="key", settings=settings, encoders=encoders, features=features, seed=seed,
            progress=False,
        )  # fmt: skip
    return found


@row(
    "features_cached",
    goals=[Goal("speedup", arm="same run", must=10), Goal("speedup", arm="next run", must=10), Goal("first")],
    arms=("same run", "next run"),
    seeds=(0, 1, 2),
)
def features_cached(*, arm: str, seed: int) -> Measured:
    """Time of the first epoch on two frozen encoders over that of the second, or over that of another run's first on the same table."""
    table = shapes(ROWS, seed=seed, columns=["key", "split", "image", "caption", "shape"])
    words = sorted({w.strip(".,").lower() for c in table["caption"].to_pylist() if c for w in c.split()})
    with tempfile.TemporaryDirectory(prefix="unisono-") as name:
        folder = Path(name)
        torch.manual_seed(seed)
        encoders = {"caption": text_encoder(folder / "text", words), "image": picture_encoder(folder / "picture")}
        features = folder / "features"
        first = timed(table, encoders, features, 2, seed)
        again = first[1] if arm == "same run" else timed(table, encoders, features, 1, seed)[0]
        size = sum(f.stat().st_size for f in features.iterdir())
        shutil.rmtree(features)
    return {
        "speedup": (first[0] / again, "ratio"),
        "first": (first[0], "s"),
        "again": (again, "s"),
        "bytes": (size, "bytes"),
    }
