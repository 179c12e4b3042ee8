"""Architectures given as NAME, JSON or FILE, and the network of any of them through its space's Builder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasjax import catalog
from nasjax.data.dataset import known_signature, load
from nasjax.types import Builder, Built, Signature, Task


def builds(builder: Builder, space: Any, form: Any, signature: Signature) -> Callable[[np.ndarray], Built]:
    """Arch -> its network. Raises ValueError where there is none."""
    return lambda arch: builder.build(space, form, space.encode(arch), signature)


def describer(builder: Builder, space: Any, form: Any, signature: Signature) -> Callable[[np.ndarray], dict[str, Any]]:
    """Arch -> its JSON form, identity, counts and indicators: what of a trial is known without training."""
    build = builds(builder, space, form, signature)

    def describe(arch: np.ndarray) -> dict[str, Any]:
        built = build(arch)
        return {"arch": built.arch, "hash": space.identity(arch), **counts(built)}

    return describe


def counts(built: Built) -> dict[str, Any]:
    """Parameters, multiply-adds, and the indicators of a network that has any."""
    more = {"indicators": dict(built.indicators)} if built.indicators else {}
    return {"params": built.params, "macs": built.macs, **more}


def read_arch(text: str, builder: Builder, space: Any) -> dict[str, Any]:
    """An architecture given as NAME, JSON, FILE, or in the field's own notation, as a JSON tree.

    Args:
      text: what the user gave.
      builder: of the space; knows names and notation.
      space: where it is one.

    Raises:
      ValueError: it is none of these.
    """
    named = builder.named
    if text in named:
        return named[text]
    if (tree := builder.parse(space, text)) is not None:
        return tree
    source = text
    if not text.lstrip().startswith("{"):
        try:
            source = Path(text).read_text()
        except (OSError, ValueError) as error:
            short = text if len(text) < 80 else text[:77] + "..."
            known = f"no known name of {space.name} ({', '.join(named) or 'it has none'})"
            raise ValueError(f"{short} is {known}, no JSON object and no readable file") from error
    if source is not text and (tree := builder.parse(space, source)) is not None:
        return tree
    try:
        tree = json.loads(source)
    except ValueError as error:
        where = "the architecture" if source is text else text
        raise ValueError(f"{where} is not valid JSON ({error})") from error
    if isinstance(tree, dict) and "arch" in tree and "space" not in tree:
        tree = tree["arch"]  # best.json, or a line of trials.jsonl
    if not isinstance(tree, dict) or "space" not in tree:
        raise ValueError(f'an architecture is an object with "space", for example {{"space": "{space.name}", ...}}')
    return tree


def signature(config: Any) -> Signature:
    """What networks read and write on the configured data; the data are read only where nothing else tells."""
    task = task_of(config, catalog.builder(config.space.name))
    found = known_signature(config.data)
    return task.signature(load(config.data)) if found is None else found


def task_of(config: Any, builder: Builder) -> Task:
    """The task of the configured data. Raises ValueError where the space's networks do not serve it."""
    task: Task = catalog.task(catalog.source(config.data.name).task)
    if task.name not in builder.tasks:
        raise ValueError(
            f"--space={config.space.name} is for {' and '.join(builder.tasks)}, --dataset={config.data.name} for "
            f"{task.name}; choose another space or data set"
        )
    return task
