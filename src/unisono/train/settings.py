"""The settings of a training run: the keys of a recipe's ``train`` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unisono.core.errors import ConfigError
from unisono.core.registry import Count, Fraction, Index, NonNegative, Positive, Probability, decode
from unisono.core.words import Word

DEFAULT_UPDATES, FEWEST_UPDATES = 1200, 500
"""Updates a run without epochs, steps and budget aims at, and has at least."""
FEWEST_EPOCHS, MOST_EPOCHS = 15, 60
VALIDATIONS = 40
"""Validations in a run, at most, unless ``validate_every`` says otherwise."""
DEFAULT_PATIENCE = 14
DEFAULT_LR, PLENTY = 1e-3, 1200
SMOOTHED = 5
"""Weights are judged by the mean objective of so many validations, their own and those before: on a few dozen rows, one lucky
validation says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train; what is None is decided by the plan (from the number of rows, or from the budget).

    Attributes:
        epochs: passes over the training rows.
        steps: updates; goes before ``epochs``, and repeats a run to the same bits.
        batch: rows of a batch, over all processes.
        max_tokens: tokens a batch may hold at once; larger ones are cut into micro-batches whose gradients add up.
        optimiser: a word of the registry ``optimisers``.
        lr: highest learning rate; None for ``highest_lr(rows)``.
        weight_decay: decoupled weight decay; norms, biases and embeddings have none.
        betas: decay of the first and second moment.
        schedule: the course of the learning rate after the warm-up.
        warmup: share of the steps in which the learning rate rises.
        clip: largest norm of the gradient; 0 for none.
        ema: decay of the moving average of the weights, by which the model is then evaluated; 0 for none.
        patience: validations without a better one before training stops; 0 never stops.
        precision: of the products; weights and losses are float32 in any case.
        validate_every: steps between two validations.
        checkpoint_seconds: time between two checkpoints.
        freeze: parts of the network that are not trained: ``trunk``, ``tokenisers``, ``column``, ``heads``, ``wide``.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch: Count | None = None
    max_tokens: Count | None = None
    optimiser: str | dict[str, Any] = "adamw"
    lr: Positive | None = None
    weight_decay: NonNegative = 0.05
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    schedule: Literal["cosine", "linear", "constant", "one-cycle"] = "cosine"
    warmup: Fraction = 0.1
    clip: NonNegative = 1.0
    ema: Probability = 0.98
    patience: Index | None = None
    precision: Literal["auto", "float32", "bf16"] = "auto"
    validate_every: Count | None = None
    checkpoint_seconds: NonNegative = 30.0
    freeze: tuple[str, ...] = ()

    def highest_lr(self, rows: int) -> float:
        """``lr``, or 1e-3, for fewer than 1,200 training rows times ``sqrt(rows / 1200)`` but not less than 0.3: small tables overfit."""
        return self.lr if self.lr is not None else DEFAULT_LR * min(1.0, max(0.3, (rows / PLENTY) ** 0.5))

    @classmethod
    def read(cls, mapping: Mapping[str, Any] | None, where: str = "train") -> TrainSettings:
        """Decode a ``train`` section strictly.

        Raises:
            ConfigError: an unknown key (the nearest valid one is named) or a value out of its bounds.
        """
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ConfigError(f"{where}: expected a mapping of settings, got {mapping!r}")
        return cls(**decode(cls, Word(where, (), dict(mapping or {})), where=where))

    def as_dict(self) -> dict[str, Any]:
        """The settings as a ``train`` section that reads back to the same."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items() if v is not None}
