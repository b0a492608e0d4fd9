"""Layouts: how other tools save their encoders, as a table in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...backbones.positions import sincos_positions
from ...views.recipe import IMAGENET_MEAN, IMAGENET_STD

Which = Literal["online", "momentum"]
Names = tuple[str, ...]
Tensors = Mapping[str, Tensor]
SWAV_STD = (0.228, 0.224, 0.225)  # as facebookresearch/swav, src/multicropdataset.py
HERE: Names = ("",)
NESTED: Names = ("", "state_dict.", "model.")


@dataclass(frozen=True)
class Layout:
    """A kind of file: the names by which it is recognised, and the prefix of its encoder.

    Names are dotted paths from the outermost dictionary, without ``module.`` and its like. All begin with one of
    ``nests``; after that, each of ``marks`` and one of ``any_of`` begins some name, and none of ``never`` does.
    ``online`` and ``momentum`` are prefixes of the two branches, the first that holds an encoder counts;
    ``branch`` is the one that the method's authors publish or evaluate. A layout ``by_name_only`` cannot be
    recognised: it has to be requested.
    """

    name: str
    title: str
    online: Names = ()
    momentum: Names = ()
    marks: Names = ()
    any_of: Names = ()
    never: Names = ()
    nests: Names = NESTED
    needs: str = ""  # a key of the outermost dictionary
    fits: Callable[[Tensors], bool] | None = None
    branch: Which = "online"
    method: str | None = None
    by_name_only: bool = False
    heads: int | None = None  # of a ViT, if not its width / 64
    norm_eps: float | None = None  # of a ViT, if not 1e-6
    size: int | None = None  # px of evaluation, if not the native size
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    position: Literal["timm", "dino"] = "timm"
    padding: Literal["same", "solo"] | None = None
    note: str = ""


def sincos(moco: bool) -> Callable[[Tensors], bool]:
    """Return a test for the fixed positions of MoCo v3, or of MAE, where rows and columns are swapped."""

    def fits(state: Tensors) -> bool:
        positions = state.get("pos_embed")
        if positions is None or positions.ndim != 3 or positions.shape[-1] % 4:
            return False
        side = round((positions.shape[1] - 1) ** 0.5)
        if positions.shape[1] != side * side + 1:
            return False
        table = sincos_positions((side, side), positions.shape[-1], columns_first=not moco)
        return bool(torch.allclose(positions.float(), table, atol=1e-4))

    return fits


LIGHTNING = "pytorch-lightning_version"
IN_STATE: Names = ("state_dict.",)
BACKBONE: Names = ("backbone.vit.", "backbone.", "model.backbone.")
RESNET, VIT = "layer1.0.conv1.weight", "blocks.0.norm1.weight"

LAYOUTS = [
    Layout("dino_full", "DINO, whole run", ("student.backbone.",), ("teacher.backbone.",), nests=HERE,
           marks=("student.backbone.", "teacher.backbone.", "dino_loss."), method="dino", position="dino",
           branch="momentum"),
    Layout("ibot_full", "iBOT, whole run", ("student.backbone.",), ("teacher.backbone.",), nests=HERE,
           marks=("student.backbone.", "teacher.backbone.", "ibot_loss."), method="ibot", position="dino",
           branch="momentum"),
    Layout("student_teacher", "student and teacher", ("student.backbone.",), ("teacher.backbone.",), nests=HERE,
           marks=("student.backbone.", "teacher.backbone."), branch="momentum"),
    Layout("dinov2_fsdp", "DINOv2, whole run", ("student.backbone.",), ("teacher.backbone.",), nests=("model.",),
           marks=("teacher.backbone.",), branch="momentum", method="dinov2", size=224, position="dino"),
    Layout("dinov2_teacher", "DINOv2, teacher of a run", momentum=("backbone.",), nests=("teacher.",),
           marks=("backbone.",), branch="momentum", method="dinov2", size=224, position="dino"),
    Layout("moco_v1", "MoCo v1", ("encoder_q.",), ("encoder_k.",), marks=("encoder_q.fc.weight",), method="moco-v1"),
    Layout("moco_v2", "MoCo v2", ("encoder_q.",), ("encoder_k.",), marks=("encoder_q.fc.2.weight",), method="moco-v2"),
    Layout("mocov3", "MoCo v3", ("base_encoder.",), ("momentum_encoder.",), marks=("base_encoder.",),
           method="moco-v3", heads=12),
    Layout("vissl", "VISSL", ("_feature_blocks.", ""), marks=("",), nests=(
        "classy_state_dict.base_model.model.trunk.base_model.", "classy_state_dict.base_model.model.trunk.")),
    Layout("vissl_converted", "VISSL, converted", ("_feature_blocks.",), marks=("_feature_blocks.",),
           nests=("model_state_dict.", "")),
    Layout("lightly_dino", "lightly, DINO", ("student_backbone.vit.", "student_backbone."), BACKBONE, nests=IN_STATE,
           needs=LIGHTNING, marks=("student_backbone.", "backbone."), branch="momentum", method="dino"),
    Layout("lightly_dinov2", "lightly, iBOT or DINOv2", ("student_backbone.vit.", "student_backbone."),
           ("teacher_backbone.vit.", "teacher_backbone."), nests=IN_STATE, needs=LIGHTNING,
           marks=("student_backbone.", "teacher_backbone."), branch="momentum"),
    Layout("lightly", "lightly", BACKBONE, ("key_backbone.", "teacher_backbone."), nests=IN_STATE, needs=LIGHTNING,
           marks=("backbone.",),
           any_of=("projection_head.", "key_backbone.", "teacher_backbone.", "online_classifier.")),
    Layout("solo", "solo-learn", ("backbone.", "encoder."), ("momentum_backbone.", "momentum_encoder."), nests=IN_STATE,
           needs=LIGHTNING, any_of=("backbone.", "encoder."), padding="solo"),
    Layout("simsiam", "SimSiam", ("encoder.",), marks=("encoder.fc.", "predictor."), method="simsiam"),
    Layout("barlow_full", "Barlow Twins, whole run", ("backbone.",), method="barlow-twins",
           marks=("backbone.conv1.", "projector.", "bn.running_mean")),
    Layout("vicreg_full", "VICReg, whole run", ("backbone.",), method="vicreg",
           marks=("backbone.conv1.", "projector.")),
    Layout("byol_learner", "BYOL, lucidrains' learner", ("online_encoder.net.",), ("target_encoder.net.",),
           marks=("online_encoder.net.",), method="byol"),
    Layout("deepclusterv2", "DeepCluster v2", HERE, marks=(RESNET, "prototypes.prototypes0."), std=SWAV_STD,
           method="deepcluster-v2"),
    Layout("swav", "SwAV", HERE, marks=(RESNET, "prototypes.weight"), std=SWAV_STD, method="swav"),
    Layout("mae_full", "MAE, whole run", HERE, marks=(VIT, "decoder_pred."), method="mae"),
    Layout("mae_encoder", "MAE, encoder", HERE, marks=(VIT,), fits=sincos(moco=False), method="mae"),
    Layout("mocov3_deit", "MoCo v3, converted", HERE, marks=(VIT,), fits=sincos(moco=True), heads=12, method="moco-v3"),
    Layout("ibot_teacher", "iBOT, teacher", HERE, marks=(VIT, "masked_embed"), method="ibot", position="dino"),
    Layout("dinov3", "DINOv3", HERE, marks=(VIT, "storage_tokens"), method="dinov3", size=224),
    Layout("dinov2", "DINOv2", HERE, marks=("mask_token",), any_of=("blocks.0.ls1.gamma", "blocks.0.0.ls1.gamma"),
           method="dinov2", size=224, position="dino"),
    Layout("torchvision", "torchvision ResNet", HERE, marks=(RESNET, "fc.weight", "bn1.num_batches_tracked")),
    Layout("torchvision_vit", "torchvision ViT", HERE, marks=("conv_proj.weight", "encoder.layers.encoder_layer_0.")),
    Layout("resnet", "ResNet without classifier", HERE, marks=(RESNET,), never=("fc.",), note="the file does not show"
           " its method: Barlow Twins, VICReg, DINO and others publish the same names"),
    Layout("timm_dinov3", "ViT as DINOv3's in timm's names", HERE, marks=(VIT, "reg_token", "blocks.0.gamma_1"),
           never=("pos_embed",), size=224, note="the file shows neither its method (DINOv3 or another with the same"
           " network) nor the base of its rotary positions: DINOv3's 100 is assumed"),
    Layout("timm_vit", "ViT in timm's names", HERE, marks=(VIT,), note="the file does not show its method"
           " (DINO, DeiT and others share these names); its positions are resized as timm does"),
    Layout("hf", "Hugging Face", ("", "vit.", "dinov2.", "dinov2_with_registers.", "resnet."), any_of=(
        "embeddings.patch_embeddings.", "vit.embeddings.", "dinov2.embeddings.", "dinov2_with_registers.embeddings.",
        "embedder.embedder.", "resnet.embedder.")),
    Layout("dino", "DINO, backbone", HERE, by_name_only=True, method="dino", position="dino"),
    Layout("barlow", "Barlow Twins, backbone", HERE, by_name_only=True, method="barlow-twins"),
    Layout("vicreg", "VICReg, backbone", HERE, by_name_only=True, method="vicreg"),
    Layout("byol_converted", "BYOL, converted from JAX", HERE, by_name_only=True, method="byol", padding="same"),
    Layout("simclr_converted", "SimCLR, converted from TensorFlow", HERE, by_name_only=True, method="simclr",
           mean=(0.0,) * 3, std=(1.0,) * 3),
]  # fmt: skip

# Files without an encoder that can be imported, and what to do; searched if no layout fits.
REFUSED = {
    "cls_attn_blocks.": "an XCiT; take timm's: timm:xcit_small_12_p16_224.fb_dist_in1k or the like",
    "patch_embed.proj.0.weight": "a ViT with a convolutional stem (moco-v3's vit_conv), which timm does not have",
    "rope_embed": "a ViT with rotary positions other than DINOv3; if timm has it: --arch NAME",
    "resnet.net.0.": "SimCLR v2 in its own names; convert it to torchvision's",
    "linear.weight": "only a linear classifier; import the file of the encoder that it was trained on",
}


def begins(names: Collection[str], prefix: str) -> bool:
    """Return whether any of ``names`` begins with ``prefix``."""
    return any(name.startswith(prefix) for name in names)


def recognise(tensors: Tensors, top: Collection[str]) -> tuple[Layout, str] | None:
    """Return the first layout that fits ``tensors`` (by dotted name), and the prefix it is nested under.

    ``top`` holds the keys of the outermost dictionary.
    """
    for layout in LAYOUTS:
        if layout.by_name_only or (layout.needs and layout.needs not in top):
            continue
        for nest in layout.nests:
            inner = {name.removeprefix(nest): t for name, t in tensors.items() if name.startswith(nest)}
            if (
                inner
                and all(begins(inner, mark) for mark in layout.marks)
                and (not layout.any_of or any(begins(inner, mark) for mark in layout.any_of))
                and not any(begins(inner, mark) for mark in layout.never)
                and (layout.fits is None or layout.fits(inner))
            ):
                return layout, nest
    return None
