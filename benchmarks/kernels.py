"""The trunk's speed: ragged against equally long samples, against padding, against other libraries' encoders of the same size.

Every figure is a ratio of medians, its candidates taking turns in one process. The ragged batch has 48 samples of
``round(8 * 64^((i + 0.5) / 48))`` tokens; "equally long" is the same number of tokens in samples of 260. A share of the matrix-product
rate is the arithmetic of the linear maps and of the attention over the time, against a product of 1,024 x 1,024 matrices in the same run.

Letters: B samples, L tokens of a sample, D width.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from benchmarks import Goal, Measured, row
from benchmarks.timing import Timing, interleave, slots_of
from unisono.compress.fold import FOLDS, fold
from unisono.compress.pack import lay_out, pack_linears
from unisono.core.names import Names
from unisono.core.relation import Call, Run
from unisono.core.tokens import Meta
from unisono.nn.grammar import build_trunk
from unisono.nn.part import Frame
from unisono.ops.attention import by_products, fused
from unisono.ops.linear import Product, product

RAGGED = [round(8 * 64 ** ((i + 0.5) / 48)) for i in range(48)]
WIDTH, DEPTH, HEAD = 192, 6, 64
MODES = ("forward", "training")
PRECISIONS = ("float32", "bf16")


def meta_of(lengths: list[int], *, modalities: int = 1, side: int = 0) -> Meta:
    """Tokens of samples of these lengths, in order; modalities dealt out in turn, places on a square grid of ``side``."""
    sample = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    t = len(sample)
    zero = torch.zeros(t, dtype=torch.int64)
    within = torch.cat([torch.arange(n) for n in lengths])
    modality = within % modalities
    place = torch.full((t, 3), -1)
    if side:
        place[:, 0], place[:, 1] = within // side, within % side
    nan = torch.full((t,), torch.nan)
    return Meta(sample, modality, zero, modality, modality, zero, place, nan[:, None].repeat(1, 3), nan, len(lengths), modalities)


def trunk_of(steps: list[dict[str, Any]], *, width: int = WIDTH, modalities: int = 1, **defaults: Any) -> nn.Module:
    """A trunk of the language, heads of 64, MLP of 4."""
    torch.manual_seed(0)
    words = {"mixer": f"attention(heads={width // HEAD})", "ffn": "mlp(4)", **defaults}
    frame = Frame(Names(tuple(f"m{k}" for k in range(modalities))))
    return build_trunk([*steps, {"read": "mean"}], words, width=width, num_modalities=modalities, frame=frame)


class Encoder(nn.Module):
    """Plain PyTorch: pre-norm layers over (B, L, D) with fused attention, and a key mask where samples are padded."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                "norm2": nn.LayerNorm(width), "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
            }) for _ in range(depth)
        )  # fmt: skip

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, L, D)."""
        b, length, width = x.shape
        for part in self.layers:
            q, k, v = part["qkv"](part["norm1"](x)).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # type: ignore[index]
            mixed = fn.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            x = x + part["out"](mixed.transpose(1, 2).reshape(b, length, width))  # type: ignore[index]
            x = x + part["down"](fn.gelu(part["up"](part["norm2"](x))))  # type: ignore[index]
        return x


@contextlib.contextmanager
def precision_of(name: str) -> Iterator[None]:
    """The precision of products."""
    with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
        yield


def call_of(module: nn.Module, run: Callable[[], Tensor], mode: str, precision: str) -> Callable[[], None]:
    """One forward pass without gradients, or one with a backward pass."""

    def forward() -> None:
        with torch.inference_mode(), precision_of(precision):
            run()

    def training() -> None:
        module.zero_grad(set_to_none=True)
        with precision_of(precision):
            out = run()
        out.float().square().mean().backward()

    module.train(mode == "training")
    return forward if mode == "forward" else training


def product_rate(precision: str) -> float:
    """Multiply-adds a second of a product of two matrices of 1,024."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(1024, 1024, dtype=kind), torch.randn(1024, 1024, dtype=kind)
    best = float("inf")
    for _ in range(10):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 1024**3 / best


def products(lengths: list[int], width: int, depth: int, mode: str) -> float:
    """Multiply-adds of linear maps and attention."""
    n = np.array(lengths, np.float64)
    forward = depth * (12 * width**2 * n.sum() + 2 * width * (n**2).sum())
    return float(forward * (3 if mode == "training" else 1))


def rates(found: dict[str, Timing], tokens: int) -> dict[str, tuple[float, str]]:
    """Tokens a second of each candidate, and how many slots were clean."""
    return {name: (tokens / t.seconds, "tokens/s") for name, t in found.items()} | slots_of(found)


@row("linear", goals=[Goal("training"), Goal("forward")], arms=("unisono",), seeds=(0, 1, 2))
def linear_maps(*, arm: str, seed: int) -> Measured:
    """A map of 4,096 tokens from 192 to 768 channels, its gradients too, by oneDNN against PyTorch's own."""
    torch.manual_seed(seed)
    x, w, b = (torch.randn(*shape, requires_grad=True) for shape in ((4096, WIDTH), (4 * WIDTH, WIDTH), (4 * WIDTH,)))
    dy = torch.randn(4096, 4 * WIDTH)

    def training(f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def call() -> None:
            x.grad = w.grad = b.grad = None
            f(x, w, b).backward(dy)

        return call

    def forward(f: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                f(x, w, b)

        return call

    measured: Measured = {}
    for name, way in (("training", training), ("forward", forward)):
        found = interleave({"ours": way(Product.apply if name == "training" else product), "plain": way(fn.linear)}, calls=5)
        measured |= {name: (found["plain"].seconds / found["ours"].seconds, "ratio"), f"{name}_clean": slots_of(found)["clean"]}
    return measured


def ragged_goals() -> list[Goal]:
    """The goals of the ragged batch, by precision and mode."""
    wanted = {
        ("float32", "forward"): (0.85, 0.95, 4.5, 6.0), ("float32", "training"): (0.80, 0.92, 4.0, 5.5),
        ("bf16", "forward"): (0.75, 0.85, None, None), ("bf16", "training"): (0.80, 0.92, 3.0, 4.5),
    }  # fmt: skip
    goals = []
    for (precision, mode), (must, aim, padded, padded_aim) in wanted.items():
        goals.append(Goal(f"{precision}_{mode}_to_even", must=must, aim=aim, statistic="median"))
        goals.append(Goal(f"{precision}_{mode}_to_padded", must=padded, aim=padded_aim, statistic="median"))
    return goals


@row("trunk_ragged", goals=ragged_goals(), arms=("unisono",), seeds=(0,), over={"precision": PRECISIONS, "mode": MODES})
def trunk_ragged(*, arm: str, seed: int, precision: str, mode: str) -> Measured:
    """A ragged batch against equally long samples through the same trunk, and against plain PyTorch padded with a mask."""
    tokens = sum(RAGGED)
    even = [260] * (tokens // 260) + [tokens % 260]
    trunk, plain = trunk_of([{"repeat": DEPTH}]), Encoder(WIDTH, DEPTH)
    values = torch.randn(tokens, WIDTH)
    padded = nn.utils.rnn.pad_sequence(torch.split(values, RAGGED), batch_first=True)
    seen = (torch.arange(max(RAGGED)) < torch.tensor(RAGGED)[:, None])[:, None, None]

    def through(lengths: list[int]) -> Callable[[], Tensor]:
        plan = trunk.plan(meta_of(lengths))
        return lambda: trunk(values, plan)

    found = interleave({
        "ragged": call_of(trunk, through(RAGGED), mode, precision),
        "even": call_of(trunk, through(even), mode, precision),
        "padded": call_of(plain, lambda: plain(padded, seen), mode, precision),
    }, slots=5 if mode == "training" else 9)  # fmt: skip
    share = products(RAGGED, WIDTH, DEPTH, mode) / found["ragged"].seconds / product_rate(precision)
    name = f"{precision}_{mode}"
    return {
        f"{name}_to_even": (found["even"].seconds / found["ragged"].seconds, "ratio"),
        f"{name}_to_padded": (found["padded"].seconds / found["ragged"].seconds, "ratio"),
        f"{name}_share": (share, "of products"),
        **rates(found, tokens),
    }


def peers(width: int, depth: int, batch: Tensor) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Encoders of the same size of other libraries, each with a call on (B, L, D)."""
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel
    from x_transformers import Encoder as XEncoder

    heads = width // HEAD
    sizes: dict[str, Any] = {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": 4 * width,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    flash = XEncoder(dim=width, depth=depth, heads=heads, attn_dim_head=HEAD, attn_flash=True)
    bert = BertModel(BertConfig(vocab_size=2, max_position_embeddings=batch.shape[1], **sizes), add_pooling_layer=False).encoder
    vit: Any = ViTModel(ViTConfig(image_size=32, patch_size=16, **sizes), add_pooling_layer=False)
    layers = vit.layers if hasattr(vit, "layers") else vit.encoder

    def through_vit() -> Tensor:
        if isinstance(layers, nn.ModuleList):
            x = batch
            for layer in layers:
                out = layer(x)
                x = out if isinstance(out, Tensor) else out[0]
            return x
        return layers(batch).last_hidden_state  # type: ignore[no-any-return]

    return {
        "x-transformers": (flash, lambda: flash(batch)),
        "bert": (bert, lambda: bert(batch).last_hidden_state),
        "vit": (vit, through_vit),
    }


@row(
    "trunk_peers",
    goals=[
        Goal("float32_forward", must=1.0, aim=1.1, statistic="median"),
        Goal("float32_training", must=1.0, aim=1.1, statistic="median"),
        Goal("bf16_training", must=2.2, aim=2.7, statistic="median"),
    ],
    arms=("unisono",),
    seeds=(0,),
    over={"width": (192, 384), "mode": MODES},
)
def trunk_peers(*, arm: str, seed: int, width: int, mode: str) -> Measured:
    """Sixteen samples of 256 tokens, against the best float32 encoder of other libraries in the same run."""
    lengths = [256] * 16
    batch = torch.randn(16, 256, width)
    trunk = trunk_of([{"repeat": DEPTH}], width=width)
    plan, values = trunk.plan(meta_of(lengths)), batch.flatten(0, 1)
    candidates = {p: call_of(trunk, lambda: trunk(values, plan), mode, p) for p in PRECISIONS}
    others = peers(width, DEPTH, batch)
    candidates |= {name: call_of(module, run, mode, "float32") for name, (module, run) in others.items()}
    found = interleave(candidates, slots=5)
    best = min(found[name].seconds for name in others)
    share = products(lengths, width, DEPTH, mode) / found["float32"].seconds / product_rate("float32")
    ratios = {f"{p}_{mode}": (best / found[p].seconds, "ratio") for p in PRECISIONS}
    return {**ratios, f"share_{mode}": (share, "of products"), **rates(found, sum(lengths))}


@row(
    "trunk_deployed",
    goals=[Goal("ratio_192", must=3.5, aim=4.6, statistic="median"), Goal("ratio_384", must=4.2, aim=5.6, statistic="median")],
    arms=("unisono",),
    seeds=(0,),
    over={"width": (192, 384)},
)
def trunk_deployed(*, arm: str, seed: int, width: int) -> Measured:
    """The same, forward alone: weights and tokens in bfloat16, weights laid out in advance, against the best float32 encoder."""
    lengths = [256] * 16
    batch = torch.randn(16, 256, width)
    trunk = trunk_of([{"repeat": DEPTH}], width=width).eval()
    plan, values = trunk.plan(meta_of(lengths)), batch.flatten(0, 1)
    half, halved = packed(trunk.to(torch.bfloat16)), values.bfloat16()
    others = peers(width, DEPTH, batch)
    candidates = {"deployed": call_of(half, lambda: half(halved, plan), "forward", "float32")}
    candidates |= {name: call_of(module, run, "forward", "float32") for name, (module, run) in others.items()}
    found = interleave(candidates, slots=7)
    best = min(found[name].seconds for name in others)
    share = products(lengths, width, DEPTH, "forward") / found["deployed"].seconds / product_rate("bf16")
    return {f"ratio_{width}": (best / found["deployed"].seconds, "ratio"), "share": (share, "of products"), **rates(found, sum(lengths))}


def packed(trunk: nn.Module) -> nn.Module:
    """Its weights laid out in advance."""
    pack_linears(trunk)
    lay_out(trunk)
    return trunk


@row(
    "trunk_folded",
    goals=[Goal("float32", must=1.05, aim=1.08, statistic="median"), Goal("bf16", must=1.15, aim=1.28, statistic="median")],
    arms=("unisono",),
    seeds=(0,),
    over={"precision": PRECISIONS},
)
def trunk_folded(*, arm: str, seed: int, precision: str) -> Measured:
    """A trunk of unified norms, folded away, against layer norms, forward; ``bound`` is a trunk without norms. All weights laid out."""
    lengths = [256] * 16
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    meta, values = meta_of(lengths), torch.randn(16 * 256, WIDTH)
    trunks = {norm: trunk_of([{"repeat": DEPTH}], norm=norm) for norm in ("unified", "layer", "none")}
    trunks["unified"].train()
    for _ in range(20):
        trunks["unified"](values, trunks["unified"].plan(meta))
    trunks["unified"].eval()
    before = trunks["unified"](values, trunks["unified"].plan(meta))
    done = sum(note.done for word in FOLDS for note in fold(trunks["unified"], word))
    change = float((trunks["unified"](values, trunks["unified"].plan(meta)) - before).abs().max() / before.abs().max())
    given = values.to(kind)

    def run_of(trunk: nn.Module) -> Callable[[], None]:
        ready = packed(trunk.eval().to(kind))
        plan = ready.plan(meta)
        return call_of(ready, lambda: ready(given, plan), "forward", "float32")

    found = interleave({name: run_of(trunk) for name, trunk in trunks.items()}, slots=15)
    ratio = found["layer"].seconds / found["unified"].seconds
    bound = found["layer"].seconds / found["none"].seconds
    return {
        precision: (ratio, "ratio"),
        f"{precision}_bound": (bound, "ratio"),
        "folded": (float(done), "notes"),
        "change": (change, "of largest"),
        **rates(found, len(values)),
    }


@row("attention", goals=[Goal("256_training"), Goal("256_forward")], arms=("products",), seeds=(0,), over={"length": (64, 256, 512, 1024)})
def attention(*, arm: str, seed: int, length: int) -> Measured:
    """Attention in bfloat16 by batched products over the fused kernel's rate, 4,096 tokens, 3 heads of 64."""
    call = Call(Run(4096 // length, length, length), 4096, 4096)
    q, k, v = (torch.randn(4096 // length, 3, length, HEAD, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def run_of(way: Callable[..., Tensor], train: bool) -> Callable[[], None]:
        def run() -> None:
            with contextlib.nullcontext() if train else torch.inference_mode():
                mixed = way(q, k, v, call, None)
            if train:
                mixed.sum().backward()

        return run

    measured: Measured = {}
    for mode in MODES:
        found = interleave({name: run_of(way, mode == "training") for name, way in (("fused", fused), ("products", by_products))})
        measured[f"{length}_{mode}"] = (found["fused"].seconds / found["products"].seconds, "ratio")
    return measured


class DenseSwin(nn.Module):
    """A Swin block by hand over (B, H, W, D): windows by reshaping, shifts by rolling with masks, a table of relative biases."""

    def __init__(self, width: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.side, self.window, self.shift, self.heads = side, window, shift, width // 32
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, self.heads) * 0.02)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).reshape(-1, 2)
        offset = at[:, None] - at[None] + window - 1
        self.register_buffer("index", offset[..., 0] * (2 * window - 1) + offset[..., 1])
        self.register_buffer("mask", self._mask())

    def _mask(self) -> Tensor:
        region = torch.zeros(self.side, self.side)
        cuts = [slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None)] if self.shift else [slice(None)]
        for k, (a, b) in enumerate((a, b) for a in cuts for b in cuts):
            region[a, b] = k
        windows = self._cut(region[None, :, :, None])[..., 0]
        return (windows[:, None] != windows[:, :, None]) * -100.0

    def _cut(self, x: Tensor) -> Tensor:
        b, w, n = x.shape[0], self.window, self.side // self.window
        return x.view(b, n, w, n, w, -1).transpose(2, 3).reshape(b * n * n, w * w, -1)

    def _join(self, x: Tensor, b: int) -> Tensor:
        w, n = self.window, self.side // self.window
        return x.view(b, n, n, w, w, -1).transpose(2, 3).reshape(b, self.side, self.side, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D)."""
        b = x.shape[0]
        h = self.norm1(x)
        h = torch.roll(h, (-self.shift, -self.shift), (1, 2)) if self.shift else h
        h = self._cut(h)
        g, n, d = h.shape
        q, k, v = self.qkv(h).view(g, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index].permute(2, 0, 1)[None]
        if self.shift:
            bias = (bias + self.mask.repeat(b, 1, 1)[:, None]).to(q.dtype)
        h = fn.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)).transpose(1, 2).reshape(g, n, d)
        h = self._join(self.out(h), b)
        x = x + (torch.roll(h, (self.shift, self.shift), (1, 2)) if self.shift else h)
        return x + self.down(fn.gelu(self.up(self.norm2(x))))


@row(
    "trunk_windows",
    goals=[Goal(f"{mode}", must=0.95, aim=1.1, statistic="median") for mode in MODES],
    arms=("unisono",),
    seeds=(0,),
    over={"mode": MODES},
)
def trunk_windows(*, arm: str, seed: int, mode: str) -> Measured:
    """Two layers of windows of 7 and of shifted windows with relative biases on maps of 28 x 28, against a dense Swin block by hand."""
    side, width, count = 28, 192, 8
    words = {"mixer": {"type": "attention", "heads": width // 32, "bias": "table(6)"}}
    trunk = trunk_of([{"scope": "window(7)"}, {"scope": "window(7, shift=3)"}], width=width, **words)
    plan = trunk.plan(meta_of([side * side] * count, side=side))
    values = torch.randn(count * side * side, width)
    plain = nn.Sequential(DenseSwin(width, side, 7, 0), DenseSwin(width, side, 7, 3))
    maps = values.view(count, side, side, width)
    found = interleave({
        "windows": call_of(trunk, lambda: trunk(values, plan), mode, "float32"),
        "dense": call_of(plain, lambda: plain(maps), mode, "float32"),
    })  # fmt: skip
    return {mode: (found["dense"].seconds / found["windows"].seconds, "ratio"), **rates(found, len(values))}


@row(
    "trunk_modalities",
    goals=[Goal(f"{mode}", must=0.85, aim=0.95, statistic="median") for mode in MODES],
    arms=("unisono",),
    seeds=(0,),
    over={"mode": MODES},
)
def trunk_modalities(*, arm: str, seed: int, mode: str) -> Measured:
    """Weights for each of four modalities in a mixed ragged batch, against one set of weights for all: equal arithmetic."""
    meta = meta_of(RAGGED, modalities=4)
    values = torch.randn(len(meta), WIDTH)

    def sharing_by(sharing: str) -> tuple[nn.Module, Callable[[], Tensor]]:
        trunk = trunk_of([{"repeat": DEPTH}], modalities=4, sharing=sharing)
        order = trunk.arrange(meta)
        plan, mine = trunk.plan(meta.select(order)), values[order]
        return trunk, lambda: trunk(mine, plan)

    found = interleave({name: call_of(*sharing_by(name), mode, "float32") for name in ("modality", "all")})
    return {mode: (found["all"].seconds / found["modality"].seconds, "ratio"), **rates(found, len(meta))}


@row("trunk_build", goals=[Goal("seconds", must=0.2, aim=0.05, better="lower", statistic="median")], arms=("unisono",), seeds=(0, 1, 2))
def trunk_build(*, arm: str, seed: int) -> Measured:
    """From a recipe's settings of 12 layers to a trunk of width 192; the median of nine after one that warms up."""
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        trunk_of([{"repeat": 12}])
        seconds.append(time.perf_counter() - begin)
    return {"seconds": (float(np.median(seconds[1:])), "s"), "first": (seconds[0], "s")}
