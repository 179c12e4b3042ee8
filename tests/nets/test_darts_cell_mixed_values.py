"""The search network's values beside NumPy, edge by edge: poolings with their batch norms, partial channels, operators
of their own on every edge, dropout behind skips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools.numpy_layers import convolved, pooled, relu

from nasjax.nets.darts_cell import mixed as module
from nasjax.nets.darts_cell.mixed import darts_search
from nasjax.spaces.darts_cell.space import EDGES, OPERATORS

# One reduction cell: edges that leave an input have stride 2, the others 1. Both tuples together have every operator.
PER_EDGE = tuple((OPERATORS[i % 8], OPERATORS[(i + 3) % 8]) for i in range(14))
EVERYWHERE = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
CHANNELS, QUICK = 4, {"xla_backend_optimization_level": 0}


def normalised(x):
    """Batch norm of a batch's own statistics, without scale and shift."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def pointwise(kernel):
    """[i, o] -> [o, i, 1, 1]"""
    return kernel.T[:, :, None, None]


def halved(x, kernel):
    """FactorizedReduce: half the channels from even pixels, half from odd ones."""
    first, second = np.split(pointwise(kernel), 2)
    return normalised(np.concatenate([convolved(relu(x), first, 2), convolved(relu(x)[:, :, 1:, 1:], second, 2)], 1))


def operated(operator, x, stride, params, row):
    """One operator of one edge; `row` is the edge's place among those that share the parameters."""
    if operator == "none":
        return 0 * x[:, :, ::stride, ::stride]
    if "pool" in operator:
        return normalised(pooled(x, stride, operator[:3]))
    if operator == "skip_connect":
        return x if stride == 1 else halved(x, params["pointwise1"][row])
    size, dilation = int(operator[-1]), 2 if operator.startswith("dil") else 1
    for stage in (1,) if dilation == 2 else (1, 2):
        depthwise = params[f"depthwise{stage}"][row].transpose(2, 0, 1)[:, None]
        x = convolved(relu(x), depthwise, stride if stage == 1 else 1, dilation * (size - 1) // 2, dilation)
        x = normalised(convolved(x, pointwise(params[f"pointwise{stage}"][row])))
    return x


def reference(params, choice, x, lists, partial, masks):
    """Logits of a network of one reduction cell with C = 2 CHANNELS, operators mixed on every edge by itself."""
    stem, cell = params["stem"]["conv"], params["cell0"]
    s = normalised(convolved(x.transpose(0, 3, 1, 2), stem["kernel"].transpose(3, 2, 0, 1), padding=1))
    s = s * stem["norm"]["gamma"][:, None, None] + stem["norm"]["beta"][:, None, None]
    states = [normalised(convolved(relu(s), pointwise(cell[name]["kernel"][0, 0]))) for name in ("input0", "input1")]
    for node in range(2, 6):
        total = 0
        for e, (source, end) in enumerate(EDGES):
            if end != node:
                continue
            whole, stride = states[source], 2 if source < 2 else 1
            taken, mixed = whole[:, : whole.shape[1] // partial], 0
            for weight, operator in zip(choice["reduce"][e], lists[e], strict=True):
                sharing = [i for i, (start, _) in enumerate(EDGES) if start == source and operator in lists[i]]
                parameters = cell.get(f"source{source}", {}).get(operator)
                y = operated(operator, taken, stride, parameters, sharing.index(e))
                if operator == "skip_connect" and stride == 1:
                    y = y * masks.get(e, 1.0)
                mixed = mixed + weight * y
            if (
                partial > 1
            ):  # PC-DARTS: the rest passes by, halved where the operators halve, then channels are shuffled
                rest = whole[:, whole.shape[1] // partial :]
                if stride == 2:
                    b, c, h, w = rest.shape
                    rest = rest.reshape(b, c, h // 2, 2, w // 2, 2).max((3, 5))
                y = np.concatenate([mixed, rest], 1)
                b, c, h, w = y.shape
                mixed = y.reshape(b, partial, c // partial, h, w).swapaxes(1, 2).reshape(b, c, h, w)
            total = total + mixed * choice.get("reduce_edges", np.ones(14))[e]
        states.append(total)
    head = params["head"]["dense"]
    return np.concatenate(states[2:], 1).mean((2, 3)) @ head["kernel"] + head["bias"]


def skip_masks(network, lists, shape, key, rate):
    """Dropout's factors of every identity skip, [B, c, h, w], by the library's keys: fold_in by line, then by edge."""
    masks = {}
    for line, part in enumerate(network.parts):
        if part.path[-1] in ("source2", "source3", "source4"):
            leaving = [e for e, (source, _) in enumerate(EDGES) if source == int(part.path[-1][-1])]
            for place, e in enumerate(leaving):
                if "skip_connect" in lists[e]:
                    drawn = jax.random.fold_in(jax.random.fold_in(key, line), place)
                    masks[e] = np.asarray(module._dropout(drawn, jnp.ones(shape), rate)).transpose(0, 3, 1, 2)
    return masks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operators", "partial", "edges", "rate"),
    [(EVERYWHERE, 2, True, 0.0), (PER_EDGE, 1, False, 0.3)],
    ids=("poolings, partial channels, edge weights", "operators by edge, dropout behind skips"),
)
def test_values_beside_numpy(operators, partial, edges, rate):
    lists = operators if isinstance(operators[0], tuple) else (operators,) * 14
    rng = np.random.default_rng(0)
    choice = {cell: rng.uniform(0.1, 1, (14, len(lists[0]))) for cell in ("normal", "reduce")}
    choice |= {f"{cell}_edges": rng.uniform(0.1, 1, 14) for cell in ("normal", "reduce")} if edges else {}
    with jax.enable_x64(True):
        x, key = jnp.asarray(rng.normal(size=(3, 8, 6, 2))), jax.random.key(3)
        by_cell = {"normal": lists, "reduce": lists}
        network = darts_search(channels=CHANNELS, layers=1, classes=5, operators=by_cell, partial=partial)
        variables = network.init(jax.random.key(0), choice, x)
        params = jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(-0.3, 0.3, leaf.shape), variables["params"])
        masks = skip_masks(network, lists, (3, 4, 3, 2 * CHANNELS // partial), key, rate) if rate else {}
        run = jax.jit(
            lambda v, c, x, key: network.apply(v, c, x, key=key if rate else None, train=True, drop_rate=rate)[0],
            compiler_options=QUICK,
        )
        ours = run({**variables, "params": params}, choice, x, key)
    theirs = reference(params, choice, np.asarray(x), lists, partial, masks)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
    for mask in masks.values():
        np.testing.assert_allclose(np.unique(mask), [0, 1 / (1 - rate)])
    if rate:
        assert len(masks) == 2 and not np.allclose(reference(params, choice, np.asarray(x), lists, partial, {}), theirs)


def test_dropout_drops_elements_at_the_rate_and_keeps_the_mean():
    y = np.asarray(module._dropout(jax.random.key(1), jnp.full((40, 5, 5, 4), 2.0), 0.25))
    np.testing.assert_allclose(np.unique(y), [0, 2 / 0.75], rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / y.size)
    assert len({sample.tobytes() for sample in y}) == 40  # every sample by itself
