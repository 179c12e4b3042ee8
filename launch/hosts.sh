#!/usr/bin/env bash
# One search or retraining of a shared network on several hosts: a process on each, whose devices divide every batch
# (docs/hosts.md). For the DARTS family, spos, fairnas, bn_nas and --mode=retrain; candidates are for Ray
# (docs/ray.md).
# Every host is reached by ssh without a password and has the same folder under the same path: this checkout, its
# environment (PYTHON, default .venv/bin/python), data and workdir. PORT (default 8476) is open on the first host.
# Ctrl-C, or a process that fails, ends all; the same command goes on.
# On a TPU pod, instead: gcloud compute tpus tpu-vm ssh NAME --worker=all --command='cd FOLDER && .venv/bin/python -m
# nasjax.launch --coordinator=auto FLAGS'
# Usage: launch/hosts.sh "HOST0 HOST1 ..." FLAGS of nasjax.launch
set -euo pipefail
read -ra hosts <<<"${1:?hosts, separated by spaces}"
shift
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
for process in "${!hosts[@]}"; do
  command=(exec "${PYTHON:-.venv/bin/python}" -m nasjax.launch "$@" --coordinator="${hosts[0]}:${PORT:-8476}")
  command+=(--processes="${#hosts[@]}" --process="$process")
  ssh -tt "${hosts[$process]}" "cd $(printf %q "$PWD") && ${command[*]@Q}" </dev/null &
done
for _ in "${hosts[@]}"; do wait -n; done
