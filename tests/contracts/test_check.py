"""``unisono check``: a package that keeps the contracts, packages that break one each, packages that offer nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unisono.contracts import holds
from unisono.contracts.holds import CONTRACTS, ContractError
from unisono.contracts.trunk import ROLES, Part, part_of
from unisono.core.registry import Traits
from unisono.nn.norm import Norm, norms

ROOT = Path(__file__).resolve().parents[2]
GOOD = '''
"""Components of another package."""
import torch
from torch import nn
from unisono.core.registry import Count, Positive, Traits
from unisono.nn.norm import Norm
from unisono.nn.scope import Partition
from unisono.nn.ffn import FeedForward


class Scale(Norm):
    """``y = g x / max(|x|, eps)``: each token has the same, learned length."""

    def __init__(self, *, width: int, eps: Positive = 1e-5) -> None:
        super().__init__()
        self.length, self.eps = nn.Parameter(torch.tensor(float(width) ** 0.5)), eps

    def forward(self, x_TD, plan=None):
        return self.length * x_TD / x_TD.norm(dim=-1, keepdim=True).clamp_min(self.eps)


class Thirds(Partition):
    """Places of equal remainder mix."""

    traits = Traits(example="thirds(3)")

    def __init__(self, *, by: Count) -> None:
        self.by = by

    def labels(self, meta):
        return [meta.column.numpy(), meta.place.numpy()[:, 0] % self.by]
'''
BROKEN = '''
class Crowd(Norm):
    """Subtracts the mean over the whole batch, whoever is in it."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(width))

    def forward(self, x_TD, plan=None):
        return x_TD - x_TD.mean(0)


class NoNorm:
    """Something else altogether."""

    def __init__(self, *, width: int) -> None:
        pass


def positional(width):
    """Not to be called by name."""
'''


def install(folder: Path, code: str, points: str) -> None:
    """A package as an installer leaves it."""
    (folder / "acme_parts.py").write_text(code)
    info = folder / "acme_parts-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-parts\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("acme_parts\n")
    (info / "RECORD").write_text("acme_parts.py,,\nacme_parts-1.2.dist-info/METADATA,,\n")
    if points:
        (info / "entry_points.txt").write_text(textwrap.dedent(points))


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder)])}
    command = [sys.executable, "-m", "unisono", *words]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def test_a_package_that_keeps_them(tmp_path: Path) -> None:
    install(tmp_path, GOOD, "[unisono.norm]\nscale = acme_parts:Scale\n[unisono.scope]\nthirds = acme_parts:Thirds\n")
    done = ran(tmp_path, "check", "acme-parts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") == 2 * (2 + len(CONTRACTS))
    assert "2 components" in done.stdout
    assert ran(tmp_path, "check", "acme_parts", "--json").returncode == 0, "by the name it is imported by"


def test_a_package_that_breaks_some(tmp_path: Path) -> None:
    points = """
        [unisono.norm]
        crowd = acme_parts:Crowd
        layer = acme_parts:Scale
        [unisono.nrom]
        scale = acme_parts:Scale
    """
    install(tmp_path, GOOD + BROKEN, points)
    done = ran(tmp_path, "check", "acme-parts", "--json")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    failed = {(r["name"], r["contract"]): r["reason"] for r in found["results"] if r["result"] == "failed"}
    assert found["failed"] == len(failed)
    assert "off by" in failed["crowd", "samples never interact"]
    assert "unused" in failed["crowd", "every parameter gets gradient"]
    assert ("crowd", "same seed, same bits") not in failed
    assert ("crowd", "token order does not matter") not in failed
    assert "taken" in failed["layer", "is registered"]
    assert "did you mean 'norm'" in failed["scale", "is registered"]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ("[unisono.norm]\nother = acme_parts:NoNorm\n", "it is no unisono.nn.norm.Norm"),
        ("[unisono.norm]\nother = acme_parts:positional\n", "keyword-only"),
        ("[unisono.norm]\nother = acme_parts:Absent\n", "Absent"),
        ("[unisono.norm]\nother = acme_other:Scale\n", "acme_other"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, points: str, reason: str) -> None:
    install(tmp_path, GOOD + BROKEN, points)
    done = ran(tmp_path, "check", "acme-parts")
    assert done.returncode == 1
    assert reason in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("package", "says"), [("acme-parts", "offers nothing"), ("acme-part", "did you mean 'acme-parts'")])
def test_absent_packages_and_those_that_offer_nothing(tmp_path: Path, package: str, says: str) -> None:
    install(tmp_path, GOOD, "")
    done = ran(tmp_path, "check", package)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""


def test_a_component_that_cannot_be_imported_is_a_message_everywhere(tmp_path: Path) -> None:
    install(tmp_path, GOOD, "[unisono.norm]\nother = acme_parts:Absent\n")
    done = ran(tmp_path, "recipes", "early-fusion", "--draw", "--out", str(tmp_path / "x.html"))
    assert done.returncode == 2
    assert "unisono check acme-parts" in done.stderr
    assert "Traceback" not in done.stderr


class Wrong(Norm):
    """A norm that is told which contract to break."""

    mode = ""
    calls = 0

    def __init__(self, *, width: int) -> None:
        super().__init__()
        fresh = torch.Generator().manual_seed(self.fresh())
        self.weight = nn.Parameter(torch.rand(width, generator=fresh) if self.mode == "seed" else torch.ones(width))
        self.unsaved = torch.randn(width, dtype=torch.float64)

    @classmethod
    def fresh(cls) -> int:
        cls.calls += 1
        return cls.calls

    def plan_key(self) -> Any:
        return ("wrong",) if self.mode == "plan" else None

    def plan(self, meta: Any) -> Any:
        return float(self.weight.detach().sum()) if self.mode == "plan" else None

    def forward(self, x_TD: Tensor, plan: Any = None) -> Tensor:
        if self.mode == "order":
            return x_TD * self.weight * (1 + torch.arange(len(x_TD), dtype=x_TD.dtype)[:, None])
        if self.mode == "gradient":
            return x_TD * self.weight.detach()
        if self.mode == "false gradient":
            return x_TD * self.weight + (x_TD**2).detach()
        if self.mode == "inputs":
            x_TD.data.mul_(2.0)
        if self.mode == "unsaved":
            return x_TD * self.weight + self.unsaved
        if self.mode == "empty":
            return x_TD * self.weight / x_TD.abs().max()
        return x_TD * self.weight


@pytest.fixture
def wrong() -> Any:
    norms.get("layer")
    norms.register("wrong", traits=Traits())(Wrong)
    yield Wrong
    Wrong.mode = ""
    norms._entries.pop("wrong")


@pytest.mark.parametrize(
    ("mode", "contract"),
    [
        ("order", holds.token_order_does_not_matter),
        ("order", holds.samples_never_interact_before_pooling),
        ("order", holds.missing_equals_absent),
        ("gradient", holds.every_parameter_gets_gradient),
        ("false gradient", holds.gradients_are_right),
        ("inputs", holds.inputs_stay_as_they_are),
        ("unsaved", holds.saved_and_loaded_gives_the_same_bits),
        ("seed", holds.same_seed_same_bits),
        ("plan", holds.plan_needs_metadata_alone),
    ],
)  # fmt: skip
def test_each_contract_finds_its_breach(wrong: type[Wrong], mode: str, contract: Any) -> None:
    part = Part("wrong", ({"norm": "wrong"}, {"read": "mean"}), (("mixer", "attention(heads=2)"),))
    contract(part)
    wrong.mode = mode
    with pytest.raises(ContractError):
        contract(part)


def test_a_part_that_cannot_do_without_tokens_is_found(wrong: type[Wrong]) -> None:
    part = Part("wrong", ({"norm": "wrong"}, {"read": "mean"}), (("mixer", "attention(heads=2)"),))
    holds.works_without_tokens(part)
    wrong.mode = "empty"
    with pytest.raises((RuntimeError, IndexError)):
        holds.works_without_tokens(part)


def test_every_role_of_a_layer_is_covered() -> None:
    from unisono.nn.grammar import KINDS, LAYER_KEYS

    assert {*LAYER_KEYS, *KINDS} - {"save", "fork", "each"} <= set(ROLES)
    assert part_of("norm", "rms").label == "norm-rms"
