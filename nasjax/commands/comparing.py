"""A comparison of searchers: from names and settings to `referee.contest`, and what it leaves in a folder."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nasjax import catalog
from nasjax.commands.configuration import configure, environment, with_table
from nasjax.drive.heartbeat import heartbeat
from nasjax.problem.problem import Problem
from nasjax.referee import children, contest, draws, on_table, record
from nasjax.referee.contest import Entrant, Field, Rules
from nasjax.referee.external import ANSWER_S, Files, Line, Program
from nasjax.referee.figures import BASELINE
from nasjax.referee.lines import ONLY
from nasjax.referee.lines import lines as told_lines
from nasjax.settings import as_json, override
from nasjax.types import Watch

PAGE, RECORD = "compare.html", "compare.json"
_PLACES = ("space", "table", "dataset", "data_dir", "preset", "target", "runs")  # of a problem, beside settings
_OWN = ("search.", "width")  # settings that a searcher may have for itself; all others are the problem's


class Compared(NamedTuple):
    """A finished comparison: what compare.json holds, lines for the user, and the page (None = not written)."""

    record: dict[str, Any]
    lines: tuple[str, ...]
    page: Path | None = None

    @property
    def sha256(self) -> str:
        """Of what was agreed and what came out: the same whenever it is run again with the same seed."""
        digest: str = self.record["sha256"]
        return digest

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<pre>{escape(chr(10).join(self.lines))}</pre>"


def compare(
    methods: Sequence[str],
    problems: Mapping[str, Sequence[str]] | None = None,
    *,
    seeds: int = 20,
    trials: int | None = None,
    seconds: float | None = None,
    macs: float | None = None,
    seed: int | None = None,
    settings: Sequence[str] = (),
    external: Mapping[str, str | Callable[[], Any]] | None = None,
    named: bool = False,
    answer_s: float = ANSWER_S,
    plugin: str = "",
    out: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    **place: Any,
) -> Compared:
    """Compares searchers at equal cost on the same seeds, which the referee draws; random search is always in it.

    Args:
      methods: names, or "LABEL=NAME" for a second setting of one.
      problems: {name: ["space=NAME", "table=FILE", "table.fitness=COLUMN", ..]}: places (space, table, dataset,
        data_dir, preset, target, runs) and settings, in the form of --set. None = one, made of `place`.
      seeds: searches of every searcher on every problem.
      trials, seconds, macs: the budget of a search, one of the three: candidates; the sum of a table's cost column;
        multiply-adds of training (of forward passes; on a table the cost column must hold them).
      seed: the number from which all seeds follow; None = the operating system draws it, so that nobody can choose it.
      settings: for all "NAME=VALUE", for one searcher "LABEL:search.NAME=VALUE".
      external: {label: command, folder, or function that starts a `referee.external.Line`}.
      named: those see the names of a table's choices.
      answer_s: seconds that they may take for an answer.
      plugin: digest of the plugins that were run.
      out: a folder for compare.html and compare.json, and the searches without a table; None = nothing is written.
      say: receives progress, a line at a time.
      **place: space, table, dataset, data_dir, preset, target and runs, of all problems.

    Returns:
      Compared; its record's "comparison" has the figures.

    Raises:
      ValueError: a wrong name, setting or budget, a table without what is asked, or a proposer that fails.

    Example:
      >>> found = nasjax.compare(["evolution"], space="tabular_cell", table="FILE.npz", trials=100)  # doctest: +SKIP
    """
    began = time.monotonic()
    budgets = {"trials": trials, "seconds": seconds, "multiply-adds": macs}
    (given,) = _one({unit: limit for unit, limit in budgets.items() if limit is not None})
    if seeds < 2:
        raise ValueError(f"a comparison needs several seeds, two at least (--seeds=0..49 are 50), got {seeds}")
    master = draws.secret() if seed is None else seed
    rules = Rules(master, seeds, float(budgets[given] or 0), given, named)
    if unknown := set(place) - set(_PLACES):
        raise TypeError(f"compare takes {', '.join(_PLACES)} beside its own arguments, not {sorted(unknown)[0]}")
    common = [f"{name}={value}" for name, value in place.items() if value is not None]
    every = {name: [*common, *words] for name, words in (problems or {ONLY: ()}).items()}
    folder = None if out is None else Path(out)
    fields = []
    for name, words in every.items():
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"a problem's name has letters, digits, _, . and - only, got {name!r}")
        fields.append(
            _field(name, words, _labels(methods), settings, external or {}, rules, folder, answer_s, plugin, say)
        )
    with heartbeat(Watch(say=say), "comparing") as watch:
        told, spent = contest.contest(fields, rules, watch.say)
    beside = {**spent, "all_seconds": time.monotonic() - began, "environment": environment()}
    beside |= {"drawn": "drawn by the referee" if seed is None else "from a given number"}
    found = record.whole(told, beside)
    page = None
    if folder is not None:
        from nasjax.referee.page import write

        record.write(folder / RECORD, found)
        page = write(folder / PAGE, found)
    return Compared(found, tuple(told_lines(found, page)), page)


def _one(budgets: dict[str, Any]) -> list[str]:
    """The unit of the budget. Raises ValueError where none or several are given, or it is not positive."""
    if len(budgets) != 1:
        raise ValueError("equal cost is one of --trials=N, --seconds=N (of the table) and --macs=N; give one of them")
    if not min(budgets.values()) > 0:
        raise ValueError(f"a budget must be above 0, got {min(budgets.values())}")
    return list(budgets)


def _labels(methods: Sequence[str]) -> dict[str, str]:
    """{label: method}, random search first. Raises ValueError for a label that comes twice."""
    found = {BASELINE: BASELINE}
    for text in methods:
        label, equals, name = text.partition("=")
        if label in found and label != BASELINE:
            raise ValueError(f"{label} comes twice; write LABEL={name or label} for another setting of it")
        if label == BASELINE and equals:
            raise ValueError(f"{BASELINE} is the baseline; choose another label for {name}")
        found[label] = name if equals else label
    return found


def _base(words: Iterable[str], settings: Sequence[str], plugin: str) -> tuple[Any, dict[str, str]]:
    """The settings of a problem, as random search has them, and its places."""
    split = [word.partition("=") for word in words]
    places = {name: value for name, _, value in split if name in _PLACES}
    own = [f"{name}={value}" for name, _, value in split if name not in _PLACES]
    config = configure(BASELINE, places.get("preset"), places.get("dataset"), places.get("space"))
    if places.get("table"):
        config = with_table(config, places["table"])
    if places.get("data_dir"):
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=places["data_dir"]))
    config = dataclasses.replace(config, width=1, inherit=False, plugin=plugin)
    for assignment in (*settings, *own):
        if assignment.startswith("search."):
            raise ValueError(f"--set {assignment}: say whose it is, --set LABEL:{assignment}")
        if assignment.startswith("seed="):
            raise ValueError(f"--set {assignment}: the referee draws all seeds; leave it out")
    return override(config, *settings, *own), places


def _field(
    name: str,
    words: Sequence[str],
    labels: Mapping[str, str],
    settings: Sequence[str],
    external: Mapping[str, str | Callable[[], Any]],
    rules: Rules,
    folder: Path | None,
    answer_s: float,
    plugin: str,
    say: Callable[[str], None],
) -> Field:
    """One problem with all that take part."""
    own: dict[str, list[str]] = {label: [] for label in labels}
    general = []
    for assignment in settings:
        label, colon, rest = assignment.partition(":")
        if not colon or "=" in label:
            general.append(assignment)
        elif label not in own:
            raise ValueError(f"--set {assignment}: {label} does not take part; choose from {', '.join(own)}")
        elif not rest.startswith(_OWN):
            raise ValueError(f"--set {assignment}: only search.* and width are a searcher's own; all else is equal")
        else:
            own[label].append(rest)
    base, places = _base(words, general, plugin)
    problem = Problem(base, say)
    entrants = [_entrant(label, method, own[label], base, places, rules) for label, method in labels.items()]
    for label, begin in external.items():
        if label in labels:
            raise ValueError(f"--external {label} has the name of a method that takes part; write 'OTHER: command'")
        starts = functools.partial(_line, begin, answer_s) if isinstance(begin, str) else begin
        command = begin if isinstance(begin, str) else "in this process"
        entrants.append(Entrant(label, None, begin=starts, facts={"command": command}))
    facts = {"settings": _agreed(base), "places": {n: v for n, v in places.items() if n not in ("data_dir", "table")}}
    target = float(places["target"]) if "target" in places else None
    if target is not None and problem.metric.unit == "fraction" and target > 1:
        raise ValueError(f"target={target:g}: {problem.metric.name} is a fraction; write target={target / 100:g}")
    if problem.looked_up:
        more: dict[str, Any] = {"target": target, "runs": places.get("runs"), "facts": facts}
        return on_table.field(name, problem.metric, base.space, base.table, tuple(entrants), rules, **more)
    if "runs" in places:
        raise ValueError("runs=COLUMN belongs to a table; leave it out")
    return children.field(name, problem, catalog.method(BASELINE).make, tuple(entrants), rules, folder, target, facts)


def _line(command: str, answer_s: float) -> Line:
    """What a proposer's messages go to: the files of a folder, or a program."""
    return Files(Path(command), answer_s) if Path(command).is_dir() else Program(command, answer_s)


def _agreed(config: Any) -> dict[str, Any]:
    """The settings that are equal for all, without places on this machine."""
    tree: dict[str, Any] = as_json(config)
    kept = ("space", "form", "recipe", "table", "last_epochs", "strategy", "max_params", "max_macs", "data")
    also = ("max_latency_ms", "inherit", "candidate_scores", "refuse_worst", "plugin")
    costs = ("max_memory_mb", "memory_batch", "tradeoff")
    found = {name: tree[name] for name in (*kept, *also, *costs)}
    found["space"] = {name: value for name, value in found["space"].items() if name != "part"}  # a file
    found["table"] = {name: value for name, value in found["table"].items() if name != "path"}
    found["data"] = {name: value for name, value in found["data"].items() if name != "data_dir"}
    return found


def _entrant(
    label: str, method: str, own: Sequence[str], base: Any, places: Mapping[str, str], rules: Rules
) -> Entrant:
    """A method's searcher on a problem: its settings of the search, and everything else of the problem's."""
    config = configure(method, places.get("preset"), places.get("dataset"), base.space.name)
    if config.table is None:
        raise ValueError(f"{method} does not try candidates one by one, so it has no equal cost; leave it out")
    config = override(dataclasses.replace(base, method=method, search=config.search), *own)
    if rules.trials is not None:
        config = dataclasses.replace(config, trials=rules.trials)
    experiment = catalog.method(method).make(Problem(config))
    searcher = experiment.searcher
    if searcher is None:
        raise ValueError(f"{label}: what precedes a search (search.prefilter) has no part in a comparison; set it to 0")
    proposal = jax.eval_shape(lambda key: searcher.ask(key, searcher.init(key), 1)[1], jax.random.key(0))
    own_way = None if proposal.fidelity is None else experiment.evaluator
    facts = {"method": method, "search": as_json(config.search)}
    return Entrant(label, searcher, config.width, evaluator=own_way, facts=facts)


def parsed(text: str, flag: str) -> tuple[str, str]:
    """NAME and the rest of "NAME: rest"; "" where it has no name. Raises ValueError for an empty one."""
    found = re.fullmatch(r"\s*(?:([\w.-]+):\s+)?(.*\S)\s*", text)
    if not found:
        raise ValueError(f"--{flag}={text}: write --{flag}='NAME: ...'")
    return found[1] or "", found[2]


def problems_of(texts: Sequence[str]) -> dict[str, list[str]] | None:
    """`problems` of --problem flags, "NAME: word word"; None where there are none. Raises ValueError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, rest = parsed(text, "problem")
        words = shlex.split(rest)
        if not name or name in found or any("=" not in word for word in words):
            raise ValueError(f"--problem={text}: write --problem='NAME: space=NAME table=FILE', each with its own name")
        found[name] = words
    return found or None


def external_of(texts: Sequence[str]) -> dict[str, str]:
    """`external` of --external flags, "LABEL: command", or one command. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        label, command = parsed(text, "external")
        if (label or "external") in found:
            raise ValueError("several programs need names: --external='NAME: command'")
        found[label or "external"] = command
    return found
