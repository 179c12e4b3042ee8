"""Supernets of choice blocks: a step of all weights against a step of batch norms alone, paths scored per second.

    python benchmarks/one_shot.py                        # FairNAS's operators, 8 layers, 16x16, batch 64
    python benchmarks/one_shot.py --space=spos_cifar --size=32
    python benchmarks/one_shot.py --skip-torch

The PyTorch side is the same chain as modules, eager: a step draws a path, runs it, and updates what has a gradient.
Both sides: SGD with momentum 0.9 and weight decay 4e-5 on kernels, label smoothing 0.1, batch norm with scale and
shift. "BN only" trains scales and shifts alone (BN-NAS); "last BN" those that end an operator. Re-calibrated accuracy:
8 training batches, then 512 validation images a path; the indicator: one sum of a look-up table per path.

Peak MiB is one measure for both: a fresh process makes a step, drops images and weights, makes them again and then
`--steps` steps; the largest resident set of these, less the resident set right before images and weights are made.
"Stays" is the latter less the resident set after the imports: what a first step leaves behind for good, here traces and
the compiled program, there kernels, their caches and pages of code; the passing peak of the compiler is in neither.
Estimates: what XLA allocates for the step (temporaries, arguments, results); what autograd keeps for the backward pass
plus parameters, gradients and momentum. Seconds are the best of `--rounds`, sides in turn. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from nasjax.evaluators.supernet import path_accuracy, score_sum
from nasjax.learners.one_shot_update import Descent, one_shot_update
from nasjax.learners.samplers import uniform
from nasjax.nets.choice_chain.blocks import Block, Step, block
from nasjax.nets.choice_chain.frame import frame_steps
from nasjax.nets.choice_chain.supernet import choice_supernet
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import variant
from nasjax.tasks.classification import TASK
from nasjax.train.compiling import compile_lowered
from nasjax.train.step import Data

SETS = {"all": "all weights", "all_bn": "BN only", "last_bn": "last BN"}
RATE, CALIBRATION, VALID = 0.05, 8, 512


def images(args: argparse.Namespace, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    x = random.standard_normal((count, args.size, args.size, args.colours), np.float32)
    return x, random.integers(0, 10, count, np.int32)


class TorchStep(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(self, step: Step) -> None:
        groups = step.c_out if step.kind == "depthwise" else 1
        conv = nn.Conv2d(step.c_in, step.c_out, step.size, step.stride, step.size // 2, groups=groups, bias=False)
        active = {"none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}[step.activation]
        super().__init__(conv, nn.BatchNorm2d(step.c_out), active)


class TorchBlock(nn.Module):
    def __init__(self, form: Block) -> None:
        super().__init__()
        self.join = form.join
        self.main = nn.Sequential(*map(TorchStep, form.main))
        self.branch = nn.Sequential(*map(TorchStep, form.branch))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.join == "split":
            return torch.cat([x[:, 0::2], self.main(x[:, 1::2])], 1)
        if self.join == "branch":
            return torch.cat([self.branch(x), self.main(x)], 1)
        return self.main(x) + x if self.join == "add" else self.main(x)


class TorchNet(nn.Module):
    def __init__(self, plan: ChoicePlan) -> None:
        super().__init__()
        space = plan.space
        before, behind = (nn.Sequential(*map(TorchStep, steps.values())) for steps in frame_steps(plan))
        self.before, self.behind = before, behind
        self.layers = nn.ModuleList(
            nn.ModuleList(TorchBlock(block(space.family, name, shape)) for name in space.operators)
            for shape in space.layer_shapes
        )
        self.dense = nn.Linear(space.tail, plan.classes, bias=plan.bias)

    def forward(self, x: torch.Tensor, path: list[int]) -> torch.Tensor:
        x = self.before(x)
        for layer, choice in zip(self.layers, path, strict=True):
            if choice >= 0:
                x = layer[choice](x)
        return self.dense(self.behind(x).mean((2, 3)))


def our_program(args: argparse.Namespace, plan: ChoicePlan, trainable: str) -> tuple[Callable[[], Any], float, float]:
    """(what makes images and weights and returns one step, seconds to compile, MiB that XLA allocates)."""
    supernet, space = choice_supernet(plan), plan.space
    update = one_shot_update(supernet, descent=Descent(learning_rate=RATE), trainable=trainable)  # type: ignore[arg-type]
    sample = jax.jit(uniform(space))
    archs, key = sample(jax.random.key(0)), jax.random.key(0)

    def start() -> tuple[list[Any], dict[str, Any]]:
        batch = {"train": jax.device_put(images(args, args.batch))}
        variables = supernet.init(key, archs[0], batch["train"][0])
        return [variables["params"], update.momentum(variables["params"]), variables["batch_stats"]], batch

    state, batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), start())
    began = time.perf_counter()
    compiled = compile_lowered(jax.jit(update.run).lower(*state, archs, key, np.float32(RATE), batch))
    compiling = time.perf_counter() - began
    memory = compiled.memory_analysis()
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes

    def make() -> Callable[[], Any]:
        (state, batch), t = start(), 0

        def step() -> None:
            nonlocal t
            t += 1
            key = jax.random.fold_in(jax.random.key(1), t)
            *state[:], _ = jax.block_until_ready(compiled(*state, sample(key), key, np.float32(RATE), batch))

        return step

    return make, compiling, total / 2**20


def torch_step(
    args: argparse.Namespace, plan: ChoicePlan, trainable: str, compiled: bool = False
) -> tuple[Callable[[], Any], float]:
    """(one step, MiB that autograd and the weights need); `compiled`: stem, operators and tail by torch.compile."""
    net = TorchNet(plan)
    x, y = images(args, args.batch)
    form = torch.channels_last
    x = torch.tensor(x).permute(0, 3, 1, 2).contiguous(memory_format=form)
    y = torch.tensor(y).long()
    net = net.to(memory_format=form)  # type: ignore[call-overload]
    last = {id(p) for layer in net.layers for form in layer for p in form.main[-1][1].parameters()}
    norms = {id(p) for module in net.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    chosen = {"all": None, "all_bn": norms, "last_bn": last}[trainable]
    for p in net.parameters():
        p.requires_grad_(chosen is None or id(p) in chosen)
    moving = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": 4e-5},
        {"params": [p for p in moving if p.ndim == 1], "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD([group for group in groups if group["params"]], RATE, 0.9)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    random = np.random.default_rng(0)
    kept: dict[int, int] = {}

    def forward() -> torch.Tensor:
        path = random.integers(0, len(plan.space.operators), plan.space.layers).tolist()
        return loss_of(net(x, path), y)

    if compiled:  # a path is one of millions: what all have in common are the operators
        torch._dynamo.config.recompile_limit = 256
        for module in (net.before, net.behind, *(form for layer in net.layers for form in layer)):
            module.compile(dynamic=False)
        for operator in range(len(plan.space.operators)):
            loss_of(net(x, [operator] * plan.space.layers), y).backward()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    net.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward().backward()
    weights = sum(p.numel() * 4 for p in net.parameters()) + 2 * sum(p.numel() * 4 for p in moving)

    def step() -> None:
        sgd.zero_grad(set_to_none=True)  # what is not on the path has no gradient, and is left alone
        forward().backward()
        sgd.step()

    return step, (sum(kept.values()) + weights) / 2**20


def resident(peak: bool = False) -> float:
    """MiB of this process: now, or the largest since it was last set back."""
    name = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def peak(args: argparse.Namespace, plan: ChoicePlan, side: str, trainable: str) -> list[float]:
    """MiB that stay after a first step whose images and weights are gone; further MiB of more steps. Call it once."""
    imported = resident()
    make = (
        our_program(args, plan, trainable)[0]
        if side == "nasjax"
        else lambda: torch_step(args, plan, trainable, args.compile)[0]
    )
    make()()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    step = make()
    for _ in range(args.steps):
        step()
    return [before - imported, resident(peak=True) - before]


def peak_elsewhere(trainable: str, side: str) -> list[float]:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--peak={side}/{trainable}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def best_of(sides: dict[str, Callable[[], Any]], rounds: int, steps: int) -> dict[str, float]:
    best = dict.fromkeys(sides, np.inf)
    for side in sides.values():
        side()
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            for _ in range(steps):
                side()
            best[name] = min(best[name], (time.perf_counter() - began) / steps)
    return best


def scoring(args: argparse.Namespace, plan: ChoicePlan, net: TorchNet | None) -> dict[str, float]:
    """Paths scored per second."""
    supernet, space = choice_supernet(plan), plan.space
    train, valid = images(args, args.batch * CALIBRATION), images(args, VALID)
    ones = np.ones(args.colours, np.float32)
    data = Data(*map(jnp.asarray, (*train, *valid, 0 * ones, ones)))
    archs = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 16))
    variables = supernet.init(jax.random.key(0), archs[0], data.train_x[:1])
    accuracy = path_accuracy(supernet, data, TASK, calibration_batches=CALIBRATION, batch_size=args.batch)
    many = jax.vmap(space.sample)(jax.random.split(jax.random.key(1), 1_000_000))
    table = supernet.scores(variables["params"])
    total = jax.jit(score_sum(space, table))
    sides: dict[str, tuple[int, Callable[[], Any]]] = {
        "accuracy": (16, lambda: jax.block_until_ready(accuracy(variables, archs))),
        "indicator": (len(many), lambda: jax.block_until_ready(total(many))),
    }
    if net is not None:
        paths = np.asarray(archs).tolist()
        tx, vx = (
            torch.tensor(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            for x in (train[0], valid[0])
        )
        vy = torch.tensor(valid[1]).long()

        @torch.no_grad()
        def one(path: list[int]) -> float:
            net.train()
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
                    module.momentum = None  # cumulative
            for piece in tx.split(args.batch):
                net(piece, path)
            net.eval()
            return sum(
                float((net(x, path).argmax(1) == y).sum())
                for x, y in zip(vx.split(args.batch), vy.split(args.batch), strict=True)
            )

        def look_up() -> None:
            scores = [[float(form.main[-1][1].weight.detach().abs().mean()) for form in layer] for layer in net.layers]
            for path in paths * 100:
                sum(layer[choice] for layer, choice in zip(scores, path, strict=True))

        sides["accuracy, PyTorch"] = (4, lambda: [one(path) for path in paths[:4]])
        sides["indicator, Python loop"] = (100 * len(paths), look_up)
    best = best_of({name: side for name, (_, side) in sides.items()}, args.rounds, 1)
    return {name: sides[name][0] / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="fairnas_cifar")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--colours", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-torch", action="store_true")
    parser.add_argument("--compile", action="store_true", help="PyTorch's operators by torch.compile, not eager")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # side/trained: only this measurement, in this process
    args = parser.parse_args()
    keep_freed_memory()  # as a search does
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(2)
    plan = ChoicePlan(variant(args.space), (args.size, args.size, args.colours), 10)
    if args.peak:
        print(peak(args, plan, *args.peak.split("/")))
        return
    compare(args, plan)


def compare(args: argparse.Namespace, plan: ChoicePlan) -> None:
    """Measures everything and prints it."""
    times: list[str] = []
    sizes: list[str] = []
    facts: dict[str, dict[str, Any]] = {}
    for trainable, label in SETS.items():
        make, compiling, allocated = our_program(args, plan, trainable)
        sides, estimates = {"nasjax": make()}, {"nasjax": allocated}
        if not args.skip_torch:
            sides["PyTorch"], estimates["PyTorch"] = torch_step(args, plan, trainable, args.compile)
        best = best_of(sides, args.rounds, args.steps)
        stays, peaks = zip(*(peak_elsewhere(trainable, side) for side in sides), strict=True)
        facts[trainable] = {
            "compile_s": compiling,
            "s": best,
            "peak_MiB": dict(zip(sides, peaks, strict=True)),
            "stays_MiB": dict(zip(sides, stays, strict=True)),
            "estimate_MiB": estimates,
        }
        ours, theirs = best["nasjax"], best.get("PyTorch", np.nan)
        times.append(f"| {label} | {compiling:.0f} | {1000 * ours:.0f} | {1000 * theirs:.0f} | {theirs / ours:.2f} |")
        figures = (*peaks, *stays, *estimates.values())
        sizes.append(f"| {label} | " + " | ".join(f"{figure:.0f}" for figure in figures) + " |")
    speeds = scoring(args, plan, None if args.skip_torch else TorchNet(plan))
    print(f"{args.space} at {args.size}x{args.size}, batch {args.batch}; {plan.supernet_params():,} parameters\n")
    print("| trained | compile, s | ms a step | PyTorch, ms | PyTorch / ours |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(times), end="\n\n")
    names = [of + side for of in ("peak MiB", "stays", "estimate") for side in ("", ", PyTorch")[: len(sides)]]
    print("| trained | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    print("\n".join(sizes), end="\n\n")
    for side in sides:
        slower, larger = (facts["all"][of][side] / facts["all_bn"][of][side] for of in ("s", "peak_MiB"))
        print(f"{side}, all weights over BN only: {slower:.2f}x the time of a step, {larger:.2f}x the peak.")
    print()
    print("| score | paths a second |")
    print("| --- | --- |")
    for name, speed in speeds.items():
        print(f"| {name} | {speed:,.1f} |")
    versions = {"jax": jax.__version__, "torch": torch.__version__, "device": jax.devices()[0].device_kind}
    print(json.dumps({"benchmark": "one_shot", **vars(args), "steps": facts, "paths_a_second": speeds, **versions}))


if __name__ == "__main__":
    main()
