"""Running a network over rows: scores and embeddings.

Letters: B rows of a batch, N rows, D width, K scores of a target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unisono.core.memory import kept_heap
from unisono.network import Network, Output
from unisono.table.batching import Assembler, Batch
from unisono.table.store import Store

#: Rows of a batch in evaluation.
EVALUATION_ROWS = 128


@dataclass(frozen=True)
class Scored:
    """What the network says of N rows.

    Attributes:
        scores: target -> (N, K).
    """

    scores: dict[str, NDArray[np.float32]]


def batches_of(
    assembler: Assembler, store: Store, rows: NDArray[np.int64], only: Sequence[str] | None = None, size: int = EVALUATION_ROWS
) -> Iterable[Batch]:
    """Evaluation batches of some rows, without targets."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield assembler.assemble(part, store.cells(part), {}, only=only)


def outputs(network: Network, batches: Iterable[Batch], *, device: torch.device, bf16: bool = False) -> Iterator[Output]:
    """Run the network over batches in evaluation mode.

    Args:
        network: the model.
        batches: in row order.
        device: where the network is.
        bf16: multiply matrices in bfloat16.
    """
    was_training = network.training
    network.eval()
    context: Any = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    try:
        with kept_heap():
            for batch in batches:
                with torch.inference_mode(), context:
                    output = network(batch.to(device))
                yield output
    finally:
        network.train(was_training)


def score(network: Network, batches: Iterable[Batch], *, device: torch.device, bf16: bool = False) -> Scored:
    """The scores of every row; the arguments are those of ``outputs``."""
    scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in network.target_names}
    for output in outputs(network, batches, device=device, bf16=bf16):
        for name, part in output.scores.items():
            scores[name].append(part.float().cpu().numpy())
    return Scored({name: np.concatenate(parts) if parts else np.zeros((0, 1), np.float32) for name, parts in scores.items()})


def pool(network: Network, batches: Iterable[Batch], *, device: torch.device, bf16: bool = False) -> NDArray[np.float32]:
    """The vector of every row, (N, D); the arguments are those of ``outputs``."""
    parts = [output.pooled.float().cpu().numpy() for output in outputs(network, batches, device=device, bf16=bf16)]
    return np.concatenate(parts) if parts else np.zeros((0, network.width), np.float32)
