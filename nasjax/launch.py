"""`nasjax --method=M`, also `python -m nasjax.launch --method=M`: the command line, and the only place with flags.

Exit codes: 0 done; 1 the run failed; 2 wrong usage; 130 interrupted after saving.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from absl import flags

from nasjax import __version__, flagged
from nasjax.cli import help as help_
from nasjax.cli import runs as listing
from nasjax.cli import seeds as several
from nasjax.cli.errors import one_line, unexpected
from nasjax.runtime import jax_settings, xla_flags
from nasjax.runtime.compile_cache import keep_compiled
from nasjax.store import started

MODES = ("search", "retrain", "inspect", "report", "predict", "export", "latency", "table", "runs", "compare")
_TIMING = ("target", "clock", "batch", "networks", "unseen")  # of --mode=latency
_ALSO = (("out", "table"), ("batch", "inspect"))  # flags of --mode=latency and a mode that takes them too
_BUDGETS, _PLACES = ("trials", "seconds", "macs"), ("space", "table", "dataset", "data_dir", "preset")
_COMPARING = ("methods", "problem", "external", "named", "answer_s", "seconds", "macs")  # of --mode=compare alone


def define() -> flags.FlagValues:
    """The flags, apart from absl's global ones: importing this module changes no other program's flags."""
    values = flags.FlagValues()

    def text(name: str, help: str) -> None:
        flags.DEFINE_string(name, None, help, flag_values=values)

    text("method", "what searches, see below")
    flags.DEFINE_string("mode", MODES[0], f"{' | '.join(MODES)}; default search", flag_values=values)
    text("preset", "demo (the default, minutes on two cores) | paper | paper_v2 | paper_v3 | article | characters")
    text("space", "where it searches, see below; each method has a default")
    text("table", "results of architectures (.npz), to be looked up instead of training")
    text("truth", "true results of all architectures (.npz), to compare a search's estimates with")
    text(
        "dataset", "a name below, FILE.npz with x [N, H, W] or [N, H, W, C] and y [N], or FILE.csv with file and label"
    )
    text("data_dir", "folder of the data set")
    text("workdir", "default runs/METHOD-SPACE-DATASET-sSEED; report, table: several, a,b; runs: the folder to list")
    text("methods", "--mode=compare: what takes part, a,b, or LABEL=a; random is always in it")
    flags.DEFINE_multi_string(
        "problem", [], "--mode=compare: 'NAME: table=FILE space=NAME setting=VALUE', repeatable", flag_values=values
    )
    flags.DEFINE_multi_string(
        "external", [], "--mode=compare: a program that proposes, 'NAME: command', repeatable", flag_values=values
    )
    flags.DEFINE_boolean("named", False, "--external sees the names of a table's choices", flag_values=values)
    flags.DEFINE_float("seconds", None, "--mode=compare: the budget in a table's seconds", flag_values=values)
    flags.DEFINE_float("macs", None, "--mode=compare: the budget in multiply-adds of training", flag_values=values)
    flags.DEFINE_float("answer_s", 60.0, "seconds that --external may take for an answer", flag_values=values)
    text("seeds", "several seeds, 0..4 or 0,1,2: each in a workdir of its own, a given DIR in DIR-sSEED, then a table")
    for name, help in (
        ("seed", "the run's seed"),
        ("parallel", "with --seeds: so many processes side by side, default 1: one seed after the other in this one"),
        ("trials", "number of candidates"),
        ("max_params", "refuse candidates with more parameters"),
        ("max_macs", "refuse candidates with more multiply-adds"),
        ("workers", "number of worker processes; 0 evaluates in this process"),
    ):
        flags.DEFINE_integer(name, None, help, flag_values=values)
    text("init_from", "a trained supernet to begin with: its workdir, or FILE.safetensors")
    text("latency", "FILE.json of --mode=latency, by which milliseconds of candidates are predicted")
    flags.DEFINE_float("max_latency_ms", None, "refuse candidates that take longer, with --latency", flag_values=values)
    flags.DEFINE_float("max_memory_mb", None, "refuse candidates that need more at inference", flag_values=values)
    text("target", "--mode=latency: where networks will run, xla (the default) or onnx, for ONNX Runtime")
    text("clock", "--mode=latency: wall (the default) or cpu, where other programs share the core")
    for name, help in (
        ("batch", "samples of a call, default 1; --mode=inspect: the memory of --arch at so many"),
        ("networks", "that are timed and the predictor is fitted to, default 50"),
        ("unseen", "further ones that it is tested on, default 10"),
    ):
        flags.DEFINE_integer(name, None, f"--mode=latency: {help}", flag_values=values)
    flags.DEFINE_float("trial_timeout", None, "seconds for a candidate, with --workers", flag_values=values)
    text("runtime", "inline (this process) | process (the default with --workers: on this machine) | ray")
    text("ray_address", "HOST:PORT or auto, with --runtime=ray; default $RAY_ADDRESS, else Ray is started here")
    text("coordinator", "HOST:PORT of process 0, or auto (SLURM, TPU pods): one run in several processes, one per host")
    for name, help in (("processes", "how many"), ("process", "the index of this process, from 0")):
        flags.DEFINE_integer(name, None, f"with --coordinator=HOST:PORT: {help}", flag_values=values)
    text("dtype", "float32 | tf32 | bfloat16")
    text("arch", "an architecture for inspect and retrain: NAME, JSON, FILE, or best: the one that the workdir found")
    text("input", "a file or folder for --mode=predict")
    text("format", "what --mode=export writes: jax (the default) or onnx, which needs the extra onnx")
    text("point", "a trial with the weights of the search, by its number, for export and predict; export: or all")
    tuned = "--mode=export --point: train each network on for so many epochs, from the weights of the search"
    flags.DEFINE_integer("finetune_epochs", None, tuned, flag_values=values)
    rate = "its learning rate, default a tenth of the retraining's"
    flags.DEFINE_float("finetune_rate", None, rate, flag_values=values)
    own = "FILE.py with your own space, data set, searcher or task; it is run; repeatable"
    flags.DEFINE_multi_string("plugin", [], own, flag_values=values)
    text("log", "record in tensorboard | wandb | mlflow | trackio, perhaps with :TARGET, a folder, project or address")
    report = "default report.html in the workdir, report-A-B.html beside several"
    text("out", f"the file that --mode=report writes, {report}; the .npz of --mode=table; the folder of --mode=compare")
    flags.DEFINE_boolean("watch", False, "--mode=report: write it again while a run goes on", flag_values=values)
    flags.DEFINE_boolean("changed_plugin", False, "resume although the plugin's file has changed", flag_values=values)
    flags.DEFINE_multi_string(
        "set", [], "any setting by its dotted name, repeatable; --list_settings=METHOD has them all", flag_values=values
    )
    text("list_settings", "print every setting of a method: default, accepted values, meaning")
    kept = "on | off | FOLDER: keep compiled programs; default on"
    flags.DEFINE_string("compile_cache", "on", kept, flag_values=values)
    flags.DEFINE_boolean("verbose", False, "also show the architecture of every epoch or trial", flag_values=values)
    flags.DEFINE_boolean("version", False, "print the version", flag_values=values)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command `argv` (argv[0] is the program's name) and returns its exit code."""
    given = define()
    interrupts: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        interrupts.append(number)  # a library may turn the exception into another
        signal.default_int_handler(number, frame)

    def command() -> int:
        rest = _parsed(given, argv)
        if given.help or given.version:
            print(_help(given) if given.help else f"nasjax {__version__}")
            return 0
        if len(rest) > 1:
            instead = f"write --mode={rest[1]}" if rest[1] in MODES else "flags are written --name=value"
            raise ValueError(f"unexpected argument {rest[1]!r}; {instead}")
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell may let background jobs ignore the first
            signal.signal(number, interrupt)
        try:
            return _run(given, argv, interrupts)
        except ValueError as error:
            if len(argv) > 1:
                raise
            raise ValueError(f"{error}; --help shows all flags and modes") from None

    return _code_of(command, interrupts)


def _code_of(command: Callable[[], int], interrupts: list[int]) -> int:
    """The exit code of a command, with a line about what ended it; `interrupts` holds the signals that came."""
    try:
        return command()
    except (flags.Error, ValueError, FileNotFoundError) as error:
        if interrupts:
            return _interrupted()
        if not isinstance(error, (FileNotFoundError, flags.Error)) and unexpected(error):
            return 1
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if interrupts:
            return _interrupted()
        if jax_settings.no_backend(error):
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 2
        from nasjax.store.checkpoint import RunError

        if not isinstance(error, (RunError, OSError)):  # an OSError is a full or vanished disk
            unexpected(error, always=True)
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1


def _interrupted() -> int:
    print("\ninterrupted; what was finished is saved, the same command resumes from there", file=sys.stderr)
    return 130


def _help(given: flags.FlagValues) -> str:
    what = "nasjax: neural architecture search. Exit codes: 0 done; 1 the run failed; 2 wrong usage; 130 interrupted."
    return help_.text({name: given[name].help.partition(";\n")[0] for name in given}, what)


def _parsed(given: flags.FlagValues, argv: list[str]) -> list[str]:
    """Reads the flags, whose names may be written with dashes, --seeds also as --seed, and returns the other words.

    Raises flags.Error, which for a flag that is none says what was meant.
    """
    words = [re.sub(r"^--\w[\w-]*", lambda found: "--" + found[0][2:].replace("-", "_"), word) for word in argv]
    words = [re.sub(r"^--seed=(?=\d+(,|\.\.))", "--seeds=", word) for word in words]
    try:
        return list(given(words))
    except flags.UnrecognizedFlagError as error:
        from nasjax.commands import settings_help

        asked = [given[name].value for name in ("method", "preset", "dataset", "space")]
        meant = settings_help.meant(error.flagname, error.flagvalue.partition("=")[2], list(given), asked)
        raise flags.Error(f"Unknown command line flag {error.flagname!r}; {meant}") from error
    except flags.IllegalFlagValueError as error:
        found = re.match(r"flag --(\w+)=(.*?): ", str(error))
        wanted = {"int": "needs a whole number", "float": "needs a number", "bool": "takes no value"}
        if found is None or (kind := given[found[1]].flag_type()) not in wanted:
            raise
        several_of = "; several seeds are --seeds=0,1,2 or --seeds=0..4" * (found[1] == "seed")
        raise flags.Error(f"--{found[1]} {wanted[kind]}, got {found[2]!r}{several_of}") from error


def _run(given: flags.FlagValues, argv: list[str], interrupts: list[int]) -> int:
    if given.mode in ("runs", "report", "table"):
        for name in ("point", "format", *flagged.TUNING, *_TIMING):
            if getattr(given, name) is not None:
                raise ValueError(f"--{name} has no effect with --mode={given.mode}; leave it out")
    if given.mode == "runs":
        print("\n".join(listing.lines(Path(given.workdir or "runs"))))
        return 0
    try:
        import jax  # noqa: F401
    except ValueError as error:  # a variable of JAX's
        raise ValueError(f"JAX refuses its settings in the environment: {error}") from error
    from nasjax import commands

    if given.mode not in MODES:
        raise ValueError(f"unknown mode {given.mode!r}; choose from {', '.join(MODES)}")
    workdirs = [Path(name) for name in (given.workdir or "").split(",") if name]
    if given.mode == "compare":
        return _compare(given)
    for name in _COMPARING:
        if given[name].present:
            raise ValueError(f"--{name} has no effect without --mode=compare; leave it out")
    if given.mode == "report":
        if not workdirs:
            raise ValueError("--mode=report needs --workdir=DIR (several: DIR,DIR)")
        out = None if given.out is None else Path(given.out)
        print(commands.watch(workdirs, out, say=_say) if given.watch else commands.report(workdirs, out))
        return 0
    for name in ("out", "watch", *_TIMING):
        of_mode = (name != "watch" and given.mode == "latency") or (name, given.mode) in _ALSO
        if getattr(given, name) not in (None, False) and not of_mode:
            raise ValueError(f"--{name} has no effect with --mode={given.mode}; leave it out")
    if len(workdirs) > 1 and given.mode != "table":
        raise ValueError(f"--mode={given.mode} takes one --workdir; only --mode=report and table take several")
    if given.seeds is not None or given.parallel is not None:
        several.require(given)
    if (given.mode == "predict") != (given.input is not None):
        raise ValueError("--input=FILE|FOLDER belongs to --mode=predict, which needs it")
    if given.format is not None and given.mode != "export":
        raise ValueError(f"--format has no effect with --mode={given.mode}; leave it out")
    if given.verbose and given.mode != "search":
        raise ValueError(f"--verbose has no effect with --mode={given.mode}; leave it out")
    xla_flags.check()
    digest = ""
    if given.plugin:
        from nasjax.store import plugin

        digest = plugin.use(*given.plugin)
    if given.list_settings is not None:
        from nasjax.commands import settings_help

        config = commands.configure(given.list_settings, given.preset, given.dataset, given.space)
        own = flagged.OWN | {name: f"--{name}" for name in flagged.DIRECT} | {"data.data_dir": "--data_dir"}
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(settings_help.listed(config, own, width)))
        return 0
    jax_settings.check()
    if given.mode == "table":
        if not workdirs or given.out is None:
            raise ValueError("--mode=table needs the --workdir=DIR of a search (several: DIR,DIR) and --out=FILE.npz")
        print("\n".join(commands.tabulate(workdirs, Path(given.out))))
        return 0
    first = _join(given)
    keep_compiled(given.compile_cache)
    if given.seeds is not None:
        return _several(given, workdirs, digest, argv, interrupts)
    return _one(given, workdirs, digest, argv, first)


def _compare(given: flags.FlagValues) -> int:
    """A comparison of searchers."""
    from nasjax import commands
    from nasjax.commands import comparing
    from nasjax.store import plugin

    known = {"mode", "seeds", "seed", "trials", "set", "plugin", "out", "compile_cache", *_COMPARING, *_PLACES}
    for name in given:
        if given[name].present and name not in known:
            raise ValueError(f"--{name} has no effect with --mode=compare; leave it out")
    if given.methods is None:
        raise ValueError("--mode=compare needs --methods=a,b; random is always in it")
    seeds = several.parsed(given.seeds or "0..19")
    if seeds != list(range(len(seeds))):
        raise ValueError(f"--seeds={given.seeds}: the referee draws the seeds; say how many, --seeds=0..49")
    xla_flags.check()
    digest = plugin.use(*given.plugin) if given.plugin else ""
    jax_settings.check()
    keep_compiled(given.compile_cache)
    named: dict[str, Any] = {name: given[name].value for name in (*_BUDGETS, *_PLACES, "seed", "named", "answer_s")}
    found = commands.compare(
        [name for name in given.methods.split(",") if name],
        comparing.problems_of(given.problem),
        seeds=len(seeds),
        settings=given.set,
        external=comparing.external_of(given.external),
        plugin=digest,
        out=given.out or "runs/compare",
        say=_say,
        **named,
    )
    _tell(True, found.lines)
    return 0


def _one(given: flags.FlagValues, workdirs: list[Path], digest: str, argv: list[str], first: bool) -> int:
    """A mode that works in one workdir."""
    from nasjax import commands

    config, workdir = flagged.settings_of(given, workdirs, digest)
    tuning = {name: getattr(given, name) for name in flagged.TUNING}
    if given.mode == "inspect":
        arch = commands.asked_arch(given.arch, workdir, found=bool(given.workdir))
        facts = commands.inspect(config, arch, given.batch)
        print(json.dumps(facts, indent=2 if sys.stdout.isatty() else None))
    elif given.mode == "search":
        if getattr(config, "workers", 0):
            jax_settings.stay_off_accelerators()
        command = f"{started.own()} {shlex.join(argv[1:])}"
        with _logged(given, config, workdir, first) as options:
            found = commands.search(config, workdir, command, progress=first, verbose=given.verbose, **options)
        _tell(first, found.lines)
    elif given.mode == "retrain":
        arch = commands.asked_arch(given.arch, workdir)
        if config.retrain.grid and getattr(config, "workers", 0):
            jax_settings.leave_memory()
        with _logged(given, config, workdir, first) as options:
            trained = commands.retrain(config, workdir, arch, progress=first, **options)
        _tell(first, trained.lines)
    elif given.mode == "latency":
        _tell(True, tuple(_latencies(given, config, workdir)))
    elif given.mode == "predict":
        point = _number_of(given.point)
        written = commands.predict(workdir, given.input, point=point, same_units=config.data.same_units)
        print("\n".join(map(str, written)))
    else:
        form = given.format or "jax"
        points = [] if given.point is None else commands.export_points(workdir, given.point, form, **tuning)
        for one in points:
            print(one.line)
        files = list(points[0].files) if points else commands.export(workdir, form)
        lines, warning = commands.exported(files)
        if given.point != "all":
            _tell(True, tuple(lines))
        elif form == "jax":
            print(*lines[-1:], sep="\n", file=sys.stderr)  # how long they can be read, which is the same for all
        if warning is not None:
            print(f"warning: {warning}", file=sys.stderr)
    return 0


def _latencies(given: flags.FlagValues, config: Any, workdir: Path) -> list[str]:
    """Networks of the space are timed, or a single one."""
    from nasjax import commands

    settings = {name: value for name in ("target", "batch", "clock") if (value := getattr(given, name)) is not None}
    if given.arch is not None:
        arch = commands.asked_arch(given.arch, workdir)
        if given.out is not None or (given.networks, given.unseen) != (None, None):
            raise ValueError("--arch times one network; leave --out, --networks and --unseen out")
        return commands.time_one(config, arch or "", **settings)
    if given.out is None:
        raise ValueError("--mode=latency needs --out=FILE.json for what it measures, or --arch=ARCH for one network")
    counts = {name: getattr(given, name) for name in ("networks", "unseen") if getattr(given, name) is not None}
    return commands.measure_latency(config, given.out, **settings, **counts, seed=config.seed, say=_say)


def _several(given: flags.FlagValues, workdirs: list[Path], digest: str, argv: list[str], interrupts: list[int]) -> int:
    """The same run with several seeds."""
    from nasjax import commands

    runs, words = {}, {}
    for seed in several.parsed(given.seeds):  # what no seed takes is told once, before any run
        given["seed"].value = seed
        own = [Path(f"{workdirs[0]}-s{seed}")] if workdirs else []
        if not own and given.mode != "search":
            config = flagged.preset_of(given)
            own = [commands.default_workdir(dataclasses.replace(config, seed=seed))]
        runs[seed] = flagged.settings_of(given, own, digest)[1]
        words[seed] = several.words(given, seed, own)

    def one(seed: int) -> int:
        given["seed"].value = seed
        return _code_of(lambda: _one(given, [runs[seed]], digest, [argv[0], *words[seed]], True), interrupts)

    if given.parallel is None:
        codes = several.after_another(runs, one)
    else:
        from nasjax.runtime.process import memory

        jax_settings.stay_off_accelerators()
        python = started.again(sys.argv[0], sys.executable)
        shares = memory(given.parallel)
        codes = several.side_by_side(runs, lambda seed: [*python, *words[seed]], given.parallel, shares)
    if several.INTERRUPTED not in codes.values():
        print("\n".join(several.summary(runs, codes)))
    return several.worst(codes)


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _logged(given: flags.FlagValues, config: Any, workdir: Path, first: bool) -> Iterator[dict[str, Any]]:
    """What a search or a retraining is given beside its settings, with the tracker of `--log` while it runs."""
    from nasjax import commands

    log = commands.tracker(given.log, config, workdir) if given.log is not None and first else nullcontext()
    with log as record:
        yield {"changed_plugin": given.changed_plugin, "on_record": record}


def _tell(first: bool, lines: tuple[str, ...]) -> None:
    if first:
        print("\n".join(lines))


def _number_of(point: str | None) -> int | str | None:
    if point is not None and not re.fullmatch(r"\d+(-finetuned)?", point):
        raise ValueError(
            f"--point={point}: give the number of one trial, as 17, or as 17-finetuned; all is for --mode=export"
        )
    return int(point) if point is not None and point.isdecimal() else point


def _left_behind() -> bool:
    """Whether a candidate is still running after its time limit."""
    inline = sys.modules.get("nasjax.runtime.inline")  # a refused command imports no JAX
    return inline is not None and inline.left_behind()


def console() -> int:
    """The whole program: runs the process's command line and returns its exit code, or ends the process by it."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a plugin finds the files beside it, as with `python -m`
    code = main(sys.argv)
    sys.stdout.flush()
    coordinated = code and any(argument.startswith("--coordinator") for argument in sys.argv)
    if coordinated or _left_behind():
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for ever, for the candidate or for the run's other processes
    return code


if __name__ == "__main__":
    sys.exit(console())
