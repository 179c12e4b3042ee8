"""The RNN controller: a two-layer LSTM that emits an architecture token by token, with anchor attention.

Zoph & Le 2017, sections 3.1-3.3 (spec sections 2.3 and 3). The whole sequence is one `lax.scan` over a static table of
steps; a step whose sites are inactive leaves the LSTM as it is. Sampling and scoring run the same scan.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.searchers.policy import Policy, blank_arch
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
    if any(len(steps[t][2]) != steps[t][1] for t in anchors):
        raise ValueError("a layer i with anchor sites needs one for each of the layers 0..i-1, side by side, in order")
    if anchors:  # layer 0 has nothing to decide, but later layers attend to its hidden state: it runs the step as well
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
    gates = x @ weights["input"] + h @ weights["recurrent"] + weights["bias"]
    i, f, g, o = jnp.split(gates, 4)
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
      space: its sites in emission order; an inactive test of a site may look at earlier sites only.
      hidden: units of each of the two LSTM layers.
      embedding: width of the token embeddings; equal to `hidden` where the space has anchors.
      init_scale: every weight is drawn from U(-init_scale, init_scale).
    """
    groups = {site.group for site in space.sites}
    if "anchor" in groups and embedding != hidden:
        raise ValueError(f"embedding={embedding} must equal hidden={hidden}: after an anchor step the input is a mean of h")
    heads: dict[str, int] = {}
    for site in space.sites:
        if site.group not in ("depth", "anchor"):
            heads[site.group] = max(heads.get(site.group, 0), len(site.choices))
    table = step_table(space, heads)
    length, slots = table.columns.shape
    widest = table.possible.shape[1]

    def init(key: Key) -> PyTree:
        def lstm_shapes(inputs: int) -> PyTree:
            return {"input": (inputs, 4 * hidden), "recurrent": (hidden, 4 * hidden), "bias": (4 * hidden,)}

        shapes: PyTree = {
            "lstm0": lstm_shapes(embedding),
            "lstm1": lstm_shapes(hidden),
            "heads": {group: {"kernel": (hidden, n), "bias": (n,)} for group, n in heads.items()},
            "embeddings": {group: (n, embedding) for group, n in heads.items()},
            "start": (embedding,),
        }
        if "anchor" in groups:
            shapes["attention"] = {"previous": (hidden, hidden), "current": (hidden, hidden), "v": (hidden,)}
        leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
        draw = [
            jax.random.uniform(k, shape, minval=-init_scale, maxval=init_scale)
            for k, shape in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, draw)

    def rollout(params: PyTree, arch: jax.Array, key: Key | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Emits `arch` (teacher forcing), or with a key draws all its open sites: Arch, log-probability, entropy."""
        start = params["start"]

        def pad(x: jax.Array) -> jax.Array:  # heads of different size in one array, so that a step can index it
            return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, widest - x.shape[-1])])

        kernels = jnp.stack([pad(params["heads"][group]["kernel"]) for group in heads])  # [G, H, A]
        biases = jnp.stack([pad(params["heads"][group]["bias"]) for group in heads])  # [G, A]
        embeddings = jnp.stack([pad(params["embeddings"][group].T).T for group in heads])  # [G, A, E]
        noise = None
        if key is not None:  # Gumbel and logistic noise: arg max and sign of noisy logits are exact samples
            key_token, key_anchor = jax.random.split(key)
            noise = (
                jax.random.gumbel(key_token, (length, widest), start.dtype),
                jax.random.logistic(key_anchor, (length, slots), start.dtype),
            )

        def step(carry, xs):
            arch, state, x, memory = carry
            row, noise = xs
            lower = lstm_cell(params["lstm0"], state[0], x)
            upper = lstm_cell(params["lstm1"], state[1], lower[0])
            h = upper[0]
            logits = jnp.where(row.possible, h @ kernels[row.head] + biases[row.head], -1e9)
            links = anchor_logits(params["attention"], memory, h) if "anchor" in groups else jnp.zeros(slots)

            active = space.active(arch)
            on = active.at[row.columns].get(mode="fill", fill_value=False)
            if noise is None:
                value = arch.at[row.columns].get(mode="fill", fill_value=-1)
            else:
                token = jnp.argmax(logits + noise[0])
                value = jnp.where(row.anchor, links + noise[1] > 0, token).astype(jnp.int32)
            value = jnp.where(on, value, -1)
            arch = arch.at[row.columns].set(value, mode="drop")

            log_p = jax.nn.log_softmax(logits)
            token = jnp.maximum(value[0], 0)
            bernoulli = jax.nn.log_sigmoid(jnp.where(value == 1, links, -links))
            logp = jnp.where(row.anchor, jnp.where(on, bernoulli, 0.0).sum(), log_p[token])
            bernoulli_entropy = jax.nn.softplus(links) - links * jax.nn.sigmoid(links)
            entropy = jnp.where(row.anchor, jnp.where(on, bernoulli_entropy, 0.0).sum(), -(jnp.exp(log_p) * log_p).sum())

            selected = (value == 1).astype(h.dtype)
            following = embeddings[row.head, token]
            new_memory = memory
            if "anchor" in groups:
                mean = selected @ memory / jnp.maximum(selected.sum(), 1.0)
                following = jnp.where(row.anchor, jnp.where(selected.any(), mean, start), following)
                kept = jnp.where(row.anchor, row.layer, slots)  # an index beyond the slots is dropped
                new_memory = memory.at[kept].set(h, mode="drop")
            run = active[row.guard]
            advanced = ((lower, upper), following, new_memory)
            state, x, memory = jax.tree.map(lambda new, old: jnp.where(run, new, old), advanced, (state, x, memory))
            return (arch, state, x, memory), (jnp.where(run, logp, 0.0), jnp.where(run, entropy, 0.0))

        zero = jnp.zeros(hidden, start.dtype)
        carry = (arch, ((zero, zero), (zero, zero)), start, jnp.zeros((slots, hidden), start.dtype))
        (arch, *_), (logp, entropy) = jax.lax.scan(step, carry, (jax.tree.map(jnp.asarray, table), noise))
        return arch, logp.sum(), entropy.sum()

    def sample(key: Key, params: PyTree, depth: jax.Array) -> jax.Array:
        return rollout(params, blank_arch(space, depth), key)[0]

    def log_prob(params: PyTree, arch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rollout(params, jnp.asarray(arch, jnp.int32), None)[1:]

    return Policy(init, sample, log_prob)
