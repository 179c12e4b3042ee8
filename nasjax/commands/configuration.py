"""Settings: of a method's preset, of a workdir, and as config.json keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nasjax import catalog
from nasjax.runtime import jax_settings
from nasjax.settings import as_json, from_json
from nasjax.store import plugin, workdir

FORMAT = 4  # of config.json; raised when the same settings give other numbers, so that no search mixes the two
READ = (3, FORMAT)  # formats of workdirs whose results can be read; format 3 took perplexity over the batch's streams


def configure(name: str | None, preset: str | None = None, dataset: str | None = None, space: str | None = None) -> Any:
    """The settings of a method's preset (None = demo); a data set or space of None is the preset's.

    Raises ValueError for unknown names.
    """
    if space is not None:
        catalog.builder(space)
    return catalog.method(name).configure(preset or "demo", dataset, space)


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
        return from_tree(tree)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path / 'config.json'} does not fit this version: {error}") from error


def without_sites(space: dict[str, Any]) -> dict[str, Any]:
    """A space's settings without the sites of a user's own space, which differ between plugins."""
    return {"name": space["name"]} if "sites" in space and "order" in space else space


def from_tree(tree: dict[str, Any]) -> Any:
    """The settings that were written as `tree`."""
    return from_json(configure(tree["method"], tree["preset"], tree["data"]["name"], tree["space"]["name"]), tree)


def defaults_of(config: Any) -> dict[str, Any]:
    """The settings of its preset, as JSON."""
    return json.loads(json.dumps(as_json(configure(config.method, config.preset, config.data.name, config.space.name))))


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
    """runs/METHOD-SPACE-DATASET-sSEED."""
    data = "table" if config.looked_up else Path(config.data.name).stem
    return Path("runs") / f"{config.method}-{config.space.name}-{data}-s{config.seed}"


def _registered(config: Any) -> dict[str, str]:
    """The digests of a user's own searcher and task that a configuration names; empty where it names none."""
    found = {"method": catalog.meaning("method", config.method)}
    if not getattr(config, "looked_up", False):
        found["task"] = catalog.meaning("task", catalog.source(config.data.name).task)
    return {kind: digest for kind, digest in found.items() if digest}
