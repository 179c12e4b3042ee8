"""Do predicted milliseconds hold? Networks timed here, a predictor, unseen networks, and five budgets timed again.

    taskset -c 0 python benchmarks/latency.py --target=xla

Times 50 random paths of `choice_chain` for 32x32 images, fits the predictor, and tests it on 50 unseen ones. Then for
each of five budgets, spread over the predicted times, the path with the most multiply-adds within it, out of 2,000
random ones (more of them stands for more accuracy), is timed in a fresh process. Prints tables; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax import commands
from nasjax.latency import record
from nasjax.problem.problem import Problem

DRAWN = 2000


def within_budgets(config: Any, latency: record.Latency, count: int) -> list[dict[str, Any]]:
    """For each budget the random path with the most multiply-adds within it."""
    problem = Problem(config)
    archs = np.asarray(jax.vmap(problem.space.sample)(jax.random.split(jax.random.key(7), DRAWN)))
    builts = [problem.build(arch) for arch in archs]
    counts = np.array([(built.params, built.macs) for built in builts], float)
    predicted = latency.predictor(archs, counts[:, 0], counts[:, 1])
    rows = []
    for budget in np.linspace(predicted.min(), predicted.max(), count + 2)[1:-1]:
        best = max(np.flatnonzero(predicted <= budget), key=lambda i: counts[i, 1])
        rows.append({"budget": float(budget), "predicted": float(predicted[best]), "arch": builts[best].arch})
    return rows


def timed_again(words: list[str], arch: dict[str, Any]) -> float:
    """Milliseconds of a path, by the command in a process of its own."""
    command = [sys.executable, "-m", "nasjax.launch", "--mode=latency", *words, f"--arch={json.dumps(arch)}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.match(r"([\d.e+-]+) ms ", told)
    assert found, told
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="xla", help="xla or onnx")
    parser.add_argument("--clock", default="wall", help="wall, or cpu where other programs share the core")
    parser.add_argument("--method", default="spos", help="whose chains: spos (shuffle) or fairnas (mobile)")
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--unseen", type=int, default=50)
    parser.add_argument("--budgets", type=int, default=5)
    parser.add_argument("--out", default="", help="keep the file of latencies here")
    given = parser.parse_args()
    out = Path(given.out or Path(tempfile.mkdtemp()) / "latency.json")
    config = commands.configure(given.method, dataset="cifar10")
    lines = commands.measure_latency(
        config,
        out,
        target=given.target,
        clock=given.clock,
        networks=given.networks,
        unseen=given.unseen,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print("\n".join(lines))
    latency = record.read(out)
    words = [f"--method={given.method}", "--dataset=cifar10", f"--latency={out}"]
    rows = within_budgets(config, latency, given.budgets)
    print(f"{'budget':>8}{'predicted':>11}{'again':>9}{'over the budget':>17}")
    for row in rows:
        row["again"] = timed_again(words, row["arch"])
        over = row["again"] / row["budget"] - 1
        print(f"{row['budget']:8.3f}{row['predicted']:11.3f}{row['again']:9.3f}{over:+17.1%}", flush=True)
    facts = {
        name: latency.facts.get(name)
        for name in ("error", "unseen_error", "unseen_spearman", "unseen_spearman_of_macs")
    }
    print(json.dumps({**facts, "budgets": rows}))


if __name__ == "__main__":
    main()
