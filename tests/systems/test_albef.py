"""ALBEF (arXiv:2107.07651): contrast before sources meet, then matching of pairs that are hard to tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.model.aligned import codes, fit
from tests.systems.aligning import alignments_of, contrast, loss_of, sides, temperature, terms_of
from unisono.core.errors import ConfigError
from unisono.model import aligning
from unisono.model.aligning import Aligner
from unisono.model.contents import Contents
from unisono.model.scoring import batches_of

APART = "trunk=[{name: apart, scope: item}, {save: space}, {name: meet, scope: sample}, {name: read, read: mean}]"


def test_without_distillation_the_contrast_before_fusion_is_the_plain_one() -> None:
    made, shown = alignments_of("albef", ("a", "b")), sides(("a", "b"))
    t = temperature(terms_of(made)[0])
    assert loss_of(made, shown) == pytest.approx(contrast(shown["a"].vectors, shown["b"].vectors, t), abs=1e-6)


def test_a_pair_that_does_not_match_is_read_as_a_row_whose_source_was_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    table = codes(40)
    still = ("defaults.mixer=attention(heads=2)", "defaults.ffn=mlp(1)", "tokens.vector=projection(dropout=0)", "train.steps=3")
    model = fit(table, recipe="albef", settings=(APART, *still))
    network, predictor = model.network, model.predictor()
    assert network.matching is not None

    def pooled(rows: pa.Table) -> Any:
        [(_, _, store)] = predictor._chunks(predictor.open(rows))
        [batch] = batches_of(predictor.assembler, store, np.arange(rows.num_rows))
        return network.train()(batch), batch

    seen: dict[str, Any] = {}
    pairs, judge = aligning.paired_with, network.matching.forward

    def pairing(meta: Any, other: torch.Tensor, partner: torch.Tensor) -> Any:
        seen["source"], seen["partner"] = network.alignments.sources[int(meta.source[other][0])], partner  # type: ignore[union-attr]
        return pairs(meta, other, partner)

    def judging(matched: torch.Tensor, mismatched: torch.Tensor) -> torch.Tensor:
        seen["right"], seen["wrong"] = matched, mismatched
        return judge(matched, mismatched)

    monkeypatch.setattr(aligning, "paired_with", pairing)
    monkeypatch.setattr(network.matching, "forward", judging)
    output, batch = pooled(table)
    own = Contents(np.arange(40), {s: np.arange(40) for s in ("note", "left", "right")}, {})
    loss = Aligner(network, own).matching(output, batch.rows)
    partner = seen["partner"]
    assert bool((partner != torch.arange(40)).all())
    exchanged = table.set_column(
        table.column_names.index(seen["source"]), seen["source"], table[seen["source"]].take(pa.array(partner.numpy()))
    )
    assert torch.allclose(seen["wrong"], pooled(exchanged)[0].pooled, atol=1e-5)
    assert torch.allclose(seen["right"], output.pooled, atol=1e-6)
    loss.backward()
    meet = [p for name, p in network.trunk.named_parameters() if name.startswith("steps.2.")]
    assert meet
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in meet if p.ndim > 1)


def test_the_space_does_not_see_where_sources_meet() -> None:
    table = codes(40)
    model = fit(table, recipe="albef", settings=(APART, "train.steps=3"))
    whole, alone = model.embed(table), model.embed(table.select(["key", "left"]))
    a, b = (torch.tensor(made["embedding.left"].to_pylist()) for made in (whole, alone))
    assert torch.allclose(a, b, atol=1e-5)


def test_matching_needs_a_space_and_layers_behind_it() -> None:
    with pytest.raises(ConfigError, match="put align beside it"):
        fit(codes(60), objective="matching")
    with pytest.raises(ConfigError, match="before them"):
        fit(codes(60), objective="align & matching")
