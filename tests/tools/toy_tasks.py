"""Small networks and builts for the tests of tasks: convolutions for masks, recurrent and table networks for tokens.

And a task whose metric is no mean over samples.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.tasks.classification import TASK
from nasjax.types import Built, Masked, Metric, Network

WORDS = 5
HIDDEN = 8


def masks(channels=4, heads=1):
    """Two 3x3 convolutions; with a choice, its number is what the first one's outputs are times, plus 1."""

    def init(key, choice, x):
        keys = jax.random.split(key)
        first = jax.random.normal(keys[0], (3, 3, x.shape[-1], channels)) / 3
        last = jax.random.normal(keys[1], (3, 3, channels, heads)) / 6
        return {"params": {"first": first, "last": last, "bias": jnp.zeros(heads)}}

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        params, scale = variables["params"], 1.0 if choice is None else choice[0].astype(jnp.float32) + 1
        x = jax.nn.relu(convolve(x, params["first"])) * scale
        y = convolve(x, params["last"]) + params["bias"][None, None, None]
        return (tuple(jnp.split(y, heads, -1)) if heads > 1 else y), variables

    return Network(init, apply)


def recurrent(words=WORDS, hidden=HIDDEN):
    """An Elman network: h = tanh(E x + W h) (choice 1: sigmoid), logits = h V. It carries h."""

    def init(key, choice, x):
        shapes = {"embed": (words, hidden), "recur": (hidden, hidden), "out": (hidden, words)}
        keys = dict(zip(shapes, jax.random.split(key, 3), strict=True))
        return {"params": {name: jax.random.normal(keys[name], shape) / 2 for name, shape in shapes.items()}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        tokens, h = x
        params = variables["params"]

        def step(h, token):
            z = params["embed"][token] + h @ params["recur"]
            h = jnp.tanh(z) if choice is None else jnp.where(choice[0] == 0, jnp.tanh(z), jax.nn.sigmoid(z))
            return h, h @ params["out"]

        h, logits = jax.lax.scan(step, h, tokens.T)
        return (logits.swapaxes(0, 1), h), variables

    return Network(init, apply, carry=lambda batch_size: jnp.zeros((batch_size, hidden)))


def table(words=WORDS):
    """The logits of the next token are a row of a table: no state."""

    def init(key, choice, x):
        return {"params": {"table": jax.random.normal(key, (words, words)) / 9}}

    def apply(variables, choice, x, *, key=None, train=False, drop_rate=0.0, bn_momentum=0.9):
        return variables["params"]["table"][x], variables

    return Network(init, apply)


def built(network, name="toy", params=1):
    return Built({"space": "toy", "name": name}, params, 1, (name,), lambda *, bn_eps, dtype: network)


def masked(network):
    """One program for all architectures [i], whatever i."""
    return Masked(lambda size, *, bn_eps, dtype: network, lambda arch: 1, lambda arch, variables, size: variables)


def chosen(network, arch):
    """The network with its choice made."""
    arch = np.asarray(arch)
    return network._replace(
        init=lambda key, choice, x: network.init(key, arch, x),
        apply=lambda variables, choice, x, **options: network.apply(variables, arch, x, **options),
    )


def _f1_score(logits, y):
    """Of every sample and class: found and right, found and wrong, not found. NaN where a logit is not finite."""
    truth, found = jax.nn.one_hot(y, logits.shape[-1]), jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
    found = jnp.where(jnp.isfinite(logits).all(-1, keepdims=True), found, jnp.nan)
    return {"right": truth * found, "wrong": (1 - truth) * found, "missed": truth * (1 - found)}


def _f1(sums):
    twice = 2 * sums["right"]
    return (twice / jnp.maximum(twice + sums["wrong"] + sums["missed"], 1)).mean(-1)


MACRO_F1 = TASK._replace(name="macro_f1", like="classification", metric=Metric("macro_f1"), score=_f1_score, finish=_f1)


def macro_f1(logits, y):
    """The metric of MACRO_F1, class by class: the mean of 2 precision recall / (precision + recall)."""
    found, y = np.asarray(logits).argmax(-1), np.asarray(y)
    values = []
    for c in range(logits.shape[-1]):
        right = ((found == c) & (y == c)).sum()
        precision, recall = right / max((found == c).sum(), 1), right / max((y == c).sum(), 1)
        values.append(2 * precision * recall / (precision + recall) if right else 0.0)
    return float(np.mean(values))
