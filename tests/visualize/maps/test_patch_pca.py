"""Patch features as colours: the shared basis against scikit-learn, the ground by its place, broken images listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from sslctl.backbones import build_backbone
from sslctl.data.decode import Pixels
from sslctl.data.source import ArraySource, FileSource
from sslctl.errors import DataError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps.attention import network_input
from sslctl.visualize.maps.patch_pca import ColourBasis, feature_function, fit_basis, principal_components, write_pca


def scene(seed: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Features (5, rows, columns) of an object in the middle, and where it is: far along one axis, varied in three."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.1 * torch.randn(5, rows, columns, generator=rng)
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    x[0] += torch.where(inside, -6.0, 6.0)
    for axis, spread in ((1, 3.0), (2, 2.0), (3, 1.0)):
        x[axis, inside] += spread * torch.randn(int(inside.sum()), generator=rng)
    return x, inside


def test_components_are_those_of_scikit_learn() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 7)
    mean, axes, shares = principal_components(x, 3)
    other = PCA(3).fit(x.numpy())
    assert np.allclose(mean, other.mean_) and np.allclose(shares, other.explained_variance_ratio_)
    assert np.allclose(np.abs(np.diagonal(axes.numpy() @ other.components_.T)), 1)
    assert all(float(axis[axis.abs().argmax()]) > 0 for axis in axes)


def test_the_ground_is_what_lies_at_the_edges_whatever_the_sign() -> None:
    scenes = [scene(i, 9 + i, 12) for i in range(4)]
    for sign in (1.0, -1.0):
        basis = fit_basis(iter(sign * x for x, _ in scenes))
        for x, inside in scenes:
            assert torch.equal(basis.foreground(sign * x), inside)
        assert np.abs(np.asarray(basis.axes)).argmax(1).tolist() == [1, 2, 3]  # the axes of the object alone
        colours = basis.colours(sign * scenes[0][0])[scenes[0][1]].float()
        assert colours.min() == 0 and colours.max() == 255 and (colours.std(0) > 40).all()
    whole = fit_basis(iter(x for x, _ in scenes), whole=True)
    assert int(whole.axes[0].abs().argmax()) == 0  # with the ground, what tells it apart comes first
    with pytest.raises(DataError, match="can be read"):
        fit_basis(iter(()))


def test_a_folder_shares_one_basis_and_broken_images_are_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    sizes = {"a.png": (40, 24), "b.png": (24, 24), "c.png": (90, 30)}
    for name, size in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG")
    source = FileSource("in", str(tmp_path / "in"), [*sizes, "bad.png"])
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "reg_tokens": 2}
    net = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32).eval()
    see = feature_function(net, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 32)
    written, failed, basis = write_pca(see, net.stride, source, tmp_path / "out", whole=True)
    assert [Path(f["image"]).name for f in failed] == ["bad.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_pca.png", "b_pca.png", "c_pca.png", "sheet.png"]
    assert [entry["foreground"] for entry in written] == [1.0] * 3
    for i, name in enumerate(sizes):
        shown, features = see(source.read(i))
        x = network_input(net, shown, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        torch.testing.assert_close(features, net(x).map[0])
        with Image.open(tmp_path / "out" / f"{name[0]}_pca.png") as painted:
            found = np.asarray(painted)
        assert found.shape[:2] == shown.shape[1:]
        for row, column in ((0, 0), (1, 2)):
            assert found[8 * row + 3, 8 * column + 5].tolist() == basis.colours(features)[row, column].tolist()


def test_what_is_ground_is_black(tmp_path: Path) -> None:
    array = np.zeros((2, 36, 36, 3), np.uint8)

    def see(image: Pixels) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(image).permute(2, 0, 1), scene(0, 9, 9)[0]

    written, _, basis = write_pca(see, 4, ArraySource("two", array), tmp_path)
    assert isinstance(basis, ColourBasis) and written[0]["foreground"] == pytest.approx(25 / 81)
    with Image.open(tmp_path / "two_0_pca.png") as painted:
        found = np.asarray(painted)
    assert not found[:8].any() and not found[:, 28:].any() and found[8:28, 8:28].any(-1).mean() > 0.95
