#!/usr/bin/env bash
# A gate for a pipeline: pretrain, score with kNN, and end with code 7 where top-1 is below LEAST.
#   ci-gate.sh SPEC LEAST [pretrain option...]
#   ci-gate.sh examples/demo.yaml 0.5 --set run.seed=1
# On stdout, one JSON object: the score. A run that was interrupted goes on when the same line runs again.
set -euo pipefail
spec=${1:?usage: ci-gate.sh SPEC LEAST [pretrain option...]}
least=${2:?usage: ci-gate.sh SPEC LEAST [pretrain option...]}
shift 2

field() { # the value of key $1 of the JSON object on stdin
  if command -v jq >/dev/null; then
    jq -er ".$1"
  else
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
  fi
}

result=$(sslctl pretrain --spec "$spec" --json "$@") # ends here with sslctl's own exit code if it fails
run=$(field run <<<"$result")
sslctl knn "$run" --json --fail-under "$least"
