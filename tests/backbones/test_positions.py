"""Position tables: MoCo v3's and MAE's sines and cosines by the authors' numbers; DINO's resizing of a learned one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslctl.backbones.positions import dino_positions, sincos_positions
from sslctl.errors import SpecError

GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_positions_of_mae_have_the_halves_of_moco_v3_swapped() -> None:
    table, mae = load_file(GOLDEN / "posembed_sincos.safetensors"), load_file(GOLDEN / "mae.safetensors")
    ours = sincos_positions((4, 4), 16, columns_first=True)
    torch.testing.assert_close(ours[0], table["mae"].float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours, mae["state/pos_embed"].float(), rtol=0, atol=1e-6)
    decoder = sincos_positions((4, 4), 12, columns_first=True)
    torch.testing.assert_close(decoder[0], mae["pos_embed_12_4"].float(), rtol=0, atol=1e-6)
    wide = sincos_positions((2, 3), 8, columns_first=True)[0, 1:].view(2, 3, 8)
    assert (wide[0] == wide[1])[..., :4].all() and (wide[:, 0] == wide[:, 1])[..., 4:].all(), "columns, then rows"


def test_a_width_that_is_not_a_multiple_of_four_is_refused() -> None:
    with pytest.raises(SpecError, match="multiple of 4, not 18"):
        sincos_positions((2, 2), 18)


def test_dinos_resizing_keeps_the_class_token_and_a_table_of_its_own_grid() -> None:
    torch.manual_seed(0)
    table = torch.randn(1, 1 + 12, 8)
    assert dino_positions(table, (3, 4), (3, 4)) is table
    wide = dino_positions(table, (3, 4), (6, 5))
    assert wide.shape == (1, 31, 8) and torch.equal(wide[:, 0], table[:, 0])
    even = torch.cat([table[:, :1], table[:, 1:2].expand(-1, 12, -1)], 1)  # the same at each place
    torch.testing.assert_close(dino_positions(even, (3, 4), (7, 2))[:, 1:], table[:, 1:2].expand(-1, 14, -1))
