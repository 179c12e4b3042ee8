"""How far DARTS's finite difference is from the exact second-order gradient, why, and what that does to alpha.

    python benchmarks/truth/second_order.py --data_dir=FOLDER network   # CIFAR-10, the search network; about an hour
    python benchmarks/truth/second_order.py causes                      # a small one in float64; some minutes

Liu et al. 2019 (arXiv:1806.09055), section 2.3, take the mixed product d <d L_train / dw, v> / d alpha, v = d L_val /
dw', by a central difference of step 0.01 / ||v||; reverse mode over reverse mode gives it exactly. `network` trains the
published search network (C = 16, 8 cells, batch 16) by first-order steps, and on the way compares both on pairs of
batches with the exact product in float64: what the step does in float64 is the step's own error, the rest is rounding.
Steps are given as parts of the paper's. "product" is the relative distance of the products, "cosine" their angle's,
"alpha" the distance of the whole gradients by alpha, through the softmax; "signs" is the share of alphas whose gradient
has another sign, which is what Adam's first step follows; "term" is how large the second-order term is beside the rest
of the gradient, and "first order" how far the gradient without look-ahead is. "fall" is judged by no derivative: how
much the validation loss behind the step of w falls when every alpha moves by `--move` against the sign of its gradient,
as Adam's first step does. What it falls by without the product, and by the gradient without look-ahead, is told above
the table.

`causes` changes one thing at a time: without ReLU's kink (softplus) and max-pooling the error of a central difference
falls with the square of the step; with a large epsilon in batch norm, or a larger batch, its statistics change less.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.data.dataset import DataConfig
from nasjax.learners.architecture_gradient import mixed_difference
from nasjax.learners.bilevel import BilevelState
from nasjax.learners.darts import darts, softmax_relaxation
from nasjax.learners.descent import cosine, descend, inner
from nasjax.learners.mixed_product import mixed_product
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.problem.data import load
from nasjax.spaces.darts_cell.space import OPERATORS
from nasjax.tasks.classification import TASK
from nasjax.train.augment import Augment
from nasjax.train.batches import paired
from nasjax.train.fit import resident
from nasjax.train.objective import CLASSIFICATION
from nasjax.train.passes import gradient_pass
from nasjax.train.sgd import Sgd
from nasjax.types import Network, PyTree


class Row(NamedTuple):
    """A second-order gradient beside the exact one in float64, at one pair of batches."""

    steps: int  # of first-order search before
    pair: int
    dtype: str
    factor: float  # of the paper's step; 0 = the exact product
    product: float  # ||product - reference|| / ||reference||, by the mixing weights
    cosine: float  # of the angle between product and reference
    alpha: float  # the distance as of product, of the whole gradients by alpha
    signs: float  # share of alphas whose gradient has another sign
    term: float  # ||second-order term|| / ||the rest of the gradient||, by alpha
    first: float  # relative distance of the gradient at w, without look-ahead, by alpha
    fall: float  # of the validation loss, in nats, after a step by its signs


class Products(NamedTuple):
    """What a pair of batches says in one precision, on the host."""

    product: dict[float, PyTree]  # step's factor -> by the mixing weights; 0 = exact
    whole: dict[float, PyTree]  # the gradients by alpha with it
    first: PyTree  # by alpha, at w
    before: PyTree  # by alpha, at w', without the product
    lengths: dict[str, float]
    falls: dict[Any, float]  # step's factor, "no product" or "first order" -> of the validation loss, by its signs


class Compared(NamedTuple):
    """What both gradients need, compiled once for a network."""

    relaxation: Any
    gradients: Any
    mixed: Any


def compared(network: Network, operators: int) -> Compared:
    relaxation = softmax_relaxation(operators)
    return Compared(relaxation, gradient_pass(network, CLASSIFICATION, 1), mixed_product(network, CLASSIFICATION, 1))


def norm(tree: PyTree) -> float:
    return float(jnp.sqrt(inner(tree, tree)))


def products(
    of: Compared, state: BilevelState, batch: PyTree, sgd: Sgd, rate: float, factors: Sequence[float], move: float
) -> Products:
    """The exact product and a central difference of every step, in the precision of the state and the images."""
    choice, back = jax.vjp(lambda alpha: of.relaxation.choice(alpha, None, 0), state.alpha)
    fixed = (state.batch_stats, choice, jax.random.key(0), None)

    def at(params: PyTree, batch: PyTree, choice: PyTree = choice) -> Any:
        return of.gradients(params, state.batch_stats, choice, *fixed[2:], batch)

    def behind(alpha: PyTree) -> float:
        """The validation loss at w'(alpha)."""
        mixed = of.relaxation.choice(alpha, None, 0)
        down = at(state.params, batch["train"], mixed).params
        return float(at(descend(sgd, state.params, state.momentum, down, rate)[0], batch["val"], mixed).loss)

    now = at(state.params, batch["val"]).choice
    ahead = descend(sgd, state.params, state.momentum, at(state.params, batch["train"]).params, rate)[0]
    there = at(ahead, batch["val"])
    v = there.params
    found = {0.0: of.mixed(state.params, *fixed, v, batch["train"])}
    for factor in factors:
        found[factor] = mixed_difference(lambda w: at(w, batch["train"]).choice, state.params, v, 0.01 * factor)
    paper = 0.01 / norm(v)
    whole = {
        factor: back(jax.tree.map(lambda g, p: g - rate * p, there.choice, product))[0]
        for factor, product in found.items()
    }
    without, first = back(there.choice)[0], back(now)[0]
    signed = {**whole, "no product": without, "first order": first}
    start = behind(state.alpha)
    falls = {
        name: start - behind(jax.tree.map(lambda a, g: a - move * jnp.sign(g), state.alpha, gradient))
        for name, gradient in signed.items()
    }
    # How far the paper's step moves each array, relative to it: batch norm feels that, and not how long arrays are.
    leaves = zip(*map(jax.tree.leaves, (state.params, v)), strict=True)
    moves = [paper * norm(d) / norm(p) for p, d in leaves if norm(p)]
    lengths = {
        "w": norm(state.params),
        "v": norm(v),
        "eps": paper,
        "most": max(moves),
        "median": float(np.median(moves)),
    }
    return jax.device_get(Products(found, whole, first, without, lengths, {}))._replace(falls=falls)


def start_in_float64() -> None:
    """Of a process: JAX mixes up programs that were traced before and after this is switched in one."""
    jax.config.update("jax_enable_x64", True)


@functools.cache
def published(channels: int, layers: int) -> Compared:
    """What both gradients of the search network need."""
    return compared(darts_search(channels=channels, layers=layers), len(OPERATORS))


def in_float64(form: tuple[int, int], state: BilevelState, batch: PyTree, *settings: Any) -> Products:
    """`products` of arrays on the host, in float64; in a process of its own."""
    state, batch = jax.tree.map(
        lambda x: jnp.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype), (state, batch)
    )
    return products(published(*form), state, batch, *settings)


def compare(steps: int, pair: int, dtype: str, found: Products, right: Products) -> list[Row]:
    """Every product beside the exact one of `right`."""

    def flat(tree: PyTree) -> np.ndarray:
        return np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])

    def apart(a: PyTree, b: PyTree) -> float:
        return float(np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b)))

    def cosine(a: PyTree, b: PyTree) -> float:
        return float(flat(a) @ flat(b) / (np.linalg.norm(flat(a)) * np.linalg.norm(flat(b))))

    def signs(a: PyTree, b: PyTree) -> float:
        other = [np.sign(x) != np.sign(y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
        return float(np.mean(np.concatenate([np.ravel(x) for x in other])))

    exact = right.whole[0.0]
    return [
        Row(
            steps,
            pair,
            dtype,
            factor,
            apart(found.product[factor], right.product[0.0]),
            cosine(found.product[factor], right.product[0.0]),
            apart(found.whole[factor], exact),
            signs(found.whole[factor], exact),
            apart(exact, right.before),
            apart(right.first, exact),
            found.falls[factor],
        )
        for factor in sorted(found.product, key=lambda factor: -factor or -np.inf)  # exact, then the longest step
    ]


def show(rows: Sequence[Row]) -> None:
    """Means over pairs."""
    print("| steps | precision | step / paper's | product | cosine | alpha | signs | term | first order | fall |")
    print("|" + " ---: |" * 10)
    for key in dict.fromkeys(row[:1] + row[2:4] for row in rows):
        mean = np.mean([row[4:] for row in rows if row[:1] + row[2:4] == key], 0)
        step = f"{key[2]:g}" if key[2] else "exact"
        print(f"| {key[0]} | {key[1]} | {step} | " + " | ".join(f"{value:.3g}" for value in mean) + " |", flush=True)


def on_network(args: argparse.Namespace) -> list[Row]:
    """The published search network, on its way through a search."""
    config = DataConfig(
        name="cifar10",
        data_dir=args.data_dir,
        resize=args.size if args.size < 32 else None,
        train_limit=args.images // 2,
        valid_limit=args.images // 2,
        valid_size=25_000,
    )
    batches = paired(resident(load(config)), TASK, batch_size=args.batch, cfg=Augment(crop="pad"))
    sgd, form = Sgd(), (args.channels, args.layers)
    learner, of = darts(darts_search(channels=args.channels, layers=args.layers), sgd=sgd, devices=1), published(*form)
    key_init, key = jax.random.split(jax.random.key(args.seed))
    order = batches.shuffle(key, 0)
    state = learner.init(key_init, batches.batch(key, order, 0))
    rows: list[Row] = []
    other = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_in_float64)
    for t in range(max(args.steps) + 1):
        if t in args.steps:
            for pair in range(args.pairs):
                # Of an order of its own, so of images that the search has not just seen.
                batch = batches.batch(jax.random.fold_in(key, 1), batches.shuffle(key, 1), pair)
                at = (sgd, cosine(sgd, 0, 50), args.factors, args.move)
                single = products(of, state, batch, *at)
                host = jax.device_get((state, batch))
                double = other.submit(in_float64, form, host[0], host[1], *at).result()
                rows += compare(t, pair, "float64", double, double) + compare(t, pair, "float32", single, double)
                falls = {str(name): fall for name, fall in double.falls.items()}
                print("# " + json.dumps({"steps": t, "pair": pair, **double.lengths, "falls": falls}), flush=True)
            show([row for row in rows if row.steps == t])
        if t < max(args.steps):
            state, metrics = learner.step(key, state, batches.batch(key, order, t))
            if t % 50 == 0:
                print(f"# step {t}: training loss {float(metrics['train_loss']):.3f}", flush=True)
    other.shutdown()
    return rows


SMALL: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without max-pooling": {"pooling": False},
    "softplus for ReLU": {"smooth": True},
    "both": {"smooth": True, "pooling": False},
    "batch 64": {"batch": 64},
    "epsilon of batch norm 1": {"bn_eps": 1.0},
    "all three": {"smooth": True, "pooling": False, "bn_eps": 1.0},
}


def small(args: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """One row of `causes`: a small network in float64, on noise; in a process of its own, as it changes ReLU."""
    start_in_float64()
    if changes.get("smooth"):
        nn.relu = lambda x: jax.nn.softplus(args.sharpness * x) / args.sharpness
    left_out = ("max_pool_3x3",) if not changes.get("pooling", True) else ()
    operators = tuple(name for name in OPERATORS if name not in left_out)
    size = changes.get("batch", 4)
    network = darts_search(channels=4, layers=args.cells, operators=operators, bn_eps=changes.get("bn_eps", 1e-5))
    of, random = compared(network, len(operators)), np.random.default_rng(args.seed)
    batch = {
        name: (jnp.asarray(random.standard_normal((size, 16, 16, 3))), random.integers(0, 10, size))
        for name in ("train", "val")
    }
    sgd = Sgd()
    learner = darts(network, sgd=sgd, operators=len(operators), devices=1)
    state = learner.init(jax.random.key(args.seed), batch)
    found = products(of, state, batch, sgd, cosine(sgd, 0, 50), args.factors, args.move)
    errors = [row.product for row in compare(0, 0, "float64", found, found) if row.factor]
    return {"errors": errors, **found.lengths}


def causes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every change of the small network."""
    factors = args.factors
    print(f"| small network | {' | '.join(f'{factor:g}' for factor in factors)} | largest move of an array |")
    print("|" + " --- |" * (len(factors) + 2))
    found = []
    context = multiprocessing.get_context("spawn")
    for name in args.rows:
        changes = SMALL[name]
        with ProcessPoolExecutor(1, context) as own:
            row = own.submit(small, args, changes).result()
        print(f"| {name} | {' | '.join(f'{error:.2g}' for error in row['errors'])} | {row['most']:.2g} |", flush=True)
        found.append({"name": name, **row})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("network", "causes"))
    parser.add_argument("--data_dir")
    parser.add_argument("--steps", type=int, nargs="*", default=[0, 50, 100, 200, 400], help="first-order steps before")
    parser.add_argument(
        "--factors", type=float, nargs="*", default=[1, 0.1, 0.01, 1e-3, 1e-4], help="of the paper's step"
    )
    parser.add_argument("--pairs", type=int, default=2, help="pairs of batches at each place")
    parser.add_argument("--move", type=float, default=3e-4, help="of every alpha, for the fall; Adam's rate")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--sharpness", type=float, default=4.0, help="of the softplus in `causes`")
    parser.add_argument("--cells", type=int, default=3, help="of `causes`")
    parser.add_argument("--rows", nargs="*", default=list(SMALL), choices=SMALL, help="of `causes`")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what == "network" and not args.data_dir:
        parser.error("network: give --data_dir, the folder of CIFAR-10")
    found = causes(args) if args.what == "causes" else [row._asdict() for row in on_network(args)]
    settings = {key: value for key, value in vars(args).items() if key != "data_dir"}
    print(json.dumps({"benchmark": "truth/second_order", **settings, "rows": found, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
