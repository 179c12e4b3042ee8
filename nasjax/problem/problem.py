"""What a run is about: space, builder, the networks' form, task and data, looked up once and handed on."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nasjax import catalog
from nasjax.data.dataset import Dataset, known_form, standardised
from nasjax.data.file_stream import fit_of
from nasjax.data.sources import DataSource, Split
from nasjax.latency import record
from nasjax.latency.fastest import fastest
from nasjax.latency.memory import memory
from nasjax.problem.arch_text import read_arch
from nasjax.problem.data import load, load_test
from nasjax.settings import as_json
from nasjax.types import Builder, Built, Metric, Signature, Task

_KEPT = 16  # networks that were built last: a trial's is asked for by what describes it and by what trains it


class Problem:
    """The problem of a configuration. No data are read before they are asked for.

    Attributes:
      config: the settings of a run.
      space: where it searches.
      looked_up: whether results come from a table, and nothing is built or trained.
      begun: the strategy of evaluation that its run was begun with, "" where it begins.

    `told` hears what is to be said of the data when they are read. Raises ValueError for an unknown name, and for a
    setting that does not fit the space or the data set.
    """

    def __init__(self, config: Any, told: Callable[[str], None] | None = None, begun: str = "") -> None:
        self.config, self.space, self.begun = config, config.space, begun
        self.looked_up: bool = config.table is not None and bool(config.table.path)
        self._told = told
        self._built: dict[bytes, Built] = {}
        self._memory_mb: dict[bytes, float] = {}
        if self.builder.of_table and not self.looked_up:
            raise ValueError(f"--space={self.space.name} is what a table holds; add --table=FILE.npz")
        if config.truth and not self.builder.tabled:
            raise ValueError(f"truth is a table of all architectures; none holds those of --space={self.space.name}")
        for name in ("recipe", "retrain_recipe"):
            streams = getattr(getattr(config, name, None), "eval_streams", 1)
            if streams > 1 and not catalog.task(self.task_name).contiguous:
                raise ValueError(f"{name}.eval_streams has no effect on --dataset={config.data.name}, which is no text")

    @functools.cached_property
    def builder(self) -> Builder:
        """Of the space."""
        return catalog.builder(self.space.name)

    @property
    def form(self) -> Any:
        """What a network has beside its architecture."""
        return self.builder.form if self.config.form is None else self.config.form

    @functools.cached_property
    def source(self) -> DataSource:
        """The data set by its name."""
        source: DataSource = catalog.source(self.config.data.name)
        return source

    @property
    def cropped(self) -> bool:
        """Whether images are the middle of files, see `DataConfig.fit`."""
        return self.source.files and fit_of(self.config.data) == "crop"

    @functools.cached_property
    def task_name(self) -> str:
        """What the data are for; only a user's own file is looked into. Raises ValueError or FileNotFoundError."""
        return self.source.task_of(self.config.data) if self.source.task_of else self.source.task

    @functools.cached_property
    def task(self) -> Task:
        """Of the data. Raises ValueError where the space's networks do not serve it."""
        task: Task = catalog.task(self.task_name)
        if not {task.name, task.like} & set(self.builder.tasks):
            raise ValueError(
                f"--space={self.space.name} is for {' and '.join(self.builder.tasks)}, "
                f"--dataset={self.config.data.name} for {task.name}; choose another space or data set"
            )
        return task

    @property
    def metric(self) -> Metric:
        """What a fitness stands for."""
        if not self.looked_up:
            return self._traded(self.task.metric)
        names = self.config.table
        plain = names.metric != "accuracy" and names.percent is None
        return Metric(names.metric, "plain" if plain else "fraction", -1 if names.smaller else 1)

    def _traded(self, metric: Metric) -> Metric:
        """The same metric, or what a fitness is where costs are a part of it."""
        costs = getattr(getattr(self.config, "tradeoff", None), "costs", ())
        return Metric(f"{metric.name} weighed by {' and '.join(costs)}", "plain", metric.sign) if costs else metric

    @functools.cached_property
    def data(self) -> Dataset:
        """Training and validation part, read when first asked for. Raises ValueError or FileNotFoundError."""
        return load(self.config.data, self._told)

    def test(self) -> Split:
        """The test part, for retraining, once. Raises as `data`."""
        return standardised(self.data, load_test(self.config.data, self._told), "test")

    @functools.cached_property
    def signature(self) -> Signature:
        """What networks read and write; the data are read only where nothing else tells."""
        if "data" not in self.__dict__ and (known := known_form(self.config.data, self.source)) is not None:
            shape, outputs = known
            x = np.broadcast_to(np.uint8(0), (1, *shape))  # no memory
            return self.task.signature(types.SimpleNamespace(train=Split(x, x), classes=outputs))
        return self.task.signature(self.data)

    def build(self, arch: np.ndarray) -> Built:
        """The network of an Arch. Raises ValueError where there is none."""
        name = np.asarray(arch).tobytes()  # an identity leaves out the numbers of edges, by which weights are inherited
        built = self._built.pop(name, None)
        if built is None:
            built = builds(self.builder, self.space, self.form, self.signature)(arch)
        self._built[name] = built  # the last to go
        if len(self._built) > _KEPT:
            self._built.pop(next(iter(self._built)), None)
        return built

    def built(self, tree: dict[str, Any]) -> Built:
        """The network of an architecture as JSON, which may lie outside the space (a baseline). Errors as `build`."""
        return self.builder.build(self.builder.widen(self.space, tree), self.form, tree, self.signature)

    def read(self, text: str) -> dict[str, Any]:
        """The JSON tree of an architecture given as NAME, JSON, FILE or in the field's notation, else ValueError."""
        return read_arch(text, self.builder, self.space)

    def formed(self, changes: dict[str, Any]) -> Problem:
        """The same with other settings of the networks' form, for example {"dropout": 0.3}.

        Raises ValueError where it has none of that name.
        """
        form = self.form
        known = () if form is None else [field.name for field in dataclasses.fields(form)]
        if missing := [name for name in changes if name not in known]:
            raise ValueError(
                f"networks of --space={self.space.name} have no {' and '.join(missing)} for a grid to try; write "
                + " ".join(f"--set 'retrain.grid_{name}s=()'" for name in missing)
            )
        if not changes:
            return self
        other = Problem(dataclasses.replace(self.config, form=dataclasses.replace(form, **changes)), self._told)
        other.__dict__.update({name: self.__dict__[name] for name in ("data", "signature") if name in self.__dict__})
        return other

    def example(self) -> dict[str, Any]:
        """An architecture of the space, as JSON."""
        if self.builder.example is not None:
            return self.builder.example(self.space)
        return dict(self.space.encode(np.asarray(self.space.sample(jax.random.key(0)))))

    def some(self) -> Built:
        """A network of the space: one that was built before, or that of `example`. Errors as `build`."""
        return next(iter(self._built.values()), None) or self.built(self.example())

    @property
    def networks(self) -> dict[str, Any]:
        """What decides the networks beside their architectures, as JSON."""
        shapes = [list(leaf.shape) for leaf in jax.tree.leaves(self.signature.inputs)]
        own = {"shape": shapes, "outputs": self.signature.outputs}
        return {"space": as_json(self.space), "form": as_json(self.form), **own}

    @functools.cached_property
    def latency(self) -> record.Latency | None:
        """What predicts milliseconds, where the settings name a file of it.

        Raises FileNotFoundError, or ValueError where the file is of other networks or none meets `max_latency_ms`.
        """
        if not getattr(self.config, "latency", ""):
            return None
        found = record.read(self.config.latency)
        found.require(self.networks, self.config.latency)
        if (limit := self.config.max_latency_ms) is not None:
            arch, least = self._fastest(found)
            if least > limit:
                raise ValueError(
                    f"max_latency_ms={limit:g}, but the fastest network takes {least:.4g} ms ({found.where}): "
                    f"{json.dumps(self.space.encode(arch))}; allow more"
                )
        return found

    def _fastest(self, latency: record.Latency) -> tuple[np.ndarray, float]:
        """The network with the least predicted time, from the fastest that was measured on."""
        rows = latency.facts["measured"]
        start = self.space.decode(min(rows, key=lambda row: row["ms"])["arch"])

        def ms(arch: np.ndarray) -> float | None:
            try:
                built = self.build(arch)
            except ValueError:
                return None
            return float(latency.predictor(arch, built.params, built.macs))

        return fastest(self.space, start, ms)

    @property
    def memory_batch(self) -> int:
        """Samples of a call, for the memory of activations."""
        return int(getattr(self.config, "memory_batch", 1))

    def memory_mb(self, arch: np.ndarray) -> float:
        """MB that the network of an Arch needs at inference at `memory_batch`, told once of each. Raises as `build`."""
        name = np.asarray(arch).tobytes()
        if name not in self._memory_mb:
            self._memory_mb[name] = memory(self.build(arch), self.signature, self.memory_batch).total_mb
        return self._memory_mb[name]

    def predicted(self, arch: np.ndarray, params: int, macs: int) -> dict[str, float]:
        """What the settings ask for of {"latency_ms", "memory_mb"}, of an Arch with such counts."""
        found = {} if self.latency is None else {"latency_ms": float(self.latency.predictor(arch, params, macs))}
        return found | ({"memory_mb": self.memory_mb(arch)} if getattr(self.config, "weighs_memory", False) else {})

    def costs(self, arch: np.ndarray) -> dict[str, Any]:
        """Parameters, multiply-adds, and what is `predicted`, of the network of an Arch. Raises as `build`."""
        built = self.build(arch)
        return {"params": built.params, "macs": built.macs, **self.predicted(arch, built.params, built.macs)}

    def named(self, arch: np.ndarray) -> dict[str, Any]:
        """What is known of an Arch without its network: its JSON form and identity."""
        return {
            "arch": self.space.encode(arch),
            "hash": self.space.identity(arch),
            "params": None,
            "macs": None,
        }

    def describe(self, arch: np.ndarray) -> dict[str, Any]:
        """What is known of a trial without training: JSON form, identity, counts and indicators of its network."""
        if self.looked_up:
            return self.named(arch)
        built = self.build(arch)
        known = {"arch": built.arch, "hash": self.space.identity(arch), **counts(built)}
        return known | self.predicted(arch, built.params, built.macs)


def builds(builder: Builder, space: Any, form: Any, signature: Signature) -> Callable[[np.ndarray], Built]:
    """Arch -> its network. Raises ValueError where there is none."""
    return lambda arch: builder.build(space, form, space.encode(arch), signature)


def counts(built: Built) -> dict[str, Any]:
    """Parameters, multiply-adds, and the indicators of a network that has any."""
    more = {"indicators": dict(built.indicators)} if built.indicators else {}
    return {"params": built.params, "macs": built.macs, **more}
