"""Networks of a space, drawn at random and timed in rounds; some are kept aside to test the predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nasjax.latency.predictor import Counts, fit
from nasjax.latency.programs import Program, program
from nasjax.latency.timing import Clock, Timing, timed
from nasjax.train.compiling import jit
from nasjax.types import Built, Signature, Space

_TRIES = 50  # draws per wanted network
_TOGETHER = 1 << 30  # bytes of the weights of networks that are timed together, each a program of its own


def drawn(space: Space, build: Callable[[np.ndarray], Built], count: int, seed: int) -> list[np.ndarray]:
    """Different architectures that have networks. Raises ValueError where there are fewer than four."""
    sample, found = jit(space.sample), dict[str, np.ndarray]()
    for n in range(_TRIES * count):
        arch = np.asarray(sample(jax.random.fold_in(jax.random.key(seed), n)))
        name = space.identity(arch)
        if name in found:
            continue
        try:
            build(arch)
        except ValueError:  # too small an image, say
            continue
        found[name] = arch
        if len(found) == count:
            break
    if len(found) < 4:
        raise ValueError(f"--space={space.name} has {len(found)} networks for these data; 4 are needed to fit")
    return list(found.values())


def measured(
    space: Space,
    build: Callable[[np.ndarray], Built],
    signature: Signature,
    *,
    runtime: str,
    batch: int = 1,
    clock: Clock = "wall",
    count: int = 50,
    unseen: int = 10,
    seconds: float = 0.5,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Times networks and fits a predictor; JSON for the file that `record.read` reads.

    Args:
      space, build, signature: where networks are drawn, and how they are built for which inputs.
      runtime, batch: of `programs.program`.
      clock, seconds: of `timing.timed`.
      count: networks that the predictor is fitted to.
      unseen: further ones that it is tested on.
      seed: of the draws.
      say: hears a line per network that is ready, and per round.

    Raises:
      ValueError: too few networks, or a network that the runtime does not take.
    """
    archs = drawn(space, build, count + unseen, seed)
    count = min(count, len(archs) - 1)
    builts, rows = [build(arch) for arch in archs], list[dict[str, Any]]()
    for together in _groups([4 * built.params for built in builts], _TOGETHER):
        made: list[Program] = []
        for n in together:
            made.append(program(builts[n], signature, runtime, batch))
            say(f"{n + 1} of {len(archs)}: ready")
            if n % 10 == 9:
                jax.clear_caches()  # what is timed is kept by its caller, and no program comes again
        times = timed([one.opened for one in made], clock=clock, seconds=seconds, say=say)
        rows += [_row(builts[n], one, found) for n, one, found in zip(together, made, times, strict=True)]

    def counts(arch: np.ndarray) -> Counts | None:
        try:
            neighbour = build(arch)
        except ValueError:
            return None
        return neighbour.params, neighbour.macs

    ms = np.array([row["ms"] for row in rows])
    both = np.array([(row["params"], row["macs"]) for row in rows], float)
    fitted = fit(np.stack(archs[:count]), both[:count], ms[:count], space.sites, counts)
    predictor = fitted.predictor
    predicted = predictor(np.stack(archs), both[:, 0], both[:, 1])
    return {
        "predictor": {**predictor._asdict(), "choices": predictor.choices.tolist()},
        "measured": rows[:count],
        "error": float(np.abs(fitted.errors).mean()),
        "unseen": [{**row, "predicted_ms": float(p)} for row, p in zip(rows[count:], predicted[count:], strict=True)],
        **_agreement("unseen_", predicted[count:], ms[count:], both[count:, 1]),
    }


def _groups(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Neighbours whose sizes add up to `most` at most, or a single one."""
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sum(sizes[begin : end + 1]) > most:
            yield range(begin, end)
            begin = end


def _row(built: Built, made: Program, found: Timing) -> dict[str, Any]:
    row = {"arch": built.arch, "params": built.params, "macs": built.macs, **found._asdict()}
    return {**row, "weight_bytes": 4 * built.params, "temporary_bytes": made.temporary_bytes}


def _agreement(prefix: str, predicted: np.ndarray, ms: np.ndarray, macs: np.ndarray) -> dict[str, float]:
    """How well predictions agree with measurements, and how well multiply-adds order them; {} for fewer than 3."""
    if len(ms) < 3:
        return {}
    return {
        f"{prefix}error": float(np.abs(predicted / ms - 1).mean()),
        f"{prefix}spearman": _spearman(predicted, ms),
        f"{prefix}spearman_of_macs": _spearman(macs, ms),
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
