"""The settings that the flags of a command ask for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from nasjax.store import started

OWN = {"method": "--method", "preset": "--preset", "data.name": "--dataset", "plugin": "--plugin"}
OWN |= {"table.path": "--table", "truth": "--truth"}
LIMITS = ("max_params", "max_macs", "latency", "max_latency_ms", "max_memory_mb")
# Settings that are flags of the same names.
DIRECT = ("truth", "seed", "trials", *LIMITS, "workers", "runtime", "trial_timeout", "init_from")
TUNING = ("finetune_epochs", "finetune_rate")  # of --mode=export --point alone


def settings_of(given: flags.FlagValues, workdirs: list[Path], plugin: str) -> tuple[Any, Path]:
    """The configuration and the workdir. Modes that work on a finished search use its settings."""
    from nasjax import commands

    asked = {name: getattr(given, name) for name in ("method", "preset", "dataset", "space")}
    if given.mode == "retrain" and not workdirs and given.method is not None:
        usual = commands.default_workdir(preset_of(given))
        if given.seed is None and (usual / "config.json").exists():
            workdirs = [usual]
    searched = bool(workdirs) and (workdirs[0] / "config.json").exists()
    if given.mode in ("export", "predict") and not searched:
        what = f"; {workdirs[0]} is none" if workdirs else ""
        raise ValueError(f"--mode={given.mode} needs the --workdir=DIR of a retrained search{what}")
    if given.mode == "retrain" and not workdirs and given.method is None:
        raise ValueError(f"--mode=retrain needs the --workdir=DIR of a search; {started.own()} --mode=runs lists them")
    if given.mode == "retrain" and workdirs and not searched and given.method is None:
        raise ValueError(f"{workdirs[0]} is no workdir (no config.json); give that of a search, or --method as well")
    if given.mode != "search" and searched:
        config = commands.config_of(workdirs[0], changed_plugin=given.changed_plugin)
        own = {
            "method": config.method,
            "preset": config.preset,
            "dataset": config.data.name,
            "space": config.space.name,
        }
        for name, value in asked.items():
            if value is not None and value != own[name]:
                raise ValueError(
                    f"{workdirs[0]} was searched with --{name}={own[name]}, not {value}; leave --{name} out"
                )
        if plugin:
            config = dataclasses.replace(config, plugin=plugin)
        return applied(given, config), workdirs[0]
    config = dataclasses.replace(preset_of(given), plugin=plugin)
    config = applied(given, config)
    workdir = workdirs[0] if workdirs else commands.default_workdir(config)
    return config, workdir


def preset_of(given: flags.FlagValues) -> Any:
    """The settings of the preset, for images of the size that other flags tell."""
    from nasjax import commands
    from nasjax.commands.configuration import resize_of

    asked = (given.method, given.preset, given.dataset, given.space)
    return commands.configure(*asked, data_dir=given.data_dir or "", resize=resize_of(given.set))


def applied(given: flags.FlagValues, config: Any) -> Any:
    """The flags that change single settings, then every --set; flags that would do nothing are refused."""
    from nasjax import commands
    from nasjax.problem.problem import Problem
    from nasjax.settings import names, override

    if given.table is not None:
        config = commands.with_table(config, given.table)
    known = names(config)
    for name in DIRECT:
        if getattr(given, name) is not None:
            if name not in known:
                raise ValueError(f"--{name} has no effect with --method={config.method}; leave it out")
            config = dataclasses.replace(config, **{name: getattr(given, name)})
    if given.ray_address is not None:
        if getattr(config, "runtime", "") != "ray":
            raise ValueError("--ray_address has no effect without --runtime=ray; leave it out")
        config = dataclasses.replace(config, ray=dataclasses.replace(config.ray, address=given.ray_address))
    if given.data_dir is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=given.data_dir))
    if given.dtype is not None:
        for field in known & {"recipe", "search", "supernet", "retrain_recipe"}:
            part: Any = getattr(config, field)
            if "dtype" in names(part):
                config = dataclasses.replace(config, **{field: dataclasses.replace(part, dtype=given.dtype)})
    for assignment in given.set:
        name = assignment.partition("=")[0].strip()
        if name in OWN:
            raise ValueError(f"--set {name}: write {OWN[name]} instead")
        if given.mode == "export" or (given.mode == "predict" and name != "data.same_units"):
            raise ValueError(f"--set {name} has no effect with --mode={given.mode}; leave it out")
    config = override(config, *given.set)
    problem = Problem(config)
    tabular = problem.looked_up
    alone = given.mode != "search" and not (given.mode == "retrain" and config.retrain.grid)
    by_data = {"data_dir": tabular or not problem.source.folder}
    by_data |= dict.fromkeys((*LIMITS, "dataset"), tabular)
    by_mode = {
        "arch": given.mode in ("search", "export", "predict"),
        "trials": given.mode in ("retrain", "export", "predict", "latency"),
        "workers": alone,
        "runtime": alone,
        "ray_address": alone,
        "trial_timeout": given.mode != "search",
        "init_from": given.mode != "search",
        "log": given.mode not in ("search", "retrain"),
        "point": given.mode not in ("export", "predict"),
        **dict.fromkeys(TUNING, given.mode != "export"),
        **dict.fromkeys([name for name in LIMITS if name != "latency"], given.mode in ("retrain", "export", "predict")),
    }
    if given.mode == "export" and given.point is None:
        for name in TUNING:
            if getattr(given, name) is not None:
                raise ValueError(f"--{name} is for networks of a front: add --point=NUMBER|all, or leave it out")
    if given.changed_plugin and not given.plugin:
        raise ValueError("--changed_plugin has no effect without --plugin=FILE.py; leave it out")
    for name, unused in [*by_data.items(), *by_mode.items()]:
        if unused and getattr(given, name) is not None:
            of_mode = by_mode.get(name, False)
            what = f"--mode={given.mode}" if of_mode else f"--space={config.space.name} on {config.data.name}"
            instead = "leave it out"
            if given.mode == "retrain" and name == "workers":
                instead = "they try the points of a grid: add --set retrain.grid=true"
            if name == "data_dir" and given.dataset is None and not tabular:
                instead = "say what the folder holds: --dataset=image_folder, if a folder per class"
            raise ValueError(f"--{name} has no effect with {what}; {instead}")
    return config
