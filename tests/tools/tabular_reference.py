"""The network of NAS-Bench-201 in plain NumPy, NHWC, with running statistics, whatever its edges do."""

import functools

import numpy as np


def conv(x, w, stride=1):
    k, h, w_ = w.shape[0], x.shape[1], x.shape[2]
    padded = np.pad(x, [(0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)])
    taps = [padded[:, i : i + h, j : j + w_] @ w[i, j] for i in range(k) for j in range(k)]
    return sum(taps)[:, ::stride, ::stride]


def norm(x, p, s):
    p, s = p.get("norm", {"gamma": 1, "beta": 0}), s["norm"]
    return (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["gamma"] + p["beta"]


def pool(x):
    ones = np.pad(np.ones(x.shape[1:3]), 1)
    padded, (h, w) = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), x.shape[1:3]
    places = [(i, j) for i in range(3) for j in range(3)]
    total = sum(padded[:, i : i + h, j : j + w] for i, j in places)
    return total / sum(ones[i : i + h, j : j + w] for i, j in places)[..., None]


def operation(p, s, name, x):
    if name == "none":
        return 0 * x
    if name == "skip_connect":
        return x
    if name == "avg_pool_3x3":
        return pool(x)
    return norm(conv(np.maximum(x, 0), p[name]["kernel"]), p[name], s[name])


def reference(variables, x, edge, cells=2):
    """The logits as the paper describes the network; edge(e, x, operate) -> y, where operate(name, x) -> y."""
    params = _arrays(variables["params"])
    stats = _arrays(variables["batch_stats"])
    x = norm(conv(x, params["stem"]["kernel"]), params["stem"], stats["stem"])
    for stage in range(3):
        if stage:
            p, s = params[f"reduce{stage}"], stats[f"reduce{stage}"]
            y = norm(conv(np.maximum(x, 0), p["first"]["kernel"], 2), p["first"], s["first"])
            y = norm(conv(np.maximum(y, 0), p["second"]["kernel"]), p["second"], s["second"])
            means = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
            x = y + conv(means, p["shortcut"]["kernel"])
        for n in range(cells):
            p, s = (alone(of[f"stage{stage}"], n) for of in (params, stats))

            def run(e, x, p=p, s=s):
                return edge(e, x, functools.partial(operation, p[f"edge{e}"], s[f"edge{e}"]))

            a = run(0, x)
            b = run(1, x) + run(2, a)
            x = run(3, x) + run(4, a) + run(5, b)
    x = np.maximum(norm(x, params["head"], stats["head"]), 0).mean((1, 2))
    return x @ params["head"]["dense"]["kernel"] + params["head"]["dense"]["bias"]


def alone(stage, n):
    """What cell n of a stage has, where its cells are apart or stacked."""
    return stage[f"cell{n}"] if "cell0" in stage else _arrays(stage, n)


def _arrays(tree, n=None):
    """A tree of NumPy arrays, or the n-th entry of each."""
    if isinstance(tree, dict):
        return {name: _arrays(leaf, n) for name, leaf in tree.items()}
    return np.asarray(tree) if n is None else np.asarray(tree)[n]
