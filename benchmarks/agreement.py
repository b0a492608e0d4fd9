"""Whether scores from the command line are those of the authors' evaluators on the same features, to the last image.

    PYTHONPATH=. python benchmarks/agreement.py RUN TRAIN TEST --dino DINO

RUN is whatever `sslctl knn` takes, such as imported official weights; TRAIN and TEST are folders of class folders; DINO
is a checkout of facebookresearch/dino, whose knn_classifier runs as it stands on features written by `sslctl embed`.
For linear-eval the other side is scikit-learn's LogisticRegression with the penalty that was chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from knn import dino_classifier  # beside this file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.data import open_source
from sslctl.evaluate.linear.logistic import fit


def call(*words: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    if done.exit_code:
        raise SystemExit(done.output)
    return dict(json.loads(done.stdout))


def embedded(run: str, folder: str) -> tuple[Tensor, Tensor]:
    """Features of the images of ``folder`` in its order, and their labels."""
    with tempfile.TemporaryDirectory() as place:
        call("embed", run, folder, "--out", Path(place) / "x.npy")
        labels = open_source(folder).labels
        assert labels is not None
        return torch.from_numpy(np.load(Path(place) / "x.npy")), torch.from_numpy(labels)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "train", "test", "--dino"):
        options.add_argument(name)
    given = options.parse_args()
    words = (given.run, "--data", given.train, "--val-data", given.test)
    (x, y), (q, qy) = embedded(given.run, given.train), embedded(given.run, given.test)
    n, classes = len(q), int(y.max()) + 1
    classify = dino_classifier(given.dino)
    found = call("knn", *words, "--k", "10,20,100,200")
    for one in found["grid"]:
        theirs = classify(F.normalize(x, dim=1), y, F.normalize(q, dim=1), qy, one["k"], 0.07, classes)
        line = {"what": f"knn, k {one['k']}: images told right", "sslctl": round(one["top1"] * n)}
        show(
            line | {"dino": round(theirs[0] / 100 * n), "top5": [round(one["top5"] * n), round(theirs[1] / 100 * n)]}, n
        )
    found = call("linear-eval", *words)
    l2, scaler = found["protocol"]["l2"], StandardScaler().fit(x.double())
    model = LogisticRegression(C=1 / (l2 * len(x)), max_iter=10000, tol=1e-8).fit(scaler.transform(x.double()), y)
    theirs = torch.from_numpy(model.predict(scaler.transform(q.double())))
    line = {"what": f"linear-eval, L2 {l2:g}: images told right", "sslctl": round(found["top1"] * n)}
    whole = fit(x.double(), y, classes, l2, tolerance=1e-7)[0](q.double()).argmax(1)
    other = int((whole != theirs).sum())
    show(line | {"scikit-learn": int((theirs == qy).sum()), "told otherwise by sslctl run to the end": other}, n)


def show(line: dict[str, Any], n: int) -> None:
    sys.stdout.write(json.dumps(line | {"of": n}) + "\n")


if __name__ == "__main__":
    main()
