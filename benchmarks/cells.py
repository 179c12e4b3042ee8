"""Recurrent cells trained per minute: a population as one program, one by one in JAX, one by one in PyTorch eager.

    python benchmarks/cells.py [--cells=16] [--hidden=64] [--batch=20] [--steps=35] [--words=0] [--train_steps=143]

Every way takes the same training step of the same random cells of base 8: two layers, truncated backpropagation
over `--steps`, norm clipped at 5, plain SGD. `--words=0` times the cells alone on given inputs, with a squared error
on the last layer's output; `--words=10000` the language model with embedding and softmax. "exact" is one compiled
program per cell, "masked" one program that serves cell after cell. `--train_steps` is what one cell gets (143 are two
epochs of 50,000 words); "with compiling" counts every compilation once. The population goes through the program
`--chunk` cells at a time: on a CPU what four of them need stays in the cache. CPU ms is processor time, which other
work on the machine disturbs less.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.nets.cell_tree.cell import masked_step, step
from nasjax.nets.cell_tree.model import recurrent_model
from nasjax.nets.cell_tree.recurrent import layer
from nasjax.spaces.cell_tree.plan import RecurrentForm, plan
from nasjax.spaces.cell_tree.space import CellTree
from nasjax.train.compiling import compile_lowered

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cells", type=int, default=16)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--batch", type=int, default=20)
parser.add_argument("--steps", type=int, default=35)
parser.add_argument("--words", type=int, default=0)
parser.add_argument("--train_steps", type=int, default=143)
parser.add_argument("--chunk", type=int, default=4, help="cells of the population at a time; 0 = all")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument(
    "--exact", type=int, default=2, help="cells that are compiled by themselves; the rest is taken as they"
)
parser.add_argument("--torch_threads", type=int, default=2)
parser.add_argument("--torch_device", default="cpu")

SPACE = CellTree(8)
RATE, CLIP = 0.1, 5.0


def training_step(args, cell):
    """step(params, choice, x, y, state) -> (params, state); init(key) -> params. `cell` None = the choice."""
    form = RecurrentForm(hidden=args.hidden)
    network = recurrent_model(plan(cell or 8, form, max(args.words, 2)), None if cell else SPACE)
    compute = step(cell) if cell else masked_step(SPACE)

    def init(key):
        params = network.init(key, None, None)["params"]
        return params if args.words else {name: params[name] for name in ("layer0", "layer1")}

    def loss(params, choice, x, y, state):
        if args.words:
            (logits, state), _ = network.apply({"params": params}, choice, (x, state))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), state
        after = []
        for n in range(2):
            x, last = layer(compute, params[f"layer{n}"], choice, x, (state[0][n], state[1][n]))
            after.append(last)
        return jnp.square(x - y).mean(), tuple(jnp.stack(leaf) for leaf in zip(*after, strict=True))

    def train(params, choice, x, y, state):
        grads, state = jax.grad(loss, has_aux=True)(params, choice, x, y, state)
        scale = RATE * jnp.minimum(1.0, CLIP / (optax.global_norm(grads) + 1e-9))
        return jax.tree.map(lambda p, g: p - scale * g, params, grads), state

    return init, train, network.carry(args.batch)


def data(args):
    rng = np.random.default_rng(0)
    if args.words:
        return tuple(rng.integers(0, args.words, (args.batch, args.steps)).astype(np.int32) for _ in range(2))
    shape = (args.steps, args.batch, args.hidden)
    return rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


def compiled(train, *example):
    begin = time.perf_counter()
    program = compile_lowered(jax.jit(train, donate_argnums=(0, 4)).lower(*example), thorough=True)  # as a search's
    return program, time.perf_counter() - begin


def stepper(program, params, choice, x, y, state):
    """A function that takes one step and waits for it."""
    held = [jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, state)]

    def go():
        held[:] = program(held[0], choice, x, y, held[1])
        jax.block_until_ready(held)

    return go


def jax_ways(args, archs):
    """name -> (a round of steps, cells that it trains by a step, seconds to compile for all cells)."""
    x, y = data(args)
    init, train, state = training_step(args, None)
    keys = jax.random.split(jax.random.key(1), args.cells)
    together = jax.vmap(init)(keys)
    states = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], args.cells, 0), state)

    def chunked(params, choice, x, y, state):
        def one(member):
            return train(member[0], member[1], x, y, member[2])

        return jax.lax.map(one, (params, choice, state), batch_size=args.chunk or args.cells)

    program, seconds = compiled(chunked, together, archs, x, y, states)
    memory = program.memory_analysis()
    ways = {"population": (stepper(program, together, archs, x, y, states), args.cells, seconds)}
    own = jax.tree.map(lambda leaf: leaf[0], together)
    program, seconds = compiled(train, own, archs[0], x, y, state)
    gos = [stepper(program, own, arch, x, y, state) for arch in archs]
    ways["masked, one by one"] = (lambda: [go() for go in gos], args.cells, seconds)
    programs = []
    for arch in np.asarray(archs[: args.exact]):
        _, train, _ = training_step(args, SPACE.cell(arch))
        programs.append(compiled(train, own, None, x, y, state))
    exact = [stepper(program, own, None, x, y, state) for program, _ in programs]
    if exact:
        mean = statistics.mean(seconds for _, seconds in programs)
        ways["exact, one by one"] = (lambda: [go() for go in exact], len(exact), mean * args.cells)
    return ways, memory.temp_size_in_bytes + memory.argument_size_in_bytes


def torch_way(args, archs):
    try:
        import torch
    except ImportError:
        print("PyTorch is not here: its row is left out")
        return {}
    torch.set_num_threads(args.torch_threads)
    device = torch.device(args.torch_device)
    combine = {"add": torch.add, "elem_mult": torch.mul}
    activate = {"identity": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
    x, y = (torch.tensor(a, device=device) for a in data(args))
    x, y = (a.long() for a in (x, y)) if args.words else (x, y)

    def one_step(cell, u, w, c):
        """As a person writes it: the leaves one by one, then the nodes above them."""
        outs, new = [], c
        u, w = u.chunk(cell.base, -1), w.chunk(cell.base, -1)
        for node, (combination, activation) in enumerate(cell.nodes):
            children = cell.children(node)
            pair = (u[node], w[node]) if children is None else (outs[children[0]], outs[children[1]])
            pre = combine[combination](*pair)
            new = pre if node == cell.new_from else new
            out = activate[activation](pre)
            if node == cell.inject_at:
                out = activate[cell.inject[1]](combine[cell.inject[0]](out, c))
            outs.append(out)
        return new, outs[-1]

    def trainer(cell):
        hidden = args.hidden
        shapes = [(hidden, 8 * hidden)] * 4 + ([(args.words, hidden), (hidden, args.words)] if args.words else [])
        params = [torch.empty(shape, device=device).uniform_(-0.1, 0.1).requires_grad_() for shape in shapes]
        held = [(torch.zeros(args.batch, hidden, device=device),) * 2] * 2

        def go():
            values = torch.nn.functional.embedding(x.T, params[4]) if args.words else x
            for n in range(2):
                u = values @ params[2 * n]  # the products of the input for all steps at once, as in JAX
                c, h = held[n]
                out = []
                for t in range(args.steps):
                    c, h = one_step(cell, u[t], h @ params[2 * n + 1], c)
                    out.append(h)
                held[n] = (c.detach(), h.detach())
                values = torch.stack(out)
            if args.words:
                logits = values @ params[5]
                loss = torch.nn.functional.cross_entropy(logits.reshape(-1, args.words), y.T.reshape(-1))
            else:
                loss = (values - y).square().mean()
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
                scale = RATE * torch.clamp(CLIP / (norm + 1e-9), max=1.0)
                for p, g in zip(params, grads, strict=True):
                    p -= scale * g
            if args.torch_device != "cpu":
                torch.cuda.synchronize()

        return go

    gos = [trainer(SPACE.cell(np.asarray(arch))) for arch in archs]
    return {"PyTorch eager, one by one": (lambda: [go() for go in gos], args.cells, 0.0)}


def main() -> None:
    args = parser.parse_args()
    archs = jax.vmap(SPACE.sample)(jax.random.split(jax.random.key(0), args.cells))
    ways, memory = jax_ways(args, archs)
    ways |= torch_way(args, archs)
    times = {name: [] for name in ways}
    for n in range(args.rounds + 1):  # in turn; the first round warms up
        for name, (go, _, _) in ways.items():
            begin = time.perf_counter(), time.process_time()
            go()
            if n:
                times[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    what = f"language model, {args.words} words" if args.words else "cells alone"
    device = jax.devices()[0].device_kind
    shape = f"{args.cells} cells, H = {args.hidden}, batch {args.batch}, {args.steps} steps"
    print(f"{what}: {shape}; {args.train_steps} steps a cell; {device}; population {memory / 2**20:.0f} MiB")
    columns = f"{'ms a cell-step':>14} {'CPU ms':>8} {'cells a minute':>14} {'compiling s':>12} {'with compiling':>14}"
    print(f"{'way':28} {columns}")
    rows = {}
    for name, (_, cells, compiling) in ways.items():
        each, cpu = (statistics.median(column) / cells for column in zip(*times[name], strict=True))
        whole = each * args.train_steps * args.cells
        rates = [60 * args.cells / seconds for seconds in (whole, whole + compiling)]
        rows[name] = {
            "ms": 1e3 * each,
            "cpu_ms": 1e3 * cpu,
            "per_minute": rates[0],
            "compile_s": compiling,
            "with_compiling": rates[1],
        }
        print(f"{name:28} {1e3 * each:14.2f} {1e3 * cpu:8.2f} {rates[0]:14.1f} {compiling:12.1f} {rates[1]:14.1f}")
    print(json.dumps({"what": what, **vars(args), "device": device, "jax": jax.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
