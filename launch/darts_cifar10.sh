#!/usr/bin/env bash
# The published search of DARTS, second order (Liu et al. 2019, section 3.1): 50 epochs on CIFAR-10, then 600 epochs of the
# derived cell. METHOD may be darts, pc_darts, p_darts or msr_darts.
# Usage: launch/darts_cifar10.sh METHOD DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
method=${1:?method}
data=${2:?folder with cifar-10-batches-py}
workdir=${3:?workdir}
shift 3
python -m nasjax.launch --method="$method" --preset=paper --dataset=cifar10 --data_dir="$data" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir"
