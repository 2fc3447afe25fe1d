"""The contracts of trunk parts: each function takes a part in its small trunk and raises ``ContractError`` where one does not hold.

Reads may pool in float32, so answers are compared to its rounding; what a layer does is compared in float64.

Letters: B samples, T tokens, D width.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.autograd.gradcheck import GradcheckError

from unisono.contracts.same import same
from unisono.contracts.tokens import rich_meta
from unisono.contracts.trunk import MODALITIES, SAMPLES, Part, batch, build, only, run
from unisono.core.tokens import Meta
from unisono.core.words import as_word
from unisono.nn.part import Flow
from unisono.nn.read import Read
from unisono.nn.share import sharings
from unisono.nn.trunk import Trunk


class ContractError(AssertionError):
    """A contract does not hold."""


def need(holds: bool, reason: str) -> None:
    """Refuse what does not hold.

    Raises:
        ContractError: with the reason.
    """
    if not holds:
        raise ContractError(reason)


def close(a: Tensor, b: Tensor, reason: str) -> None:
    """Two values are equal up to the rounding of their type.

    Raises:
        ContractError: they are not.
    """
    tolerance = 1e-10 if a.dtype == torch.float64 else 1e-5
    need(a.shape == b.shape, f"{reason}: the shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    far = float((a - b).detach().abs().max()) if a.numel() else 0.0
    need(far <= tolerance, f"{reason}: off by {far:.2g}, where {tolerance:g} would be rounding")


def layers(part: Part, values: Tensor, meta: Meta) -> tuple[Tensor, Meta]:
    """The tokens before they are pooled, in float64, and what is known of them."""
    trunk = part.build()
    plan = trunk.plan(meta)
    return trunk.run(values, plan).tokens, plan.last


def sums(tokens: Tensor) -> Tensor:
    """What does not depend on the order of tokens: the sums of their first three powers."""
    return torch.stack([(tokens**k).sum(0) for k in (1, 2, 3)])


def samples_never_interact(part: Part) -> None:
    """A row's answer is the same whichever rows share its batch."""
    trunk, (values, meta) = part.build(), batch(part)
    whole = run(trunk, values, meta)
    need(whole.shape == (SAMPLES, part.width), f"the answer has the shape {tuple(whole.shape)} instead of {(SAMPLES, part.width)}")
    for sample in range(SAMPLES):
        close(run(trunk, *only(meta, values, [sample]))[0], whole[sample], "a row alone is answered differently from the row in a batch")
    order = [3, 0, 2]
    close(run(trunk, *only(meta, values, order)), whole[order], "rows are answered differently in another batch")


def samples_never_interact_before_pooling(part: Part) -> None:
    """Nor are its tokens different."""
    values, meta = batch(part)
    whole, left = layers(part, values, meta)
    for sample in (0, 1, 3):
        alone, kept = layers(part, *only(meta, values, [sample]))
        mine = torch.nonzero(left.sample == sample).squeeze(1)
        need(len(kept) == len(mine), f"a row alone has {len(kept)} tokens, in a batch {len(mine)}")
        close(sums(alone), sums(whole[mine]), "the tokens of a row alone differ from its tokens in a batch")


def token_order_does_not_matter(part: Part) -> None:
    """The physical order of tokens carries no meaning."""
    trunk, (values, meta) = part.build(), batch(part)
    order = torch.randperm(len(meta), generator=torch.Generator().manual_seed(3))
    close(run(trunk, values[order], meta.select(order)), run(trunk, values, meta), "tokens in another order are answered differently")
    close(sums(layers(part, values[order], meta.select(order))[0]), sums(layers(part, values, meta)[0]), "tokens depend on their order")


def missing_equals_absent(part: Part) -> None:
    """A row without a source is answered as if there were no such source."""
    trunk, (values, meta) = part.build(), batch(part)
    left = torch.nonzero(meta.source != 1).squeeze(1)
    fewer = run(trunk, values[left], meta.select(left))
    has = torch.bincount(meta.sample[meta.source == 1], minlength=SAMPLES) > 0
    need(bool(has.any()), "no row has the source")
    close(fewer[~has], run(trunk, values, meta)[~has], "rows without a source change when other rows lose it")
    noise = torch.randn_like(values)
    again = run(trunk, torch.where((meta.source == 1)[:, None], noise, values)[left], meta.select(left))
    close(again, fewer, "what is missing is read nevertheless")


def works_without_tokens(part: Part) -> None:
    """A batch without any token is answered, every row alike."""
    trunk = part.build()
    nothing = torch.zeros(0, part.width, dtype=torch.float64)
    empty = rich_meta().select(torch.zeros(0, dtype=torch.int64))
    out = run(trunk, nothing, replace(empty, num_samples=2))
    need(out.shape == (2, part.width), f"two empty rows are answered in the shape {tuple(out.shape)}")
    need(bool(torch.isfinite(out).all()), "empty rows are answered by values that are not finite")
    close(out[0], out[1], "two empty rows are answered differently")


def every_parameter_gets_gradient(part: Part) -> None:
    """No weight is left untouched by training."""
    trunk, (values, meta) = part.build().train(), batch(part)
    wild = rich_meta(shuffle=1)
    for v, m in ((values, meta), (torch.randn_like(values), wild)):
        reads = trunk.run(v, trunk.plan(m)).flow.reads
        torch.stack([(out * torch.randn_like(out)).sum() for out in reads.values()]).sum().backward()  # type: ignore[no-untyped-call]
    without = {n for n, p in trunk.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)}
    unexplained = sorted(n for n in without if not _explained(part, n))
    need(not unexplained, f"no gradient reaches {', '.join(unexplained)}")


def _explained(part: Part, name: str) -> bool:
    """Whether a sharing says that it leaves weights untouched, and these are the ones of tokens that the trunk does not have."""
    inserts = any("insert" in s for s in part.steps)
    words = {word for spec in _sharings(part) for word in _words(spec)}
    explains = any("gradient" in sharings.get(word).traits.exempt for word in words)
    return explains and not inserts and f"parts.{MODALITIES}." in name


def _sharings(part: Part) -> list[Any]:
    """Every sentence about sharing in a trunk."""
    found = [given["sharing"] for given in (dict(part.defaults), *part.steps) if "sharing" in given]
    plain = [list(spec.values()) if isinstance(spec, dict) and "type" not in spec else [spec] for spec in found]
    return [spec for specs in plain for spec in specs]


def _words(spec: Any) -> list[str]:
    """A sentence's word, and that of the sharing within it."""
    word = as_word(spec, "here")
    return [word.name, *([] if "of" not in word.named else _words(word.named["of"]))]


class _Layers(nn.Module):
    """A trunk without its reads, in float64 throughout."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.steps = nn.ModuleList(step for step in trunk.steps if not isinstance(step, Read))

    def forward(self, x: Tensor, needs: list[Any]) -> Tensor:
        flow = Flow()
        for step, found in zip(self.steps, needs, strict=True):
            x = step(x, found, flow)
        return x


def gradients_are_right(part: Part) -> None:
    """Analytic and numeric gradients of the layers agree in float64, to the input and to the weights."""
    trunk = part.build()
    small = torch.tensor([0, 1, 6, 7, 17, 18, 41, 42, 43])
    plan = trunk.plan(rich_meta().select(small))
    module, needs = _Layers(trunk), [found for step, found in zip(trunk.steps, plan.steps, strict=True) if not isinstance(step, Read)]
    values = torch.randn(len(small), part.width, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    given = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}

    def forward(x: Tensor, *weights: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(module, dict(zip(given, weights, strict=True)), (x, needs))
        return result

    try:
        gradcheck(forward, (values, *given.values()), fast_mode=True)
    except GradcheckError as error:
        raise ContractError("analytic and numeric gradients differ: " + " ".join(str(error).split())[:200]) from None


def saved_and_loaded_gives_the_same_bits(part: Part) -> None:
    """Settings through JSON and weights through a file of tensors make the same trunk again."""
    trunk, (values, meta) = part.build(), batch(part)
    steps, defaults = json.loads(json.dumps([list(part.steps), dict(part.defaults)]))
    torch.manual_seed(77)
    again = build(steps, defaults, part.width).double().eval()
    again.load_state_dict(load(save({name: value.clone() for name, value in trunk.state_dict().items()})))
    need(torch.equal(run(again, values, meta), run(trunk, values, meta)), "a trunk that was saved and loaded answers differently")


def same_seed_same_bits(part: Part) -> None:
    """Equal seeds give equal weights, and equal answers in training."""
    need(same(dict(part.build(4).state_dict()), dict(part.build(4).state_dict())), "equal seeds give different weights")
    values, meta = batch(part)
    answers = []
    for _ in range(2):
        trunk = part.build().train()
        torch.manual_seed(11)
        answers.append(run(trunk, values, meta))
    need(torch.equal(answers[0], answers[1]), "equal seeds give different answers in training")


def inputs_stay_as_they_are(part: Part) -> None:
    """Values, metadata and plan are not written to."""
    trunk, (values, meta) = part.build(), batch(part)
    kept_values, kept_meta = values.clone(), copy.deepcopy(meta)
    plan = trunk.plan(meta)
    kept_plan = copy.deepcopy(plan)
    trunk(values, plan)
    need(torch.equal(values, kept_values), "the values that were given are changed")
    need(same(meta, kept_meta), "the metadata that were given are changed")
    need(same(list(plan.steps), list(kept_plan.steps)), "the plan is changed by using it")


def plan_needs_metadata_alone(part: Part) -> None:
    """A plan is the same whatever the weights are."""
    trunk, (_, meta) = part.build(), batch(part)
    with torch.no_grad():
        first = trunk.plan(meta)
        for p in trunk.parameters():
            p.zero_()
        need(same(list(trunk.plan(meta).steps), list(first.steps)), "the plan depends on weights")


#: Every contract of a trunk part by its name.
CONTRACTS: dict[str, Callable[[Part], None]] = {
    "samples never interact": samples_never_interact,
    "samples never interact before pooling": samples_never_interact_before_pooling,
    "token order does not matter": token_order_does_not_matter,
    "missing equals absent": missing_equals_absent,
    "works without tokens": works_without_tokens,
    "every parameter gets gradient": every_parameter_gets_gradient,
    "gradients are right": gradients_are_right,
    "saved and loaded gives the same bits": saved_and_loaded_gives_the_same_bits,
    "same seed, same bits": same_seed_same_bits,
    "inputs stay as they are": inputs_stay_as_they_are,
    "plan needs metadata alone": plan_needs_metadata_alone,
}
