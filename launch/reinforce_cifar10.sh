#!/usr/bin/env bash
# The published search (Zoph & Le 2017, section 4.1): 12,800 children of 50 epochs on CIFAR-10. The paper used 800 GPUs;
# on one accelerator reduce it first, for example --trials=200 --set recipe.epochs=5 --dtype=bfloat16.
# Usage: launch/reinforce_cifar10.sh DATA_DIR WORKDIR [more flags]
set -euo pipefail
data=${1:?folder with cifar-10-batches-py}
workdir=${2:?workdir}
shift 2
exec python -m nasjax.launch --method=reinforce --preset=paper --dataset=cifar10 --data_dir="$data" --workdir="$workdir" "$@"
