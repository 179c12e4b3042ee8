"""`nasjax.register`: a user's own space, data set, task or searcher, for the command (`--plugin`) and for notebooks."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nasjax import catalog
from nasjax.data.npz import arrays_source, images
from nasjax.data.sources import DataSource, Source, Split
from nasjax.data.targets import meant
from nasjax.data.units import names
from nasjax.experiments.families import candidates, candidates_run
from nasjax.problem.given import Given
from nasjax.problem.meaning import of_functions
from nasjax.problem.own import form_of, own_builder
from nasjax.problem.problem import Problem
from nasjax.settings import as_json
from nasjax.spaces.site_space import SiteSpace, plain_site
from nasjax.store.plugin import where
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe, Recipes
from nasjax.types import Searcher, Space, Task

_SPACE = ("active", "sample", "mutate", "encode", "decode", "validate", "identity", "size")


@dataclass(frozen=True)
class NoSettings:
    """Of a searcher that has none."""


def register(
    *,
    space: Any = None,
    build: Callable[..., Any] | None = None,
    traced: Callable[..., Any] | None = None,
    tasks: tuple[str, ...] = ("classification",),
    named: Mapping[str, dict[str, Any]] | None = None,
    recipe: Recipe | Recipes | None = None,
    used: Callable[..., Any] | None = None,
    costs: Callable[..., Any] | None = None,
    data: str | None = None,
    load: Callable[..., Any] | None = None,
    data_task: str = "classification",
    task: Task | None = None,
    searcher: str | None = None,
    make: Callable[..., Any] | None = None,
    settings: Any = None,
) -> None:
    """Adds your own space, data set, searcher or task to the command's names. Registering again replaces it.

    Args:
      space: a `SiteSpace`, or any object with `name` and `sites` (the rest then follows from the sites), or a Space.
      build: with `space`: (choices, signature) -> network. choices is {site: value}; signature.inputs.shape is the
        shape of one sample, signature.outputs the number of classes. The network is a Flax Linen module, an NNX
        module through `flax.nnx.bridge.to_linen`, a pair (init(key, x), apply(params, x)), or a `nasjax.Network`.
      traced: with `space`, beside `build` or in its place: signature -> (init(key, choices, x), apply(params, choices,
        x)), where choices is {site: i32[], number of the choice} and may be traced. Then `--set strategy=vmap` trains
        a population in one program (on accelerators the default).
      tasks: with `space`: what its networks are for.
      named: with `space`: {NAME: {site: choice}, or an architecture as JSON}, for --arch=NAME.
      recipe: with `space`: how its networks are trained, by every method, as candidates and in the end; the preset demo
        trains for fewer epochs. Crops and mirror images are those of the data set. None = as plain image classifiers
        are, by SGD with a rate of 0.1. A `train.recipe.Recipes` has one for each.
      used: with `traced`: (choices, params) -> for every array a mask of what an architecture uses, which can be
        broadcast to it. Then one network of shared weights holds all architectures, for the methods with a supernet.
      costs: with `used`: (choices, signature) -> (parameters, multiply-adds) of its own network, traceable; for
        --max_params, --max_macs and NSGA-II in a supernet.
      data: name of a data set.
      load: with `data`: (data_dir) -> {"x": ..., "y": ...} and optionally x_test, y_test, class_names; or a
        `data.sources.Source`.
      data_task: with `data`: what it is for; "regression" where y are values. Arrays are read as those of the task that
        it is `like`.
      task: a `nasjax.Task` of your own. With like="classification", say, every space for images and classes serves it.
      searcher: name of a method.
      make: with `searcher`: (space, **settings) -> `nasjax.Searcher`.
      settings: with `searcher`: a frozen dataclass instance whose fields `make` takes; --set search.FIELD=VALUE.

    Raises:
      ValueError: something is missing or has a wrong form, or the name is a known one.
    """
    if space is None and data is None and task is None and searcher is None:
        raise ValueError("register needs space=, data=, task= or searcher=")
    for given, needs, have in (
        ("space", "build= or traced=", space is None or build is not None or traced is not None),
        ("data", "load=", data is None or load is not None),
        ("searcher", "make=", searcher is None or make is not None),
        ("used", "traced=", used is None or traced is not None),
        ("costs", "used=", costs is None or used is not None),
        ("recipe", "space=", recipe is None or space is not None),
    ):
        if not have:
            raise ValueError(f"register({given}=...) needs {needs} as well")
    functions = {"build": build, "traced": traced, "used": used, "costs": costs, "load": load, "make": make}
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise ValueError(f"register({name}=...) must be a function, got {type(function).__name__}")
    if task is not None:
        if not isinstance(task, Task):
            raise ValueError(f"register(task=...) must be a nasjax.Task, got {type(task).__name__}")
        if task.like and (further := form_of(task.like)) != task.like:
            raise ValueError(
                f"task {task.name!r} is like {task.like!r}, which is like {further!r}; write like={further!r}"
            )
        whole_task = task._replace(signature=_guard(task.signature), predict=_guard(task.predict))
        catalog.add("task", task.name, whole_task, meaning=of_functions(f for f in task if callable(f)))
    if space is not None:
        whole = _space(space)
        for name in tasks:
            form_of(name)
        builder = own_builder(
            whole,
            build,
            traced,
            tasks=tuple(tasks),
            named=_named(whole, named or {}),
            guard=_guard,
            recipes=None if recipe is None else _recipes(recipe),
            used=used,
            costs=costs,
        )
        catalog.add("space", whole.name, builder, "your own")
    if data is not None:
        assert load is not None
        form_of(data_task)
        catalog.add("data", data, _data_source(data, load, data_task), "your own")
    if searcher is not None:
        assert make is not None
        method = _method(searcher, make, settings or NoSettings())
        catalog.add("method", searcher, method, "your own", meaning=of_functions([make]))


def _space(space: Any) -> Any:
    """`space` as a Space; one made from `name` and `sites` where the rest is missing."""
    if not isinstance(getattr(space, "name", None), str) or not getattr(space, "sites", None):
        raise ValueError(f"a space needs `name` and `sites`; {type(space).__name__} lacks one")
    missing = [name for name in _SPACE if not hasattr(space, name)]
    if len(missing) == len(_SPACE):
        return SiteSpace(space.name, space.sites)
    if missing or not isinstance(space, Space):
        raise ValueError(f"space {space.name!r} lacks {', '.join(missing)}; derive it from nasjax.SiteSpace")
    for site in space.sites:
        plain_site(site, f"space {space.name!r}")
        try:
            json.dumps(site.choices, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"space {space.name!r}: site {site.name!r}: choices must be plain numbers and texts, which files can "
                f"hold: {error}"
            ) from None
    return space


def _named(space: Any, named: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Architectures by name, as JSON. Raises ValueError for one that is none of the space."""
    found = {}
    for name, given in named.items():
        tree = given if "space" in given else {"space": space.name, "choices": given}
        try:
            found[name] = dict(space.encode(space.decode(tree)))
        except ValueError as error:
            raise ValueError(f"register(named=...): {name!r} is no architecture of {space.name!r}: {error}") from error
    return found


def _recipes(given: Any) -> Callable[[Augment], Recipes]:
    """A user's recipe, or recipes, with the crops and mirror images of the data set."""
    if not isinstance(given, (Recipe, Recipes)):
        raise ValueError(f"register(recipe=...) must be a nasjax.Recipe, got {type(given).__name__}")
    every = given if isinstance(given, Recipes) else Recipes(given, given, given)
    for one in (every.search, every.last, every.demo):
        if one.augment != Augment(cutout=one.augment.cutout):
            raise ValueError(
                "register(recipe=...): crops and mirror images are the data set's, so a recipe's augment has nothing "
                "but cutout; set others when you run, --set recipe.augment.flip=false for example"
            )

    def recipes(augment: Augment) -> Recipes:
        def suited(one: Recipe) -> Recipe:
            return dataclasses.replace(one, augment=dataclasses.replace(augment, cutout=one.augment.cutout))

        return every._replace(search=suited(every.search), last=suited(every.last), demo=suited(every.demo))

    return recipes


def _guard(function: Callable[..., Any]) -> Callable[..., Any]:
    """Errors of a user's function as a ValueError of one line, with file, line and function."""

    @functools.wraps(function)
    def guarded(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:
            raise ValueError(where(error, _file(function, error))) from error

    return guarded


def _file(function: Callable[..., Any], error: Exception) -> str:
    """The user's file: that of the function, or where a plugin's module appears in the traceback."""
    import traceback

    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = getattr(getattr(function, "__code__", None), "co_filename", "")
    if own in files and "nasjax" not in own.split("/")[-3:-1]:
        return own
    outside = [file for file in files if "site-packages" not in file and "/nasjax/" not in file]
    return outside[-1] if outside else own


def _data_source(name: str, load: Callable[..., Any], task: str) -> DataSource:
    form = form_of(task)

    def open_(config: Any) -> Source:
        arrays = _guard(load)(config.data_dir)
        if isinstance(arrays, Source):
            if config.channels != "ask":
                raise ValueError(f"data.channels has no effect on {name}, whose load returns a Source; leave it out")
            return arrays
        if not isinstance(arrays, Mapping) or not {"x", "y"} <= set(arrays):
            raise ValueError(f"--dataset={name}: load must return a dict with x and y, got {_form(arrays)}")
        for part in ("_test", "_valid"):
            if ("x" + part in arrays) != ("y" + part in arrays):
                raise ValueError(f"--dataset={name}: load returned one of x{part} and y{part}; give both or neither")
        if form == "classification":
            plain = {key: np.asarray(value) for key, value in arrays.items()}
            return arrays_source(
                plain, f"--dataset={name}", config.channels, "value" if task == "regression" else "class"
            )
        return _any_source(name, arrays, config.channels if form == "segmentation" else "")

    return DataSource(lambda config: meant(open_(config), form, f"--dataset={name}"), task, folder=True, arrays=True)


def _form(arrays: Any) -> str:
    return (
        f"one with {', '.join(map(str, arrays)) or 'nothing'}" if isinstance(arrays, Mapping) else type(arrays).__name__
    )


def _any_source(name: str, arrays: Mapping[str, Any], channels: str) -> Source:
    """Samples and targets of any form; the names of the outputs must be given. `channels`: of images, else ""."""
    if "class_names" not in arrays:
        raise ValueError(f"--dataset={name}: load must return class_names as well, one name per output")

    def split(suffix: str) -> Split:
        x, y = np.asarray(arrays["x" + suffix]), np.asarray(arrays["y" + suffix])
        if channels:
            x = images(x, f"--dataset={name}: x{suffix}", channels)
            y = np.moveaxis(y, 1, -1) if channels == "first" and y.ndim == 4 else y
        if not x.ndim or x.dtype.kind not in "biuf":
            raise ValueError(f"--dataset={name}: x{suffix} must be an array of numbers, got {x.dtype}{list(x.shape)}")
        if len(x) != len(y):
            raise ValueError(f"--dataset={name}: x{suffix} has {len(x)} samples, y{suffix} {len(y)}")
        return Split(x, y)

    count, own = len(arrays["y"]), "x_test" in arrays
    return Source(
        class_names=names(arrays["class_names"], f"--dataset={name}: class_names"),
        pool=lambda: split(""),
        test=(lambda: split("_test")) if own else None,
        test_size=0 if own else count // 6,
        valid_size=0 if "x_valid" in arrays else count // 6,
        valid=(lambda: split("_valid")) if "x_valid" in arrays else None,
    )


def _method(name: str, make: Callable[..., Any], settings: Any) -> Any:
    """A method of the candidates' family with the user's searcher."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        raise ValueError("register(settings=...) must be an instance of a frozen dataclass, for example Settings()")
    for field in dataclasses.fields(settings):
        try:
            json.dumps(as_json(getattr(settings, field.name)), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"register(settings=...): {field.name} must be a plain value, which config.json can hold: {error}"
            ) from None

    def configure(given: Given) -> Any:
        return candidates.preset(name, given, demo=settings, paper=settings)

    def experiment(problem: Problem) -> Any:
        config = problem.config
        options = {field.name: getattr(config.search, field.name) for field in dataclasses.fields(config.search)}
        found = _guard(make)(config.space, **options)
        if not isinstance(found, Searcher):
            raise ValueError(f"--method={name}: make must return a nasjax.Searcher, got {type(found).__name__}")
        found = Searcher(*[_guard(function) for function in found])
        jax.eval_shape(lambda key: found.ask(key, found.init(key), 2), jax.random.key(0))  # fail before the run
        return candidates_run.experiment(problem, found)

    def describe(problem: Problem) -> dict[str, Any]:
        return candidates.described(problem)

    return types.SimpleNamespace(SPACE="conv_chain", configure=configure, make=experiment, describe=describe)
