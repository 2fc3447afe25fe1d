"""A short trial that measures what a step and a validation cost, and leaves no trace in the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch

from unisono.core.errors import ConfigError, TrainingError
from unisono.train.budget import Timing, default_batch
from unisono.train.checkpoint import copies, named_tensors, put_back
from unisono.train.devices import autocast
from unisono.train.distribute import Group
from unisono.train.optimisers import optimisers, parameter_groups
from unisono.train.protocols import Batches, Learner
from unisono.train.settings import TrainSettings
from unisono.train.step import Stepper

_STEPS = 6
"""Steps measured at each batch size, after one to warm up."""
_FEWEST = 2
_SHARE = 0.04
"""Share of the time left that the measured steps of one batch size may take."""


def make_stepper(learner: Learner, settings: TrainSettings, group: Group, device: torch.device, precision: str, seed: int) -> Stepper:
    """A stepper with a fresh optimiser.

    Raises:
        ConfigError: the optimiser's word is wrong; or several processes would cut batches of a module with batch statistics.
        TrainingError: nothing in the module is trainable.
    """
    if group.world > 1 and settings.max_tokens and any(getattr(m, "batch_statistics", False) for m in learner.module.modules()):
        raise ConfigError(
            "train.max_tokens: processes may cut their batches into different numbers of pieces, but this model's norms exchange "
            "statistics in each; leave the setting out, or take a norm without batch statistics"
        )
    groups = parameter_groups(learner.module, settings.weight_decay)
    if not groups:
        raise TrainingError("the model has no trainable parameter")
    optimiser = optimisers.build(
        settings.optimiser, where="train.optimiser", groups=groups, lr=settings.highest_lr(1), betas=settings.betas
    )
    parameters = [p for g in optimiser.param_groups for p in g["params"]]
    return Stepper(learner, optimiser, parameters, group, device, precision, settings.clip, settings.max_tokens, seed)


def candidate_batches(settings: TrainSettings, rows: int) -> list[int]:
    """The batch sizes worth a trial: the one asked for, or the default and its double."""
    if settings.batch is not None:
        return [settings.batch]
    first = default_batch(rows)
    return [first, 2 * first] if 8 * first <= rows else [first]


def calibrate(
    stepper: Callable[[], Stepper], batches: Batches, sizes: Sequence[int], seconds_left: float, clock: Callable[[], float]
) -> tuple[list[Timing], float]:
    """Measure seconds of a step at each batch size, and of one validation.

    All updates are discarded: parameters and buffers are restored bit for bit, the optimiser is thrown away, and the random
    state needs no restoring, being seeded for every step.

    Args:
        stepper: makes a stepper with a fresh optimiser.
        batches: the training rows.
        sizes: batch sizes to try.
        seconds_left: of the budget; bounds what the trial takes.
        clock: in seconds.

    Returns:
        One timing for each batch size, the same on every process, and the seconds of a validation.
    """
    trial = stepper()
    module, device = trial.learner.module, trial.device
    kept, training = copies(named_tensors(module)), module.training
    try:
        module.train()
        seconds = [_step_seconds(stepper(), batches, size, _SHARE * seconds_left, clock) for size in sizes]
        began = clock()
        module.eval()
        with torch.no_grad(), autocast(trial.precision, device):
            trial.learner.validate()
        measured = torch.tensor([*seconds, clock() - began], dtype=torch.float64, device=device)
    finally:
        module.zero_grad(set_to_none=True)
        put_back(module, kept)
        module.train(training)
    trial.group.same([measured])
    *steps, validation = measured.tolist()
    return [Timing(size, max(s, 1e-6)) for size, s in zip(sizes, steps, strict=True)], validation


def _step_seconds(stepper: Stepper, batches: Batches, size: int, allowed: float, clock: Callable[[], float]) -> float:
    """The mean over a few steps, loading of the batches included, the first left out."""
    group = stepper.group
    epoch = batches.epoch(0, skip=0, rank=group.rank, world=group.world, batch_rows=size)
    began = last = clock()
    times: list[float] = []
    for step, batch in enumerate(islice(epoch, _STEPS + 1)):
        stop = len(times) > _FEWEST and clock() - began > allowed
        outcome = stepper(batch, step, lr=1e-6, signals=(float(stop and group.main), 0.0))
        now = clock()
        times.append(now - last)
        last = now
        if outcome.signals[0] > 0:
            break
    if not times:
        raise TrainingError("there are no batches to train on")
    measured = times[1:] or times
    return sum(measured) / len(measured)
