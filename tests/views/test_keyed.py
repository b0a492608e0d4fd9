"""Keyed random numbers: a pure function of their key, the same for ever, and random."""

from __future__ import annotations

import numpy as np
import pytest

from sslctl.views.keyed import mix, uniforms

N = 200_000


def test_the_generator_is_splitmix64() -> None:
    """First outputs of the published generator from state 0."""
    golden = 0x9E3779B97F4A7C15
    assert [mix(k * golden % 2**64) for k in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_numbers_never_change() -> None:
    """A run resumed under a later version must see the views that it would have seen."""
    expected = [[0.5441232695951527, 0.281172051140244]]
    np.testing.assert_array_equal(uniforms(1, 2, [3], 4, 2), expected)


def test_a_number_depends_on_its_key_and_slot_alone() -> None:
    index, epoch = np.arange(7), np.array([0, 0, 0, 1, 1, 1, 1])
    whole = uniforms(5, epoch, index, np.arange(3)[:, None], 22)  # (3, 7, 22)
    assert whole.shape == (3, 7, 22)
    for view in range(3):
        for i in range(7):
            alone = uniforms(5, int(epoch[i]), i, view, 22)
            np.testing.assert_array_equal(whole[view, i], alone)
    np.testing.assert_array_equal(uniforms(5, epoch, index, 1, 5, first=17), whole[1, :, 17:])
    shuffled = np.array([4, 0, 6])
    np.testing.assert_array_equal(uniforms(5, epoch[shuffled], index[shuffled], 2, 22), whole[2, shuffled])


def test_state_of_other_generators_changes_nothing() -> None:
    before = uniforms(0, 0, np.arange(4), 0, 8)
    np.random.seed(1)
    np.random.random(10)
    np.testing.assert_array_equal(uniforms(0, 0, np.arange(4), 0, 8), before)


@pytest.mark.parametrize("along", ["seed", "epoch", "index", "view", "slot"])
def test_uniform_and_independent_along_every_part_of_the_key(along: str) -> None:
    run = np.arange(N)
    key = dict.fromkeys(("seed", "epoch", "index", "view"), 3)
    if along == "slot":
        u = uniforms(**key, n=N).ravel()
    else:
        u = uniforms(**key | {along: run}, n=1).ravel()
    assert (u >= 0).all() and (u < 1).all()
    assert len(np.unique(u)) == N
    assert abs(u.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / N)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / N)
    counts = np.histogram(u, 256, (0, 1))[0]
    chi2 = ((counts - N / 256) ** 2 / (N / 256)).sum()
    assert abs(chi2 - 255) < 4 * np.sqrt(2 * 255)
    for lag in (1, 2, 3, 64, 256):
        r = np.corrcoef(u[:-lag], u[lag:])[0, 1]
        assert abs(r) < 4.5 / np.sqrt(N), f"neighbours at distance {lag} correlate by {r}"


def test_slots_views_and_epochs_are_independent_of_each_other() -> None:
    """Every pair of columns over 20 000 images: 8 slots of 3 views in 2 epochs."""
    index = np.arange(20_000)
    columns = np.concatenate([uniforms(0, e, index, v, 8) for e in range(2) for v in range(3)], 1)  # (20000, 48)
    r = np.corrcoef(columns.T)[np.triu_indices(48, 1)]
    assert np.abs(r).max() < 5 / np.sqrt(len(index))
    assert abs(r.std() * np.sqrt(len(index)) - 1) < 0.1


def test_no_two_keys_share_their_numbers() -> None:
    """Neighbouring words of the key do not add up to the same thing."""
    seed, epoch, index, view = np.meshgrid(np.arange(12), np.arange(12), np.arange(120), np.arange(12), sparse=True)
    first = uniforms(seed, epoch, index, view, 2).reshape(-1, 2)
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize("word", ["seed", "epoch", "index", "view"])
def test_one_bit_of_the_key_moves_half_the_bits(word: str) -> None:
    keys = np.arange(1, 2001)
    key = {"seed": 7, "epoch": 7, "index": 7, "view": 7, word: keys}
    flips = []
    for bit in (0, 1, 5, 13, 30):
        a = (uniforms(**key, n=1) * 2**53).astype(np.uint64)
        b = (uniforms(**key | {word: keys ^ (1 << bit)}, n=1) * 2**53).astype(np.uint64)
        flips.append(np.unpackbits((a ^ b).view(np.uint8)).sum() / (53 * len(keys)))
    assert np.allclose(flips, 0.5, atol=0.01)


def test_negative_and_large_words() -> None:
    assert uniforms(-1, 0, [0], 0, 4).tolist() != uniforms(1, 0, [0], 0, 4).tolist()
    assert uniforms(2**31, 10**6, [2**40], 0, 4).shape == (1, 4)
    np.testing.assert_array_equal(uniforms(-1, 0, -5, 0, 3), uniforms([-1], 0, [-5], 0, 3)[0])
