"""The RNN controller: a two-layer LSTM that emits an architecture token by token, with anchor attention.

Zoph & Le 2017, sections 3.1 to 3.3; docs/methods/reinforce.md says what the paper leaves open. The whole sequence is
one `lax.scan` over a static table of steps; a step whose sites are inactive leaves the LSTM as it is. Sampling and
scoring run the same scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.searchers.policy import IMPOSSIBLE, Policy, blank_arch
from nasjax.types import Key, PyTree, Space


class Steps(NamedTuple):
    """The T steps of the controller; K = anchor slots (at least 1), A = most choices of a softmax."""

    columns: np.ndarray  # i32[T, K], the sites that step t decides, one per slot; S = slot not used
    guard: np.ndarray  # i32[T], the step runs if this site is active
    anchor: np.ndarray  # bool[T], an anchor step (all earlier layers at once), else one softmax token
    head: np.ndarray  # i32[T], index of the token's head
    possible: np.ndarray  # bool[T, A], the choices of the token
    layer: np.ndarray  # i32[T]


def step_table(space: Space, heads: dict[str, int]) -> Steps:
    """Groups the sites into steps, in emission order; `heads` maps a softmax group to its number of choices."""
    steps: list[tuple[str, int, list[int], int]] = []  # group, layer, columns, guard
    for s, site in enumerate(space.sites):
        if site.group == "anchor" and steps and steps[-1][:2] == ("anchor", site.layer):
            steps[-1][2].append(s)
        elif site.group != "depth":
            steps.append((site.group, site.layer, [s], s))
    anchors = [t for t, step in enumerate(steps) if step[0] == "anchor"]
    if [(steps[t][1], len(steps[t][2])) for t in anchors] != [(i, i) for i in range(1, len(anchors) + 1)]:
        raise ValueError("every layer i > 0 needs i adjacent anchor sites, for the layers 0..i-1 in order")
    if anchors:  # layer 0 has no anchor to decide, but later layers attend to its hidden state, so it runs the step too
        first, second = (next(t for t, step in enumerate(steps) if step[1] == layer) for layer in (0, 1))
        steps.insert(first + anchors[0] - second, ("anchor", 0, [], steps[first][3]))
    slots = max(len(step[2]) for step in steps)
    unused = len(space.sites)
    names = list(heads)
    arity = [len(space.sites[step[3]].choices) for step in steps]
    return Steps(
        columns=np.array([step[2] + [unused] * (slots - len(step[2])) for step in steps], np.int32),
        guard=np.array([step[3] for step in steps], np.int32),
        anchor=np.array([step[0] == "anchor" for step in steps]),
        head=np.array([0 if step[0] == "anchor" else names.index(step[0]) for step in steps], np.int32),
        possible=np.arange(max(heads.values()))[None, :] < np.array(arity)[:, None],
        layer=np.array([step[1] for step in steps], np.int32),
    )


def lstm_cell(weights: PyTree, state: tuple[jax.Array, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of one LSTM layer; (h, c) of [H] each, x [E]. Gates in the order input, forget, cell, output."""
    h, c = state
    i, f, g, o = jnp.split(jnp.concatenate([x, h]) @ weights["kernel"] + weights["bias"], 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def anchor_logits(weights: PyTree, previous: jax.Array, current: jax.Array) -> jax.Array:
    """v^T tanh(W_prev h_j + W_curr h_i) for earlier layers j: previous [K, H], current [H] -> [K]."""
    return jnp.tanh(previous @ weights["previous"] + (current @ weights["current"])[None, :]) @ weights["v"]


def lstm_policy(space: Space, *, hidden: int = 35, embedding: int = 35, init_scale: float = 0.08) -> Policy:
    """The controller of Zoph & Le 2017.

    One softmax head and one embedding table per site group, shared over layers. The embedded token is the next input;
    after an anchor step it is the mean of the selected layers' hidden states, or the learned start vector if none was
    selected (our choices, as are the widths of the tables and the zero initial state; the paper is silent).

    Args:
      space: its sites in emission order. Site j of a layer's group "anchor" says whether layer j feeds that layer.
      hidden: units of each of the two LSTM layers.
      embedding: width of the token embeddings; equal to `hidden` where the space has anchors.
      init_scale: every weight is drawn from U(-init_scale, init_scale).

    Raises:
      ValueError: `embedding` differs from `hidden` in a space with anchors, or anchor sites are missing.
    """
    groups = {site.group for site in space.sites}
    if "anchor" in groups and embedding != hidden:
        raise ValueError(f"write embedding={hidden}, the same as hidden: after an anchor step the input is a mean of h")
    heads: dict[str, int] = {}
    for site in space.sites:
        if site.group not in ("depth", "anchor"):
            heads[site.group] = max(heads.get(site.group, 0), len(site.choices))
    table = step_table(space, heads)
    anchored = bool(table.anchor.any())
    length, slots = table.columns.shape
    widest = table.possible.shape[1]

    def init(key: Key) -> PyTree:
        def lstm_shapes(inputs: int) -> PyTree:
            return {"kernel": (inputs + hidden, 4 * hidden), "bias": (4 * hidden,)}

        shapes: PyTree = {
            "lstm0": lstm_shapes(embedding),
            "lstm1": lstm_shapes(hidden),
            "heads": {group: {"kernel": (hidden, n), "bias": (n,)} for group, n in heads.items()},
            "embeddings": {group: (n, embedding) for group, n in heads.items()},
            "start": (embedding,),
        }
        if anchored:
            shapes["attention"] = {"previous": (hidden, hidden), "current": (hidden, hidden), "v": (hidden,)}
        leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
        draw = [
            jax.random.uniform(k, shape, minval=-init_scale, maxval=init_scale)
            for k, shape in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, draw)

    def unroll(params: PyTree, carry: PyTree, emit: Callable[..., Any], extra: PyTree) -> tuple[PyTree, jax.Array]:
        """Runs the LSTM over the table; `emit` gives the decision of every step. Returns its carry and all h, [T, H].

        emit(carry, h, memory, row, extra[t]) -> (carry, value i32[K], whether the step runs, embedded token [E])
        """
        start = params["start"]

        def step(carried: PyTree, xs: PyTree) -> tuple[PyTree, jax.Array]:
            carry, state, x, memory = carried
            row, extra = xs
            lower = lstm_cell(params["lstm0"], state[0], x)
            upper = lstm_cell(params["lstm1"], state[1], lower[0])
            carry, value, runs, following = emit(carry, upper[0], memory, row, extra)
            new_memory = memory
            if anchored:
                selected = (value == 1).astype(start.dtype)
                mean = selected @ memory / jnp.maximum(selected.sum(), 1.0)
                following = jnp.where(row.anchor, jnp.where(selected.any(), mean, start), following)
                here = row.anchor & (np.arange(slots) == row.layer)
                new_memory = jnp.where(here[:, None], upper[0][None, :], memory)
            advanced = ((lower, upper), following, new_memory)
            kept = jax.tree.map(lambda new, old: jnp.where(runs, new, old), advanced, (state, x, memory))
            return (carry, *kept), upper[0]

        zero = jnp.zeros(hidden, start.dtype)
        first: PyTree = (carry, ((zero, zero), (zero, zero)), start, jnp.zeros((slots, hidden), start.dtype))
        (carry, *_), h = jax.lax.scan(step, first, (jax.tree.map(jnp.asarray, table), extra))
        return carry, h

    def padded(params: PyTree) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Heads and embeddings in one array each, to be indexed by head: [G, H, A], [G, A], [G, A, E]."""

        def pad(x: jax.Array, axis: int) -> jax.Array:
            return jnp.pad(x, [(0, widest - n if a == axis else 0) for a, n in enumerate(x.shape)])

        return (
            jnp.stack([pad(params["heads"][group]["kernel"], 1) for group in heads]),
            jnp.stack([pad(params["heads"][group]["bias"], 0) for group in heads]),
            jnp.stack([pad(params["embeddings"][group], 0) for group in heads]),
        )

    def sample(key: Key, params: PyTree, depth: jax.Array) -> jax.Array:
        kernels, biases, embeddings = padded(params)
        uniform = jax.random.uniform(key, (length, widest + slots), kernels.dtype)

        def emit(arch, h, memory, row, uniform):
            logits = jnp.where(row.possible, h @ kernels[row.head] + biases[row.head], IMPOSSIBLE)
            gumbel = -jnp.log(-jnp.log(uniform[:widest]))  # the arg max of logits + Gumbel noise is an exact sample
            token = jnp.argmax(logits + gumbel).astype(jnp.int32)
            value = jnp.full(slots, token)
            if anchored:
                links = jax.nn.sigmoid(anchor_logits(params["attention"], memory, h))
                value = jnp.where(row.anchor, (uniform[widest:] < links).astype(jnp.int32), value)
            active = space.active(arch)
            value = jnp.where(active.at[row.columns].get(mode="fill", fill_value=False), value, -1)
            arch = arch.at[row.columns].set(value, mode="drop")
            return arch, value, active[row.guard], embeddings[row.head, token]

        return unroll(params, blank_arch(space, depth), emit, uniform)[0]

    def log_prob(params: PyTree, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        arch = jnp.asarray(arch, jnp.int32)
        kernels, biases, embeddings = padded(params)
        active = space.active(arch)
        on = active.at[table.columns].get(mode="fill", fill_value=False)  # [T, K]
        value = jnp.where(on, arch.at[table.columns].get(mode="fill", fill_value=-1), -1)
        token = jnp.maximum(value[:, 0], 0)

        def emit(carry, h, memory, row, given):
            return carry, *given

        _, h = unroll(params, (), emit, (value, active[table.guard], embeddings[table.head, token]))
        logits = jnp.einsum("th,tha->ta", h, kernels[table.head]) + biases[table.head]
        logp = jax.nn.log_softmax(jnp.where(table.possible, logits, IMPOSSIBLE))
        emits = on[:, 0] & ~table.anchor
        total = jnp.where(emits[:, None] & (token[:, None] == np.arange(widest)[None, :]), logp, 0.0).sum()
        entropy = jnp.where(emits, -(jnp.exp(logp) * logp).sum(1), 0.0).sum()
        if anchored:
            rows = np.flatnonzero(table.anchor)  # in the order of the layers
            links = jax.vmap(anchor_logits, in_axes=(None, None, 0))(params["attention"], h[rows[:slots]], h[rows])
            softplus = jax.nn.softplus(links)  # -log P(no link)
            total += jnp.where(on[rows], value[rows] * links - softplus, 0.0).sum()
            entropy += jnp.where(on[rows], softplus - links * jax.nn.sigmoid(links), 0.0).sum()
        return total, entropy

    return Policy(init, sample, log_prob)
