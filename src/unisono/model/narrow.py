"""A model for some of its columns: what only the others need is left out.

It gives what the whole model gives where the other columns are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unisono.core.errors import ConfigError, UserError, nearest
from unisono.core.schema import MODALITIES, Schema
from unisono.core.tokens import Meta
from unisono.network import Network
from unisono.nn.share import PerSet
from unisono.recipe import Recipe


def narrowed(network: Network, recipe: Recipe, schema: Schema, names: Sequence[str]) -> tuple[Network, Recipe, Schema]:
    """The model for these columns, and for those that share weights with one of them.

    Args:
        network: the whole model, nothing folded yet.
        recipe: its recipe.
        schema: its columns.
        names: the columns that tables will have.

    Raises:
        UserError: a name is no column, or the recipe or some part's weights cannot do without the others.
    """
    known = [c.name for c in schema.columns]
    for name in names:
        if name not in known:
            raise UserError(f"--columns {name}: the model reads no such column{nearest(name, known)}")
    if not names:
        raise UserError("--columns: name at least one column that tables will have")
    if network.folds:
        raise UserError(
            "the model is deployed already, so its weights no longer belong to columns; choose columns of the model it was made from"
        )
    kept = {c.name for g in network.groups for c in g.columns if any(other.name in names for other in g.columns)}
    columns = tuple(replace(c, index=k) for k, c in enumerate(c for c in schema.columns if c.name in kept))
    gone = [c.name for c in schema.columns if c.name not in kept]
    small = replace(schema, columns=columns, left_out={**schema.left_out, **dict.fromkeys(gone, "left out when the model was deployed")})
    tokens = {k: v for k, v in recipe["tokens"].items() if k in MODALITIES or k in kept}
    plain = replace(recipe, settings={**recipe.settings, "tokens": tokens})
    try:
        with torch.random.fork_rng(devices=[]):
            made = Network(recipe=plain, schema=small)
    except ConfigError as error:
        raise UserError(f"the recipe cannot do without {', '.join(gone)}: {error}") from None
    made.load_state_dict(_carried(network, made, schema, small))
    return made.eval(), plain, small


def _carried(old: Network, new: Network, schema: Schema, small: Schema) -> dict[str, Tensor]:
    """The old weights by the new names."""
    have = old.state_dict()
    rows = torch.tensor([next(c.index for c in schema.columns if c.name == kept.name) for kept in small.columns])
    have["column.weight"] = have["column.weight"][rows.to(have["column.weight"].device)]
    found: dict[str, Tensor] = {}
    numbers = _numbers(old, new, schema, small)
    for name, tensor in new.state_dict().items():
        was = have.get(_old_name(name, numbers))
        if was is None or was.shape != tensor.shape:
            raise UserError(f"the part {name} has weights for all columns together, so that none can be left out")
        found[name] = was
    return found


def _numbers(old: Network, new: Network, schema: Schema, small: Schema) -> dict[str, list[int]]:
    """Where parts stand in numbered lists: the list's new name -> the old number of each."""
    before = [g.name for g in old.groups]
    modalities = [*(schema.modalities.index(m) for m in small.modalities), len(schema.modalities)]
    sets = [name for name, part in new.trunk.named_modules() if isinstance(part, PerSet) and part.key == "modality"]
    sources = [schema.sources.index(name) for name in small.sources]
    spaces = 0 if new.alignments is None else len(new.alignments.spaces)
    return {
        **{f"alignments.spaces.{k}.project": sources for k in range(spaces)},
        "tokenisers": [before.index(g.name) for g in new.groups],
        "wide": [old.wide_names.index(name) for name in new.wide_names],
        **{f"trunk.{name}.parts": modalities for name in sets},
    }


def _old_name(name: str, numbers: dict[str, list[int]]) -> str:
    words = name.split(".")
    changed = list(words)
    for place, word in enumerate(words):
        found = numbers.get(".".join(words[:place]))
        if found is not None and word.isdigit():
            changed[place] = str(found[int(word)])
    return ".".join(changed)


def as_before(meta: Meta, schema: Schema, small: Schema) -> Meta:
    """Tokens of the narrow model as the whole one would number them."""
    column = torch.tensor([next(c.index for c in schema.columns if c.name == kept.name) for kept in small.columns])
    source = torch.tensor([schema.sources.index(name) for name in small.sources])
    modality = torch.tensor([schema.modalities.index(word) for word in small.modalities])
    return replace(
        meta,
        column=column[meta.column],
        source=source[meta.source],
        modality=modality[meta.modality],
        num_modalities=len(schema.modalities),
    )
