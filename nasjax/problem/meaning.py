"""What registered code means, as digests for config.json: a run resumes only with code that means the same."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any

import jax

from nasjax.train.step import example
from nasjax.types import Built, Signature

_NETWORKS = 4  # different ones that stand for the space
_ADDRESS = re.compile(r"0x[0-9a-f]+")


def of_functions(functions: Iterable[Callable[..., Any] | None]) -> str:
    """A digest of what functions do, whatever their comments and line numbers; it is that of a version of Python."""
    text = []
    for function in functions:
        code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
        text.append(_code(code) if code is not None else type(function).__name__)
    return _digest(text)


def of_networks(builts: Sequence[Built], signature: Signature, *, bn_eps: float, dtype: str) -> str:
    """A digest of what the first few different networks compute, by their jaxprs; it is that of a version of JAX."""
    different = list({json.dumps(built.arch, sort_keys=True): built for built in builts}.items())[:_NETWORKS]
    text = []
    for arch, built in different:
        network = built.network(bn_eps=bn_eps, dtype=dtype)
        x = example(network, signature)
        variables = jax.eval_shape(lambda key, x, network=network: network.init(key, None, x), jax.random.key(0), x)
        jaxpr = jax.make_jaxpr(lambda v, x, network=network: network.apply(v, None, x)[0])(variables, x)
        text += [arch, str(built.params), str(built.macs), _ADDRESS.sub("", str(jaxpr))]
    return _digest(text)


def _code(code: CodeType) -> str:
    constants = [_code(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _digest(text: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]
