from __future__ import annotations

import pytest
import torch

from unisono.core.errors import ShapeError
from unisono.objectives.balance import ByConstant, ByUncertainty, batch_mean


def test_mean_over_present_rows() -> None:
    losses, present = torch.tensor([1.0, 0.0, 3.0], requires_grad=True), torch.tensor([True, False, True])
    assert batch_mean(losses, present).item() == 2
    assert batch_mean(losses, present, total=8).item() == 0.5
    none = batch_mean(losses * 0, torch.zeros(3, dtype=torch.bool))
    assert none.item() == 0
    none.backward()
    assert losses.grad is not None


def test_targets_weigh_alike_whatever_their_unit() -> None:
    combine = ByConstant(constants={"price": 1e6, "kind": 0.7})
    assert float(combine({"price": torch.tensor(1e6), "kind": torch.tensor(0.7)})) == pytest.approx(1)
    other = ByConstant(constants={"price": 1.0, "kind": 0.7}, weights={"kind": 3.0})
    assert float(other({"price": torch.tensor(1.0), "kind": torch.tensor(0.7)})) == pytest.approx(2)
    with pytest.raises(ShapeError, match="kind"):
        combine({"price": torch.tensor(1.0)})


def test_uncertainty_starts_as_by_constant_and_settles_where_its_gradient_is_zero() -> None:
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(1.0)}
    constants = {"a": 2.0, "b": 4.0}
    combine = ByUncertainty(constants=constants)
    assert combine(losses).item() == float(ByConstant(constants=constants)(losses))
    with torch.no_grad():
        combine.log_variance.copy_(torch.log(2 * torch.tensor([2.0, 0.25])))
    combine(losses).backward()
    assert combine.log_variance.grad is not None
    torch.testing.assert_close(combine.log_variance.grad, torch.zeros(2))
