"""The search network of the DARTS family: compile time and seconds a step, beside PyTorch eager.

    python benchmarks/darts_supernet.py                                    # DARTS, first order, batch 16
    python benchmarks/darts_supernet.py --order=second --skip-torch
    python benchmarks/darts_supernet.py --method=pc_darts                  # only DARTS has a PyTorch side
    python benchmarks/darts_supernet.py --method=p_darts --stage=2 --compile-only   # stages 0, 1, 2: 5, 11, 17 cells
    python benchmarks/darts_supernet.py --threads=1     # both sides on one core, in CPU seconds: for a busy machine

A first order step is: the gradients on a validation batch, Adam on alpha; the gradients on a training batch, clipping
at 5, SGD with momentum and weight decay on w. The PyTorch side is the same network as the reference code forms it, a
`MixedOp` of modules on every edge, with `loss.backward()` in both halves of the step; "needed gradients" leaves out
those by w in the first half and by alpha in the second. MSR-DARTS has no alpha: its step is the second half, with all
kernels divided by their spectral norm. Freezing alpha in the first epochs (P-DARTS, PC-DARTS) is switched off.

"Compile" is the first call of `step` less a warm one: tracing, compiling, no persistent cache. The sides take turns;
seconds a step are the best of `--steps`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from nasjax.learners import msr_darts, p_darts
from nasjax.learners.architecture_gradient import first_order, second_order_difference, second_order_exact
from nasjax.learners.darts import darts
from nasjax.learners.pc_darts import pc_darts
from nasjax.learners.search_layout import search_layout
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.spaces.darts_cell.plan import SearchPlan
from nasjax.spaces.darts_cell.space import CELLS, EDGES, OPERATORS
from nasjax.types import Learner

ORDERS = {"first": first_order, "second": second_order_difference, "exact": second_order_exact}
DEPTHS, COUNTS = (5, 11, 17), (8, 5, 3)  # of the stages of P-DARTS: cells, operators per edge


def batches(batch: int, size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return {
        name: (random.standard_normal((batch, size, size, 3), np.float32), random.integers(0, 10, batch, np.int32))
        for name in ("train", "val")
    }


def our_learner(args: argparse.Namespace) -> Learner:
    gradient = ORDERS[args.order]
    network = partial(darts_search, channels=args.channels)
    if args.method == "darts":
        return darts(network(layers=args.layers), architecture_gradient=gradient)
    if args.method == "pc_darts":
        return pc_darts(network(layers=args.layers, partial=4), frozen_epochs=0, architecture_gradient=gradient)
    if args.method == "msr_darts":
        image = (args.size, args.size, 3)
        plan = SearchPlan(args.channels, args.layers, operators=msr_darts.OPERATORS, image=image)
        return msr_darts.msr_darts(network(layers=args.layers, operators=plan.operators), search_layout(plan))
    stages = p_darts.p_darts(
        lambda depth, operators: network(layers=depth, operators=operators),
        depths=DEPTHS,
        operators=COUNTS,
        frozen_epochs=0,
        architecture_gradient=gradient,
    )
    random = np.random.default_rng(0)  # stands for the alpha of the stages before
    facts = stages.facts(0, None, None)
    for count in COUNTS[1 : args.stage + 1]:
        facts = {c: p_darts.keep(random.random((len(EDGES), len(of[0]))), of, count) for c, of in facts.items()}
    return stages.learner(args.stage, facts)


def our_side(args: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """(one step, parameters)."""
    learner = our_learner(args)
    batch = jax.device_put(batches(args.batch, args.size))
    state = jax.block_until_ready(learner.init(jax.random.key(0), batch))

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(learner.step(jax.random.key(1), state, batch))

    return step, sum(x.size for x in jax.tree.leaves(state.params))


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False)


def relu_conv(c_in: int, c_out: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), norm(c_out))


def depthwise(c: int, size: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, depthwise, pointwise, batch norm."""
    padding = dilation * (size - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, size, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        norm(c),
    ]


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.halves = nn.ModuleList(nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False) for _ in range(2))
        self.norm = norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.norm(torch.cat([self.halves[0](x), self.halves[1](x[:, :, 1:, 1:])], 1))


def operator(name: str, c: int, stride: int) -> nn.Module:
    if name == "none":
        return Zero(stride)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(c))
    if name == "avg_pool_3x3":
        return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(c))
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c)
    if name.startswith("dil"):
        return nn.Sequential(*depthwise(c, int(name[-1]), stride, 2))
    return nn.Sequential(*depthwise(c, int(name[-1]), stride), *depthwise(c, int(name[-1]), 1))


class MixedOp(nn.Module):
    def __init__(self, c: int, stride: int) -> None:
        super().__init__()
        self.operators = nn.ModuleList(operator(name, c, stride) for name in OPERATORS)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * f(x) for w, f in zip(weights, self.operators, strict=True))


class Cell(nn.Module):
    def __init__(self, widths: tuple[int, int], c: int, kind: str, follows_reduction: bool) -> None:
        super().__init__()
        self.kind = kind
        self.first = (FactorizedReduce if follows_reduction else relu_conv)(widths[0], c)
        self.second = relu_conv(widths[1], c)
        self.edges = nn.ModuleList(MixedOp(c, 2 if kind == "reduce" and source < 2 else 1) for source, _ in EDGES)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.first(s0), self.second(s1)]
        for node in range(2, 6):
            edges = [(e, source) for e, (source, to) in enumerate(EDGES) if to == node]
            states.append(sum(self.edges[e](states[source], weights[e]) for e, source in edges))
        return torch.cat(states[2:], 1)


class Supernet(nn.Module):
    """The search network of DARTS, and its alpha."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        widths, c, follows = (3 * channels, 3 * channels), channels, False
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
        self.cells = nn.ModuleList()
        for k in range(layers):
            reduces = k in (layers // 3, 2 * layers // 3)
            c *= 2 if reduces else 1
            self.cells.append(Cell(widths, c, "reduce" if reduces else "normal", follows))
            widths, follows = (widths[1], 4 * c), reduces
        self.head = nn.Linear(widths[1], 10)
        self.alpha = nn.ParameterDict({cell: 1e-3 * torch.randn(len(EDGES), len(OPERATORS)) for cell in CELLS})

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, torch.softmax(self.alpha[str(cell.kind)], -1))
        return self.head(s1.mean((2, 3)))


def torch_side(
    args: argparse.Namespace, memory_format: torch.memory_format, lean: bool
) -> tuple[Callable[[], None], int]:
    """(one first order step, parameters)."""
    device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
    net = Supernet(args.channels, args.layers).to(device)
    net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
    alpha = list(net.alpha.values())
    weights = [p for name, p in net.named_parameters() if not name.startswith("alpha")]
    adam = torch.optim.Adam(alpha, 3e-4, (0.5, 0.999), weight_decay=1e-3)
    sgd = torch.optim.SGD(weights, 0.025, 0.9, weight_decay=3e-4)
    data = {
        name: (
            torch.tensor(x).permute(0, 3, 1, 2).contiguous(memory_format=memory_format).to(device),
            torch.tensor(y).long().to(device),
        )
        for name, (x, y) in batches(args.batch, args.size).items()
    }

    def backward(name: str, needed: list[Tensor]) -> None:
        x, y = data[name]
        net.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x), y).backward(inputs=needed if lean else None)

    def step() -> None:
        backward("val", alpha)
        adam.step()
        backward("train", weights)
        nn.utils.clip_grad_norm_(weights, 5.0)
        sgd.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step, sum(p.numel() for p in weights)


def seconds(step: Callable[[], Any], clock: Callable[[], float]) -> float:
    began = clock()
    step()
    return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("darts", "pc_darts", "p_darts", "msr_darts"), default="darts")
    parser.add_argument("--order", choices=tuple(ORDERS), default="first")
    parser.add_argument("--stage", type=int, choices=range(3), default=0, help="of P-DARTS, from 0; sets the layers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=2, help="measured on each side, warm")
    parser.add_argument("--skip-torch", action="store_true")
    parser.add_argument("--compile-only", action="store_true", help="one warm step, no PyTorch")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; 1: both sides on one core, CPU seconds")
    args = parser.parse_args()
    clock = time.perf_counter
    if args.threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock = time.process_time
    if args.method == "p_darts":
        args.layers = DEPTHS[args.stage]
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    began = clock()
    ours, params = our_side(args)
    init = clock() - began
    first = seconds(ours, clock)
    print(f"first step {first:.1f} s, compile included; init before it {init:.1f} s", flush=True)
    sides = {"nasjax": ours}
    if args.method == "darts" and args.order == "first" and not args.skip_torch and not args.compile_only:
        for label, form, lean in (
            ("PyTorch, NCHW", torch.contiguous_format, False),
            ("PyTorch, channels_last", torch.channels_last, False),
            ("PyTorch, channels_last, needed gradients", torch.channels_last, True),
        ):
            sides[label], torch_params = torch_side(args, form, lean)
            assert torch_params == params, f"{label} has {torch_params:,} parameters, nasjax {params:,}"
            sides[label]()  # warm
    if (args.method, args.channels, args.layers) == ("darts", 16, 8):
        assert params == 1_930_618, f"{params:,} parameters; the search network of DARTS has 1,930,618"
    best = dict.fromkeys(sides, np.inf)
    for _ in range(1 if args.compile_only else args.steps):
        for label, step in sides.items():
            best[label] = min(best[label], seconds(step, clock))
    compile_seconds = first - best["nasjax"]

    order = "" if args.method == "msr_darts" else f", {args.order} order"
    print(f"{args.method}{order}, {args.layers} cells, C={args.channels}, batch {args.batch}, {args.size}x{args.size};")
    print(f"{params:,} parameters")
    print()
    print("| side | compile, s | s a step | its time over nasjax's |")
    print("| --- | --- | --- | --- |")
    for label, time_of in best.items():
        compiling = f"{compile_seconds:.1f}" if label == "nasjax" else "-"
        print(f"| {label} | {compiling} | {time_of:.3f} | {time_of / best['nasjax']:.2f} |")
    print()
    facts = {
        "benchmark": "darts_supernet",
        **vars(args),
        "params": params,
        "init_seconds": init,
        "first_seconds": first,
        "compile_seconds": compile_seconds,
        "seconds": best,
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
