"""The scores by their names, several of one network at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nasjax.evaluators.scores.backward import layers, require_numbers
from nasjax.evaluators.scores.gradient import Loss, norms, saliencies, weight_gradients, zico
from nasjax.evaluators.scores.jacobian import jacob_cov
from nasjax.evaluators.scores.synaptic_flow import flows
from nasjax.evaluators.zero_cost import relu_kernel, score
from nasjax.train.losses import cross_entropy
from nasjax.types import Network, PyTree

SCORES = ("naswot", "synflow", "logsynflow", "jacob_cov", "grad_norm", "snip", "zico")


def require_known(names: Sequence[str], also: Sequence[str] = ()) -> None:
    """Raises ValueError for a name that is none of `SCORES` and `also`."""
    known = (*SCORES, *also)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no score {unknown[0]!r}; choose from {', '.join(known)}")


def untrained_scores(
    names: Sequence[str],
    network: Network,
    variables: PyTree,
    choice: Any,
    x: PyTree,
    y: PyTree,
    loss: Loss = cross_entropy,
) -> dict[str, float]:
    """Training-free scores of a network by one batch; a larger one is better.

    On the host a network of parts runs part by part, so that one that was never seen before may compile nothing.

    Args:
      names: of `SCORES`.
      network, variables, choice: an untrained network, `variables = network.init(key, choice, x)`.
      x, y: a batch as it receives it, [N, H, W, C] and its targets; N = 64 or 128.
      loss: of outputs and targets, for grad_norm, snip and zico.

    Returns:
      {name: score}; -inf where a network cannot tell images apart.

    Raises:
      ValueError: an unknown name, or a score that this network cannot have: naswot without ReLUs, the others where it
        reads words or carries a state.

    Example:
      >>> untrained_scores(("synflow", "naswot"), network, variables, None, x, y)  # doctest: +SKIP
      {'synflow': 3.1e+32, 'naswot': 761.2}
    """
    require_known(names)
    for name in names:
        if name != "naswot":
            require_numbers(network, x, name)
    found: dict[str, float] = {}
    if "naswot" in names:
        found["naswot"] = float(score(relu_kernel(network, variables, choice, x)))
    if {"synflow", "logsynflow"} & set(names):
        found |= flows(network, variables, choice, x)
    if "jacob_cov" in names:
        found["jacob_cov"] = jacob_cov(network, variables, choice, x)
    if {"grad_norm", "snip"} & set(names):
        gradient = weight_gradients(network, variables, choice, x, y, loss, "grad_norm")
        found |= {"grad_norm": norms(gradient), "snip": saliencies(layers(variables["params"]), gradient)}
    if "zico" in names:
        found["zico"] = zico(network, variables, choice, x, y, loss)
    return {name: found[name] for name in names}
