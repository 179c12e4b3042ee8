#!/usr/bin/env bash
# A supernet of choice blocks on ImageNet, the search in it, and the best path from scratch.
#   METHOD   paper                      its top-1 accuracy              its cost: supernet, search
#   spos     Guo et al. 2020, 4.1       74.3 % at 319M (unverified)     12 and below 1 GPU-days (8 GTX 1080Ti, unverified)
#   fairnas  Chu et al. 2021            75.3 % at 388M (FairNAS-A)      10 and 2 GPU-days (V100, unverified)
#   bn_nas   Chen et al. 2021           75.5 % at 472M (released run)   0.8 GPU-days (as a later paper quotes it)
#   bignas   Yu et al. 2020             76.5 % at 242M, another space   not stated (unverified)
# Retraining takes 16 GPU-days more in spos' paper (unverified).
# Counted (multiply-adds of a path at the limit, x 6 x images x passes): spos' supernet 3e17 FLOP and its retraining
# 6e17; the six passes of fairnas' steps 2.7e18. At a sustained 100 TFLOP/s an hour, two hours and eight.
# DATA_DIR has train/ and val/ with a folder per class. Nobody has run it at size; with --mode=inspect it counts.
# Reduce: --set supernet.epochs=10 --trials=200 --set retrain_recipe.epochs=30 --dtype=bfloat16
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/one_shot_imagenet.sh METHOD DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
method=${1:?method}
data=${2:?folder of ImageNet}
workdir=${3:?workdir}
shift 3
flags=(--method="$method" --preset=paper --dataset=imagenet --data_dir="$data")
python -m nasjax.launch "${flags[@]}" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir"
