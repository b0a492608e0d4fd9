"""How good features are, without labels: effective ranks, decay of the spectrum, alignment and uniformity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7
DELTA = 1e-4
RANKS = (4, 100)  # of eigenvalues, first and last, that alpha-ReQ's line is fitted to
BLOCK = 1024  # rows of pairwise distances at a time


def rankme(x: Tensor) -> float:
    """Return the effective rank of features (n, d): exp of the entropy of their singular values.

    RankMe (Garrido et al. 2023, arXiv 2210.02885, equation 1 and what follows): p = sigma / sum(sigma) + 1e-7 of the
    matrix as it is, not centred. Higher is taken for better.
    """
    return _effective(torch.linalg.svdvals(x.double()))


def spectrum(x: Tensor) -> Tensor:
    """Return eigenvalues of the covariance of features (n, d), the largest first: min(n, d) of them."""
    x = x.double()
    values: Tensor = torch.linalg.svdvals(x - x.mean(0))
    return values.square() / max(1, len(x) - 1)


def alpha_req(eigenvalues: Tensor) -> float:
    """Return the exponent of the power law that ``eigenvalues`` (of ``spectrum``) follow: lambda_i ~ i^-alpha.

    alpha-ReQ (Agrawal et al. 2022, arXiv 2202.05808). The paper names no range; this is the authors' code (fastssl,
    powerlaw.py, with the range of train_model.py): least squares of log lambda on -log i over ranks 4 to 100, weighted
    by 1 / i, fewer where there are fewer eigenvalues above zero (relative to the first, 1e-12). Near 1 is taken for
    best. NaN where less than three are left.
    """
    positive = int((eigenvalues > 1e-12 * eigenvalues[0]).sum())
    last = min(RANKS[1], positive)
    if last - RANKS[0] < 2:
        return float("nan")
    i = torch.arange(RANKS[0], last + 1, dtype=torch.float64)
    x, y, w = -i.log(), eigenvalues[i.long() - 1].log(), 1 / i / (1 / i).sum()
    x, y = x - (w * x).sum(), y - (w * y).sum()
    return float((w * x * y).sum() / (w * x * x).sum())


def nesum(eigenvalues: Tensor) -> float:
    """Return the sum of ``eigenvalues`` (of ``spectrum``) over the first: 1 when collapsed, d when white.

    NESum (He & Ozay 2022, "Exploring the gap between collapsed and whitened features in self-supervised learning",
    section 4). 0 where all are zero.
    """
    return float(eigenvalues.sum() / eigenvalues[0]) if float(eigenvalues[0]) > 0 else 0.0


def lidar(x: Tensor) -> float:
    """Return the effective rank of what tells images from their own views, for features (n, q, d).

    LiDAR (Thilak et al. 2024, arXiv 2312.04000, equations 1 and 2): exp of the entropy, as in ``rankme``, of the
    eigenvalues of Sw^-1/2 Sb Sw^-1/2; Sb is the covariance of the images' means, Sw the mean covariance within an image
    plus 1e-4 I. At most min(n - 1, d); that 1e-4 is absolute, so features of very small scale are judged lower.
    Compare at equal n and q. Higher is taken for better.
    """
    x = x.double()
    n, q, d = x.shape
    means = x.mean(1)  # (n, d)
    between, within = means - means.mean(0), (x - means[:, None]).reshape(-1, d)
    root = torch.linalg.cholesky(within.T @ within / (n * q) + DELTA * torch.eye(d, dtype=x.dtype, device=x.device))
    scaled = torch.linalg.solve_triangular(root, between.T, upper=False) / n**0.5  # (d, n), its square is similar
    return _effective(torch.linalg.svdvals(scaled).square())


def alignment(x: Tensor) -> float:
    """Return how far two views of an image are apart: mean squared distance on the unit sphere, for features (n, q, d).

    Wang & Isola 2020 (arXiv 2005.10242, section 4.1, alpha = 2), over all pairs of the q views. Lower is better.
    """
    z = F.normalize(x.double(), dim=2)
    q = x.shape[1]
    # Over pairs i < j of unit vectors: the mean of |zi - zj|^2 is 2 q (mean |zi|^2 - |mean z|^2) / (q - 1).
    spread = z.square().sum(2).mean(1) - z.mean(1).square().sum(1)
    return float(2 * q / (q - 1) * spread.mean())


def uniformity(x: Tensor) -> float:
    """Return how evenly features (n, d) cover the unit sphere: log of the mean of exp(-2 |zi - zj|^2).

    Wang & Isola 2020 (arXiv 2005.10242, section 4.1, t = 2), over all pairs of different images. Lower is better.
    """
    z = F.normalize(x.double(), dim=1)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for rows in torch.split(z, BLOCK):
        distance = rows.square().sum(1)[:, None] + z.square().sum(1) - 2 * rows @ z.T
        total += (-2 * distance.clamp(min=0)).exp().sum()
    n = len(z)
    return float(((total - n) / (n * (n - 1))).clamp(min=1e-300).log())


def _effective(values: Tensor) -> float:
    """Return exp of the entropy of ``values`` as shares of their sum; 1 where all are zero."""
    if not float(values.sum()) > 0:
        return 1.0
    p = values / values.sum() + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))
