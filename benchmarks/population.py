"""Children trained per minute: each strategy of `evaluators/child` beside PyTorch eager, the same children one by one.

    python benchmarks/population.py                         # 8x8, on CPU about four minutes
    python benchmarks/population.py --size=32 --steps=36 --children=3
    python benchmarks/population.py --threads=1             # both sides on one core, in CPU seconds: for a busy machine
    python benchmarks/population.py --children=64 --size=8 --steps=1000 --dtype=tf32         # on a GPU
    python benchmarks/population.py --children=64 --size=32 --layers=15 --dtype=bfloat16     # v1-size children

Workload: conv_chain children of 6 layers with v1's value sets, batch 64; 8x8 images are the embedded digits, others
random colours. Both sides gather, whiten, enlarge, crop, flip, train with batch norm and Nesterov momentum, and
validate 300 images every 18 steps. "Cold" has everything compiled inside the measured time, "warm" is the same call
again. The sides take turns; a figure is the better of `--rounds`. PyTorch uses the faster of its two memory formats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable

import jax
import numpy as np
import torch

from nasjax import catalog
from nasjax.data.dataset import DataConfig, Dataset, resize
from nasjax.data.sources import Split
from nasjax.evaluators.child import child
from nasjax.evaluators.cost_model import choose_strategy
from nasjax.problem.data import load
from nasjax.problem.problem import builds
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.spaces.conv_chain.plan import IMAGE, Plan, plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train.recipe import DTYPES, Recipe
from nasjax.types import Proposal

BATCH, EPOCH_STEPS = 64, 18


def dataset(size: int) -> Dataset:
    """1,200 + 300 images: digits, or random colours in blobs of the digits' sizes."""
    digits = load(DataConfig())
    if size == 8:
        return digits
    random = np.random.default_rng(0)

    def colour(split: Split) -> Split:
        x = random.integers(0, 256, (len(split.x), 8, 8, 3)).astype(np.uint8)
        return Split(resize(x, size, size), split.y)

    mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.3, np.float32)
    return digits._replace(train=colour(digits.train), valid=colour(digits.valid), mean=mean, std=std)


class Net(torch.nn.Module):
    """The network of a plan, as one would write it in PyTorch."""

    def __init__(self, planned: Plan, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.plan, self.format = planned, memory_format
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(x.in_channels, x.filters, x.kernel, padding=[k // 2 for k in x.kernel], bias=False)
            for x in planned.layers
        )
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(x.filters) for x in planned.layers)
        self.head = torch.nn.Linear(planned.head_channels, planned.classes)
        for conv in self.convs:
            torch.nn.init.kaiming_normal_(conv.weight)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = {IMAGE: image.contiguous(memory_format=self.format)}

        def read(sources):
            parts = [maps[source.layer] for source in sources]
            return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

        for i, layer in enumerate(self.plan.layers):
            maps[i] = torch.relu_(self.norms[i](self.convs[i](read(layer.sources))))
        return self.head(read(self.plan.head).mean((2, 3)).float())


def augmented(x: torch.Tensor) -> torch.Tensor:
    """Enlarge by 5/4, crop and flip at random: [B, C, H, W]."""
    b, _, height, width = x.shape
    extra = height // 4
    x = torch.nn.functional.interpolate(x, (height + extra, width + extra), mode="bilinear")
    top, left, flip = (torch.randint(0, n, (b, 1), device=x.device) for n in (extra + 1, extra + 1, 2))
    steps = torch.arange(width, device=x.device)[None]
    rows = top + torch.arange(height, device=x.device)[None]
    columns = left + torch.where(flip == 1, steps.flip(1), steps)
    return x[torch.arange(b, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def torch_train(
    planned: Plan,
    data: dict,
    steps: int,
    dtype: str,
    memory_format: torch.memory_format,
    clock: Callable[[], float],
    compiled: bool = False,
) -> float:
    """Seconds that one child takes; `compiled`: its network by torch.compile, from nothing."""
    device = data["x"].device
    cast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def whiten(x):
        return (x.float() / 255 - data["mean"]) / data["std"]

    synchronise(device)
    began = clock()
    net = Net(planned, memory_format).to(device).to(memory_format=memory_format)
    if compiled:
        torch._dynamo.reset()
        net.compile(dynamic=False)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-4)
    for step in range(steps):
        if step % EPOCH_STEPS == 0:
            order = torch.randperm(len(data["y"]), device=device)
        index = order[step % EPOCH_STEPS * BATCH :][:BATCH]
        with cast:
            loss = torch.nn.functional.cross_entropy(net(augmented(whiten(data["x"][index]))), data["y"][index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % EPOCH_STEPS == EPOCH_STEPS - 1:
            net.eval()
            with torch.no_grad(), cast:
                accuracy = (net(whiten(data["valid_x"])).argmax(1) == data["valid_y"]).float().mean()
            net.train()
    loss.item(), accuracy.item()
    synchronise(device)
    return clock() - began


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def torch_side(plans: list[Plan], data: Dataset, dtype: str, threads: int, clock: Callable[[], float]):
    """A function that trains all children, and the name of the memory format it uses."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
    arrays = {
        "x": torch.tensor(data.train.x).permute(0, 3, 1, 2).contiguous(),
        "y": torch.tensor(data.train.y).long(),
        "valid_x": torch.tensor(data.valid.x).permute(0, 3, 1, 2).contiguous(),
        "valid_y": torch.tensor(data.valid.y).long(),
        "mean": torch.tensor(data.mean)[None, :, None, None],
        "std": torch.tensor(data.std)[None, :, None, None],
    }
    arrays = {name: array.to(device) for name, array in arrays.items()}
    tried = {}
    for memory_format in (torch.contiguous_format, torch.channels_last, torch.contiguous_format, torch.channels_last):
        seconds = sum(torch_train(p, arrays, EPOCH_STEPS, dtype, memory_format, clock) for p in plans[:2])
        tried[memory_format] = min(seconds, tried.get(memory_format, seconds))
    best = min(tried, key=tried.__getitem__)

    def train(steps: int, compiled: bool = False) -> float:
        return sum(torch_train(p, arrays, steps, dtype, best, clock, compiled) for p in plans)

    return train, str(best).split(".")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=6)
    parser.add_argument("--steps", type=int, default=180, help="per child, a multiple of 18 (one epoch)")
    parser.add_argument("--size", type=int, default=8, help="height and width of the images")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--strategies", default="exact,vmap", help="comma-separated")
    parser.add_argument("--chunk", type=int, default=None, help="children that vmap trains at a time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="PyTorch by torch.compile too, compiling included")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; 1: both sides on one core, CPU seconds")
    args = parser.parse_args()
    keep_freed_memory()  # as a search does
    clock = time.perf_counter
    if args.threads == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        clock = time.process_time
    epochs = max(1, args.steps // EPOCH_STEPS)
    steps = epochs * EPOCH_STEPS
    space = ConvChain(args.layers, args.layers)
    data = dataset(args.size)
    image = data.train.x.shape[1:]
    recipe = Recipe(epochs=epochs, batch_size=BATCH, dtype=args.dtype)
    archs = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), args.children)))
    plans = [plan(space, arch, image, 10) for arch in archs]
    proposal = Proposal(np.arange(args.children), archs, np.full(args.children, -1))
    builder, signature = catalog.builder(space.name), TASK.signature(data)
    build, masked = builds(builder, space, builder.form, signature), builder.masked(space, builder.form, signature)
    builts = [build(arch) for arch in archs]
    auto, estimates = choose_strategy(builts, masked, recipe, len(data.train.y), jax.default_backend())
    train, memory_format = torch_side(plans, data, args.dtype, args.threads, clock)
    seconds: dict[str, dict[str, float]] = {
        name: {"cold": np.inf, "warm": np.inf} for name in args.strategies.split(",")
    }
    reference = by_compile = np.inf
    for _ in range(args.rounds):
        for name, best in seconds.items():
            own = masked if name == "vmap" else None
            evaluator = child(build, data, TASK, recipe=recipe, masked=own, chunk=args.chunk)
            for kind in ("cold", "warm"):
                if kind == "cold":
                    jax.clear_caches()
                began = clock()
                evaluation, _ = evaluator.evaluate(jax.random.key(1), proposal)
                assert not any(evaluation.info["error"]), evaluation.info["error"]
                best[kind] = min(best[kind], clock() - began)
            reference = min(reference, train(steps))
            if args.compile:
                by_compile = min(by_compile, train(steps, compiled=True))
    n = args.children
    print(
        f"{n} children, {args.layers} layers, {image[0]}x{image[1]}x{image[2]}, {steps} steps of {BATCH}, {args.dtype};"
    )
    params, macs = (np.mean([getattr(p, name) for p in plans]) for name in ("params", "macs"))
    print(f"mean {params:,.0f} parameters, {macs:,.0f} macs an image")
    print()
    print("| side | ms a step | against PyTorch | children a minute, compile included | against PyTorch |")
    print("| --- | --- | --- | --- | --- |")
    for name, best in seconds.items():
        warm, cold = best["warm"], best["cold"]
        label = f"{name} (chosen by auto)" if name == auto else name
        figures = (warm / n / steps * 1e3, f"{reference / warm:.2f}x", 60 * n / cold, f"{reference / cold:.2f}x")
        print("| {} | {:.2f} | {} | {:.2f} | {} |".format(label, *figures))
    print(f"| PyTorch, {memory_format} | {reference / n / steps * 1e3:.2f} | 1 | {60 * n / reference:.2f} | 1 |")
    if args.compile:
        print(f"| PyTorch, torch.compile | | | {60 * n / by_compile:.2f} | {reference / by_compile:.2f}x |")
    print()
    facts = {
        "benchmark": "population",
        **vars(args),
        "steps": steps,
        "seconds": seconds,
        "torch_seconds": reference,
        "torch_compile_seconds": by_compile if args.compile else None,
        "torch_format": memory_format,
        "auto": auto,
        "estimates": estimates,
        "device": jax.devices()[0].device_kind,
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
