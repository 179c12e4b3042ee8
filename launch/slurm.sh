#!/usr/bin/env bash
#SBATCH --job-name=nasjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
# One search or retraining of a shared network on the nodes of a SLURM job: a process per node, whose GPUs divide every
# batch (docs/hosts.md). The workdir, the data and this checkout lie where all nodes see them. A job that ran out of
# time goes on when the same line is submitted again.
# Usage: sbatch [--nodes=N ...] launch/slurm.sh FLAGS of nasjax.launch
set -euo pipefail
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")  # all of them: a pipe closed after the first line is an error
command=(exec "${PYTHON:-.venv/bin/python}" -m nasjax.launch "$@")
command+=(--coordinator="${hosts%%$'\n'*}:${PORT:-8476}" --processes="$SLURM_NNODES")
srun --kill-on-bad-exit=1 bash -c "${command[*]@Q} --process=\$SLURM_NODEID"
