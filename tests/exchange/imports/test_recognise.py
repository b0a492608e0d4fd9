"""Every official layout is recognised by what is in it, with the features of a plain model of the same tensors."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from sslctl.backbones import build_backbone
from sslctl.backbones.positions import sincos_positions
from sslctl.exchange.imports.container import read_foreign
from sslctl.exchange.imports.formulas import resnet
from sslctl.exchange.imports.layouts import recognise
from sslctl.exchange.imports.recognise import ImportOptions, as_loaded, import_file
from sslctl.runs.encoder import LoadedEncoder
from sslctl.runs.meta import ImageSpec, Imported
from sslctl.spec.schema import BackboneSpec

from .files import Filler, filled, innermost, layout, saved

GOLDEN = Path(__file__).parents[2] / "golden"


class Case(NamedTuple):
    """What must be found in a file: its layout; where its encoder is, as the file itself writes it; what is left."""

    layout: str
    nest: str = ""
    prefix: str = ""
    left: tuple[str, ...] = ()
    branch: str | None = None
    std: float = 0.229


CASES = {
    "barlowtwins_full": Case("barlow_full", "model", "module.backbone.", ("projector", "bn")),
    "barlowtwins_resnet50_backbone": Case("resnet"),
    "deepclusterv2_resnet50": Case("deepclusterv2", "", "module.", ("projection_head", "prototypes"), std=0.228),
    "dino_deitsmall16_backbone": Case("timm_vit"),
    "dino_deitsmall16_full": Case("dino_full", "teacher", "backbone.", ("head", "backbone", "center"), "teacher"),
    "dino_resnet50_backbone": Case("resnet"),
    "dino_resnet50_full_assumed": Case(
        "dino_full", "teacher", "module.backbone.", ("head", "backbone", "center"), "teacher"
    ),
    "dinov2_vits14": Case("dinov2", left=("mask_token",)),
    "dinov2_vits14_reg4": Case("dinov2", left=("mask_token",)),
    "moco_v1_resnet50": Case(
        "moco_v1", "state_dict", "module.encoder_q.", ("fc", "encoder_k", "queue", "queue_ptr"), "student"
    ),
    "moco_v2_resnet50": Case(
        "moco_v2", "state_dict", "module.encoder_q.", ("fc", "encoder_k", "queue", "queue_ptr"), "student"
    ),
    "mocov3_resnet50": Case(
        "mocov3", "state_dict", "module.base_encoder.", ("fc", "momentum_encoder", "predictor"), "student"
    ),
    "mocov3_vit_base": Case(
        "mocov3", "state_dict", "module.base_encoder.", ("head", "momentum_encoder", "predictor"), "student"
    ),
    "mocov3_vit_small": Case(
        "mocov3", "state_dict", "module.base_encoder.", ("head", "momentum_encoder", "predictor"), "student"
    ),
    "simsiam_resnet50": Case("simsiam", "state_dict", "module.encoder.", ("fc", "predictor")),
    "swav_resnet50": Case("swav", "", "module.", ("projection_head", "prototypes"), std=0.228),
    "swav_resnet50w2": Case("swav", "", "module.", ("projection_head", "prototypes"), std=0.228),
    "timm_vit_small_patch14_dinov2": Case("timm_vit"),
    "timm_vit_small_patch14_reg4_dinov2": Case("timm_vit"),
    "timm_vit_small_patch16_224": Case("timm_vit"),
    "torchvision_resnet50": Case("torchvision", left=("fc",)),
    "vicreg_full": Case("vicreg_full", "model", "module.backbone.", ("projector",)),
    "vicreg_resnet50_backbone": Case("resnet"),
}
TIMM = {  # what holds the same tensors, by width, registers and layer scale
    "mocov3_vit_small": ("vit_small_patch16_224", {"num_heads": 12}),
    "mocov3_vit_base": ("vit_base_patch16_224", {}),
    "dinov2_vits14": ("vit_small_patch14_dinov2", {}),
    "dinov2_vits14_reg4": ("vit_small_patch14_reg4_dinov2", {}),
    "timm_vit_small_patch14_dinov2": ("vit_small_patch14_dinov2", {}),
    "timm_vit_small_patch14_reg4_dinov2": ("vit_small_patch14_reg4_dinov2", {}),
}


@pytest.fixture(scope="module")
def fill() -> Filler:
    return Filler()


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    net = torchvision.models.resnet50()
    net.fc = nn.Identity()
    return net.eval()


def plain_vit(name: str, state: dict[str, Tensor], size: int) -> nn.Module:
    """timm's model with the tensors of ``state``; the two differences of DINOv2's names written out."""
    arch, args = TIMM.get(name, ("vit_small_patch16_224", {}))
    state.pop("mask_token", None)
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    net = timm.create_model(arch, num_classes=0, img_size=size, weight_init="skip", **args)
    net.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    return net.eval()


def smaller(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` with positions for 5 x 5 patches: attention over the 1370 tokens of DINOv2 takes seconds."""
    inner = {k: smaller(v) for k, v in tree.items() if isinstance(v, dict)}
    for name, (shape, _) in ((k, v) for k, v in tree.items() if k.endswith("pos_embed")):
        prefix = shape[1] - math.isqrt(shape[1]) ** 2  # rows of [CLS], if any
        inner[name] = [[1, 25 + prefix, shape[2]], "float32"]
    return tree | inner


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_layout_is_recognised_and_gives_the_features_of_a_plain_model(
    name: str, fill: Filler, resnet50: nn.Module, tmp_path: Path
) -> None:
    case, names = CASES[name], layout(name)
    if "vit" in name:
        assert not case.nest and recognise_names(names) == case.layout or case.nest
        names = smaller(names)
    tree = filled(names, fill)
    encoder, extracted = import_file(saved(tree, tmp_path / "file.pth"))
    assert extracted.layout.name == case.layout
    assert {re.split(r"[.]", group)[-1] for group in extracted.left_over} == set(case.left)
    assert (extracted.branch and extracted.summary()["branch"].split()[0]) == case.branch
    assert encoder.meta.image.std[0] == case.std
    inner = innermost(tree, case.nest)
    state = {k.removeprefix(case.prefix): v for k, v in inner.items() if k.startswith(case.prefix)}
    if not encoder.backbone.is_vit:
        x = torch.randn(2, 3, 40, 48)
        if name == "swav_resnet50w2":
            theirs = resnet(state, x)
        else:
            assert not resnet50.load_state_dict(
                {k: v for k, v in state.items() if k in resnet50.state_dict()}, strict=True
            ).missing_keys
            theirs = resnet50(x)
    else:
        size = encoder.backbone.image_size
        x = torch.randn(2, 3, size, size)
        theirs = plain_vit(name, state, size)(x)
    ours = encoder.backbone(x).pooled
    assert ours.std(0).max() > 1e-3 * theirs.abs().max()  # features of two images differ: something is compared
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def recognise_names(tree: dict[str, Any]) -> str:
    state = {k: torch.zeros(()).expand(shape) for k, (shape, _) in tree.items()}
    found = recognise(state, list(state))
    assert found is not None
    return found[0].name


def golden(name: str) -> dict[str, Tensor]:
    found = load_file(GOLDEN / f"{name}.safetensors")
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}  # of doubles, what an encoder holds


@pytest.fixture(scope="module")
def dino_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of DINO's own training, in official nesting, its teacher the weights of the golden file."""
    import argparse

    teacher = {k.removeprefix("state/"): v for k, v in golden("dino_vit").items() if k.startswith("state/")}
    head = {"head.mlp.0.weight": torch.zeros(4, 16), "head.last_layer.weight_g": torch.ones(8, 1)}
    content = {
        "student": {f"module.backbone.{k}": v + 0.1 for k, v in teacher.items()}
        | {f"module.{k}": v for k, v in head.items()},
        "teacher": {f"backbone.{k}": v for k, v in teacher.items()} | head,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "epoch": 30,
        "args": argparse.Namespace(arch="vit_tiny", lr=5e-4),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    return saved(content, tmp_path_factory.mktemp("dino") / "checkpoint.pth")


@torch.no_grad()
def test_a_run_of_dino_gives_dinos_own_features_at_every_size(dino_run: Path) -> None:
    told = golden("dino_vit")
    encoder, extracted = import_file(dino_run, ImportOptions(heads=2))
    assert extracted.layout.name == "dino_full" and encoder.spec.backbone.position == "dino"
    assert read_foreign(dino_run).values["args.lr"] == 5e-4
    for size in ("native", "small", "wide"):
        torch.testing.assert_close(
            encoder.backbone(told[f"{size}/x"]).pooled, told[f"{size}/forward"], rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def test_the_branch_is_the_authors_unless_another_is_asked_for(dino_run: Path) -> None:
    x = golden("dino_vit")["native/x"]
    found = {b: import_file(dino_run, ImportOptions(heads=2, branch=b))[0] for b in ("auto", "online", "momentum")}  # type: ignore[arg-type]
    assert torch.equal(found["auto"].backbone(x).pooled, found["momentum"].backbone(x).pooled)
    assert not torch.allclose(found["auto"].backbone(x).pooled, found["online"].backbone(x).pooled, atol=0.1)
    assert found["online"].meta.imported.branch == "student (online)"
    assert found["online"].meta.sha256 != found["auto"].meta.sha256


def test_mae_is_known_by_its_decoder_and_its_encoder_by_its_positions(tmp_path: Path) -> None:
    two_heads = ImportOptions(heads=2)
    state = {k.removeprefix("state/"): v for k, v in golden("mae").items() if k.startswith("state/")}
    whole, extracted = import_file(saved({"model": state, "epoch": 3}, tmp_path / "checkpoint-3.pth"), two_heads)
    assert (extracted.layout.name, extracted.prefix) == ("mae_full", "model.")
    assert {"model.decoder_blocks", "model.mask_token", "model.decoder_pred"} <= set(extracted.left_over)
    encoder = {k: v for k, v in state.items() if not k.startswith(("decoder", "mask"))}
    alone, extracted = import_file(saved({"model": encoder}, tmp_path / "mae.pth"), two_heads)
    assert extracted.layout.name == "mae_encoder" and alone.meta.sha256 == whole.meta.sha256
    encoder["pos_embed"] = sincos_positions((4, 4), 16)
    assert import_file(saved({"model": encoder}, tmp_path / "v3.pth"), two_heads)[1].layout.name == "mocov3_deit"
    encoder["pos_embed"] = torch.randn(1, 17, 16)
    assert import_file(saved({"model": encoder}, tmp_path / "vit.pth"), two_heads)[1].layout.name == "timm_vit"


SPEC = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]})
IMAGE = ImageSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def loaded(seed: int, **source: str) -> LoadedEncoder:
    torch.manual_seed(seed)
    backbone = build_backbone(SPEC, 32)
    return as_loaded(backbone, SPEC, IMAGE, Imported(layout="timm", **source), Path("a.pth"), ["a note"])


def test_what_nobody_knows_is_called_unknown() -> None:
    encoder = loaded(0)
    assert encoder.meta.step == 0 and encoder.meta.data.name == "unknown" and encoder.meta.data.images is None
    assert encoder.spec.method.name == "unknown" and loaded(0, method="dino").meta.method == "dino"
    assert not encoder.backbone.training and encoder.notes == ["a note"]
    assert encoder.meta.checked_spec(Path("a")).backbone == SPEC


def test_its_sha256_is_that_of_its_weights() -> None:
    assert loaded(0).meta.sha256 == loaded(0, name="other").meta.sha256 != loaded(1).meta.sha256
