"""MSR-DARTS: no architecture parameters; each edge gets the operator whose last convolution has the least stable rank.

Machida et al. 2021, "MSR-DARTS: Minimum Stable Rank of Differentiable Architecture Search" (JSAI 2021;
arXiv:2009.09209). Where the article and the authors' code differ, the article is the default and the code an option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.learners.descent import at_rest, clip, cosine, descend
from nasjax.learners.normalised import Convs, Kernels, get, iterate, normalise, put, start
from nasjax.ops import stable_rank
from nasjax.spaces.darts_cell.derivation import architecture, cell_by_cell, every_edge, kept_pairs
from nasjax.spaces.darts_cell.space import CELLS, EDGES
from nasjax.train.accumulate import passes_in_parts
from nasjax.train.compiling import jit
from nasjax.train.objective import CLASSIFICATION, Objective
from nasjax.train.parallel import replicate
from nasjax.train.passes import gradient_pass, validation
from nasjax.train.sgd import Sgd
from nasjax.types import Key, Learner, Network, PyTree

OPERATORS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")  # what has weights to judge, by default


class LastKernels(NamedTuple):
    """The 1x1 convolutions that end the operators of one cell."""

    cell: str  # "normal" or "reduce"
    size: tuple[int, int]  # height and width of the cell's output
    kernels: jax.Array  # f32[14, O, C, C], by edge and operator


class Layout(NamedTuple):
    """Where the convolutions are in a network's parameters; `search_layout` makes it for `nets.darts_cell.mixed`."""

    convs: Sequence[Convs]  # every convolution inside an operator
    last: Callable[[PyTree], list[LastKernels]]  # params -> one entry per cell
    operators: tuple[str, ...] = OPERATORS  # of the search network, on every edge


@dataclass(frozen=True)
class Score:
    """How the stable rank of an operator is measured.

    Attributes:
      operator: False measures the kernel matrix; True the circular convolution on the cell's output map, as the
        authors' code does. For the 1x1 kernels that end every operator, the second is height * width times the first.
      compat: with `operator`, repeats the authors' code: in reduction cells, edges between intermediate nodes count
        with the size of the cell's input, so their ranks are 4 times too large beside the others.

    Raises:
      ValueError: compat without operator.
    """

    operator: bool = False
    compat: bool = False

    def __post_init__(self) -> None:
        if self.compat and not self.operator:
            raise ValueError("compat changes only the operator's rank; write Score(operator=True, compat=True)")


class MsrState(NamedTuple):
    """A search in progress; everything in it is an array."""

    params: PyTree  # as trained, not normalised
    momentum: PyTree  # SGD's buffer, as params
    batch_stats: PyTree
    vectors: Kernels  # u of the dense convolutions, kept between steps
    normalised: Kernels  # the normalised kernels of the last training pass, which validation uses
    choice: PyTree  # mixing weights, {"normal": f32[14, 4], "reduce": f32[14, 4]}, or of every cell {"cell0": ...}
    best_params: PyTree  # of the epoch with the lowest validation error, normalised
    best_error: Any  # f32[], its error: 1 - sign * metric; inf = none yet
    epoch: Any  # i32[], epochs done
    valid_loss: Any  # f32[], nats, of the last epoch; NaN = not measured
    valid_accuracy: Any  # f32[], the objective's metric, likewise; the name is that of written checkpoints


def msr_darts(
    network: Network,
    layout: Layout,
    *,
    epochs: int = 50,
    sgd: Sgd | None = None,
    iterations: int = 5,
    weigh_by_rank: bool = False,
    own_rank: bool = False,
    score: Score | None = None,
    objective: Objective = CLASSIFICATION,
    accumulate: int = 1,
    devices: int | None = None,
) -> Learner:
    """The learner of MSR-DARTS, CIFAR-10 settings (batch 128, training to validation images 4:1).

    Every convolution inside an operator is divided by its spectral norm, and the gradient flows through the norm. Every
    training pass estimates the norm anew.

    Args:
      network: `nets.darts_cell.mixed(operators=layout.operators)`.
      layout: where the convolutions are in the network's parameters.
      epochs, sgd, objective, accumulate, devices: as in `bilevel`.
      iterations: steps of power iteration per training pass.
      weigh_by_rank: False sums the operators (the article); True weighs them by softmax(-stable rank), computed at the
        start of each epoch; ours: of the mean over the cells of a type, as in the genotype.
      own_rank: with `weigh_by_rank`, of each cell's own edge, as the authors' code does. The network's choice then has
        an entry for every cell as well.
      score: how the rank is measured; None = `Score()`.

    Returns:
      Learner; `batch` is {"train": (x, y)}. `epoch` keeps the weights of the lowest error on `val_batches`; without
      batches, the latest.
    """
    if epochs < 1 or iterations < 1:
        raise ValueError(f"epochs and iterations must be >= 1, got {epochs} and {iterations}")
    sgd = sgd or Sgd()
    convs, score = layout.convs, score or Score()
    gradients = passes_in_parts(gradient_pass(network, objective, devices), accumulate)
    validate = validation(network, objective, devices)

    @jit
    def prepare(key: Key, params: PyTree, kept: Kernels) -> tuple[PyTree, Kernels, Callable[..., Any]]:
        """Normalised parameters, the vectors to keep, and the pullback of the normalisation."""
        vectors = iterate(key, params, convs, kept, iterations)
        normalised, pullback = jax.vjp(lambda params: normalise(params, convs, vectors), params)
        return normalised, {name: vectors[name][0] for name in kept}, pullback

    @jit
    def update(
        params: PyTree, momentum: PyTree, pullback: Callable[..., Any], grads: PyTree, rate: Any
    ) -> tuple[PyTree, PyTree]:
        return descend(sgd, params, momentum, clip(pullback(grads)[0], sgd.clip), rate)

    def ones() -> PyTree:
        return {cell: jnp.ones((len(EDGES), len(layout.operators))) for cell in CELLS}

    @jit
    def weights(params: PyTree) -> PyTree:
        if not weigh_by_rank:
            return ones()
        last = layout.last(params)
        ranks = mean_ranks(last, score) | (cell_ranks(last, score) if own_rank else {})
        return {cell: jax.nn.softmax(-rank) for cell, rank in ranks.items()}

    def init(key: Key, batch: PyTree) -> MsrState:
        key_start, key_depthwise = jax.random.split(key)
        key_network, key_vectors = jax.random.split(key_start)
        variables = network.init(key_network, ones(), batch["train"][0])
        vectors = jit(lambda key, params: start(key, params, convs))(key_vectors, variables["params"])
        arrays = {**variables, "momentum": at_rest(variables["params"]), "vectors": vectors}
        normalised, _, _ = prepare(key_depthwise, arrays["params"], arrays["vectors"])
        return MsrState(
            **arrays,
            normalised=get(normalised, convs),
            choice=weights(arrays["params"]),
            best_params=normalised,
            best_error=np.float32(np.inf),
            epoch=np.int32(0),
            valid_loss=np.float32(np.nan),
            valid_accuracy=np.float32(np.nan),
        )

    def step(key: Key, state: MsrState, batch: PyTree) -> tuple[MsrState, dict[str, Any]]:
        rate, state = np.float32(cosine(sgd, int(state.epoch), epochs)), replicate(state, devices)
        key_depthwise, key_network = jax.random.split(key)
        normalised, vectors, pullback = prepare(key_depthwise, state.params, state.vectors)
        at = gradients(normalised, state.batch_stats, state.choice, key_network, None, batch["train"])
        params, momentum = update(state.params, state.momentum, pullback, at.params, rate)
        state = state._replace(
            params=params,
            momentum=momentum,
            batch_stats=at.batch_stats,
            vectors=vectors,
            normalised=get(normalised, convs),
        )
        return state, {"train_loss": at.loss, f"train_{objective.metric.name}": at.score}

    def epoch(key: Key, state: MsrState, val_batches: Iterable[PyTree] = ()) -> tuple[MsrState, bool]:
        state = replicate(state, devices)
        params = put(state.params, state.normalised)
        loss, metric = validate(params, state.batch_stats, state.choice, val_batches)
        done, error = int(state.epoch) + 1, 1 - objective.metric.sign * metric
        if error < state.best_error or np.isinf(state.best_error):  # a NaN replaces nothing that was measured
            state = state._replace(best_params=params, best_error=np.float32(np.inf if np.isnan(error) else error))
        state = state._replace(
            choice=weights(state.params),
            epoch=np.int32(done),
            valid_loss=np.float32(loss),
            valid_accuracy=np.float32(metric),
        )
        return state, done >= epochs

    return Learner(init, step, epoch)


def cell_ranks(last: Sequence[LastKernels], score: Score) -> dict[str, jax.Array]:
    """Stable ranks of each edge's operators in every cell: f32[14, 4] for "cell0", "cell1", ..."""
    between = np.array([source >= 2 for source, _ in EDGES])  # edges that start at an intermediate node
    ranks = {}
    for k, (cell, (height, width), kernels) in enumerate(last):
        rank = stable_rank.matrix(kernels)
        if score.operator:
            enlarged = np.where(between, 4, 1) if score.compat and cell == "reduce" else np.ones(len(EDGES))
            rank = rank * (height * width * enlarged)[:, None]
        ranks[f"cell{k}"] = rank
    return ranks


def mean_ranks(last: Sequence[LastKernels], score: Score) -> dict[str, jax.Array]:
    """Stable ranks of each edge's operators, mean over the cells of a type: f32[14, 4] for "normal" and "reduce"."""
    ranks: dict[str, list[jax.Array]] = {cell: [] for cell in CELLS}
    for one, rank in zip(last, cell_ranks(last, score).values(), strict=True):
        ranks[one.cell].append(rank)
    return {cell: jnp.stack(values).mean(0) for cell, values in ranks.items()}


def stable_ranks(params: PyTree, layout: Layout, score: Score | None = None) -> dict[str, np.ndarray]:
    """Mean stable ranks of `state.params` (for the report's histories) or `state.best_params`, on the host."""
    return {cell: np.asarray(rank) for cell, rank in mean_ranks(layout.last(params), score or Score()).items()}


def derive(state: MsrState, layout: Layout, score: Score | None = None, *, each_cell: bool = False) -> dict[str, Any]:
    """The discrete architecture, as JSON: the operator of least rank on each edge, two edges of least rank per node.

    It is read from the weights of the epoch with the lowest validation error (equations 2 and 3 of the article). With
    `each_cell` every cell of the network is derived from its own ranks, without the mean over the cells of its type.
    """
    names = every_edge(layout.operators)
    if each_cell:
        own = cell_ranks(layout.last(state.best_params), score or Score())
        pairs = [kept_pairs(-np.asarray(rank), names[CELLS[0]]) for rank in own.values()]
        return cell_by_cell(pairs, names[CELLS[0]])
    ranks = stable_ranks(state.best_params, layout, score)
    return architecture({cell: kept_pairs(-rank, names[cell]) for cell, rank in ranks.items()}, names)
