"""`python -m nasjax.launch --method=M`: the command line, and the only place with flags.

Exit codes: 0 done; 1 the run failed; 2 wrong usage; 130 interrupted after saving.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from absl import flags

from nasjax import catalog
from nasjax.runtime import jax_settings, xla_flags

_OWN_FLAGS = {"method": "--method", "preset": "--preset", "data.name": "--dataset", "plugin": "--plugin"}
_OWN_FLAGS |= {"table.path": "--table", "truth": "--truth"}
MODES = ("search", "retrain", "inspect", "report", "predict", "export")


def define() -> flags.FlagValues:
    """The flags, apart from absl's global ones: importing this module changes no other program's flags."""
    values = flags.FlagValues()

    def text(name: str, help: str) -> None:
        flags.DEFINE_string(name, None, help, flag_values=values)

    text("method", " | ".join(catalog.METHODS))
    flags.DEFINE_string("mode", MODES[0], " | ".join(MODES), flag_values=values)
    text("preset", "demo (the default, minutes on two cores) | paper (published) | paper_v2 | paper_v3")
    text("space", " | ".join(catalog.SPACES))
    text("table", "results of all architectures (.npz), to be looked up instead of training")
    text("truth", "true results of all architectures (.npz), to compare a search's estimates with")
    text("dataset", " | ".join((*catalog.DATA, "FILE.npz with x and y", "FILE.csv with file and label")))
    text("data_dir", "folder of the data set")
    text("workdir", "default runs/METHOD-SPACE-DATASET-sSEED; report: several, a,b")
    for name, help in (
        ("seed", "the run's seed"),
        ("trials", "number of candidates"),
        ("max_params", "refuse candidates with more parameters"),
        ("max_macs", "refuse candidates with more multiply-adds"),
        ("workers", "number of worker processes; 0 evaluates in this process"),
    ):
        flags.DEFINE_integer(name, None, help, flag_values=values)
    flags.DEFINE_float("trial_timeout", None, "seconds for a candidate, with --workers", flag_values=values)
    text("runtime", "inline (this process) | process (the default with --workers: on this machine) | ray")
    text("ray_address", "HOST:PORT or auto, with --runtime=ray; default $RAY_ADDRESS, else Ray is started here")
    text("coordinator", "HOST:PORT of process 0, or auto (SLURM, TPU pods): one run in several processes, one per host")
    for name, help in (("processes", "how many"), ("process", "the index of this process, from 0")):
        flags.DEFINE_integer(name, None, f"with --coordinator=HOST:PORT: {help}", flag_values=values)
    text("dtype", "float32 | tf32 | bfloat16")
    text("arch", "an architecture: NAME, JSON or FILE")
    text("input", "a file or folder for --mode=predict")
    text("plugin", "FILE.py with your own space, data set, searcher or task; it is run")
    flags.DEFINE_boolean("changed_plugin", False, "resume although the plugin's file has changed", flag_values=values)
    flags.DEFINE_multi_string("set", [], "dotted.field=value, any setting, repeatable", flag_values=values)
    flags.DEFINE_string("compile_cache", "on", "on | off | FOLDER: keep compiled programs", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command `argv` (argv[0] is the program's name) and returns its exit code."""
    given = define()
    interrupts: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        interrupts.append(number)  # a library may turn the exception into another
        signal.default_int_handler(number, frame)

    try:
        rest = given(argv)
        if given.help:
            print(f"{__doc__}\n{given.get_help()}\n\n{_names()}")
            return 0
        if len(rest) > 1:
            raise ValueError(f"unexpected argument {rest[1]!r}; flags are written --name=value")
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell may let background jobs ignore the first
            signal.signal(number, interrupt)
        return _run(given, argv)
    except (flags.Error, ValueError, FileNotFoundError) as error:
        if interrupts:
            return _interrupted()
        if not isinstance(error, FileNotFoundError) and _unexpected(error):
            return 1
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if interrupts:
            return _interrupted()
        if jax_settings.no_backend(error):
            print(f"error: {_one_line(error)}", file=sys.stderr)
            return 2
        from nasjax.store.checkpoint import RunError

        if not isinstance(error, (RunError, OSError)):  # an OSError is a full or vanished disk
            _unexpected(error, always=True)
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 1


def _interrupted() -> int:
    print("\ninterrupted; what was finished is saved, the same command resumes from there", file=sys.stderr)
    return 130


def _names() -> str:
    """What the catalog lists."""
    kinds = (("methods", catalog.METHODS), ("spaces", catalog.SPACES), ("data sets", catalog.DATA))
    return "\n".join(
        line for kind, names in kinds for line in (f"{kind}:", *(f"  {name:<14}{what}" for name, what in names.items()))
    )


def _run(given: flags.FlagValues, argv: list[str]) -> int:
    try:
        import jax  # noqa: F401
    except ValueError as error:  # a variable of JAX's
        raise ValueError(f"JAX refuses its settings in the environment: {error}") from error
    from nasjax import commands

    if given.mode not in MODES:
        raise ValueError(f"unknown mode {given.mode!r}; choose from {', '.join(MODES)}")
    workdirs = [Path(name) for name in (given.workdir or "").split(",") if name]
    if given.mode == "report":
        if not workdirs:
            raise ValueError("--mode=report needs --workdir=DIR (several: DIR,DIR)")
        print(commands.report(workdirs))
        return 0
    if len(workdirs) > 1:
        raise ValueError(f"--mode={given.mode} takes one --workdir; only --mode=report takes several")
    if (given.mode == "predict") != (given.input is not None):
        raise ValueError("--input=FILE|FOLDER belongs to --mode=predict, which needs it")
    xla_flags.check()
    digest = ""
    if given.plugin is not None:
        from nasjax.store import plugin

        digest = plugin.use(given.plugin)
    jax_settings.check()
    first = _join(given)
    _compile_cache(given.compile_cache)
    config, workdir = _settings(given, workdirs, digest)
    if given.mode == "inspect":
        print(json.dumps(commands.inspect(config, given.arch)))
    elif given.mode == "search":
        if getattr(config, "workers", 0):
            jax_settings.stay_off_accelerators()
        command = shlex.join(["python", "-m", "nasjax.launch", *argv[1:]])
        found = commands.search(config, workdir, command, progress=first, changed_plugin=given.changed_plugin)
        _tell(first, found.lines)
    elif given.mode == "retrain":
        trained = commands.retrain(config, workdir, given.arch, progress=first, changed_plugin=given.changed_plugin)
        _tell(first, trained.lines)
    elif given.mode == "predict":
        print("\n".join(map(str, commands.predict(workdir, given.input, same_units=config.data.same_units))))
    else:
        print("\n".join(map(str, commands.export(workdir))))
    return 0


def _join(given: flags.FlagValues) -> bool:
    """Joins the run's other processes, if there are any; returns whether this is the one that prints."""
    numbers = (given.processes, given.process)
    if given.coordinator is None:
        if numbers != (None, None):
            raise ValueError("--processes and --process have no effect without --coordinator; leave them out")
        return True
    if given.mode not in ("search", "retrain"):
        raise ValueError(f"--coordinator has no effect with --mode={given.mode}; leave it out")
    from nasjax.runtime import hosts

    return hosts.join(given.coordinator, *numbers)


def _tell(first: bool, lines: tuple[str, ...]) -> None:
    if first:
        print("\n".join(lines))


def _settings(given: flags.FlagValues, workdirs: list[Path], plugin: str) -> tuple[Any, Path]:
    """The configuration and the workdir. Modes that work on a finished search use its settings."""
    from nasjax import commands

    asked = {name: getattr(given, name) for name in ("method", "preset", "dataset", "space")}
    if given.mode == "retrain" and not workdirs and given.method is not None:
        usual = commands.default_workdir(commands.configure(*asked.values()))
        if given.seed is None and (usual / "config.json").exists():
            workdirs = [usual]
    searched = bool(workdirs) and (workdirs[0] / "config.json").exists()
    if given.mode in ("export", "predict") and not searched:
        what = f"; {workdirs[0]} is none" if workdirs else ""
        raise ValueError(f"--mode={given.mode} needs the --workdir=DIR of a retrained search{what}")
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
        return _apply(given, config), workdirs[0]
    config = dataclasses.replace(commands.configure(*asked.values()), plugin=plugin)
    config = _apply(given, config)
    workdir = workdirs[0] if workdirs else commands.default_workdir(config)
    return config, workdir


def _apply(given: flags.FlagValues, config: Any) -> Any:
    """The flags that change single settings, then every --set; flags that would do nothing are refused."""
    from nasjax import commands
    from nasjax.problem.problem import Problem
    from nasjax.settings import names, override

    if given.table is not None:
        config = commands.with_table(config, given.table)
    known = names(config)
    for name in ("truth", "seed", "trials", "max_params", "max_macs", "workers", "runtime", "trial_timeout"):
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
        if name in _OWN_FLAGS:
            raise ValueError(f"--set {name}: write {_OWN_FLAGS[name]} instead")
        if given.mode == "export" or (given.mode == "predict" and name != "data.same_units"):
            raise ValueError(f"--set {name} has no effect with --mode={given.mode}; leave it out")
    config = override(config, *given.set)
    problem = Problem(config)
    tabular = problem.looked_up
    idle = {
        "data_dir": tabular or not problem.source.folder,
        "max_params": tabular,
        "max_macs": tabular,
        "dataset": tabular,
        "arch": given.mode in ("search", "export", "predict"),
        "trials": given.mode in ("retrain", "export", "predict"),
        "workers": given.mode != "search",
        "runtime": given.mode != "search",
        "ray_address": given.mode != "search",
        "trial_timeout": given.mode != "search",
    }
    if given.changed_plugin and given.plugin is None:
        raise ValueError("--changed_plugin has no effect without --plugin=FILE.py; leave it out")
    for name, unused in idle.items():
        if unused and getattr(given, name) is not None:
            by_mode = name in ("arch", "trials", "workers", "runtime", "ray_address", "trial_timeout")
            what = f"--mode={given.mode}" if by_mode else f"--space={config.space.name} on {config.data.name}"
            raise ValueError(f"--{name} has no effect with {what}; leave it out")
    return config


def _compile_cache(choice: str) -> None:
    """XLA's persistent cache of compiled programs, in the user's cache folder."""
    import jax

    if choice == "off":
        return
    folder = Path.home() / ".cache" / "nasjax" / "xla" if choice == "on" else Path(choice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if choice != "on":
            raise ValueError(f"--compile_cache={choice}: {error.strerror or error}") from error
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _unexpected(error: BaseException, *, always: bool = False) -> bool:
    """Writes the traceback to a file if the error is a bug and not the user's mistake; returns whether it is."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and f"{Path(__file__).parent}" in frames[-1].filename
    if isinstance(error, flags.Error) or (not always and ours):
        return False
    path = Path("nasjax-error.log")
    try:
        path.write_text("".join(traceback.format_exception(error)))
        print(f"this is a bug in nasjax; its traceback is in {path}", file=sys.stderr)
    except OSError:
        traceback.print_exception(error)
    if not always:
        print(f"error: {type(error).__name__}: {_one_line(error)}", file=sys.stderr)
    return True


def _left_behind() -> bool:
    """Whether a candidate is still running after its time limit."""
    inline = sys.modules.get("nasjax.runtime.inline")  # a refused command imports no JAX
    return inline is not None and inline.left_behind()


if __name__ == "__main__":
    code = main(sys.argv)
    sys.stdout.flush()
    coordinated = code and any(argument.startswith("--coordinator") for argument in sys.argv)
    if coordinated or _left_behind():
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for ever, for the candidate or for the run's other processes
    sys.exit(code)
