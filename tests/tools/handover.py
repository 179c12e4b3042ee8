"""What a method hands to the library: its calls, recorded with all that was given, while nothing is trained.

A run of a method of the command (`make`, `facts`, `evaluator`, `run`) and of the retraining of its best is cut short:
the host loops, the networks and the data have stand-ins. Every call from experiments/ or commands/ into another room is
kept with its arguments as plain values. A function counts as what it closes over, but for the settings themselves. So
two settings that are wired alike leave the same record, and one that reaches nothing leaves no trace.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tools.stand_ins import ROW, STAND_INS, Enough, refusals, tree_of

import nasjax
from nasjax import catalog, commands
from nasjax.experiments.families import true_results
from nasjax.problem.problem import Problem
from nasjax.settings import as_json
from nasjax.spaces.conv_chain.space import ConvChain
from nasjax.types import Watch

CALLERS = ("nasjax.experiments", "nasjax.commands", "nasjax.problem")
ROOMS = ("data", "learners", "searchers", "evaluators", "nets", "drive", "train", "runtime", "problem", "latency")
AHEAD = "nasjax.drive.foresight."  # who only asks whether a training could begin has not received its settings
METHODS_OWN = ("search", "supernet", "table")  # fields of a config whose values are the experiments' own records


class Plain:
    """Any value as lists, dicts and strings; values of the `opaque` types say nothing of themselves."""

    def __init__(self, *opaque):
        self.opaque, self.active, self.known = opaque, set(), {}

    def __call__(self, x):
        if x is None or isinstance(x, (bool, int, float, str)):
            return repr(x)
        if isinstance(x, self.opaque):
            return "settings"
        if id(x) in self.active:
            return "itself"
        if id(x) not in self.known:
            self.active.add(id(x))
            self.known[id(x)] = self.of(x), x  # kept: an id may come again
            self.active.discard(id(x))
        return self.known[id(x)][0]

    def of(self, x):
        kind = type(x).__qualname__
        if isinstance(x, Path):
            return kind
        if isinstance(x, (jax.Array, np.ndarray, np.generic)):
            if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x = jax.random.key_data(x)
            array = np.asarray(x)
            return [str(array.dtype), str(array.shape), hashlib.sha1(np.ascontiguousarray(array)).hexdigest()]
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            return [kind, {field.name: self(getattr(x, field.name, None)) for field in dataclasses.fields(x)}]
        if isinstance(x, dict):
            return {str(key): self(value) for key, value in x.items()}
        if isinstance(x, (tuple, list)):
            return [kind, *map(self, x)]
        if isinstance(x, (set, frozenset)):
            return [kind, *sorted(map(str, map(self, x)))]
        if isinstance(x, functools.partial):
            return [kind, self(x.func), self(x.args), self(x.keywords)]
        if inspect.ismethod(x):
            return [kind, self(x.__func__), self(x.__self__)]
        if inspect.isfunction(x):
            where = [x.__module__, x.__qualname__, str(x.__code__.co_firstlineno)]
            return [*where, self(x.__defaults__), self(x.__kwdefaults__), *map(self.cell, x.__closure__ or ())]
        if hasattr(x, "__wrapped__"):  # jitted, or with a cache
            return [kind, self(x.__wrapped__)]
        return getattr(x, "__qualname__", kind)

    def cell(self, cell):
        try:
            return self(cell.cell_contents)
        except ValueError:
            return "empty"


class Handover:
    """The calls of one run of `config` in the folder `path`."""

    def __init__(self, config, path):
        own = [type(getattr(config, name)) for name in METHODS_OWN if hasattr(config, name)]
        self.config, self.path, self.plain = config, path, Plain(type(config), *own)
        self.calls, self.known = {}, {}  # name of a function -> [{parameter: plain value}]; those of each phase

    def saw(self, name, given):
        self.calls.setdefault(name, []).append({n: self.plain(value) for n, value in given.items() if n not in NO_NEWS})

    def phase(self, n):
        """The calls of one phase. The last needs none of the others."""
        if n not in self.known:
            if n in (1, 2):
                self.phase(0)
            with recording(self), contextlib.suppress(Enough):
                (self._make, self._facts, self._run, self._retrain)[n]()
            self.known[n], self.calls = self.calls, {}
        return self.known[n]

    def _make(self):
        true_results._table.cache_clear()  # another run may have read the table
        self.experiment = catalog.method(self.config.method).make(Problem(self.config))
        self.saw("experiment", {"run": self.experiment.run})

    def _facts(self):
        if getattr(self.config, "workers", 0):
            commands.search(self.config, self.path / "workers", progress=False)
        self.saw("facts", {"facts": self.experiment.facts()})
        if self.experiment.evaluator is not None:
            self.saw("evaluator", {"evaluator": self.experiment.evaluator()})
        refusals(self, "workers refuse", self.experiment.refuse)

    def _run(self):
        (self.path / "supernet").mkdir(parents=True, exist_ok=True)
        outcome = self.experiment.run(self.path, Watch(), None)
        found = outcome.best or {}
        self.saw("outcome", {"metric": outcome.metric, **{n: found.get(n) for n in ("fitness", "search_accuracy")}})

    def _retrain(self):
        if Problem(self.config).looked_up:
            return
        (self.path / "retrain").mkdir(parents=True, exist_ok=True)
        lines = [{**ROW, "id": n, "hash": str(n), "arch": tree_of(self.config.space)} for n in range(4)]
        (self.path / "retrain/trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (self.path / "retrain/best.json").write_text(json.dumps(lines[0]))
        (self.path / "retrain/config.json").write_text(json.dumps({"config": as_json(self.config)}))
        commands.retrain(self.config, self.path / "retrain", progress=False)


# Where a setting has arrived: in what runs, or in a call for its own sake. What others return must get there first.
ARRIVED = (
    *("experiment", "learner", "evaluator", "refused", "epoch", "outcome", "validated"),
    *("drive.", "data.dataset.", "runtime.", "train.passes.", "learners.stopping.", "learners.curvature."),
    *("learners.p_darts.derive", "learners.msr_darts.derive", "learners.msr_darts.stable_ranks"),
    *("evaluators.path_training.", "evaluators.scores.", "evaluators.table.load_table", "searchers.additive."),
    *("latency.record.read", "latency.memory."),
)
UNRECORDED = {"progress", "far", "doing", "at", "compiling", "compiled_s", "listening"}  # they show
# What tells nothing of the numbers: who is told, where, and all settings as config.json has them.
NO_NEWS = {
    "text",
    "arguments",
    "on_told",
    "on_step",
    "on_epoch",
    "record",
    "record_line",
    "watch",
    "workdir",
    "logs",
}


@functools.cache
def functions():
    """{function: what stands in for it while calls are recorded}, and where all modules name them."""
    for module in pkgutil.walk_packages(nasjax.__path__, "nasjax."):
        if module.name.split(".")[1] in (*ROOMS, "experiments", "commands", "tasks"):
            with contextlib.suppress(ImportError):
                import_module(module.name)
    ours = [module for name, module in sorted(sys.modules.items()) if name.startswith("nasjax.")]
    found = {}
    for module in ours:
        if module.__name__.split(".")[1] in ROOMS:
            for name, value in vars(module).items():
                own = getattr(value, "__module__", None) == module.__name__
                own &= inspect.isfunction(value) or hasattr(value, "cache_clear")
                if own and not name.startswith("_") and name not in UNRECORDED:
                    found[value] = _wrapped(value, f"{module.__name__}.{name}")
    places = [(m, name, v) for m in ours for name, v in vars(m).items() if callable(v) and _hashed(v) in found]
    return found, places


def _hashed(value):
    try:
        hash(value)
    except TypeError:
        return None
    return value


@functools.cache
def _known_active(space, arch):
    return ACTIVE(space, np.frombuffer(arch, np.int32))


def _active(space, arch):
    """`ConvChain.active`: slow outside of jit, and asked for the same few architectures again and again."""
    if isinstance(arch, jax.core.Tracer):
        return ACTIVE(space, arch)
    return _known_active(space, np.asarray(arch, np.int32).tobytes())


ACTIVE = ConvChain.active
_NOW = []  # the handover that is being recorded
_PROGRAMS = {}  # what equal functions were jitted to: a new closure would compile again


def _wrapped(real, name):
    signature, stand_in = inspect.signature(real), STAND_INS.get(name)
    parameters = {n: p.default for n, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}

    @functools.wraps(real)
    def call(*arguments, **settings):
        if not _NOW:
            return real(*arguments, **settings)
        handover = _NOW[-1]
        if not name.startswith(AHEAD) and sys._getframe(1).f_globals.get("__name__", "").startswith(CALLERS):
            given = signature.bind(*arguments, **settings).arguments
            handover.saw(name.removeprefix("nasjax."), {**parameters, **given})
            if "refuse" in given:  # limits, as a function of settings that say nothing of themselves
                for beyond in ({"params": 10**9}, {"macs": 10**9}, {"latency_ms": 9.0}, {"memory_mb": 9.0}):
                    row = {"params": 0, "macs": 0, "latency_ms": 0.0, "memory_mb": 0.0, **beyond}
                    handover.saw("refused", {"why": given["refuse"](row)})
        return (functools.partial(stand_in, handover, real) if stand_in else real)(*arguments, **settings)

    return call


@contextlib.contextmanager
def recording(handover):
    """While it is open, calls of methods and commands are written into `handover`."""
    found, places = functions()
    jit, plain = jax.jit, Plain()

    def jit_once(function=None, **options):
        if function is None:
            return functools.partial(jit_once, **options)
        key = json.dumps([plain(function), sorted(map(str, options.items()))])
        return _PROGRAMS.setdefault(key, jit(function, **options))

    for module, name, real in places:
        setattr(module, name, found[real])
    jax.jit = jit_once
    ConvChain.active = _active
    _NOW.append(handover)
    try:
        yield
    finally:
        _NOW.pop()
        jax.jit, ConvChain.active = jit, ACTIVE
        for module, name, real in places:
            setattr(module, name, real)


def difference(base, other):
    """Names of the parameters whose values differ between two records of calls, with the functions they belong to."""
    found = set()
    for name in base.keys() | other.keys():
        a, b = base.get(name, []), other.get(name, [])
        if len(a) != len(b):
            found.add((name, "calls"))
        for one, two in zip(a, b, strict=False):
            found |= {(name, n) for n in one.keys() | two.keys() if one.get(n) != two.get(n)}
    return found
