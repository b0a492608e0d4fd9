#!/usr/bin/env bash
# SimCLR, SwAV and DINO on the same labelled pictures of about 32 px, with the same backbone, crops, epochs and batch:
#   three-methods.sh TRAIN VAL OUT
# On stdout, for each method, its kNN top-1 beside raw pixels and random weights.
set -euo pipefail
usage='usage: three-methods.sh TRAIN VAL OUT'
train=${1:?$usage} val=${2:?$usage} out=${3:?$usage}

for method in simclr swav dino; do
  sslctl pretrain --recipe small --method "$method" --data "$train" --val-data "$val" --out "$out/$method" \
    --epochs 30 --batch-size 128 \
    --multi-crop 2x24@0.3-1+4x16@0.1-0.4 --set views.blur=0 >&2
  echo "$method"
  sslctl knn "$out/$method" --baselines
done
