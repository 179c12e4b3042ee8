"""What the scripts over NAS-Bench-201's cells share: arguments, the size of their networks and data, agreement."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from nasjax.spaces.tabular_cell.plan import TabularForm, TabularPlan
from nasjax.spaces.tabular_cell.space import TabularCell


def arguments(doc: str | None, workdir: str, *, seeds: int, images: int = 10_000) -> argparse.ArgumentParser:
    """The parser of a script, with the arguments that all have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="of CIFAR-10")
    parser.add_argument("--table", required=True, help="the .npz that nasjax.evaluators.table describes")
    parser.add_argument("--workdir", type=Path, default=Path(workdir), help="goes on where it stopped")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=1, help="cells of a stage")
    parser.add_argument("--size", type=int, default=16, help="of the images")
    parser.add_argument("--images", type=int, default=images)
    return parser


def folder(args: argparse.Namespace, name: str, seed: int) -> Path:
    """The workdir of one run."""
    return Path(args.workdir, f"{name.replace(', ', '_').replace(' ', '_')}-s{seed}")


def sizes(args: argparse.Namespace, seed: int, *, train: int, valid: int) -> list[str]:
    """Settings of one run: data, network, truth."""
    return [
        f"data.data_dir={args.data_dir}",
        f"data.resize={args.size}",
        f"data.train_limit={train}",
        f"data.valid_limit={valid}",
        f"form.channels={args.channels}",
        f"form.cells={args.blocks}",
        f"truth={args.table}",
        f"seed={seed}",
    ]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a table must be printed with."""
    return {key: value for key, value in vars(args).items() if key not in ("data_dir", "workdir", "table")}


def agreement(scores: Any, truths: Any) -> dict[str, float]:
    """Kendall's tau and Spearman's rho."""
    return {"tau": float(kendalltau(scores, truths).statistic), "spearman": float(spearmanr(scores, truths).statistic)}


def bars(archs: np.ndarray, truths: np.ndarray) -> dict[str, dict[str, float]]:
    """How well cells, i32[N, 6], are ordered by what no training is needed for.

    The number of convolutions is what an untrained supernet's scales of batch norms say: all of them are 1, and no
    other operation has any.
    """
    params, _ = TabularPlan(TabularCell(), TabularForm(), (32, 32, 3), 10).count(archs)
    convolutions = np.isin(archs, [i for i, name in enumerate(TabularCell().ops) if "conv" in name]).sum(1)
    return {"parameters": agreement(params, truths), "convolutions": agreement(convolutions, truths)}
