#!/usr/bin/env bash
# A cell found on CIFAR-10, trained on ImageNet for 250 epochs (msr_darts 300): 14 cells of 48 channels, mobile
# setting.
#   METHOD     paper                               its top-1 error            its cost of the search
#   darts      Liu et al. 2019, Table 3            26.7 % (4.7M)              4 GPU-days, on CIFAR-10
#   pc_darts   Xu et al. 2020                      25.1 % (5.3M)              0.1 GPU-days, on CIFAR-10
#   p_darts    Chen et al. 2019                    24.4 % (4.9M)              0.3 GPU-days, on CIFAR-10
#   msr_darts  Machida et al. 2021 (JSAI), Table 3 24.0 % (6.7M)              0.5 GPU-days, on CIFAR-10
# What the training itself costs the papers do not say. Counted for DARTS_V2 (529.9M multiply-adds by --mode=inspect, x
# 6 x 1.28M images x 250 epochs): 1.0e18 FLOP, three hours at a sustained 100 TFLOP/s.
# DATA_DIR has train/ and val/ with a folder per class. Nobody has run it at size; with --mode=inspect it counts.
# Searches on ImageNet itself (pc_darts: 24.2 %, 8 V100 for 11.5 h; msr_darts: 24.1 %, 2.6 GPU-days) have their settings
# with --mode=search (docs/methods/pc_darts.md, msr_darts.md); their search networks have 144M and 406M multiply-adds.
# Reduce: --set retrain_recipe.epochs=30 --dtype=bfloat16
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/darts_imagenet.sh METHOD DATA_DIR WORKDIR ARCH [more flags]; ARCH as --arch: a name, or
# CIFAR_WORKDIR/best.json
set -euo pipefail
method=${1:?method}
data=${2:?folder of ImageNet}
workdir=${3:?workdir}
arch=${4:?architecture}
shift 4
exec python -m nasjax.launch --mode=retrain --method="$method" --preset=paper --dataset=imagenet --data_dir="$data" \
  --arch="$arch" --workdir="$workdir" "$@"
