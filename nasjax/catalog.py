"""The names of methods, spaces, tasks and data sets: the one place where something new is listed.

A name leads to its module by convention, and the module is imported when the name is used:

  method NAME     nasjax/experiments/NAME.py        configure, make, describe, SPACE, perhaps PUBLISHED
  space NAME      nasjax/problem/builders/NAME.py   BUILDER
  task NAME       nasjax/tasks/NAME.py              TASK
  data set NAME   nasjax/data/NAME.py               SOURCE

A plugin adds its own with `add`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

METHODS = {
    "random": "random search, the baseline",
    "reinforce": "an LSTM controller trained with REINFORCE",
    "reinforce_rnn": "the same controller over recurrent cells",
    "evolution": "aging evolution, over segmentation graphs by default",
    "topk": "evolution among the best k, in any space",
    "bo": "Bayesian optimisation by a Gaussian process, in any space",
    "local_search": "from the best neighbour to its best neighbour, in any space",
    "asha": "brief trainings, of which the best go on; with any of the samplers above",
    "darts": "a softmax over operators, trained with the weights",
    "pc_darts": "DARTS through a part of the channels",
    "gdas": "DARTS with an operator per edge drawn in every pass",
    "drnas": "mixing weights drawn from Dirichlet distributions, in two stages",
    "p_darts": "DARTS in three stages, deeper with fewer operators",
    "msr_darts": "operators chosen by the stable rank of their weights",
    "spos": "a supernet of single paths, then evolution",
    "fairnas": "a strictly fair supernet, then NSGA-II",
    "bn_nas": "only batch norms trained; their scales rank the paths",
    "bignas": "an elastic supernet whose networks need no retraining, and its front",
}
SPACES = {
    "conv_chain": "sizes, filters and skips of a chain of convolutions",
    "tabular_cell": "operations of a NAS-Bench-201 cell, looked up or trained",
    "darts_cell": "operators and inputs of a normal and a reduction cell",
    "choice_chain": "an operator per layer of a chain of blocks",
    "resolution_graph": "nodes and edges of a graph over resolutions, for segmentation",
    "cell_tree": "the cell of a recurrent language model, a binary tree",
    "vit_chain": "depth, width, heads and MLP ratios of a vision transformer",
    "from_table": "whatever architectures a table of results holds; --table=FILE.npz",
}
TASKS = {
    "classification": "one class per image",
    "regression": "one value per image",
    "segmentation": "a mask per image",
    "language": "the next word of a text",
    "characters": "the next character of a text",
}
DATA = {
    "digits": "1,797 handwritten digits of 8x8 pixels, embedded",
    "cifar10": "CIFAR-10; --data_dir=FOLDER",
    "imagenet": "ImageNet: train/ and val/ with a folder per class, --data_dir",
    "pydoc": "the help texts of CPython, embedded; a language model's text",
    "ptb": "the Penn Treebank; --data_dir=FOLDER",
    "text_folder": "your own train, valid and test text; --data_dir=FOLDER",
    "image_folder": "your own images, a folder per class; --data_dir=FOLDER",
    "nuclei": "300 generated pictures of 48x48 pixels that look like cell nuclei, embedded",
    "nuclei_folder": "images and masks; --data_dir=FOLDER with images/ and masks/",
}

_KINDS: dict[str, tuple[str, dict[str, str], str, str]] = {  # kind: what it is called, names, room, attribute
    "method": ("--method", METHODS, "experiments", ""),
    "space": ("--space", SPACES, "problem.builders", "BUILDER"),
    "task": ("task", TASKS, "tasks", "TASK"),
    "data": ("--dataset", DATA, "data", "SOURCE"),
}
_FILES = {".npz": "npz", ".csv": "file_list"}  # a user's file by its suffix, and the module that reads it
_OWN: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}  # what plugins added
_MEANING: dict[tuple[str, str], str] = {}  # digests of it


def add(kind: str, name: str, entry: Any, what: str = "", meaning: str = "") -> None:
    """Adds a plugin's method, space, task or data set, or replaces it. Raises ValueError for a known name.

    `meaning` is a digest of its code: a run resumes only with the same.
    """
    names = _KINDS[kind][1]
    if name in names and name not in _OWN[kind]:
        raise ValueError(f"the {kind} name {name!r} is taken; choose another")
    if not name.isidentifier():
        raise ValueError(f"the {kind} name {name!r} must consist of letters, digits and _")
    names[name] = what
    _OWN[kind][name] = entry
    _MEANING[kind, name] = meaning


def forget(kind: str, name: str) -> None:
    """Removes everything that `add` added."""
    del _KINDS[kind][1][name], _OWN[kind][name]


def meaning(kind: str, name: str) -> str:
    """The digest of what a plugin added under this name, "" where there is none."""
    return _MEANING.get((kind, name), "") if name in _OWN[kind] else ""


def is_own(kind: str, name: str) -> bool:
    """Whether a plugin added it."""
    return name in _OWN[kind]


def names_own(config: Any) -> bool:
    """Whether a run's method, space or data set was added by a plugin or a program."""
    names = (("method", config.method), ("space", config.space.name), ("data", config.data.name))
    return any(is_own(kind, name) for kind, name in names)


def method(name: str | None) -> Any:
    """The module of a method: configure(given), make(problem), describe(problem)."""
    return _find("method", name)


def builder(name: str) -> Any:
    """The Builder of a space."""
    return _find("space", name)


def task(name: str) -> Any:
    """A Task by its name."""
    return _find("task", name)


def source(name: str) -> Any:
    """The DataSource of a data set, or of a path that ends in .npz or .csv."""
    if name not in _KINDS["data"][1] and Path(name).is_dir():
        raise ValueError(f"--dataset={name} is a folder; a folder per class: --dataset=image_folder --data_dir={name}")
    for suffix, module in _FILES.items():
        if name.endswith(suffix):
            return import_module(f"nasjax.data.{module}").SOURCE
    return _find(
        "data",
        name,
        "; or your own: FILE.npz with x [N, H, W] or [N, H, W, C] and y [N], or FILE.csv with file and label",
    )


def named(name: str) -> dict[str, Any] | None:
    """The architecture called `name` as a JSON tree, of whichever space has it first; None where none has."""
    return next((b.named[name] for b in map(builder, SPACES) if name in b.named), None)


def _find(kind: str, name: str | None, more: str = "") -> Any:
    flag, names, room, attribute = _KINDS[kind]
    if name not in names:
        close = difflib.get_close_matches(name or "", names, 1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(names)}{more}"
        called = "dataset" if kind == "data" else kind
        raise ValueError(f"unknown {called} {name!r}; {hint}" if name else f"{flag} is missing; {hint}")
    if name in _OWN[kind]:
        return _OWN[kind][name]
    module = import_module(f"nasjax.{room}.{name}")
    return getattr(module, attribute) if attribute else module
