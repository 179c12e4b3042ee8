#!/usr/bin/env bash
# The schedules of SPOS, FairNAS, BN-NAS and BigNAS (METHOD: spos, fairnas, bn_nas, bignas) on CIFAR-10, over small chains of ours: 8
# layers, at most 54M multiply-adds. The papers have no such experiment, so there is no published number to meet.
# Afterwards 20 random paths are trained alone: Kendall's tau between their accuracies and the search's scores, the
# direct evidence that a supernet ranks paths.
# Cost: counted from --mode=inspect (x 6 x 45,000 images) spos' supernet 1.3e14 FLOP, fairnas' 1.3e16; the paths alone
# are 20 retrainings. Not run here at this length; 5 layers, 16x16 images and 12 epochs are in
# benchmarks/results/one_shot_on_cifar10.md.
# Reduce: SAMPLE=5 and --set supernet.epochs=12 --trials=320 --set retrain_recipe.epochs=8
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/one_shot_cifar10.sh METHOD DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
method=${1:?method}
data=${2:?folder with cifar-10-batches-py}
workdir=${3:?workdir}
shift 3
python -m nasjax.launch --method="$method" --preset=paper --dataset=cifar10 --data_dir="$data" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir" --set retrain.sample="${SAMPLE:-20}"
