"""Recurrent cells on the Penn Treebank: the small LSTM, searches by REINFORCE and at random, the cells they find.

    python benchmarks/cells_on_ptb.py --data_dir=FOLDER lstm         # 115.9 in the literature; an hour on two cores
    python benchmarks/cells_on_ptb.py --data_dir=FOLDER search       # 3 settings x 3 seeds x 200 cells; some hours
    python benchmarks/cells_on_ptb.py --data_dir=FOLDER final        # the best cell, NASCell and LSTM, one recipe
    python benchmarks/cells_on_ptb.py --data_dir=FOLDER characters   # the same three on characters

`lstm` is the small model of Zaremba et al. 2014, "Recurrent Neural Network Regularization": two layers of 200, 20
streams of 20 steps, 13 epochs at rate 1, halved each epoch after the fourth, norm clipped at 5 (of a loss summed over
the steps: 20 and 0.25 for ours, which is their mean), weights within 0.1.
A search's cells train with Adam: with 143 steps of SGD at rate 5 they learned how frequent the words are and nothing
of their order (the best of 1,800 cells had 169.6, frequencies alone have 171.0), so no search could find anything.
The searches differ only in who proposes: the paper's controller (rate 5e-4), one whose rate was fixed on a planted
problem with as many samples (`planted_cells.py --samples=200`), and random draws. `final` and `characters` take the
cell with the best validation perplexity of all searches, and give each network as many parameters as the LSTM has. They
train with the small LSTM's schedule, by Adam at the best of three rates (by validation perplexity after two epochs).
A stopped script goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax import commands
from nasjax.problem.data import load
from nasjax.settings import override
from nasjax.spaces.cell_tree.plan import hidden_for

SEARCHES = {
    "reinforce": ("reinforce_rnn", ["search.learning_rate=2e-2"]),
    "reinforce, paper": ("reinforce_rnn", []),
    "random": ("random", []),
}
KNOWN = {"NASCell": "NASCELL", "LSTM": "LSTM"}  # beside the one that was found
TOP = (1, 5, 15)
WINDOW = 20  # words over which a gradient of a search reaches back
SMALL = (  # Zaremba et al. 2014, section 4.1
    "retrain_recipe.epochs=13",
    "retrain_recipe.drops=" + ",".join(f"{epoch / 13}" for epoch in range(4, 13)),
    "retrain_recipe.drop_factor=0.5",
    "retrain_recipe.batch_size=20",
    "retrain_recipe.eval_streams=20",  # as the figures of the notes were measured
    "retrain_recipe.learning_rate=20",  # 1 for a loss that is summed over the 20 steps; ours is their mean
    "retrain_recipe.clip=0.25",  # 5
    "form.init_scale=0.1",
    "form.bias=true",
    "form.softmax_bias=true",
)
COMPARED = (  # the small LSTM's schedule, by Adam: cells differ more than tenfold in the rate of SGD that they bear
    "retrain_recipe.optimizer=adam",
    "retrain_recipe.clip=1",
    "retrain.grid=true",
    "retrain.grid_epochs=2",
    "retrain.grid_learning_rates=2e-3,4e-3,8e-3",
    *(f"retrain.grid_{name}=()" for name in ("decays", "init_scales", "dropouts")),
)


def configuration(method: str, args: argparse.Namespace, *settings: str) -> Any:
    """The paper's preset on the Penn Treebank, without dropout and grid."""
    config = commands.configure(method, "paper", "ptb", "cell_tree")
    config = dataclasses.replace(config, retrain=dataclasses.replace(config.retrain, grid=False))
    plain = [f"form.{name}=none" for name in ("dropout", "embedding_dropout", "recurrent_dropout")]
    return override(config, f"data.data_dir={args.data_dir}", *plain, *settings)


def configured(name: str, args: argparse.Namespace, seed: int) -> Any:
    """The configuration of one search."""
    method, changes = SEARCHES[name]
    return configuration(
        method,
        args,
        f"seed={seed}",
        f"trials={args.trials}",
        f"data.train_limit={args.tokens // WINDOW}",
        f"data.valid_limit={args.tokens // 5 // WINDOW}",
        f"data.window={WINDOW}",
        f"data.max_words={args.words}",
        f"form.hidden={args.hidden}",
        "form.init_scale=0.1",
        f"recipe.epochs={args.epochs}",
        "recipe.optimizer=adam",
        f"recipe.learning_rate={args.rate}",
        "recipe.batch_size=10",
        "recipe.eval_streams=10",
        "recipe.clip=1",
        "recipe.drops=0.5",
        "recipe.drop_factor=0.5",
        "strategy=vmap",
        "width=5",
        f"workers={args.workers}",
        *changes,
    )


def searched(name: str, args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """The trials of one search."""
    path = args.workdir / f"{name.replace(', ', '_')}-s{seed}"
    commands.search(configured(name, args, seed), path)
    return [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]


def unigram(train: np.ndarray, valid: np.ndarray) -> float:
    """Perplexity of the words' frequencies: what a cell that learned nothing of their order can reach."""
    counts = np.bincount(train.ravel(), minlength=valid.max() + 1) + 0.1  # 0.1: for words that only validation has
    return float(np.exp(-np.log(counts / counts.sum())[valid].mean()))


def top(trials: list[dict[str, Any]], every: int) -> list[list[float]]:
    """Mean perplexity of the best 1, 5 and 15 different cells after every `every` trials."""
    rows = []
    for end in range(every, len(trials) + 1, every):
        best: dict[str, float] = {}
        for trial in trials[:end]:
            if trial["status"] == "ok":
                best[trial["hash"]] = min(-trial["fitness"], best.get(trial["hash"], math.inf))
        values = np.sort(list(best.values()))
        rows.append([float(values[:k].mean()) for k in TOP])
    return rows


def search(args: argparse.Namespace) -> dict[str, Any]:
    """All searches; their curves, and the best cell."""
    data = load(configured("random", args, 0).data)  # of all searches
    frequencies = unigram(data.train.y, data.valid.y)
    print(json.dumps({"unigram": frequencies}), flush=True)
    found: dict[str, Any] = {}
    best = (math.inf, None)
    for seed in range(args.seeds):
        for name in SEARCHES:
            trials = searched(name, args, seed)
            good = [trial for trial in trials if trial["status"] == "ok"]
            winner = min(good, key=lambda trial: -trial["fitness"])
            best = min(best, (-winner["fitness"], winner["arch"]), key=lambda pair: pair[0])
            row = {
                "failed": len(trials) - len(good),
                "top": top(trials, max(1, args.trials // 5)),
                "best": winner["arch"],
            }
            found.setdefault(name, []).append(row)
            print(
                json.dumps({"search": name, "seed": seed, "top": row["top"][-1], "failed": row["failed"]}), flush=True
            )
    for name, rows in found.items():
        ends = np.array([row["top"][-1] for row in rows])
        print(name, *(f"top {k}: {ends[:, i].mean():.1f} +- {ends[:, i].std(ddof=1):.1f}" for i, k in enumerate(TOP)))
    return {"unigram": frequencies, "searches": found, "best": {"perplexity": best[0], "arch": best[1]}}


def trained(name: str, arch: str, args: argparse.Namespace, window: int, *settings: str) -> dict[str, Any]:
    """One network trained from scratch and tested once."""
    limit = args.final_tokens // window if args.final_tokens else None
    data = f"data.window={window}", f"data.train_limit={limit}"
    config = configuration("reinforce_rnn", args, *SMALL, *data, *settings)
    result = commands.retrain(config, args.workdir / name.replace(" ", "_"), arch).result
    metric = result["metric"]["name"]
    row = {key: result[key] for key in ("params", "macs", f"valid_{metric}", f"test_{metric}", "seconds")}
    print(json.dumps({"trained": name, **row}), flush=True)
    return row


def compared(args: argparse.Namespace, kind: str, vocabulary: int, window: int, *settings: str) -> dict[str, Any]:
    """The best cell found, NASCell and LSTM as wide as makes them equal in parameters."""
    cells = dict(KNOWN)
    if "found" in args.networks:
        cells["found"] = json.dumps(search(args)["best"]["arch"])
    rows = {}
    for name in args.networks:
        hidden = hidden_for(args.params, matrices=4 if name == "LSTM" else 8, vocabulary=vocabulary)
        rows[name] = trained(f"{kind} {name}", cells[name], args, window, f"form.hidden={hidden}", *COMPARED, *settings)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["lstm", "search", "final", "characters"])
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/ptb"), help="goes on where it stopped")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=50_000, help="that a cell of a search trains on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=2e-3, help="of Adam in a search's trainings")
    parser.add_argument("--hidden", type=int, default=64, help="units of a cell in a search")
    parser.add_argument(
        "--words", type=int, default=2_000, help="of a search's vocabulary; of 10,000 they take 3x longer"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of a search; a cell keeps one core busy")
    parser.add_argument("--params", type=int, default=4_640_000, help="of the compared networks")
    parser.add_argument(
        "--networks", nargs="*", default=["found", *KNOWN], choices=["found", *KNOWN], help="to compare"
    )
    parser.add_argument("--final_tokens", type=int, default=None, help="that the compared networks train on; all")
    args = parser.parse_args()
    result: dict[str, Any]
    match args.stage:
        case "lstm":
            result = trained("small LSTM", "LSTM", args, 20, "form.hidden=200")
        case "search":
            result = search(args)
        case "final":
            result = compared(args, "word", 10_000, 20)
        case "characters":
            result = compared(args, "character", 50, 100, "data.level=char")
    settings = {key: value for key, value in vars(args).items() if key not in ("data_dir", "workdir")}
    print(json.dumps({"benchmark": "cells_on_ptb", **settings, "result": result, "jax": jax.__version__}))


if __name__ == "__main__":
    main()
