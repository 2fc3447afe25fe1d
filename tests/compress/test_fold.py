"""Folding: the same answers to 1e-10 in float64, from a trunk that has less to do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.compress.trunks import DEFAULTS, STEPS, WIDTH, Running, RunningByModality, answer, trunk_of, with_running
from tests.contracts.parts import Part, parts
from unisono.compress.branch import branches
from unisono.compress.fold import FOLDS, Note, fold, ordered
from unisono.core.errors import ConfigError
from unisono.nn.affine import Standard
from unisono.nn.ffn import MLP, OneMap
from unisono.nn.norm import LayerNorm, NoNorm, norms
from unisono.nn.residual import residuals
from unisono.nn.share import PerSet
from unisono.nn.trunk import Trunk

SHARINGS: dict[str, Any] = {
    "all": "all", "modality": "modality", "depth": "depth", "task": "task", "level": "level",
    "norms apart": {"norm": "modality", "mixer": "all", "ffn": "all"},
    "maps apart": {"norm": "all", "mixer": "modality", "ffn": "modality"},
    "maps over depth": {"norm": "all", "mixer": "depth", "ffn": "depth"},
    "norms over depth": {"norm": "depth", "mixer": "all", "ffn": "all"},
}  # fmt: skip
FORK = [{"fork": "task"}, *STEPS]


def folded(trunk: Trunk, *words: str) -> tuple[Trunk, list[Note]]:
    """A copy with folds, which has to give the same answers."""
    new = copy.deepcopy(trunk)
    notes = [note for word in ordered(words or tuple(FOLDS)) for note in fold(new, word)]
    torch.testing.assert_close(answer(new), answer(trunk), rtol=0, atol=1e-10)
    return new, notes


def numbers(trunk: Trunk) -> int:
    return sum(p.numel() for p in trunk.parameters())


@pytest.mark.parametrize("part", parts(), ids=lambda p: p.label)
def test_every_registered_part_answers_the_same(part: Part) -> None:
    trunk = part.build()
    before = answer(trunk)
    for word in FOLDS:
        fold(trunk, word)
        torch.testing.assert_close(answer(trunk), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("rule", residuals.entries)
@pytest.mark.parametrize("norm", [*norms.entries, "running", "running by modality"])
def test_every_norm_rule_and_sharing(norm: str, rule: str, sharing: str) -> None:
    steps = FORK if sharing == "task" else STEPS
    given = {"sharing": SHARINGS[sharing], "residual": {"type": rule, "layerscale": 0.5, "gain": 0.7}}
    trunk = trunk_of(steps, norm=norm if norm in norms.entries else "layer", **given)
    if norm not in norms.entries:
        with_running(trunk, Running if norm == "running" else RunningByModality)
    folded(trunk)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_what_a_pre_norm_trunk_becomes(norm: str) -> None:
    trunk = trunk_of(norm=norm, residual={"type": "pre", "layerscale": 0.5, "per_depth": 0.5})
    new, notes = folded(trunk)
    assert not [m for m in new.modules() if isinstance(m, LayerNorm)]
    for b in branches(new):
        assert isinstance(b.norm, Standard)
        assert not b.norm.centre
        assert not list(b.norm.parameters())
        assert b.rule.scale is None
        assert b.rule.factor == 1.0
    assert {n.fold for n in notes if n.done} == {"scale", "affine"} | ({"rms"} if norm == "layer" else set())
    assert numbers(new) < numbers(trunk)


@pytest.mark.parametrize("sharing", ["all", "modality", "depth"])
def test_a_norm_with_fixed_statistics_is_gone(sharing: str) -> None:
    new, notes = folded(with_running(trunk_of(sharing=sharing)), "fixed")
    assert not [m for m in new.modules() if isinstance(m, Running)]
    assert all(isinstance(b.norm, NoNorm) for b in branches(new))
    assert len([n for n in notes if n.done]) == 4


@pytest.mark.parametrize("rule", ["pre", "parallel"])
@pytest.mark.parametrize("sharing", ["all", "modality", "depth", "maps apart", "norms apart"])
def test_statistics_by_modality_go_into_maps_by_modality(sharing: str, rule: str) -> None:
    trunk = with_running(trunk_of(sharing=SHARINGS[sharing], residual=rule), RunningByModality)
    apart = sharing in {"modality", "maps apart"}
    first, notes = folded(trunk, "fixed")
    assert all(n.done == apart for n in notes)
    assert notes
    assert apart or all("costs more than it saves" in n.what for n in notes)
    new, notes = folded(first, "copies")
    assert bool(notes) != apart
    assert all(n.done and n.fold == "copies" for n in notes)
    assert not [m for m in new.modules() if isinstance(m, RunningByModality)]
    gone = sum(m.weight.numel() + m.bias.numel() for m in trunk.modules() if isinstance(m, Running))
    assert apart or numbers(new) > numbers(trunk) - gone


def test_statistics_by_modality_stay_where_maps_are_shared_otherwise() -> None:
    for sharing in ("level", "maps over depth"):
        trunk = with_running(trunk_of(sharing=SHARINGS[sharing]), RunningByModality)
        new, notes = folded(trunk, "fixed", "copies")
        assert not any(n.done for n in notes)
        assert numbers(new) == numbers(trunk)


def test_a_fixed_norm_behind_a_feed_forward_is_gone_and_one_behind_a_mixer_is_kept() -> None:
    new, notes = folded(with_running(trunk_of(residual="sandwich")), "fixed")
    assert [type(b.norms[-1]) for b in branches(new)] == [Running, NoNorm] * 2
    assert [n.place for n in notes if not n.done] == ["apart.0.mixer (behind)", "apart.1.mixer (behind)"]


def test_norms_of_their_own_before_a_shared_map_stay_because_folding_would_cost_more() -> None:
    trunk = trunk_of(sharing=SHARINGS["norms apart"])
    new, notes = folded(trunk, "affine")
    assert numbers(new) == numbers(trunk)
    assert all("costs more than it saves" in n.what and not n.done for n in notes)
    assert len(notes) == 4


def test_shared_norms_go_into_every_copy_of_a_map() -> None:
    new, notes = folded(trunk_of(sharing=SHARINGS["maps apart"]), "affine")
    assert all(n.done for n in notes)
    assert all(isinstance(b.norm, Standard) for b in branches(new))


def test_a_map_shared_over_depth_is_left_to_its_norms() -> None:
    trunk = trunk_of(sharing=SHARINGS["maps over depth"])
    new, notes = folded(trunk, "affine", "scale")
    assert not any(n.done for n in notes)
    assert notes
    assert numbers(new) == numbers(trunk)


def test_norms_and_maps_shared_over_depth_are_folded_once() -> None:
    new, notes = folded(trunk_of(sharing="depth"), "affine")
    assert all(n.done for n in notes)
    assert len({id(linear) for b in branches(new) for linear in b.maps}) == 2


def test_sets_that_no_longer_differ_become_one() -> None:
    new, _ = folded(trunk_of(sharing="modality"), "affine")
    assert not [m for b in branches(new) for m in [b.norm] if isinstance(m, PerSet)]


def test_branches_become_one_map() -> None:
    trunk = trunk_of(ffn="branched(2, branches=3)")
    new, notes = folded(trunk, "branches")
    assert all(n.done for n in notes)
    assert all(type(b.layer.ffn) is MLP for b in branches(new))
    assert numbers(new) < numbers(trunk)
    with_act, _ = folded(trunk_of(ffn="branched(2, act=relu)", sharing="modality"), "branches")
    assert not [m for m in with_act.modules() if "Branched" in type(m).__name__]


def test_a_chain_becomes_one_map_only_where_that_is_less() -> None:
    new, notes = folded(trunk_of(ffn="mlp(2, act=identity)"), "branches")
    assert all(n.done for n in notes)
    assert [m for m in new.modules() if isinstance(m, OneMap)]
    small = trunk_of(ffn="mlp(0.25, act=identity)")
    same, notes = folded(small, "branches")
    assert notes
    assert all(not n.done and "cost more than it saves" in n.what for n in notes)
    assert numbers(same) == numbers(small)


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "a norm that looks at the mean": (STEPS, {"norm": "rms"}, ""),
    "a mixture of norms": ([{"norm": "rms"}, *STEPS], {}, "looks at the mean"),
    "norms behind": (STEPS, {"residual": "post"}, "Post"),
    "norms on both sides": (STEPS, {"residual": "sandwich"}, "Sandwich"),
    "a maximum": ([*STEPS[:1], {"resample": "pool(2, by=max)"}, *STEPS], {}, "maximum"),
    "a map of the stream": ([{"save": "x"}, {"resample": "pool(2)"}, {"resample": "expand(x)"}, *STEPS], {}, "without a norm"),
    "latents": ([*STEPS[:1], {"resample": "latents(2)"}, *STEPS], {}, "Latents"),
    "a bridge with a norm": ([{"save": "x"}, *STEPS[:1], {"bridge": "linear(x)"}, *STEPS], {}, "LinearBridge"),
    "a read without a norm": ([*STEPS[:1], {"read": {"type": "mean", "norm": "none"}}], {}, "NoNorm"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_stream_whose_mean_is_looked_at_keeps_it(what: str) -> None:
    steps, defaults, says = REFUSED[what]
    trunk = trunk_of(steps, **defaults)
    new, notes = folded(trunk, "rms")
    assert not any(n.done for n in notes)
    assert [n.what for n in notes if says in n.what] or not says
    assert new.names == trunk.names


EVERYTHING = [
    {"insert": "bottleneck(2)"}, {"save": "fine"}, {"repeat": 2, "scope": "source & bottleneck"}, {"resample": "merge(2, axes=3)"},
    {"keys": "fine", "scope": "cross(all <- all)"}, {"resample": "pool(2)"},
    {"bridge": "add(fine)"}, {"on": "photo", "repeat": 2}, {"fork": "task"}, {"sharing": "task"}, {"read": "mean(by=source)"},
]  # fmt: skip


def test_the_stream_has_no_mean_after_it_was_taken_off() -> None:
    steps = [s for s in EVERYTHING if "keys" not in s]
    trunk = trunk_of(steps)
    new, notes = folded(trunk, "affine", "rms")
    assert [n.done for n in notes if n.fold == "rms"] == [True], notes
    values = torch.randn(len(_meta()), WIDTH, dtype=torch.float64)
    tokens = new.run(values, new.plan(_meta())).tokens
    torch.testing.assert_close(tokens.mean(1), torch.zeros(len(tokens), dtype=torch.float64), rtol=0, atol=1e-12)


def _meta() -> Any:
    from tests.tokens import rich_meta

    return rich_meta()


def test_words_that_are_no_fold() -> None:
    with pytest.raises(ConfigError, match=r"'fixd'; did you mean 'fixed'"):
        ordered(["fixd"])
    assert ordered(["rms", "scale", "rms"]) == ("scale", "rms")
    assert ordered(["rms", "pack"], ("rms", "pack")) == ("rms", "pack")


def test_single_precision_is_folded_in_double() -> None:
    trunk = trunk_of(residual={"type": "pre", "layerscale": 1e-3}).float()
    new = copy.deepcopy(trunk)
    for word in FOLDS:
        fold(new, word)
    assert {p.dtype for p in new.parameters()} == {torch.float32}
    torch.testing.assert_close(answer(new.double()), answer(trunk.double()), rtol=0, atol=1e-5)


def test_a_plain_trunk_has_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    notes = [n for word in FOLDS for n in fold(trunk_of(**DEFAULTS, norm="none"), word)]
    assert not any(n.done for n in notes)
