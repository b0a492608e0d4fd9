#!/usr/bin/env bash
# Learn from the embedded demo set without labels, then score what was learned beside raw pixels and random weights.
# `make demo` calls it; further arguments go to pretrain: examples/demo.sh --seed 1
set -euo pipefail
cd "$(dirname "$0")/.."

run=$(sslctl pretrain --spec examples/demo.yaml "$@")
sslctl knn "$run" --baselines
echo "run directory: $run"
