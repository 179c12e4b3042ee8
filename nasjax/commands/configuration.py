"""Settings: of a method's preset, of a workdir, and as config.json keeps them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nasjax import catalog
from nasjax.problem.given import LARGE, Given
from nasjax.problem.problem import Problem
from nasjax.runtime import jax_settings
from nasjax.settings import as_json, from_json
from nasjax.store import plugin, workdir

FORMAT = 5  # of config.json; raised when the same settings give other numbers, so that no search mixes the two
# Formats of workdirs whose results can be read: 3 took perplexity over the batch's streams; up to 4 the settings of a
# network's form had other names.
READ = (3, 4, FORMAT)


def configure(
    name: str | None,
    preset: str | None = None,
    dataset: str | None = None,
    space: str | None = None,
    *,
    data_dir: str = "",
    resize: int | None = None,
    side: int | None = None,
) -> Any:
    """The settings of a method's preset (None = demo); a data set or space of None is the preset's.

    How large the images are decides between settings for small and for large ones. The data set tells it, or where it
    lies (`data_dir`), or the side that they are resized to (`resize`); both become settings of the data. `side` tells
    it of data at hand.

    Raises ValueError for unknown names.
    """
    method = catalog.method(name)
    builder = catalog.builder(space or method.SPACE)
    config = method.configure(Given(preset or "demo", builder, dataset, data_dir, resize, side))
    given = {name: value for name, value in (("data_dir", data_dir), ("resize", resize)) if value}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **given)) if given else config


def resize_of(assignments: Sequence[str]) -> int | None:
    """The data.resize among assignments as `--set` takes them; None where there is none, or it is no whole number."""
    pairs = [text.partition("=") for text in assignments]
    sizes = [value.strip() for name, _, value in pairs if name.strip() == "data.resize"]
    return int(sizes[-1]) if sizes and sizes[-1].isdecimal() else None


def _given(config: Any) -> Given:
    """What its preset was made for."""
    data = config.data
    return Given(config.preset, catalog.builder(config.space.name), data.name, data.data_dir, data.resize)


def shipped(config: Any) -> Any:
    """The settings of the preset that a configuration began with, for the same data."""
    same = {"data_dir": config.data.data_dir, "resize": config.data.resize}
    return configure(config.method, config.preset, config.data.name, config.space.name, **same)


def published(config: Any, arch: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """The result to put beside ours: the method's own in this space, or the space's; None where there is none.

    Of a network that the source compares with, in "baselines" as `--arch` takes it, it is that one's where `arch` is.
    """
    own: dict[Any, dict[str, Any]] | None = getattr(catalog.method(config.method), "PUBLISHED", None)
    space, builder = config.space.name, catalog.builder(config.space.name)
    found = builder.published(config) if own is None else own.get(space)
    if own is not None and (space, LARGE) in own and _given(config).data().large:
        found = own[space, LARGE]
    elif own is not None and (space, "cells") in own and config.space.cells:
        found = own[space, "cells"]
    if found is None:
        return None
    baselines: dict[str, dict[str, Any]] = found.get("baselines", {}) if arch is not None else {}
    known = ((Problem(config).read(name), row) for name, row in baselines.items())
    chosen: dict[str, Any] = next((row for tree, row in known if tree == arch), {})
    return {name: value for name, value in found.items() if name != "baselines"} | chosen


def compared(config: Any) -> list[dict[str, Any]]:
    """The result of a source and those of its baselines, for the report of a search; [] of a demo, or without any."""
    found = None if config.preset == "demo" else catalog.builder(config.space.name).published(config)
    if found is None or "baselines" not in found:
        return []
    best = {name: value for name, value in found.items() if name != "baselines"}
    return [best, *(best | row for row in found["baselines"].values())]


def with_table(config: Any, path: str) -> Any:
    """The same with results from the table `path`, and the budget of its benchmark: 12,000 simulated seconds.

    A space that is what a table holds is made of it, and has a budget of trials as before. Raises ValueError where no
    table holds results of the method in its space, or the file is none.
    """
    builder = catalog.builder(config.space.name)
    if config.table is None or not (builder.tabled or builder.of_table):
        instead = "leave it out"
        if config.table is not None:
            spaces = {name: catalog.builder(name) for name in catalog.SPACES}
            tabled = [name for name, found in spaces.items() if found.tabled or found.of_table]
            instead = f"tables are of --space={' or --space='.join(tabled)}"
        raise ValueError(f"--table has no effect with --method={config.method} --space={config.space.name}; {instead}")
    table = dataclasses.replace(config.table, path=path)
    if builder.of_table:
        space, said = builder.of_table(path)
        return dataclasses.replace(config, space=space, table=dataclasses.replace(table, **said))
    if config.table.path:
        return dataclasses.replace(config, table=table)
    return dataclasses.replace(config, table=table, trials=110 if config.preset == "demo" else None, cost_s=12_000.0)


def config_of(path: Path, *, changed_plugin: bool = False) -> Any:
    """The settings a workdir was made with. Raises ValueError if it is none."""
    record = workdir.read(path)
    tree = record["config"]
    if record.get("format") not in READ:
        raise ValueError(
            f"{path} was made by nasjax {record.get('versions', {}).get('nasjax', '?')} (format "
            f"{record.get('format', 1)}); this version reads formats {' and '.join(map(str, READ))}: search again in "
            "another --workdir"
        )
    plugin.require(path, tree.get("plugin", ""), changed_plugin)
    if changed_plugin:
        tree = {**tree, "space": without_sites(tree["space"])}
    try:
        config = from_tree(tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / 'config.json'} does not fit this version: {error}") from error
    if workdir.keeps(path, config.data.name):  # a workdir that was moved, or is seen by another path, has them still
        data = dataclasses.replace(config.data, data_dir=str(Path(path).absolute()))
        config = dataclasses.replace(config, data=data)
    return config


def without_sites(space: dict[str, Any]) -> dict[str, Any]:
    """A space's settings without the sites of a user's own space, which differ between plugins."""
    return {"name": space["name"]} if "sites" in space and "order" in space else space


def from_tree(tree: dict[str, Any]) -> Any:
    """The settings that were written as `tree`."""
    tree = _renamed(tree)
    same = {name: tree["data"][name] for name in ("data_dir", "resize") if tree["data"].get(name)}
    named = configure(tree["method"], tree["preset"], tree["data"]["name"], tree["space"]["name"], **same)
    return from_json(named, tree)


def _renamed(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings as this version names them: until format 4 a network's form was "eval", or "retrain_dropout".

    Before data.aspect was a setting, images with masks were squashed. Rates of SGD were "rate" in search networks.
    """
    tree = dict(tree)
    if "aspect" not in tree["data"] and catalog.source(tree["data"]["name"]).aspect:
        tree["data"] = {**tree["data"], "aspect": "squash"}
    evaluation, dropout = tree.pop("eval", None), tree.pop("retrain_dropout", None)
    if tree.get("form") is None and evaluation is not None:
        tree["form"] = evaluation
    elif tree.get("form") is None and dropout is not None:
        tree["form"] = {"dropout": dropout}
    for phase, name in (("search", "sgd"), ("search", "adam"), ("supernet", "descent")):
        settings = dict(tree.get(phase, {}).get(name) or {})
        if "rate" in settings:
            tree[phase] = {**tree[phase], name: {"learning_rate": settings.pop("rate"), **settings}}
    return tree


def defaults_of(config: Any) -> dict[str, Any]:
    """The settings of its preset, as JSON; what older workdirs lack has the value that it had for them."""
    tree: dict[str, Any] = json.loads(json.dumps(as_json(shipped(config))))
    if catalog.source(config.data.name).aspect:
        tree["data"]["aspect"] = "squash"  # see `_renamed`
    return tree


def record_of(config: Any, more: dict[str, Any]) -> dict[str, Any]:
    """What config.json holds."""
    whole = {
        "format": FORMAT,
        "method": config.method,
        "preset": config.preset,
        "seed": config.seed,
        **environment(),
        **({"registered": own} if (own := _registered(config)) else {}),
        **more,
        "config": as_json(config),
    }
    return json.loads(json.dumps(whole))


def environment() -> dict[str, Any]:
    """Versions, device and JAX's settings of this process."""
    return {**workdir.environment(), "jax": jax_settings.recorded()}


def default_workdir(config: Any) -> Path:
    """runs/METHOD-SPACE-DATASET-sSEED; of what is looked up the table's file, so that each table has its own."""
    data = Path(config.table.path if Problem(config).looked_up else config.data.name).stem
    return Path("runs") / f"{config.method}-{config.space.name}-{data}-s{config.seed}"


def _registered(config: Any) -> dict[str, str]:
    """The digests of a user's own searcher and task that a configuration names; empty where it names none."""
    found = {"method": catalog.meaning("method", config.method)}
    problem = Problem(config)
    if not problem.looked_up:
        found["task"] = catalog.meaning("task", problem.source.task)
    return {kind: digest for kind, digest in found.items() if digest}
