"""Where a model comes from: the command that makes it, and everything else needed to make it again."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex

import torch

from unisono.model.options import FitOptions
from unisono.model.prepare import Prepared
from unisono.recipe import Recipe
from unisono.report import figures
from unisono.table.memory import NAME
from unisono.train.budget import say_seconds
from unisono.train.progress import History


def commands(prepared: Prepared, options: FitOptions, history: History) -> tuple[str, str]:
    """The command of this fit, and the one that repeats it to the same bits without a budget."""
    o, plan = options, history.plan
    words = ["unisono", "fit", "TABLE" if prepared.cache.name == NAME else prepared.cache.name]
    for name, task in o.targets.items():
        words += ["--target", name if task is None else f"{name}={task}"]
    words += ["--align"] if o.align else []
    named = {**o.roles, "objective": o.objective, "media-root": o.media_root}
    for option, value in named.items():
        words += [] if value is None else [f"--{option}", str(value)]
    for name, word in o.columns.items():
        words += ["--column", f"{name}={word}"]
    for option, values in (("drop", o.drop), ("null", o.null_words)):
        words += [w for value in values for w in (f"--{option}", value)]
    written = o.recipe if isinstance(o.recipe, str) else f"{o.out or 'model'}/recipe.yaml"
    words += ["--recipe", written] if o.recipe is not None and written != "early-fusion" else []
    words += [w for setting in o.settings for w in ("--set", setting)]
    words += ["--encoding", o.encoding] if o.encoding != "utf-8" else []
    words += ["--bad-cells", o.bad_cells] if o.bad_cells != "fail" else []
    words += [] if o.examples else ["--no-examples"]
    ending = ["--seed", str(o.seed), "--out", str(o.out or "model")]
    budget = [] if o.budget is None else ["--budget", f"{o.budget:g}s"]
    exact = [w for key, value in plan.as_settings().items() for w in ("--set", f"train.{key}={value}")]
    made = shlex.join([*words, *budget, *ending])
    return made, shlex.join([*words, *exact, *ending]) if budget else ""


def facts(recipe: Recipe, options: FitOptions, history: History, parameters: int, device: torch.device) -> list[tuple[str, str]]:
    """Whatever else is needed to make the model again."""
    plan = history.plan
    stopped = {"completed": "its schedule completed", "early": "stopped early: no better validation for long"}
    ended = stopped.get(history.stopped, "shortened to stay within the budget")
    lineage = f" (extends {', '.join(recipe.lineage)})" if recipe.lineage else ""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("unisono", "torch", "numpy", "pyarrow"))
    epochs = history.steps / max(plan.steps_per_epoch, 1)
    return [
        ("recipe", f"{recipe.name}{lineage}"),
        ("parameters", f"{parameters:,}"),
        ("training", f"{figures.plural(history.steps, 'step')} of {plan.batch:,} rows, {epochs:.1f} epochs; {ended}"),
        (
            "time",
            f"{say_seconds(history.seconds)} of training" + (f" in a budget of {say_seconds(options.budget)}" if options.budget else ""),
        ),
        ("precision", plan.precision),
        ("seed", str(options.seed)),
        ("machine", machine(device)),
        ("processes and threads", f"{plan.processes} × {plan.threads}"),
        ("versions", f"{versions}, Python {platform.python_version()}"),
    ]


def machine(device: torch.device) -> str:
    """The kind of machine, without its name."""
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    return f"{what}, {platform.machine()}, {platform.system()}"


def _version(name: str) -> str:
    if name == "unisono":
        from unisono import __version__

        return __version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
