"""Convolutions on CPU, forward and both gradients: nasjax.ops.conv2d beside plain lax.conv and PyTorch eager.

    python benchmarks/conv_ops.py [--sizes=8,16,32] [--seconds=1.0] [--children=2]

Two tables: single convolutions (batch 64), and the training step of 6-layer conv-chain children (filters 24..64,
kernels {1,3,5,7}^2, random skips; batch norm, clipping and Nesterov momentum inside) with their compile seconds. All
sides of a row are measured in turn and the fastest call counts. Ours runs inside `lax.scan`, as in training; lax.conv
outside (inside, its gradients are 20 times slower still). PyTorch's wall-clock is the best of its two memory formats on
one and on two threads (named NCHW x2 and so on). On a busy machine wall-clock says little, so the ratio of CPU seconds
stands beside it; that is against one-thread PyTorch, whose threads otherwise spin while they wait for each other.
"""

import argparse
import json
import os
import platform
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nasjax.ops.conv import conv2d
from nasjax.ops.norm import batch_norm

try:
    import torch
except ImportError:
    torch = None

BATCH = 64
SHAPES = [(3, 3, 3, 36), (7, 5, 3, 24), (1, 1, 108, 48), (1, 7, 64, 48), (7, 1, 150, 36), (3, 3, 36, 48)]
SHAPES += [(3, 5, 108, 36), (5, 5, 64, 36), (5, 7, 150, 24), (7, 7, 108, 64)]


def plain_conv(x, w):
    pads = [(k // 2, k // 2) for k in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def measure(sides, seconds):
    """{name: (wall ms, CPU ms)} of one call, the least of those made in `seconds` per side, taken in turn."""
    for run in sides.values():
        run()
    spent = {name: [] for name in sides}
    end = time.perf_counter() + seconds * len(sides)
    while not spent[min(sides)] or time.perf_counter() < end:
        for name, run in sides.items():
            start = time.perf_counter(), time.process_time()
            run()
            spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: 1e3 * np.min(times, 0) for name, times in spent.items()}


def compiled(f, *args):
    """A runner of f(*args), and the seconds that tracing and compiling took."""
    start = time.perf_counter()
    program = jax.jit(f).lower(*args).compile()
    seconds = time.perf_counter() - start
    return lambda: jax.block_until_ready(program(*args)), seconds


# -- single convolutions ---------------------------------------------------------------------------------------------


def conv_sides(size, shape, steps=3):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (BATCH, size, size, shape[2]))
    w, g = jax.random.normal(keys[1], shape), jax.random.normal(keys[2], (BATCH, size, size, shape[3]))

    def once(op, x, w):
        y, pullback = jax.vjp(op, x, w)
        dx, dw = pullback(g + 1e-6 * y)
        return x - 1e-6 * dx, w - 1e-6 * dw  # every step depends on the one before

    def scanned(x, w):
        return lax.scan(lambda xw, _: (once(conv2d, *xw), None), (x, w), None, length=steps)[0]

    sides = {"ours": compiled(scanned, x, w)[0], "lax": compiled(lambda x, w: once(plain_conv, x, w), x, w)[0]}

    def torch_side(layout, threads):
        tx, tw, tg = (torch.tensor(np.asarray(a)).permute(p).contiguous(memory_format=layout) for a, p in (
            (x, (0, 3, 1, 2)), (w, (3, 2, 0, 1)), (g, (0, 3, 1, 2))))  # fmt: skip
        tx.requires_grad_()
        tw.requires_grad_()

        def run():
            torch.set_num_threads(threads)
            y = torch.nn.functional.conv2d(tx, tw, padding=(shape[0] // 2, shape[1] // 2))
            torch.autograd.grad(y, (tx, tw), tg + 1e-6 * y.detach())

        return run

    return sides | torch_sides(torch_side), {"ours": steps}  # and how many convolutions one call makes


def torch_sides(make):
    if torch is None:
        return {}
    layouts = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    return {f"torch {name} x{n}": make(layout, n) for name, layout in layouts.items() for n in (1, 2)}


# -- children --------------------------------------------------------------------------------------------------------


def child(seed, layers=6):
    """[(kh, kw, filters, inputs)] of a random chain; input -1 is the image."""
    rng = np.random.default_rng(seed)
    sizes = [(*rng.choice([1, 3, 5, 7], 2).tolist(), int(rng.choice([24, 36, 48, 64]))) for _ in range(layers)]
    return [(*s, [j for j in range(i) if rng.random() < 0.5] or [-1]) for i, s in enumerate(sizes)]


def widths(layers):
    """Input channels per layer, and the layers that nobody reads."""
    channels = [sum(3 if j < 0 else layers[j][2] for j in inputs) for *_, inputs in layers]
    return channels, sorted(set(range(len(layers))) - {j for *_, inputs in layers for j in inputs})


def jax_child(layers, images, labels, steps):
    channels, head = widths(layers)
    rng = np.random.default_rng(0)
    shapes = [(kh, kw, c, f) for (kh, kw, f, _), c in zip(layers, channels, strict=True)]
    kernels = [np.float32(rng.standard_normal(s) * np.sqrt(2 / np.prod(s[:3]))) for s in shapes]
    params = (
        [(w, jnp.ones(w.shape[3]), jnp.zeros(w.shape[3])) for w in kernels],
        jnp.zeros((sum(layers[j][2] for j in head), 10)),
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, 0.9, nesterov=True))

    def loss(params, x, y):
        outputs = [x]
        for (w, gamma, beta), (*_, inputs) in zip(params[0], layers, strict=True):
            h = conv2d(jnp.concatenate([outputs[j + 1] for j in inputs], -1), w)
            outputs.append(jax.nn.relu(batch_norm(h, gamma, beta, 0 * beta, 0 * beta, train=True)[0]))
        logits = jnp.concatenate([outputs[j + 1].mean((1, 2)) for j in head], -1) @ params[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(carry, xy):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, *xy), state)
        return (optax.apply_updates(params, updates), state), None

    def run(params, state, images, labels):
        return lax.scan(step, (params, state), (images, labels))[0]

    return compiled(run, params, optimizer.init(params), images, labels)


def torch_child(layers, images, labels, layout, threads):
    channels, head = widths(layers)
    net = torch.nn.ModuleList(
        torch.nn.Sequential(
            torch.nn.Conv2d(c, f, (kh, kw), padding=(kh // 2, kw // 2), bias=False),
            torch.nn.BatchNorm2d(f),
            torch.nn.ReLU(),
        )
        for (kh, kw, f, _), c in zip(layers, channels, strict=True)
    ).append(torch.nn.Linear(sum(layers[j][2] for j in head), 10))
    net = net.to(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    images = torch.tensor(np.asarray(images)).permute(0, 1, 4, 2, 3)
    labels = torch.tensor(np.asarray(labels), dtype=torch.long)
    batches = [(x.contiguous(memory_format=layout), y) for x, y in zip(images, labels, strict=True)]

    def run():
        torch.set_num_threads(threads)
        for x, y in batches:
            outputs = [x]
            for block, (*_, inputs) in zip(net, layers, strict=False):
                outputs.append(block(torch.cat([outputs[j + 1] for j in inputs], 1)))
            logits = net[-1](torch.cat([outputs[j + 1].mean((2, 3)) for j in head], 1))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, y).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    return run


def child_sides(size, seed, steps):
    layers, key = child(seed), jax.random.key(seed)
    images = jax.random.normal(key, (steps, BATCH, size, size, 3))
    labels = jax.random.randint(key, (steps, BATCH), 0, 10)
    ours, seconds = jax_child(layers, images, labels, steps)
    sides = {"ours": ours} | torch_sides(lambda layout, n: torch_child(layers, images, labels, layout, n))
    return sides, dict.fromkeys(sides, steps), layers, seconds


# -- tables ----------------------------------------------------------------------------------------------------------


def row(sides, calls, seconds):
    """Wall ms of each side, and how many times faster ours is than torch, by wall-clock and by CPU time."""
    spent = {name: t / calls.get(name, 1) for name, t in measure(sides, seconds).items()}
    out = {name: round(float(spent[name][0]), 2) for name in ("ours", "lax") if name in spent}
    if torch is not None:
        others = {name: t for name, t in spent.items() if name.startswith("torch")}
        best = min(others, key=lambda name: others[name][0])
        cpu = min(t[1] for name, t in others.items() if name.endswith("x1"))
        out |= {"torch": round(float(others[best][0]), 2), "form": best.removeprefix("torch ")}
        out |= {
            "wall_ratio": round(out["torch"] / out["ours"], 2),
            "cpu_ratio": round(float(cpu / spent["ours"][1]), 2),
        }
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="8,16,32", help="image sides")
    parser.add_argument("--seconds", type=float, default=1.0, help="measuring time per cell")
    parser.add_argument("--children", type=int, default=2, help="children per image side")
    args = parser.parse_args()
    sizes = [int(s) for s in args.sizes.split(",")]
    versions = f"jax {jax.__version__}, torch {torch.__version__ if torch else 'absent'}, {platform.python_version()}"
    print(f"{os.cpu_count()} cores of {platform.machine()}, {versions}, float32, batch {BATCH}")
    print("ms per forward and both gradients; ratio > 1: ours is faster than torch (by wall-clock, by CPU time)")
    rows = []
    for size in sizes:
        for shape in SHAPES:
            sides, calls = conv_sides(size, shape)
            rows.append({"size": size, "shape": shape} | row(sides, calls, args.seconds))
            print(*(f"{k} {v}" for k, v in rows[-1].items()), sep="  ", flush=True)
    print("training step of a child, ms")
    for size in sizes:
        for seed in range(args.children):
            sides, calls, layers, seconds = child_sides(size, seed, steps=max(1, 64 // size))
            rows.append({"size": size, "child": seed, "compile_s": round(seconds, 2)} | row(sides, calls, args.seconds))
            print(*(f"{k} {v}" for k, v in rows[-1].items()), layers, sep="  ", flush=True)
    print(json.dumps({"benchmark": "conv_ops", "versions": versions, "batch": BATCH, "rows": rows}))


if __name__ == "__main__":
    main()
