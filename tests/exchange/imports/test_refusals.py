"""What is less or more than a complete encoder, damaged or ambiguous is refused with the trouble named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.errors import CheckpointError, SpecError
from sslctl.exchange.imports.recognise import ImportOptions, import_file

from .files import LAYOUTS, Tree, filled, innermost, layout, nothing, saved
from .test_recognise import CASES

# Layouts of the very same names and shapes are one case here.
DISTINCT = {(LAYOUTS / f"{name}.json").read_bytes(): name for name in CASES}.values()


def without_last_layer(state: Tree, names: list[str]) -> str:
    """Take away the last block of a ViT, or the last one of a ResNet's third stage."""
    found = [re.match(r"(.*?(?:blocks|layer3)\.)(\d+)\.", name) for name in names]
    stem, last = max(((m[1], int(m[2])) for m in found if m), key=lambda one: one[1])
    for name in names:
        if name.startswith(f"{stem}{last}."):
            del state[name]
    return "missing"


def with_renamed_key(state: Tree, names: list[str]) -> str:
    name = next(name for name in names if re.search(r"(blocks\.3\.mlp\.fc1|layer2\.1\.bn2)\.weight$", name))
    state[name.replace(".fc1.", ".fc_1.").replace(".bn2.", ".b2.")] = state.pop(name)
    return r"missing: .*(fc1|bn2)\.weight(.|\n)*left over: .*(fc_1|b2)\.weight|missing: .*(fc1|bn2)\.weight"


def with_wrong_shape(state: Tree, names: list[str]) -> str:
    name = next(name for name in names if re.search(r"(blocks\.3\.attn\.proj|layer2\.1\.bn2)\.bias$", name))
    state[name] = torch.zeros(5)
    return r"(proj|bn2)\.bias: \(5,\) in the file, \(\d+,\) here"


@pytest.mark.parametrize("name", DISTINCT)
def test_mutilated_files_are_refused_by_what_is_wrong_with_them(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    mutilations: list[Callable[[Tree, list[str]], str]] = [without_last_layer, with_renamed_key, with_wrong_shape]
    for mutilate in mutilations:
        tree = filled(layout(name), nothing)
        state = innermost(tree, case.nest)
        said = mutilate(state, [name for name in state if name.startswith(case.prefix)])
        path = saved(tree, tmp_path / f"{mutilate.__name__}.pth")
        with pytest.raises(CheckpointError, match=said) as e:
            import_file(path)
        assert e.value.message.startswith(str(path)) and e.value.exit_code == 4
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(CheckpointError, match="a torch file that is damaged or cut off"):
        import_file(path)


def resnet_state() -> Tree:
    return filled(layout("torchvision_resnet50"), nothing)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"epoch": 3}, "contains no tensors, only epoch"),
        ([torch.ones(2)], "holds a list, not a dictionary"),
        ({"state_dict": {"linear.weight": torch.ones(10, 4), "linear.bias": torch.ones(10)}}, "names begin"),
        ({"linear.weight": torch.ones(10, 4), "linear.bias": torch.ones(10)}, "only a linear classifier"),
        ({"cls_attn_blocks.0.attn.qkv.weight": torch.ones(2)}, "an XCiT"),
        ({"a.conv.weight": torch.ones(2), "b": torch.ones(1)}, "its names begin a.conv.weight, b"),
        ({"resnet": {"net.0.0.weight": torch.ones(2)}, "head": {"layers.0.weight": torch.ones(2)}}, "SimCLR v2"),
    ],
)
def test_files_without_a_known_encoder_say_what_they_are(held: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        import_file(saved(held, tmp_path / "file.pth"))


def test_an_old_resnet_could_be_two_things_and_is_not_guessed(tmp_path: Path) -> None:
    state = {k: v for k, v in resnet_state().items() if "num_batches_tracked" not in k}
    path = saved(state, tmp_path / "res50x1.pth")
    with pytest.raises(CheckpointError, match="BYOL's converted from JAX, which pads differently") as e:
        import_file(path)
    assert "--layout torchvision" in e.value.hint and "--layout byol_converted" in e.value.hint
    same, _ = import_file(path, ImportOptions(layout="byol_converted"))
    plain, _ = import_file(path, ImportOptions(layout="torchvision"))
    assert (same.spec.backbone.padding, plain.spec.backbone.padding) == ("same", None)
    with pytest.raises(SpecError, match="--layout 'byol': unknown"):
        import_file(path, ImportOptions(layout="byol"))


def test_numbers_that_are_none_and_integers_for_weights_are_refused(tmp_path: Path) -> None:
    state = resnet_state()
    state["layer1.0.bn1.bias"] = torch.full((64,), float("nan"))
    with pytest.raises(CheckpointError, match=r"layer1\.0\.bn1\.bias holds values that are not finite"):
        import_file(saved(state, tmp_path / "nan.pth"))
    state["layer1.0.bn1.bias"] = torch.zeros(64, dtype=torch.int8)
    with pytest.raises(CheckpointError, match=r"layer1\.0\.bn1\.bias holds torch.int8"):
        import_file(saved(state, tmp_path / "int.pth"))


def test_from_the_command_line_the_exit_code_is_4_and_nothing_is_left(tmp_path: Path) -> None:
    state = resnet_state()
    del state["layer4.2.conv3.weight"]
    path = saved(state, tmp_path / "cut.pth")
    done = CliRunner().invoke(app, ["import", str(path), "--out", str(tmp_path / "x.safetensors"), "--json"])
    assert done.exit_code == 4
    assert "missing: net.layer4.2.conv3.weight" in json.loads(done.stdout)["error"]["message"] or (
        "missing: layer4.2.conv3.weight" in json.loads(done.stdout)["error"]["message"]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["cut.pth"]
    assert CliRunner().invoke(app, ["knn", str(path), "--data", str(tmp_path)]).exit_code == 4
