"""The grammar of alignments: each word against its equation, what sources are known to give, and which words do not go together."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unisono.core.errors import ConfigError
from unisono.nn.space import Side, mean_of_sources, spaces, unit
from unisono.objectives.align import Align, Alignments, Identity
from unisono.objectives.alike import Late, Product, Transport, multiply
from unisono.objectives.base import objectives
from unisono.objectives.contrast import InfoNCE
from unisono.objectives.negatives import Memory, Mined, Sides, slerp
from unisono.objectives.separation import Margin, Multiple, Scored, Sigmoid, Soft, Softmax, TotalCorrelation
from unisono.objectives.terms import log_uniformity
from unisono.ops.transport import sinkhorn

D = torch.float64
NAMES = ("a", "b", "c")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def side(n: int = 6, width: int = 8, seed: int = 0, tokens: int = 0) -> Side:
    rows = torch.arange(n)
    given = side_tokens(n, width, tokens, seed) if tokens else (None, None)
    return Side(unit(draw(n, width, seed=seed)), rows, torch.zeros_like(rows), *given, content=rows + 100 * seed)


def side_tokens(n: int, width: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    return unit(draw(n * tokens, width, seed=50 + seed)), torch.arange(n).repeat_interleave(tokens)


def build(sentence: str, sources: tuple[str, ...] = NAMES) -> Align:
    made = objectives.build(sentence, width=4, sources=sources)
    assert isinstance(made, Align)
    return made.double().train()


def shown(n: int = 6, sources: tuple[str, ...] = NAMES, tokens: int = 0, width: int = 8) -> dict[str, Side]:
    return {name: side(n, width, k, tokens) for k, name in enumerate(sources)}


def clip(a: Tensor, b: Tensor, t: float) -> float:
    s = a @ b.T / t
    return float(-(torch.log_softmax(s, 1).diagonal().mean() + torch.log_softmax(s, 0).diagonal().mean()) / 2)


def test_pairs_are_the_mean_of_each_pairs_symmetric_contrast() -> None:
    sides = shown()
    loss = build("align(loss=softmax(temperature=0.2))")(sides, torch.arange(6))
    pairs = [clip(x.vectors, y.vectors, 0.2) for x, y in itertools.combinations(sides.values(), 2)]
    assert float(loss) == pytest.approx(sum(pairs) / 3, abs=1e-6)
    two = {k: sides[k] for k in ("a", "b")}
    assert float(build("align(loss=softmax(temperature=0.2))", ("a", "b"))(two, torch.arange(6))) == pytest.approx(pairs[0], abs=1e-6)
    plain = InfoNCE(temperature=0.2).double()
    assert float(plain(sides["a"].vectors, sides["b"].vectors)) == pytest.approx(pairs[0], abs=1e-6)


def test_an_anchor_leaves_the_others_apart_and_their_order_free() -> None:
    sides = shown()
    loss = build("align(who=anchor(b), loss=softmax(temperature=0.2))")
    expected = (clip(sides["b"].vectors, sides["a"].vectors, 0.2) + clip(sides["b"].vectors, sides["c"].vectors, 0.2)) / 2
    assert float(loss(sides, torch.arange(6))) == pytest.approx(expected, abs=1e-6)
    swapped = {"a": sides["c"], "b": sides["b"], "c": sides["a"]}
    assert float(loss(swapped, torch.arange(6))) == pytest.approx(expected, abs=1e-6)


def test_rows_that_lack_a_source_take_no_part() -> None:
    sides = shown()
    some = torch.tensor([0, 2, 5])
    a = sides["a"]
    sides["a"] = Side(a.vectors[some], a.row[some], a.place[some], content=a.content[some] if a.content is not None else None)
    loss = build("align(loss=softmax(temperature=0.2))", ("a", "b"))({k: sides[k] for k in "ab"}, torch.arange(6))
    s = sides["a"].vectors @ sides["b"].vectors.T / 0.2
    there = -torch.log_softmax(s, 1)[torch.arange(3), some].mean()
    back = -torch.log_softmax(s.T, 1)[some, torch.arange(3)].mean()
    assert float(loss) == pytest.approx(float(there + back) / 2, abs=1e-6)


def test_nothing_that_belongs_together_gives_zero_with_a_graph() -> None:
    empty = Side(torch.zeros(0, 8, dtype=D), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    a = side()
    vectors = a.vectors.requires_grad_()
    for sentence in (
        "align",
        "align(who=all)",
        "align(who=rest)",
        "align(who=all, how=product, loss=total_correlation)",
        "align(extra=[cycle])",
    ):
        loss = build(sentence)({"a": replace(a, vectors=vectors), "b": empty, "c": empty}, torch.arange(6))
        loss.backward()
        assert float(loss) == 0.0


# -- symile ----------------------------------------------------------------------------------------------------------------------


def test_total_correlation_of_two_sources_and_all_tuples_is_the_symmetric_contrast() -> None:
    sides = shown(sources=("a", "b"))
    loss = build("align(who=all, how=product, loss=total_correlation(temperature=0.2, combinations=true))", ("a", "b"))
    expected = clip(sides["a"].vectors, sides["b"].vectors, 0.2)
    assert float(loss(sides, torch.arange(6))) == pytest.approx(expected, abs=1e-6)


def test_total_correlation_does_not_depend_on_the_order_of_sources_and_is_the_equation() -> None:
    vectors = [side(seed=k).vectors for k in range(3)]
    contents = [torch.arange(6) for _ in range(3)]
    loss = TotalCorrelation(temperature=0.3, combinations=True).double()
    expected = 0.0
    for m in range(3):
        x, (y, z) = vectors[m], [v for k, v in enumerate(vectors) if k != m]
        for i in range(6):
            f = {(j, k): math.exp(8**0.5 * float((x[i] * y[j] * z[k]).sum()) / 0.3) for j in range(6) for k in range(6)}
            expected -= math.log(f[i, i] / sum(f.values())) / 18
    for order in itertools.permutations(range(3)):
        found = loss.of_tuples([vectors[k] for k in order], [contents[k] for k in order])
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_tuple_that_stands_in_some_row_is_no_negative() -> None:
    vectors = [side(4, seed=k).vectors for k in range(2)]
    loss = TotalCorrelation(temperature=0.3, combinations=True).double()
    found = loss.of_tuples(vectors, [torch.tensor([0, 1, 2, 2]), torch.tensor([5, 6, 7, 8])])
    s = vectors[0] @ vectors[1].T / 0.3
    keep = torch.ones(4, 4, dtype=torch.bool)
    keep[2, 3] = keep[3, 2] = False
    s = s.masked_fill(~keep, -torch.inf)
    expected = -(torch.log_softmax(s, 1).diagonal().mean() + torch.log_softmax(s, 0).diagonal().mean()) / 2
    assert float(found) == pytest.approx(float(expected), abs=1e-6)
    found.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite()) for p in loss.parameters())


def test_a_product_of_two_is_a_cosine_and_keeps_its_size() -> None:
    a, b = side(seed=0), side(seed=1)
    assert torch.allclose(Product().scores(a, b)[0], a.vectors @ b.vectors.T)
    same = torch.full((1, 16), 0.25, dtype=D)
    assert float((same * multiply([same, same, same])).sum()) == pytest.approx(1.0)


# -- tokens ----------------------------------------------------------------------------------------------------------------------


def test_late_is_a_mean_of_maxima_in_each_direction() -> None:
    a, b = side(3, tokens=4), side(5, seed=1, tokens=2)
    assert a.tokens is not None
    assert b.tokens is not None
    to_b, to_a = Late().scores(a, b)
    s = (a.tokens @ b.tokens.T).reshape(3, 4, 5, 2)
    assert torch.allclose(to_b, s.amax(3).mean(1))
    assert torch.allclose(to_a, s.amax(1).mean(2).T)


def test_one_token_a_side_is_the_cosine_and_the_order_of_tokens_is_free() -> None:
    a, b = side(3, tokens=1), side(5, seed=1, tokens=1)
    assert a.tokens is not None
    assert b.tokens is not None
    for how in (Late(), Transport()):
        assert torch.allclose(how.scores(a, b)[0], a.tokens @ b.tokens.T)
    many = side(3, tokens=4)
    assert many.tokens is not None
    assert many.owner is not None
    turn = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    turned = replace(many, tokens=many.tokens[turn], owner=many.owner[turn])
    for how in (Late(), Transport()):
        assert torch.allclose(how.scores(many, b)[0], how.scores(turned, b)[0])


def test_a_transport_plan_has_its_masses_and_comes_near_the_best_matching() -> None:
    scores = draw(2, 3, 3)
    mass = torch.full((2, 3), 1 / 3, dtype=D)
    plan = sinkhorn(scores, mass, mass, sharpness=200.0, rounds=400)
    assert torch.allclose(plan.sum(1), mass)
    assert torch.allclose(plan.sum(2), mass, atol=1e-3)
    best = [max(sum(float(s[i, p[i]]) for i in range(3)) / 3 for p in itertools.permutations(range(3))) for s in scores]
    assert (plan * scores).sum((1, 2)).tolist() == pytest.approx(best, abs=2e-2)


# -- losses ----------------------------------------------------------------------------------------------------------------------

ONE = torch.eye(4, dtype=torch.bool)


def test_focus_zero_is_plain_and_a_larger_one_weighs_by_what_is_lacking() -> None:
    s = draw(4, 4)
    plain = Softmax(temperature=0.5).double()(Scored(s, ONE))
    assert torch.equal(plain, Softmax(temperature=0.5, focus=0.0).double()(Scored(s, ONE)))
    p = torch.softmax(s / 0.5, 1).diagonal()
    assert float(Softmax(temperature=0.5, focus=2.0).double()(Scored(s, ONE))) == pytest.approx(
        float((-((1 - p) ** 2) * p.log()).mean()), 1e-6
    )


def test_multiple_is_one_contrast_with_one_positive_and_their_sum_with_several() -> None:
    s = draw(4, 4)
    loss = Multiple(temperature=0.5).double()
    assert torch.allclose(loss(Scored(s, ONE)), Softmax(temperature=0.5).double()(Scored(s, ONE)))
    two = ONE | ONE.roll(1, 1)
    p = torch.softmax(s / 0.5, 1)
    assert float(loss(Scored(s, two))) == pytest.approx(float(-torch.log((p * two).sum(1)).mean()), abs=1e-6)


def test_soft_leaves_no_gradient_where_positives_share_the_probability() -> None:
    two = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.bool)
    given: Any = torch.where(two, 0.0, -30.0).to(D).requires_grad_()
    loss = Soft(temperature=0.5, lowest=0.1).double()
    loss(Scored(given, two)).backward()
    assert float(given.grad.abs().max()) < 1e-6
    other: Any = given.detach().clone().requires_grad_()
    Softmax(temperature=0.5, lowest=0.1).double()(Scored(other, ONE)).backward()
    assert float(other.grad.abs().max()) > 1e-2


def test_sigmoid_and_margin_are_their_equations() -> None:
    s = draw(4, 4)
    loss = Sigmoid(temperature=0.2, rarity=3.0).double()
    z = torch.where(ONE, 1.0, -1.0) * (s / 0.2 - 3.0)
    assert float(loss(Scored(s, ONE))) == pytest.approx(float(-torch.nn.functional.logsigmoid(z).sum() / 4), rel=1e-6)
    hinge = [[max(0.0, 0.2 - float(s[i, i]) + float(s[i, j])) for j in range(4) if j != i] for i in range(4)]
    assert float(Margin(margin=0.2)(Scored(s, ONE))) == pytest.approx(sum(max(h) for h in hinge) / 4)
    assert float(Margin(margin=0.2, hardest=False)(Scored(s, ONE))) == pytest.approx(sum(sum(h) / 3 for h in hinge) / 4)


@pytest.mark.parametrize("loss", ["softmax", "multiple", "soft", "sigmoid", "margin", "margin(hardest=false)"])
def test_what_is_not_allowed_does_not_matter(loss: str) -> None:
    made = build(f"align(loss={loss})").loss
    s, allowed = draw(4, 6), torch.ones(4, 6, dtype=torch.bool)
    allowed[:, 4:] = False
    positive = torch.eye(4, 6, dtype=torch.bool)
    assert torch.allclose(made(Scored(s, positive, allowed)), made(Scored(s[:, :4], ONE)))


# -- negatives -------------------------------------------------------------------------------------------------------------------


def sides_of(a: Side, b: Side) -> Sides:
    return Sides(a, b, torch.arange(len(a)), "a > b", True)


def test_mined_looks_at_the_most_alike_only() -> None:
    s = draw(4, 4)
    found = Mined(hardest=2)(Scored(s, ONE), sides_of(side(4), side(4, seed=1)))
    assert found.allowed is not None
    for i in range(4):
        worst = sorted((j for j in range(4) if j != i), key=lambda j: -float(s[i, j]))[:2]
        assert sorted(torch.nonzero(found.allowed[i])[:, 0].tolist()) == sorted(worst)


def test_memory_adds_earlier_targets_and_spares_what_is_the_same() -> None:
    made = build("align(negatives=memory(keep=8), what=global(size=8))", ("a", "b"))
    memory = made.negatives
    assert isinstance(memory, Memory)
    first, second = shown(3, ("a", "b")), {"a": side(3, seed=5), "b": replace(side(3, seed=6), content=torch.tensor([100, 9, 8]))}
    made(first, torch.tensor([1, 2, 3]))
    k = memory.directions.index("a > b")
    assert torch.allclose(memory.vectors[k, :3], first["b"].vectors)
    a, b = second["a"], second["b"]
    found = memory(Scored(a.vectors @ b.vectors.T, torch.eye(3, dtype=torch.bool)), replace(sides_of(a, b), item=torch.tensor([7, 2, 9])))
    assert found.scores.shape == (3, 6)
    assert found.allowed is not None
    assert found.allowed[:, 3:].tolist() == [[False, True, True], [True, False, True], [True, True, True]]


def test_mixes_lie_on_the_sphere_between_their_ends() -> None:
    a, b = side(5).vectors, side(5, seed=1).vectors
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=D)
    m = slerp(a, b, share)
    w = torch.acos((a * b).sum(1))
    assert torch.allclose(m.norm(dim=1), torch.ones(5, dtype=D))
    assert torch.allclose(torch.acos((m * a).sum(1).clamp(-1, 1)), (1 - share) * w, atol=1e-6)
    assert torch.allclose(m[0], b[0])
    assert torch.allclose(m[4], a[4])
    assert torch.allclose(slerp(a, a, share), a)


# -- terms -----------------------------------------------------------------------------------------------------------------------


def test_relief_of_one_is_uniformity_and_a_constant_shifts_it_without_gradient() -> None:
    x: Any = side(6).vectors.requires_grad_()
    plain = log_uniformity(x)
    off = ~torch.eye(6, dtype=torch.bool)
    direct = torch.exp(-2 * torch.cdist(x, x) ** 2)[off].mean().log()
    assert float(plain) == pytest.approx(float(direct), abs=1e-6)
    ones, half = torch.ones(6, 6, dtype=D), torch.full((6, 6), 0.5, dtype=D)
    assert float(log_uniformity(x, ones)) == pytest.approx(float(plain), abs=1e-9)
    assert float(log_uniformity(x, half)) - float(plain) == pytest.approx(2 * 2.0 * (1 - 0.5))
    [g], [h] = torch.autograd.grad(log_uniformity(x, half), x), torch.autograd.grad(plain, x)
    assert torch.allclose(g, h)


def test_a_consistent_space_has_no_cycle_term_and_terms_add_up_by_weight() -> None:
    a = side()
    same = {"a": a, "b": replace(a, content=a.row + 50)}
    item = torch.arange(6)
    plain, cycle = (build(f"align({e})", ("a", "b"))(same, item) for e in ("", "extra=[cycle]"))
    assert float(cycle) == pytest.approx(float(plain), abs=1e-9)
    sides = shown()
    base, one, two = (float(build(f"align(extra=[uniformity(weight={w})])")(sides, item)) for w in (0, 1, 2))
    assert two - base == pytest.approx(2 * (one - base), abs=1e-6)
    assert one != base


# -- sentences -------------------------------------------------------------------------------------------------------------------

REFUSED = [
    ("align(how=late)", "late does not compare what=global"),
    ("align(what=tokens, how=product, who=rest)", "product does not compare what=tokens"),
    ("align(loss=total_correlation)", "total_correlation goes with who=all, how=product"),
    ("align(how=product)", "product goes with who=rest"),
    ("align(who=rest, what=tokens, how=late)", "rest takes sources together, which have no tokens"),
    ("align(who=all, negatives=mixed)", "mixed does not go with who=all"),
    ("align(what=tokens, how=late, negatives=memory)", "memory goes with how=cosine"),
    ("align(who=anchor(d))", "there is no source 'd'"),
    ("align(extra=cycle)", "expected a list of components"),
    ("align(extra=[cicle])", "did you mean 'cycle'"),
    ("align(loss=softmx)", "did you mean 'softmax'"),
]


@pytest.mark.parametrize(("sentence", "said"), REFUSED)
def test_words_that_do_not_go_together_are_refused_with_those_that_do(sentence: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(sentence)


def test_an_anchor_may_be_named_by_its_modality() -> None:
    made = Alignments(
        ["align(who=anchor(text))"], width=4, sources=("picture", "report"), where="here", kinds={"picture": "image", "report": "text"}
    )
    [term] = made.terms
    assert isinstance(term, Align)
    assert [ask.query for ask in term.asks] == [("report",)]


def test_sentences_of_one_what_share_a_space_and_weights_count() -> None:
    torch.manual_seed(0)
    made = Alignments(["align", "align(loss=sigmoid, weight=0.5)", "align(what=tokens, how=late)"], width=4, sources=NAMES, where="here")
    assert len(made.spaces) == 2
    sides = [shown(), shown(tokens=3)]
    identity = Identity(torch.arange(6), {name: torch.arange(6)[:, None] for name in NAMES})
    total, parts = made.double()(sides, identity)
    values = list(parts.values())
    assert float(total) == pytest.approx(float(values[0] + 0.5 * values[1] + values[2]))


def test_the_loss_is_in_float32_whatever_the_precision_around_it() -> None:
    made = Alignments(["align"], width=4, sources=("a", "b"), where="here")
    sides = {name: replace(s, vectors=s.vectors.float()) for name, s in shown(sources=("a", "b")).items()}
    identity = Identity(torch.arange(6), {name: torch.arange(6)[:, None] for name in ("a", "b")})
    plain = float(made([sides], identity)[0].detach())
    with torch.autocast("cpu", torch.bfloat16):
        assert float(made([sides], identity)[0].detach()) == plain


@pytest.mark.parametrize("word", ["global", "tokens", "lexical", "global(layers=2)"])
def test_a_space_gives_unit_vectors_and_a_missing_source_gives_none(word: str) -> None:
    from tests.tokens import meta_of

    meta = meta_of([[2, 1, 0], [0, 2, 0], [0, 0, 0]])
    space = spaces.build(word, width=4, sources=NAMES).double()
    found = space(draw(5, 4), meta)
    assert [side.row.tolist() for side in found.values()] == [[0], [0, 1], []]
    for made in found.values():
        assert torch.allclose(made.vectors.norm(dim=1), torch.ones(len(made), dtype=D))
        assert (made.tokens is not None) == (word == "tokens")
    if word == "lexical":
        assert all(bool((made.vectors >= 0).all()) for made in found.values())
    whole = mean_of_sources(found, 3)
    assert torch.allclose(whole[1], found["b"].vectors[1])
    assert float(whole[2].abs().sum()) == 0


@pytest.mark.parametrize("word", ["global", "tokens", "global(layers=2)"])
def test_a_space_is_centred_on_what_it_is_shown(word: str) -> None:
    from tests.tokens import meta_of

    torch.manual_seed(0)
    meta = meta_of([[2, 1, 0], [1, 2, 0], [3, 1, 0]])
    space = spaces.build(word, width=4, sources=NAMES).double()
    values = 5.0 + draw(len(meta), 4)
    space.centre(values, meta)
    x = space.norm(values)
    for k in (0, 1):
        mine = meta.source == k
        given = space.seen(x[mine], meta.sample[mine])
        assert float(space.project[k](given).mean(0).abs().max()) < 1e-12
    assert float(space.project[2].centre.abs().sum()) == 0  # type: ignore[union-attr, operator]
