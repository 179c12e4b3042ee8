"""How far training steps are from this machine's peaks, and from PyTorch, eager and compiled; where their time goes.

    python benchmarks/roofline.py                          # a child at 32x32 and a one-shot step: about ten minutes
    python benchmarks/roofline.py --programs=child --child=2 --skip-compile

One core, CPU seconds, sides in turn in every round, medians; a ratio is the median of the rounds' ratios. Peaks: a
product of 1536x1536 matrices, and y = x + 2 x of 28 MB, in XLA and in PyTorch, in the same run. Programs: one step of
a child of population.py (its batch at hand: network, loss, gradients, optimiser) and of one_shot.py. Multiply-adds are
those of direct convolutions, three times the forward pass; a form with fewer may exceed the peak. Bytes are the least
that pass by pass must move, float32: a convolution reads and writes its maps once forward and its gradients read them
again, batch norm reads twice and writes once, forward and backward. Classes: each layer's forward and backward pass by
itself, its input at hand; what they do not cover (concatenation, sums, optimiser, path switching) is "the rest".
`torch.compile` compiles the child's network as a whole, a supernet's operators one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import one_shot
import population
import torch
from torch.nn import functional as F

from nasjax import catalog
from nasjax.nets.choice_chain.blocks import Step, block
from nasjax.nets.choice_chain.frame import frame_steps
from nasjax.ops.activation import relu, relu6
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.ops.norm import batch_norm
from nasjax.problem.problem import builds
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.spaces.choice_chain.plan import ChoicePlan
from nasjax.spaces.choice_chain.space import variant
from nasjax.spaces.conv_chain.plan import plan
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.tasks.classification import TASK
from nasjax.train.compiling import compile_lowered
from nasjax.train.recipe import Recipe
from nasjax.train.step import example, trainer

BATCH = 64


class Layer(NamedTuple):
    """A convolution with its batch norm and activation."""

    group: str
    size: int  # height and width of the input
    c_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: int = 1
    depthwise: bool = False
    activation: str = "relu"
    first: bool = False  # no gradient of the input

    @property
    def macs(self) -> float:
        """Multiply-adds of a batch, forward."""
        places = (-(-self.size // self.stride)) ** 2
        return float(BATCH * places * np.prod(self.kernel) * self.c_out * (1 if self.depthwise else self.c_in))

    @property
    def bytes(self) -> float:
        """That forward and backward passes must move."""
        before, after = BATCH * self.size**2 * self.c_in, BATCH * (-(-self.size // self.stride)) ** 2 * self.c_out
        return 4 * ((2 if self.first else 3) * before + 11 * after)


class Program(NamedTuple):
    """A training step on each side, and its layers with how often a step has them."""

    sides: dict[str, Callable[[], Any]]
    layers: Counter[Layer]
    steps: int = 1  # a call


def child(args: argparse.Namespace) -> Program:
    """Steps of a child of `population.py`."""
    space, data = ConvChain(6, 6), population.dataset(32)
    image = data.train.x.shape[1:]
    arch = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), args.child + 1)))[args.child]
    planned = plan(space, arch, image, 10)
    builder, signature = catalog.builder(space.name), TASK.signature(data)
    recipe = Recipe(epochs=1, batch_size=BATCH)
    network = builds(builder, space, builder.form, signature)(arch).network(bn_eps=recipe.bn_eps, dtype=recipe.dtype)
    variables = network.init(jax.random.key(0), None, example(network, signature))
    train = trainer(network, recipe, len(data.train.y), variables, TASK)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((BATCH, *image), np.float32), random.integers(0, 10, BATCH, np.int32)
    state, rest = train.start(variables), (jnp.float32(0.1), jnp.asarray(x), jnp.asarray(y), jax.random.key(0), 0)
    update = compile_lowered(jax.jit(train.update, donate_argnums=0).lower(state, None, *rest))

    def ours() -> None:
        nonlocal state
        state = jax.block_until_ready(update(state, None, *rest))

    form = torch.channels_last
    tx, ty = torch.tensor(x).permute(0, 3, 1, 2).contiguous(memory_format=form), torch.tensor(y).long()

    def theirs(compiled: bool) -> Callable[[], None]:
        net = population.Net(planned, form).to(memory_format=form)  # type: ignore[call-overload]
        sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-4)
        apply = torch.compile(net, dynamic=False) if compiled else net

        def step() -> None:
            loss = F.cross_entropy(apply(tx), ty)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()

        return step

    sides = {"nasjax": ours, "eager": theirs(False)} | ({} if args.skip_compile else {"compiled": theirs(True)})
    layers = Counter[Layer]()
    for layer in planned.layers:
        kernel = (layer.kernel[0], layer.kernel[1])
        group = "3x3" if kernel == (3, 3) else "one row or column" if 1 in kernel else "larger kernels"
        first = layer.in_channels == image[2]
        layers[
            Layer("first layers" if first else group, 32, layer.in_channels, layer.filters, kernel, first=first)
        ] += 1
    return Program(sides, layers)


def supernet(args: argparse.Namespace) -> Program:
    """Steps of all weights of `one_shot.py`."""
    options = argparse.Namespace(size=16, colours=3, batch=BATCH)
    planned = ChoicePlan(variant("fairnas_cifar"), (16, 16, 3), 10)
    sides = {"nasjax": one_shot.our_program(options, planned, "all")[0]()}
    for name, compiled in (("eager", False), ("compiled", True))[: 1 if args.skip_compile else 2]:
        sides[name] = one_shot.torch_step(options, planned, "all", compiled)[0]
    layers = Counter[Layer]()

    def add(step: Step, size: int, share: float, first: bool = False) -> int:
        deep = step.kind == "depthwise"
        group = "first layers" if first else f"depthwise {step.size}x{step.size}" if deep else step.kind
        kernel = (step.size, step.size)
        layers[Layer(group, size, step.c_in, step.c_out, kernel, step.stride, deep, step.activation, first)] += share  # type: ignore[assignment]
        return -(-size // step.stride)

    before, after = frame_steps(planned)
    size = 16
    for i, step in enumerate(before.values()):
        size = add(step, size, 1, i == 0)
    space = planned.space
    for shape in space.layer_shapes:
        for name in space.operators:
            inside = size
            for step in block(space.family, name, shape).main:
                inside = add(step, inside, 1 / len(space.operators))
        size = inside
    for step in after.values():
        add(step, size, 1)
    return Program(sides, layers, args.steps)


def alone(layer: Layer) -> dict[str, dict[str, Callable[[], Any]]]:
    """Forward and backward of the layer's convolution, and of its batch norm and activation, on both sides."""
    random = np.random.default_rng(0)
    out = -(-layer.size // layer.stride)
    x = random.standard_normal((BATCH, layer.size, layer.size, layer.c_in), np.float32)
    y = random.standard_normal((BATCH, out, out, layer.c_out), np.float32)
    w = random.standard_normal((*layer.kernel, *([] if layer.depthwise else [layer.c_in]), layer.c_out), np.float32)
    one = np.ones(layer.c_out, np.float32)
    active = {"relu": relu, "relu6": relu6, "none": lambda x: x}[layer.activation]

    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        if layer.depthwise:
            return depthwise_conv2d(x, w, layer.stride)
        return conv2d(x, w, (layer.stride, layer.stride))

    def norm(y: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
        return active(batch_norm(y, gamma, beta, 0 * beta, 1 + 0 * beta, train=True)[0])

    def jax_side(f: Callable[..., Any], g: np.ndarray, moving: list[np.ndarray], *still: np.ndarray) -> Any:
        def both(moving: list[Any], still: Any, g: Any) -> Any:
            value, pullback = jax.vjp(lambda moving: f(*still, *moving), moving)
            return value, pullback(g)

        given = jax.tree.map(jnp.asarray, (moving, still, g))
        program = compile_lowered(jax.jit(both).lower(*given))
        return lambda: jax.block_until_ready(program(*given))

    def tensor(a: np.ndarray) -> torch.Tensor:
        return torch.tensor(a).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    tx, ty, tone = tensor(x), tensor(y), torch.tensor(one)
    tw = tensor(w[..., None].transpose(2, 0, 1, 3)) if layer.depthwise else tensor(w.transpose(3, 0, 1, 2))
    pads, groups = tuple(k // 2 for k in layer.kernel), layer.c_out if layer.depthwise else 1
    acts = {"relu": F.relu_, "relu6": F.relu6, "none": lambda x: x}[layer.activation]

    def torch_side(f: Callable[..., Any], *moving: torch.Tensor) -> Any:
        leaves = [z.detach().clone().requires_grad_() for z in moving]
        return lambda: torch.autograd.grad(f(*leaves), leaves, ty)

    def tconv(*of: torch.Tensor) -> torch.Tensor:
        return F.conv2d(*((tx, *of) if layer.first else of), None, layer.stride, pads, 1, groups)

    def tnorm(y: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return acts(F.batch_norm(y, torch.zeros_like(tone), tone.clone(), gamma, beta, True))

    ours = jax_side(conv, y, [w], x) if layer.first else jax_side(conv, y, [x, w])
    return {
        layer.group: {"nasjax": ours, "eager": torch_side(tconv, *([tw] if layer.first else [tx, tw]))},
        "batch norm, activation": {
            "nasjax": jax_side(norm, y, [y, one, one]),
            "eager": torch_side(tnorm, ty, tone, tone),
        },
    }


def rounds_of(sides: dict[str, Callable[[], Any]], rounds: int, steps: int = 1) -> dict[str, np.ndarray]:
    """CPU ms of a step in each round, sides in turn."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, run in sides.items():
            began = time.process_time()
            for _ in range(steps):
                run()
            if round_:  # the first warms up
                spent[name].append(1e3 * (time.process_time() - began) / steps)
    return {name: np.asarray(times) for name, times in spent.items()}


def peaks(rounds: int) -> dict[str, float]:
    """GFLOP/s of a matrix product and GB/s of a stream, on both sides."""
    a, b = np.ones((1536, 1536), np.float32), np.ones((65536, 112), np.float32)
    (xa, xb), (ta, tb) = map(jnp.asarray, (a, b)), map(torch.tensor, (a, b))
    product, stream = jax.jit(jnp.matmul), jax.jit(lambda b: b + 2 * b)
    sides: dict[str, Callable[[], Any]] = {
        "XLA, GFLOP/s": lambda: product(xa, xa).block_until_ready(),
        "PyTorch, GFLOP/s": lambda: torch.mm(ta, ta),
        "XLA, GB/s": lambda: stream(xb).block_until_ready(),
        "PyTorch, GB/s": lambda: torch.add(tb, tb, alpha=2.0),
    }
    work = {"GFLOP/s": 2 * 1536**3, "GB/s": 2 * b.nbytes}
    found = rounds_of(sides, 3 * rounds)
    return {name: work[name.split(", ")[1]] / float(np.median(times)) / 1e6 for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="child,supernet", help="comma-separated")
    parser.add_argument("--child", type=int, default=0, help="which of population.py's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="of a supernet in a round, a path each")
    parser.add_argument("--skip-compile", action="store_true", help="without torch.compile")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before JAX counts the cores
    keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    torch.set_num_threads(1)
    best = peaks(args.rounds)
    print("; ".join(f"{name} {value:.0f}" for name, value in best.items()), end="\n\n")
    facts: dict[str, Any] = {"benchmark": "roofline", **vars(args), "peaks": best}
    for name in args.programs.split(","):
        program = {"child": child, "supernet": supernet}[name](args)
        found = rounds_of(program.sides, args.rounds, program.steps)
        ms = {side: float(np.median(times)) for side, times in found.items()}
        macs, moved = (sum(getattr(layer, of) * n for layer, n in program.layers.items()) for of in ("macs", "bytes"))
        flops = 6 * macs
        least = 1e3 * (flops / best["XLA, GFLOP/s"] + moved / max(best["XLA, GB/s"], best["PyTorch, GB/s"])) / 1e9
        print(f"{name}: {3 * macs / 1e9:.1f}G multiply-adds and {moved / 1e9:.2f} GB a step of {BATCH}; ", end="")
        print(f"one after the other at the peaks {least:.0f} ms\n")
        print("| side | ms a step | GFLOP/s | of the product's peak | side / nasjax |\n| --- | --- | --- | --- | --- |")
        for side, value in ms.items():
            rate, ratio = flops / value / 1e6, float(np.median(found[side] / found["nasjax"]))
            print(f"| {side} | {value:.0f} | {rate:.0f} | {rate / best['XLA, GFLOP/s']:.2f} | {ratio:.2f} |")
        classes: dict[str, dict[str, float]] = {}
        for layer, n in program.layers.items():
            for group, sides in alone(layer).items():
                for side, times in rounds_of(sides, max(3, args.rounds // 2)).items():
                    of = classes.setdefault(group, {"nasjax": 0.0, "eager": 0.0})
                    of[side] += n * float(np.median(times))
        classes["the rest"] = {s: ms[s] - sum(of[s] for of in classes.values()) for s in ("nasjax", "eager")}
        print("\n| class | ms, nasjax | ms, eager | eager / nasjax |\n| --- | --- | --- | --- |")
        for group, of in classes.items():
            print(f"| {group} | {of['nasjax']:.0f} | {of['eager']:.0f} | {of['eager'] / of['nasjax']:.2f} |")
        print(flush=True)
        facts[name] = {"ms": ms, "macs": 3 * macs, "bytes": moved, "least_ms": least, "classes": classes}
    print(json.dumps(facts | {"jax": jax.__version__, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
