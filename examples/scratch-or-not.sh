#!/usr/bin/env bash
# What pretraining is worth: pretrain on pictures, then score by neighbours, by a linear classifier and by fine-tuning
# with 1 %, 10 % and all of the labels, each beside the same network from random weights.
#   scratch-or-not.sh SPEC LABELLED OUT EPOCHS [pretrain option...]
#   scratch-or-not.sh examples/demo.yaml labelled/ runs/worth 30
# On stdout, the scores and a table; the curves are in OUT/compare.png.
set -euo pipefail
usage='usage: scratch-or-not.sh SPEC LABELLED OUT EPOCHS [pretrain option...]'
spec=${1:?$usage} labelled=${2:?$usage} out=${3:?$usage} epochs=${4:?$usage}
shift 4

run=$(sslctl pretrain --spec "$spec" --out "$out/pretrained" "$@")
sslctl knn "$run" --data "$labelled"
sslctl linear-eval "$run" --data "$labelled"
for labels in 0.01 0.1 1; do
  sslctl finetune "$run" --data "$labelled" --labels "$labels" --epochs "$epochs" --force \
    --out "$out/tuned-$labels" >&2
  sslctl finetune "$run" --data "$labelled" --labels "$labels" --epochs "$epochs" --force --from-scratch \
    --out "$out/scratch-$labels" >&2
done
sslctl compare "$out"/tuned-* "$out"/scratch-* --out "$out/compare.png"
