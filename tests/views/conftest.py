"""Real photographs for the tests of views: those that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photos() -> list[NDArray[np.uint8]]:
    """uint8 (H, W, 3): two landscape photographs of 427 x 640 px and a portrait one."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    return [china, flower, np.ascontiguousarray(flower[60:420, 120:330])]


@pytest.fixture(scope="session")
def patches(photos: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Squares of photographs, uint8 (48, 64, 64, 3)."""
    rng = np.random.default_rng(0)
    corners = [(photos[i % 2], rng.integers(0, 363), rng.integers(0, 576)) for i in range(48)]
    return np.stack([photo[top : top + 64, left : left + 64] for photo, top, left in corners])
