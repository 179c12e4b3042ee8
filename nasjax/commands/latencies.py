"""`--mode=latency`: networks of a space timed on this device, a predictor of them all, and one network timed again."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.commands.configuration import environment
from nasjax.latency import record
from nasjax.latency.measuring import measured
from nasjax.latency.programs import RUNTIMES, program, threads
from nasjax.latency.timing import CLOCKS, Clock, timed
from nasjax.problem.problem import Problem
from nasjax.store import checkpoint

UNSTEADY = 0.1  # of a network's time; (slowest - fastest round) where it is told


def measure_latency(
    config: Any,
    out: str | Path,
    *,
    target: str = "xla",
    batch: int = 1,
    clock: Clock = "wall",
    networks: int = 50,
    unseen: int = 10,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Times random networks of a configuration's space, fits a predictor, and writes both into the file `out`.

    Args:
      config: from `configure`; of its data only the size and the number of classes count.
      out: FILE.json for `latency` of a search's settings.
      target: the runtime: "xla", or "onnx" for ONNX Runtime.
      batch: samples of a call.
      clock: "wall", or "cpu" where other programs share the core.
      networks, unseen: that the predictor is fitted to, and tested on.
      seed: of what is drawn.
      say: hears a line per network that is ready, and per round.

    Returns:
      What to tell. Raises ValueError where the networks cannot be timed.
    """
    _require(target, batch, clock)
    if networks < 4 or unseen < 0:
        raise ValueError(f"give at least --networks 4 and --unseen 0, got {networks} and {unseen}")
    problem, path = Problem(config), Path(out)
    if path.suffix != ".json":
        raise ValueError(f"--out={out}: latencies go into a FILE.json")
    settings: dict[str, Any] = {"runtime": target, "batch": batch, "clock": clock}
    found = measured(
        problem.space,
        problem.build,
        problem.signature,
        **settings,
        count=networks,
        unseen=unseen,
        seed=seed,
        say=say,
    )
    facts = {"format": record.FORMAT, **problem.networks, **settings, "threads": threads(), **_here(), **found}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, json.loads(json.dumps(facts)))
    return [*_told(record.read(path)), f"Written: {path}; a search takes it as --latency={path} --max_latency_ms=N"]


def _require(target: str, batch: int, clock: str) -> None:
    if target not in RUNTIMES:
        raise ValueError(f"unknown --target={target}; choose {' or '.join(RUNTIMES)}")
    if clock not in CLOCKS:
        raise ValueError(f"unknown --clock={clock}; choose {' or '.join(CLOCKS)}")
    if batch < 1:
        raise ValueError(f"--batch must be at least 1, got {batch}")


def time_one(
    config: Any, arch: str, *, target: str | None = None, batch: int | None = None, clock: Clock | None = None
) -> list[str]:
    """Times one architecture, given as NAME, JSON or FILE, and tells what was predicted, where there is a file.

    What is None is as in the file of latencies, else as of `measure_latency`. Raises as that.
    """
    problem = Problem(config)
    tree = problem.read(arch)
    built, latency = problem.built(tree), problem.latency
    of_file: dict[str, Any] = {"runtime": "xla", "batch": 1, "clock": "wall"} if latency is None else latency.facts
    given = {"runtime": target, "batch": batch, "clock": clock}
    now: dict[str, Any] = {name: of_file[name] if value is None else value for name, value in given.items()}
    _require(now["runtime"], now["batch"], now["clock"])
    made = program(built, problem.signature, now["runtime"], now["batch"])
    (found,) = timed([made.opened], clock=now["clock"], seconds=3.0)
    lines = [
        f"{found.ms:.4g} ms (rounds {min(found.rounds_ms):.4g} to {max(found.rounds_ms):.4g}; median "
        f"{found.median_ms:.4g}, 90 % below {found.high_ms:.4g}, {found.calls} calls): batch {now['batch']}, "
        f"{now['runtime']}, {_threads(threads())}, {now['clock']} clock"
    ]
    same = all(of_file.get(name) == value for name, value in {**now, "threads": threads()}.items())
    if latency is not None and same:
        predicted = problem.predicted(problem.space.decode(tree), built.params, built.macs)["latency_ms"]
        lines.append(f"predicted {predicted:.4g} ms, {predicted / found.ms - 1:+.1%}, by {config.latency}")
    elif latency is not None:
        lines.append(f"{config.latency} has times of other calls ({latency.where})")
    return lines


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"


def _here() -> dict[str, Any]:
    """Device, processor, versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = environment()
    for name in ("jax2onnx", "onnx", "onnxruntime"):
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {**found, "processor": names[0] if names else platform.processor()}


def _told(latency: record.Latency) -> list[str]:
    facts = latency.facts
    ms = [row["ms"] for row in facts["measured"]]
    lines = [
        f"{len(ms)} networks of --space={facts['space']['name']} take {min(ms):.4g} to {max(ms):.4g} ms "
        f"({latency.where}, {facts['clock']} clock).",
        f"The predictor's error on a network that is left out: {facts['error']:.1%} in the mean.",
    ]
    if "unseen_error" in facts:
        lines.append(
            f"On {len(facts['unseen'])} unseen networks: {facts['unseen_error']:.1%}, Spearman "
            f"{facts['unseen_spearman']:.3f} (of multiply-adds alone {facts['unseen_spearman_of_macs']:.3f})."
        )
    unsteady = [row for row in facts["measured"] if np.ptp(row["rounds_ms"]) > UNSTEADY * row["ms"]]
    if len(unsteady) > len(ms) / 4:
        lines.append(
            f"Rounds differ by more than {UNSTEADY:.0%}: other programs are at work here; measure on an idle machine, "
            "or on one core with --clock=cpu."
        )
    return lines
