#!/usr/bin/env bash
# The published search (Zoph & Le 2017, section 4.1): 12,800 children of 50 epochs on CIFAR-10; then the best on a
# small grid and 300 epochs.
# Number: 5.50 % test error with 4.2M parameters (v1, 15 layers, Table 1); strides (--preset=paper_v2) 6.01 % with
# 2.5M, poolings (--preset=paper_v3) 4.47 % with 7.1M. The last --preset counts.
# Cost: 800 GPUs; for how long the paper does not say. Counted: were every child v1's network (4.30G multiply-adds by
# --mode=inspect, x 6 x 45,000 images x 50 epochs x 12,800), 7.4e20 FLOP: 86 days of one accelerator at a sustained 100
# TFLOP/s. Not run here. The command says its own estimate before the first child.
# Reduce: --trials=200 --set recipe.epochs=5 --dtype=bfloat16
# Many machines: --runtime=ray --ray_address=auto --workers=32 (docs/ray.md). The control experiment: --method=random
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/reinforce_cifar10.sh DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
data=${1:?folder with cifar-10-batches-py}
workdir=${2:?workdir}
shift 2
python -m nasjax.launch --method=reinforce --preset=paper --dataset=cifar10 --data_dir="$data" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir"
