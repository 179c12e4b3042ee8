"""Workers: how a command starts them, and what each does first. They try a search's candidates, or a grid's points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nasjax import catalog
from nasjax.commands.configuration import from_tree
from nasjax.problem.problem import Problem
from nasjax.runtime.host_memory import keep_freed_memory
from nasjax.settings import as_json
from nasjax.store import plugin, workdir
from nasjax.types import Runtime, afterwards


def start(
    begin: Callable[..., Any], problem: Problem, path: Path, say: Callable[[str], None]
) -> tuple[Runtime, dict[str, Any]]:
    """The runtime of config.workers, and the facts of the first of them.

    Args:
      begin: a function of a module; begin(settings as JSON, workdir, files of plugins, folder of programs, begun)
        -> (facts, work) is called in every worker, see `arrived`.
      problem: of the run.
      path: the workdir.
      say: hears what Ray has to say.

    Raises:
      ValueError or FileNotFoundError: as `begin` raised it, or what was registered is in no file.
    """
    import jax

    config = problem.config
    if not config.plugin and catalog.names_own(config):
        raise ValueError("worker processes do not know what was registered in a program; put it in a file (--plugin)")
    sources = [str(file.absolute()) for file in plugin.files_of(config.plugin)]
    cache = jax.config.jax_compilation_cache_dir or ""  # type: ignore[attr-defined]
    arguments = (as_json(config), str(path.absolute()), sources, cache, problem.begun)
    logs = path / workdir.WORKERS
    if config.runtime == "ray":
        from nasjax.runtime.ray import ray

        same = {"agree": ("dataset", "strategy", "chunk"), "settings": config.ray, "say": say}
        return ray(begin, arguments, workers=config.workers, logs=logs, **same)
    from nasjax.runtime.process import process

    return process(begin, arguments, workers=config.workers, logs=logs)


class Arrived(NamedTuple):
    """What a worker knows of its run."""

    problem: Problem
    told: list[str]  # lines for the user, from reading the data; the list grows
    publishing: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]  # work -> it, and then its programs are shared


def arrived(tree: dict[str, Any], sources: list[str], cache: str, begun: str) -> Arrived:
    """Prepares this process as a worker.

    Args:
      tree: the settings of config.json.
      sources: the plugins' files.
      cache: folder of compiled programs, "" = none.
      begun: as of `Problem`.
    """
    from nasjax.runtime.compile_cache import own_cache

    keep_freed_memory()
    publish = own_cache(Path(cache)) if cache else lambda: None
    if sources and plugin.use(*sources) != tree["plugin"]:  # edited since, or another one on this machine
        raise ValueError(
            f"{' or '.join(sources)} is not the file that the driver has run; give all machines the same, and start "
            "again"
        )
    told: list[str] = []

    def publishing(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def published(task: Any) -> Any:
            with afterwards(publish):
                return work(task)

        return published

    return Arrived(Problem(from_tree(tree), told.append, begun), told, publishing)
