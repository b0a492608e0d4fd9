"""Files of other tools are read without running code, and what is in them has dotted names."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sslctl.errors import CheckpointError
from sslctl.exchange.imports.container import MAX_DEPTH, read_foreign
from sslctl.exchange.imports.recognise import import_file
from sslctl.exchange.open_encoder import open_encoder

from .files import Tree, filled, layout, nothing, saved


class Code:
    """Runs a command where it is unpickled by somebody careless."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.sign}",)


def resnet_state() -> Tree:
    return filled(layout("torchvision_resnet50"), nothing)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "first"])
def test_code_in_a_pickle_is_never_run(kind: str, tmp_path: Path) -> None:
    sign, path = tmp_path / "it-ran", tmp_path / "evil.pth"
    held = {"state_dict": {"a": torch.ones(2)}, "args": Code(sign)}
    if kind in ("zip", "legacy"):
        torch.save(held, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps(Code(sign) if kind == "first" else {"x": Code(sign)}, protocol=2))
    with pytest.raises(CheckpointError) as e:
        import_file(path)
    if kind in ("zip", "legacy"):
        assert "a pickle that needs posix.system; only tensors and plain values are read" in e.value.message
    assert not sign.exists()
    torch.load(path, weights_only=False) if kind == "zip" else None
    assert sign.exists() == (kind == "zip")  # it would have run


def test_what_a_file_would_need_besides_tensors_is_named(tmp_path: Path) -> None:
    path = saved({"model": torch.nn.Linear(2, 2)}, tmp_path / "whole-module.pth")
    with pytest.raises(CheckpointError, match=r"needs torch\.nn\.modules\.linear\.Linear; only tensors") as e:
        import_file(path)
    assert "state dict" in e.value.hint


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("lightly_train._models.wrapper", "exported_last.pt"),
        ("lib.NCEAverage", "bank"),
        ("omegaconf.dictconfig", "state_dict"),
    ],
)
def test_a_known_tool_that_keeps_more_than_tensors_is_told_what_to_do(
    module: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = types.ModuleType(module)
    exec("class Kept(dict): pass", made.__dict__)
    for i in range(1, module.count(".") + 1):
        monkeypatch.setitem(sys.modules, module.rsplit(".", i)[0], types.ModuleType(module.rsplit(".", i)[0]))
    monkeypatch.setitem(sys.modules, module, made)
    path = saved({"state_dict": {"a": torch.ones(2)}, "kept": made.Kept()}, tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match=rf"a pickle that needs {module}\.Kept") as e:
        import_file(path)
    assert remedy in e.value.hint


def test_text_and_emptiness_are_no_weights(tmp_path: Path) -> None:
    for content, said in ((b"", "is empty"), (b"hello, a text\n" * 9, "neither safetensors nor what torch.save")):
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=said):
            import_file(tmp_path / "x.pth")
    save_file({k: v.contiguous() for k, v in list(resnet_state().items())[:9]}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="not a safetensors file, or damaged"):
        open_encoder(tmp_path / "x.safetensors")


def test_names_are_dotted_paths_without_the_wrappers_that_all_bear(tmp_path: Path) -> None:
    held = {
        "model": {"_orig_mod.module.a.weight": torch.ones(2), "_orig_mod.module.b": torch.zeros(1)},
        "mixed": {"module.a": torch.ones(1), "b": torch.ones(1)},
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, arch="vit", layers=[1, 2]),
    }
    found = read_foreign(saved(held, tmp_path / "a.pth"))
    assert list(found.tensors) == ["model.a.weight", "model.b", "mixed.module.a", "mixed.b"]
    assert found.values == {"epoch": 3, "args.lr": 0.1, "args.arch": "vit"}
    assert found.wrappers == ["model._orig_mod.", "model._orig_mod.module."]
    assert found.top == ["model", "mixed", "epoch", "args"] and found.kind == "zip"
    assert torch.equal(found.tensors["model.a.weight"], torch.ones(2))


def test_dictionaries_that_are_too_deep_are_left_out(tmp_path: Path) -> None:
    deep: dict[str, object] = {"x": torch.ones(1)}
    for _ in range(MAX_DEPTH + 1):
        deep = {"d": deep, "y": torch.ones(1)}
    names = list(read_foreign(saved(deep, tmp_path / "a.pth")).tensors)
    assert "y" in names and f"{'d.' * MAX_DEPTH}y" in names and len(names) == MAX_DEPTH + 1


def test_all_three_kinds_of_file_hold_the_same(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(1)}
    save_file(state, tmp_path / "safe.safetensors", {"format": "pt"})
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = [read_foreign(path) for path in sorted(tmp_path.iterdir())]
    assert [one.kind for one in found] == ["zip", "pickle", "safetensors"]
    for one in found:
        assert one.tensors.keys() == state.keys()
        assert all(torch.equal(one.tensors[name], value) for name, value in state.items())
    assert found[2].values == {"metadata": {"format": "pt"}}
