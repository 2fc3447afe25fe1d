"""Every registered part in a small trunk, and every recipe's trunk: what the contracts of ``unisono.contracts`` are run over."""

from __future__ import annotations

from unisono.contracts.trunk import MODALITIES, ROLES, SAMPLES, WIDTH, Part, batch, build, only, registered, run, shake, steps_with
from unisono.recipe import load_recipe, recipe_names

__all__ = ["MODALITIES", "ROLES", "SAMPLES", "SENTENCES", "WIDTH", "Part", "batch", "build", "only", "parts", "run", "shake", "steps_with"]

#: Words that have to be told something, and the sentence they are tried in.
SENTENCES = {
    "window": "window(2, shift=1)", "grid": "grid(2)", "dilated": "dilated(2)", "axis": "axis(time)", "context": "context(2)",
    "cross": "cross(title <- [photo, clip])", "expand": "expand(fine)", "add": "add(fine)", "linear": "linear(fine)",
    "merge": "merge(2, axes=3)", "latents": "latents(2, by=source)", "causal": "causal(sequence)", "sliced": "sliced(3)",
    "slice": "slice(time)", "loan": "loan(photo)", "conditional": "conditional(on=modality)",
    "experts": "experts(4, 2)", "nested": "nested([0.25, 0.5, 1])",
}  # fmt: skip


def parts() -> list[Part]:
    """Every registered part of every role, and every recipe's whole trunk."""
    found = registered(SENTENCES)
    for name in recipe_names():
        recipe = load_recipe(name)
        found.append(Part(f"recipe-{name}", tuple(recipe["trunk"]), tuple(recipe["defaults"].items()), 16))
    return found
