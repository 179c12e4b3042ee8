#!/usr/bin/env bash
# A search by gradients on CIFAR-10, then 600 epochs of the cell that it derives, tested once.
#   METHOD     paper                                its test error            its cost of a search      counted search
#   darts      Liu et al. 2019, 3.1, Table 1        2.76 +- 0.09 % (3.3M)     1 GPU-day (of four: 4)    1.1e16 FLOP
#   gdas       Dong & Yang 2019, Table 1            2.93 % (3.4M)             0.21 GPU-days             2.3e16, all operators
#   drnas      Chen et al. 2021, Table 1            2.46 +- 0.03 % (4.1M)     0.6 GPU-days              2.3e15 (stage 1)
#   pc_darts   Xu et al. 2020, Table 1              2.57 % (3.6M)             0.1 GPU-days              7e14
#   p_darts    Chen et al. 2019, Table 1            2.50 % (3.4M)             0.3 GPU-days (P100, 7 h)  1e15 (stage 1)
#   msr_darts  Machida et al. 2021 (JSAI), Table 1  2.84 % (1.63M, 8 cells)   0.3 GPU-days (TITAN RTX)  4e15
# Counted: multiply-adds of --mode=inspect, x 6 x images x epochs x passes of a step. The 600 epochs: 1e17 for
# DARTS_V2; what they cost the papers do not say. Nobody has run these lengths here. On two CPU cores a second-order
# step of 16 images took 7.8 s (benchmarks/results/darts_supernet.md): darts' 50 epochs of batches of 64 are then a
# week.
# Reduce: --set search.epochs=20 --set retrain_recipe.epochs=50 --dtype=bfloat16, and of darts --set search.order=first
# One run is one seed; the paper's DARTS is the best of four (--seed=1 and so on) by a short training.
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/darts_cifar10.sh METHOD DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
method=${1:?method}
data=${2:?folder with cifar-10-batches-py}
workdir=${3:?workdir}
shift 3
python -m nasjax.launch --method="$method" --preset=paper --dataset=cifar10 --data_dir="$data" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir"
