"""Graphs never seen before: what do they compile, how slow is their first step, how many train in an hour.

    python benchmarks/graphs.py                      # on two CPU cores about three minutes
    python benchmarks/graphs.py --count=3 --exact=1 --epochs=2 --levels=3 --graphs=100 --skip-torch

Workload: random and mutated graphs of `resolution_graph` with 8 channels at level 0, on the generated
nuclei at 48x48, batch 16. First, graphs are trained until every kind of part was met; then come graphs with other
architectures. Their compilations are counted and the seconds of their first ten steps measured: the first against the
tenth, and the ninth against the tenth for what chance does to such a ratio; with `--begun` also medians of so many
first and tenth steps of one graph, whose network is built and begun anew each time. Then whole children are trained by
strategy `parts`, by `exact` (a program per graph, compiling included) and by PyTorch eager in both memory formats: the
same graphs, loss, optimiser, flips and quarter turns, and a validation at the end of every epoch. The sides take
turns; each of PyTorch's is a process of its own, which begins with a graph that is not counted: as it is installed,
and with the allocator's settings that `keep_freed_memory` makes on our side. Last, resident memory over many tiny
graphs that train by parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from nasjax.data.dataset import DataConfig, Dataset
from nasjax.data.sources import Split
from nasjax.evaluators.child import child
from nasjax.problem.builders.resolution_graph import BUILDER, RECIPE
from nasjax.problem.data import load
from nasjax.problem.problem import builds
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.spaces.resolution_graph.plan import GraphPlan
from nasjax.spaces.resolution_graph.space import ResolutionGraph
from nasjax.tasks.segmentation import TASK
from nasjax.train.by_parts import by_parts
from nasjax.train.fit import resident
from nasjax.train.step import example
from nasjax.types import Proposal

TINY = ResolutionGraph(
    levels=3, max_nodes=16, max_edges=40, channels=(2,), expansions=(2,), min_params=100, max_params=100_000
)
QUIET = 200  # graphs in a row without a new kind of part, after which all are taken to be known


def architectures(space: ResolutionGraph):
    """Arch after Arch: a random one, then three of its mutants in a line, and so on."""
    sample, mutate = jax.jit(space.sample), jax.jit(space.mutate)
    for i in range(10**9):
        key = jax.random.key(i)
        arch = sample(key)
        yield np.asarray(arch)
        for j in range(3):
            arch = mutate(jax.random.fold_in(key, j), arch)
            yield np.asarray(arch)


def kinds(built) -> set:
    """What is a program of its own: a part's `apply`, and how many inputs it has."""
    network = built.network(bn_eps=RECIPE.bn_eps, dtype=RECIPE.dtype)
    return {(part.apply, len(part.reads)) for part in network.parts}


class Compilations:
    """Counts XLA's compilations."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._event)

    def _event(self, name: str, seconds: float, **more) -> None:
        self.count += name == "/jax/core/compile/backend_compile_duration"


def warm_up(space, build, evaluator, stream) -> tuple[int, set]:
    """Trains graphs until QUIET in a row bring no new kind of part; how many it trained, the identities of all."""
    known, seen, trained, quiet = set(), set(), 0, 0
    while quiet < QUIET:
        arch = next(stream)
        seen.add(space.identity(arch))
        new = kinds(build(arch)) - known
        known |= new
        quiet = 0 if new else quiet + 1
        if new:
            one(evaluator, trained, arch)
            trained += 1
            print(f"warm-up: {trained} graphs, {len(known)} kinds of parts", end="\r", flush=True)
    return trained, seen


def unseen(space, build, stream, seen: set, count: int) -> list[np.ndarray]:
    """Graphs with other architectures."""
    found = []
    while len(found) < count:
        arch = next(stream)
        if space.identity(arch) not in seen:
            seen.add(space.identity(arch))
            found.append(arch)
    return found


def one(evaluator, number: int, arch: np.ndarray) -> float:
    """Seconds that the evaluator takes for one child."""
    began = time.perf_counter()
    evaluation, _ = evaluator.evaluate(jax.random.key(0), Proposal(np.array([number]), arch[None], np.array([-1])))
    assert not evaluation.info["error"][0], evaluation.info["error"]
    return time.perf_counter() - began


def steps_of(built, data, recipe, signature) -> list[float]:
    """Seconds of the first ten steps of a graph's training, each waited for; the first has in it all that is new."""
    network = built.network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    state = None
    seconds = []
    for t in range(10):
        began = time.perf_counter()
        if state is None:
            train = by_parts(network, recipe, len(data.train_y), TASK)
            state = train.start(network.init(jax.random.key(0), None, example(network, signature)))
        state = train.run(jax.random.key(1), state, None, recipe.learning_rate, data, t, t + 1)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
    return seconds


FORMATS = ("NCHW", "channels_last")
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_MMAP_THRESHOLD_": str(2**30)}  # as `keep_freed_memory`


def torch_seconds(archs: list[np.ndarray], memory: str, args: argparse.Namespace, environment: dict) -> list[float]:
    """Of PyTorch for each graph, in a process with this environment."""
    command = [sys.executable, __file__, f"--memory={memory}", f"--epochs={args.epochs}", f"--levels={args.levels}"]
    told = json.dumps([arch.tolist() for arch in archs])
    done = subprocess.run(
        [*command, f"--threads={args.threads}"],
        input=told,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def torch_side(data: Dataset, threads: int):
    """train(plan, recipe, format name) -> seconds that PyTorch eager takes for the graph."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    formats = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}

    class Steps(nn.Module):
        """Convolutions one after the other, each with its norm and activation."""

        def __init__(self, steps) -> None:
            super().__init__()
            self.steps = steps
            self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
            for step in steps:
                if step.kind == "transposed":
                    conv = nn.ConvTranspose2d(step.c_in, step.c_out, 2, 2, bias=step.bias)
                else:
                    groups = step.c_out if step.kind == "depthwise" else 1
                    options = {"groups": groups, "bias": step.bias, "padding": step.size // 2}
                    conv = nn.Conv2d(step.c_in, step.c_out, step.size, step.stride, **options)
                self.convs.append(conv)
                self.norms.append(nn.BatchNorm2d(step.c_out) if step.norm else nn.Identity())

        def forward(self, x):
            for step, conv, norm in zip(self.steps, self.convs, self.norms, strict=True):
                x = norm(conv(x))
                if step.activation != "none":
                    x = F.relu6(x, inplace=True) if step.activation == "relu6" else F.relu(x, inplace=True)
            return x

    class Net(nn.Module):
        """A graph as one would write it in PyTorch."""

        def __init__(self, plan: GraphPlan) -> None:
            super().__init__()
            graph = plan.graph
            self.graph, self.sources = graph, graph.sources()
            self.nodes = nn.ModuleDict({str(node.id): Steps(plan.node(node)) for node in graph.nodes})
            self.norms = nn.ModuleDict(
                {str(node.id): nn.BatchNorm2d(plan.width(node.level)) for node in graph.nodes[1:]}
            )
            self.edges, self.merges = nn.ModuleDict(), nn.ModuleDict()
            for edge in graph.edges:
                steps, merge = plan.edge(edge)
                self.edges[str(edge.id)] = Steps(steps)
                self.merges[str(edge.id)] = nn.Conv2d(merge.c_in, merge.c_out, 1, bias=False)
            self.head = nn.Conv2d(plan.width(0), plan.outputs, 1)

        def brought(self, edge, x):
            if edge.op == "maxpool":
                x = F.max_pool2d(x, 2)
            x = self.merges[str(edge.id)](self.edges[str(edge.id)](x))
            if edge.op == "upsample":
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            return x

        def forward(self, x):
            first, *others = self.graph.nodes
            maps = {first.id: self.nodes[str(first.id)](x)}
            for node in others:
                x = sum(self.brought(edge, maps[edge.src]) for edge in self.sources[node.id])
                x = F.relu(self.norms[str(node.id)](x))
                x = x + self.nodes[str(node.id)](x)
                maps[node.id] = F.relu(x) if node.op == "resnet" else x
            return self.head(x if len(others) == 0 else maps[others[-1].id])

    def tensors(split: Split):
        mean, std = (torch.tensor(v)[None, :, None, None] for v in (data.mean, data.std))
        x = (torch.tensor(split.x).permute(0, 3, 1, 2).float() / 255 - mean) / std
        return x.contiguous(), torch.tensor(split.y).permute(0, 3, 1, 2).float().contiguous()

    (x, y), (valid_x, valid_y) = tensors(data.train), tensors(data.valid)

    def loss_of(logits, t):
        p, axes = torch.sigmoid(logits), (1, 2, 3)
        dice = (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)
        return F.binary_cross_entropy_with_logits(logits, t) / 2 + 1 - dice.mean()

    def train(plan: GraphPlan, recipe, memory: str) -> float:
        began = time.perf_counter()
        net = Net(plan).to(memory_format=formats[memory])
        assert sum(p.numel() for p in net.parameters()) == plan.params
        optimiser = torch.optim.SGD(
            net.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        for epoch in range(recipe.epochs):
            order = torch.randperm(len(x))
            for group in optimiser.param_groups:
                group["lr"] = 1e-5 + (recipe.learning_rate - 1e-5) * (1 + np.cos(np.pi * epoch / recipe.epochs)) / 2
            for begin in range(0, len(x) - recipe.batch_size + 1, recipe.batch_size):
                index = order[begin : begin + recipe.batch_size]
                both = torch.cat([x[index], y[index]], 1)
                quarters = torch.randint(0, 4, (len(both),))
                turned = [torch.rot90(image, int(k), (1, 2)) for image, k in zip(both, quarters, strict=True)]
                both = torch.stack([image.flip(2) if torch.rand(()) < 0.5 else image for image in turned])
                image = (both[:, :3] * (1 + 0.1 * torch.randn(len(both), 3, 1, 1))).contiguous(
                    memory_format=formats[memory]
                )
                loss = loss_of(net(image), both[:, 3:])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            net.eval()
            with torch.no_grad():
                p = net(valid_x.contiguous(memory_format=formats[memory])) > 0
                t = valid_y > 0.5
                ((p & t).sum() / (p | t).sum().clamp(min=1)).item()
            net.train()
        return time.perf_counter() - began

    return train


def resident_mib() -> float:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(count: int, every: int) -> dict[int, float]:
    """Resident MiB after so many tiny graphs of 16x16 pixels, four steps each."""
    full = load(DataConfig(name="nuclei", train_limit=16, valid_limit=4))
    small = full._replace(
        **{name: Split(*(part[:, :16, :16] for part in getattr(full, name)[:2])) for name in ("train", "valid")}
    )
    build = builds(BUILDER, TINY, None, TASK.signature(small))
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=4)
    evaluator = child(build, small, TASK, recipe=recipe, last_epochs=1, parts=True)
    stream, found = architectures(TINY), {}
    for number in range(count):
        one(evaluator, number, next(stream))
        if (number + 1) % every == 0:
            gc.collect()
            found[number + 1] = round(resident_mib(), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=6, help="graphs never seen before")
    parser.add_argument("--timed", type=int, default=40, help="of such, whose first ten steps are timed")
    parser.add_argument("--begun", type=int, default=1, help="times that each of these is begun anew, for medians")
    parser.add_argument("--exact", type=int, default=2, help="of them, trained by `exact` too")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--levels", type=int, default=5, help="of the graphs' resolutions")
    parser.add_argument("--graphs", type=int, default=500, help="tiny ones of the measurement of memory; 0 = none")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--skip-torch", action="store_true")
    parser.add_argument("--memory", choices=FORMATS, help=argparse.SUPPRESS)  # PyTorch's side; graphs on stdin
    args = parser.parse_args()
    data = load(DataConfig(name="nuclei"))
    recipe = dataclasses.replace(RECIPE, epochs=args.epochs)
    space = ResolutionGraph(levels=args.levels, channels=(8,), min_params=5_000, max_params=2_000_000)
    signature = TASK.signature(data)
    build = builds(BUILDER, space, None, signature)
    if args.memory:
        train, plans = (
            torch_side(data, args.threads),
            [build(np.asarray(a, np.int32)).plan for a in json.load(sys.stdin)],
        )
        train(plans[0], recipe, args.memory)
        print(json.dumps([train(plan, recipe, args.memory) for plan in plans]))
        return
    keep_freed_memory()
    compilations = Compilations()
    arrays, stream = resident(data), architectures(space)
    parts, exact = (
        child(build, data, TASK, recipe=recipe, last_epochs=1, parts=kind == "parts") for kind in ("parts", "exact")
    )
    few = data._replace(train=Split(data.train.x[: recipe.batch_size], data.train.y[: recipe.batch_size]))
    brief = child(build, few, TASK, recipe=recipe, last_epochs=1, parts=True)  # one step an epoch
    began = time.perf_counter()
    trained, seen = warm_up(space, build, brief, stream)
    last = unseen(space, build, stream, seen, 1)[0]
    one(parts, 0, last)  # the programs that cut batches are made for the size of the training part
    facts = {
        "benchmark": "graphs",
        **vars(args),
        "train": len(data.train.y),
        "warm_up": {
            "graphs": trained,
            "compilations": compilations.count,
            "seconds": round(time.perf_counter() - began, 1),
        },
    }
    archs = unseen(space, build, stream, seen, max(args.count, args.timed))
    before = compilations.count
    timed = archs[: args.timed]
    begun = [[steps_of(build(arch), arrays, recipe, signature) for _ in range(args.begun)] for arch in timed]
    seconds, middle = np.array(begun)[:, 0], np.median(begun, 1)
    ratios = {step: seconds[:, i] / seconds[:, 9] for step, i in (("first", 0), ("ninth", 8))}
    ratios |= {f"median of {args.begun} first": middle[:, 0] / middle[:, 9]}
    archs = archs[: args.count]
    builts = [build(arch) for arch in archs]
    sides: dict[str, list[float]] = {"parts": [one(parts, n, arch) for n, arch in enumerate(archs)]}
    facts["compilations of unseen graphs"] = compilations.count - before
    for step, of in ratios.items():
        facts[f"{step} step / tenth step"] = np.round(np.sort(of), 2).tolist()
    facts["tenth step, s"] = np.round(seconds[:, 9], 3).tolist()
    for name in () if args.skip_torch else FORMATS:
        sides[f"PyTorch {name}"] = torch_seconds(archs, name, args, {})
    sides["parts, again"] = [one(parts, n, arch) for n, arch in enumerate(archs)]
    for name in () if args.skip_torch else FORMATS:
        sides[f"PyTorch {name}, freed memory kept"] = torch_seconds(archs, name, args, KEEPING)
    if args.exact:
        for name in ("exact", "exact, compiled before"):
            sides[name] = [one(exact, n, arch) for n, arch in enumerate(archs[: args.exact])]
    print(f"{args.count} graphs, {np.mean([b.params for b in builts]):,.0f} parameters and ", end="")
    print(f"{np.mean([b.macs for b in builts]):,.0f} macs an image, {args.epochs} epochs of {len(data.train.y)}")
    print(f"warm-up: {facts['warm_up']}; compilations of unseen graphs: {facts['compilations of unseen graphs']}")
    for step, of in ratios.items():
        low, mid, high = np.quantile(of, (0.25, 0.5, 0.75))
        print(
            f"{step} step / tenth of {len(of)} graphs: median {mid:.2f}, quartiles {low:.2f} and {high:.2f}, ",
            end="",
        )
        print(f"largest {of.max():.2f}, {np.mean(of > 1.2):.0%} above 1.2")
    print()
    print("| side | graphs | individuals an hour | the same graphs by parts |\n| --- | --- | --- | --- |")
    for name, found in sides.items():
        own = sum(sides["parts, again"][: len(found)])
        print(f"| {name} | {len(found)} | {3600 * len(found) / sum(found):.0f} | {3600 * len(found) / own:.0f} |")
    facts["seconds"] = {name: np.round(found, 2).tolist() for name, found in sides.items()}
    if args.graphs:
        facts["resident MiB"] = memory(args.graphs, max(1, args.graphs // 5))
        print(f"\nresident MiB after tiny graphs: {facts['resident MiB']}")
    facts |= {"device": jax.devices()[0].device_kind, "machine": platform.processor() or platform.machine()}
    facts |= {"cores": os.cpu_count(), "jax": jax.__version__}
    print("\n" + json.dumps(facts))


if __name__ == "__main__":
    main()
