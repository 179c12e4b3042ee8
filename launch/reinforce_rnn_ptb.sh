#!/usr/bin/env bash
# The published search of recurrent cells (Zoph & Le 2017, section 4.2): 15,000 cells on the Penn Treebank, each
# trained for 35 epochs; then the best cell with shared embeddings and 1,152 units, on a small grid.
# Number: 62.4 test perplexity with 54M parameters (Table 2); with 740 units 64.0 (25M), without sharing 67.9 (32M).
# Cost: 400 CPUs; for how long the paper does not say. Counted: with NASCELL's 14.6M multiply-adds a word
# (--mode=inspect), x 6 x 0.93M words x 35 epochs x 15,000, 4e19 FLOP: five days of one accelerator at a sustained 100
# TFLOP/s. Not run here. Beside the epochs the paper tells neither the children's recipe nor the grid's values; the
# recipe is Zaremba et al.'s (docs/methods/reinforce_rnn.md).
# Reduce: HIDDEN=128 and --trials=200 --set search.learning_rate=2e-2 --set recipe.epochs=5 --set form.hidden=64 (at the paper's rate
# 200 cells teach the controller nothing: benchmarks/results/planted_cells.md)
# Many machines: --runtime=ray --ray_address=auto --workers=32 (docs/ray.md)
# The last line is the row of the table: ours, the published one, and why they differ.
# Usage: launch/reinforce_rnn_ptb.sh DATA_DIR WORKDIR [more flags of the search]
set -euo pipefail
data=${1:?folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt}
workdir=${2:?workdir}
shift 2
python -m nasjax.launch --method=reinforce_rnn --preset=paper --dataset=ptb --data_dir="$data" --workdir="$workdir" "$@"
exec python -m nasjax.launch --mode=retrain --workdir="$workdir" --set form.tied=true --set form.hidden="${HIDDEN:-1152}"
