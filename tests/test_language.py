"""Every recipe of the page on the language is short, trains on a table that has what it needs, and does what its text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import unisono
from tests.test_readme import blocks, ran
from tests.tokens import FRAME, rich_meta
from unisono.core.names import Names
from unisono.core.tokens import Meta
from unisono.model.drawing import modalities_of, sample_table
from unisono.nn.grammar import build_trunk
from unisono.nn.layer import LayerPlan
from unisono.nn.part import Frame
from unisono.objectives.align import Alignments
from unisono.recipe import build_objective, load_recipe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pages" / "language.md"
TEXTS = blocks(PAGE, "yaml")
SETTINGS = ["width=16", "train.steps=2", "train.batch=16"]
#: What each recipe is, in the order of the page.
ORDER = ("early", "late", "bottleneck", "swin", "divided", "co-attention", "mixture", "u", "decoder", "graph", "latents", "fork", "space")


def test_there_are_at_least_ten() -> None:
    assert len(TEXTS) == len(ORDER) >= 10


def recipe_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(TEXTS[ORDER.index(name)], encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ORDER)
def test_it_trains_and_predicts(name: str, tmp_path: Path) -> None:
    assert len(TEXTS[ORDER.index(name)].strip().splitlines()) <= 10
    path = recipe_of(name, tmp_path)
    table, columns = sample_table(modalities_of(load_recipe(str(path))))
    targets = {"shape": "category", "count": "number"}
    model = unisono.fit(table, targets, recipe=str(path), settings=SETTINGS, columns=columns, progress=False)
    answers = model.predict(table)
    assert answers.num_rows == table.num_rows
    assert np.isfinite(np.array(answers["count"].to_pylist(), float)).all()


def plans(name: str, folder: Path, meta: Meta | None = None, frame: Frame = FRAME) -> tuple[Any, list[LayerPlan], Meta]:
    """The trunk of a recipe of the page over a batch with everything, and what its layers plan."""
    recipe = load_recipe(str(recipe_of(name, folder)), {"width": 16})
    meta = rich_meta() if meta is None else meta
    trunk = build_trunk(recipe["trunk"], recipe["defaults"], width=16, num_modalities=5, frame=frame)
    plan = trunk.plan(meta)
    return trunk, [p for p in plan.steps if isinstance(p, LayerPlan)], meta


def pictures() -> Meta:
    """Without the clips, whose three axes patch merging would have to be told of."""
    meta = rich_meta()
    return meta.select(torch.nonzero(meta.column != 3).squeeze(1))


def together(meta: Meta, *what: torch.Tensor) -> torch.Tensor:
    """(T, T) tokens of one row that are equal in everything named."""
    found = meta.sample[:, None] == meta.sample[None, :]
    for values in what:
        found = found & (values[:, None] == values[None, :])
    return found


def test_fusion_is_early_late_or_through_learned_tokens(tmp_path: Path) -> None:
    _, layers, meta = plans("early", tmp_path)
    assert torch.equal(layers[0].relation.pairs(), together(meta))
    _, layers, meta = plans("late", tmp_path)
    assert torch.equal(layers[0].relation.pairs(), together(meta, meta.source))
    _, layers, meta = plans("bottleneck", tmp_path)
    pairs, t = layers[1].relation.pairs(), len(meta)
    assert torch.equal(pairs[:t, :t], together(meta, meta.source))
    assert int(pairs[:t, t:].sum()) == 4 * t, "every token sees the four of its row"


def test_space_and_time_are_divided(tmp_path: Path) -> None:
    _, layers, meta = plans("divided", tmp_path)
    clip = torch.nonzero(meta.column == 3).squeeze(1)
    part = meta.select(clip)
    time, space = (layers[k].relation.pairs()[clip][:, clip] for k in (0, 1))
    assert torch.equal(time, together(part, part.place[:, 1], part.place[:, 2]))
    assert torch.equal(space, together(part, part.place[:, 0]))


def test_streams_look_at_each_other_as_they_were(tmp_path: Path) -> None:
    trunk, _, meta = plans("co-attention", tmp_path)
    trunk = trunk.double().eval()
    with torch.no_grad():
        for p in trunk.parameters():
            p.add_(0.2 * torch.randn_like(p))
    values = torch.randn(len(meta), 16, dtype=torch.float64)
    both = trunk.run(values, trunk.plan(meta)).tokens
    swapped = yaml.safe_load(TEXTS[ORDER.index("co-attention")])
    swapped["trunk"][2], swapped["trunk"][3] = swapped["trunk"][3], swapped["trunk"][2]
    other = build_trunk(swapped["trunk"], load_recipe("base")["defaults"] | swapped["defaults"], width=16, num_modalities=5, frame=FRAME)
    other = other.double().eval()
    for k, step in enumerate((0, 1, 3, 2, 4, 5)):
        other.steps[k].load_state_dict(trunk.steps[step].state_dict())
    torch.testing.assert_close(other.run(values, other.plan(meta)).tokens, both, rtol=0, atol=1e-10)


def test_windows_shift_and_the_u_comes_back_up(tmp_path: Path) -> None:
    trunk, layers, meta = plans("swin", tmp_path, pictures())
    photo = torch.nonzero(meta.column == 2).squeeze(1)
    part = meta.select(photo)
    for k, shift in ((0, 0), (1, 1)):
        window = (part.place[:, :2] + shift) // 2
        expected = together(part, part.item, window[:, 0], window[:, 1])
        assert torch.equal(layers[k].relation.pairs()[photo][:, photo], expected)
    trunk, layers, meta = plans("u", tmp_path, pictures())
    assert len(layers[1].relation.pairs()) < len(meta)
    assert len(trunk.plan(meta).last) == len(meta)


def test_weights_are_whose_they_are_said_to_be(tmp_path: Path) -> None:
    early, mixture = plans("early", tmp_path)[0], plans("mixture", tmp_path)[0]
    count = {name: sum(p.numel() for p in trunk.steps[:-1].parameters()) for name, trunk in (("one", early), ("six", mixture))}
    assert count["six"] == 6 * count["one"]
    latents = plans("latents", tmp_path)[0]
    first, last = latents.steps[1], latents.steps[3]
    assert first.ffn is last.ffn
    assert first.mixer is last.mixer
    frame = Frame(Names(FRAME.names.modalities, FRAME.names.columns, FRAME.names.sources, ("a", "b")))
    fork, _, meta = plans("fork", tmp_path, frame=frame)
    assert len(fork.plan(meta).last) == 2 * len(meta)


def test_the_decoder_looks_back_only_and_nodes_along_edges(tmp_path: Path) -> None:
    _, layers, meta = plans("decoder", tmp_path)
    pairs = layers[0].relation.pairs()
    title = torch.nonzero((meta.column == 1) & (meta.sample == 0)).squeeze(1)
    assert torch.equal(pairs[title][:, title], torch.ones(5, 5).tril().bool())
    assert not pairs[title][:, (meta.column == 2) & (meta.sample == 0)].any()
    trunk, _, meta = plans("graph", tmp_path)
    inner = trunk.plan(meta).steps[0].steps[0].relation.pairs()
    nodes = meta.select(torch.nonzero(meta.column == 4).squeeze(1))
    expected = torch.eye(len(nodes)).bool()
    assert nodes.edges is not None
    expected[nodes.edges[1], nodes.edges[0]] = True
    assert torch.equal(inner, expected)


def test_the_pages_python_runs(tmp_path: Path) -> None:
    ran("\n".join(blocks(PAGE, "python")), tmp_path)


def test_the_space_has_two_sentences_of_which_each_compares_what_it_says(tmp_path: Path) -> None:
    words = build_objective(load_recipe(str(recipe_of("space", tmp_path)))).align
    made = Alignments(words, width=8, sources=("a", "b"), where="page")
    assert [space.word for space in made.spaces] == ["global", "tokens"]
    assert [term.how.word for term in made.terms] == ["cosine", "late"]
    assert [term.weight for term in made.terms] == [1.0, 0.5]
