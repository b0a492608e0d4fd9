"""Weighted kNN against its floor, the bare matrix product, and other evaluators on the same features; as ratios.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/knn.py --dino DINO        # 50 000 x 5 000 x 384, 1000 classes
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/knn.py --train 200000 --queries 2000 --dim 512 --only sslctl

DINO is a checkout of facebookresearch/dino; lightly, scikit-learn and faiss-cpu take part where they are installed.
Contenders take turns in one process on one thread; the median of their process-CPU times counts. ``wrong`` is the
number of images that a contender tells otherwise than sslctl does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.evaluate.features.extract import FeatureSet
from sslctl.evaluate.knn.vote import knn
from sslctl.runtime.device import fast_matmul

KS = [20, 10, 100, 200]
TEMPERATURE = 0.07
Run = Callable[[], "Tensor | float | None"]  # classes told (m,), or a top-1, or neither


class Sets:
    """Clustered features of unit length, as evaluators other than sslctl need them."""

    def __init__(self, train: int, queries: int, dim: int, classes: int) -> None:
        g = torch.Generator().manual_seed(0)
        centres = torch.randn(classes, dim, generator=g)

        def make(n: int) -> tuple[Tensor, Tensor]:
            y = torch.randint(0, classes, (n,), generator=g)
            return F.normalize(0.25 * centres[y] + torch.randn(n, dim, generator=g), dim=1), y

        self.classes = classes
        self.x, self.y = make(train)
        self.q, self.qy = make(queries)

    def features(self, x: Tensor, y: Tensor) -> FeatureSet:
        return FeatureSet(x, y, torch.arange(len(x)), [str(i) for i in range(self.classes)], [], "made", "")


def contenders(s: Sets, dino: str | None) -> Iterator[tuple[str, Run]]:
    train, test = s.features(s.x, s.y), s.features(s.q, s.qy)

    def ours() -> Tensor:
        predictions = knn(train, test, KS, [TEMPERATURE])[0].predictions
        assert predictions is not None
        return predictions.predicted

    room = torch.empty(min(512, len(s.q)), len(s.x))

    def floor() -> None:
        with fast_matmul(s.x):
            for part in torch.split(s.q, len(room)):
                torch.mm(part, s.x.T, out=room[: len(part)])

    yield "matrix product", floor
    yield "sslctl, 4 k in one pass", ours
    if dino is not None:
        classify = dino_classifier(dino)
        yield (
            "DINO as shipped, 4 k",
            lambda: [classify(s.x, s.y, s.q, s.qy, k, TEMPERATURE, s.classes)[0] / 100 for k in KS][0],
        )
    with contextlib.suppress(ImportError):
        yield "lightly, k 20", _lightly(s)
    with contextlib.suppress(ImportError):
        yield "faiss IndexFlatIP, k 20", _faiss(s, [20])
        yield "faiss IndexFlatIP, 4 k in one pass", _faiss(s, KS)
    yield "scikit-learn, k 20", lambda: _sklearn(s)


def dino_classifier(checkout: str) -> Callable[..., tuple[float, float]]:
    """``knn_classifier`` of a checkout of facebookresearch/dino; alone, for its module asks for a GPU."""
    source = (Path(checkout) / "eval_knn.py").read_text("utf-8")
    start, end = source.index("@torch.no_grad()\ndef knn_classifier"), source.index("class ReturnIndexDataset")
    space: dict[str, Any] = {"torch": torch, "nn": torch.nn}
    exec(source[start:end], space)
    classifier: Callable[..., tuple[float, float]] = space["knn_classifier"]
    return classifier


def _lightly(s: Sets) -> Run:
    from lightly.utils.benchmarking import knn_predict

    bank = s.x.T.contiguous()
    return lambda: torch.cat(
        [knn_predict(q, bank, s.y, s.classes, knn_k=20, knn_t=TEMPERATURE)[:, 0] for q in torch.split(s.q, 256)]
    )


def _faiss(s: Sets, ks: list[int]) -> Run:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())

    def run() -> Tensor:
        index = faiss.IndexFlatIP(s.x.shape[1])
        index.add(s.x.numpy())
        similarity, near = map(torch.from_numpy, index.search(s.q.numpy(), max(ks)))
        weight, told = (similarity / TEMPERATURE).exp(), []
        for k in ks:
            votes = torch.zeros(len(s.q), s.classes).scatter_add_(1, s.y[near[:, :k]], weight[:, :k])
            told.append(votes.argmax(1))
        return told[0]

    return run


def _sklearn(s: Sets) -> Tensor:
    from sklearn.neighbors import KNeighborsClassifier

    def weights(distance: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.exp((1 - distance) / TEMPERATURE)

    model = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=weights)
    return torch.from_numpy(model.fit(s.x.numpy(), s.y.numpy()).predict(s.q.numpy()))


def peak_above(task: Callable[[], object]) -> float:
    """MiB that the process holds at most while ``task`` runs, above what it held before."""
    page, most, done = os.sysconf("SC_PAGE_SIZE"), 0, threading.Event()

    def held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, held())

    before, thread = held(), threading.Thread(target=watch)
    thread.start()
    task()
    done.set()
    thread.join()
    return (most - before) / 2**20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("train", 50000), ("queries", 5000), ("dim", 384), ("classes", 1000), ("rounds", 3)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--dino", help="checkout of facebookresearch/dino")
    options.add_argument("--only", default="", help="contenders whose names begin so (a,b), beside the matrix product")
    given = options.parse_args()
    torch.set_num_threads(1)
    s = Sets(given.train, given.queries, given.dim, given.classes)
    found = list(contenders(s, given.dino))
    runs = dict(found[:1] + [pair for pair in found[1:] if pair[0].startswith(tuple(given.only.split(",")))])
    times: dict[str, list[float]] = {name: [] for name in runs}
    told: dict[str, Tensor | float | None] = {}
    memory = {name: peak_above(run) for name, run in runs.items()}
    for turn in range(given.rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            before = time.process_time()
            told[name] = runs[name]()
            times[name].append(time.process_time() - before)
    own = "sslctl, 4 k in one pass"
    for name in runs:
        line: dict[str, Any] = {"what": name, "cpu_s": round(statistics.median(times[name]), 3)}
        line["floor_share"] = round(
            statistics.median(a / b for a, b in zip(times["matrix product"], times[name], strict=True)), 3
        )
        line["of_sslctl"] = round(statistics.median(a / b for a, b in zip(times[name], times[own], strict=True)), 2)
        line["memory_mib"] = round(memory[name])
        answer, ours = told[name], told[own]
        assert isinstance(ours, Tensor)
        if isinstance(answer, Tensor):
            line |= {"top1": float((answer == s.qy).double().mean()), "wrong": int((answer != ours).sum())}
        elif answer is not None:
            line |= {"top1": answer, "same_top1": round(answer * len(s.qy)) == int((ours == s.qy).sum())}
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
