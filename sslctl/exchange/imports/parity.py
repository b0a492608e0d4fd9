"""Write an import as a checkpoint after comparing its features with the library that the weights came from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from ...backbones import is_rotary_arch
from ...backbones.architecture import pooling, vit_shape
from ...errors import SpecError
from ...files import replacing, write_atomically
from ...runs import checkpoint
from ...runs.encoder import LoadedEncoder, load_encoder
from ..exports.parity import IMAGES, Parity, at_size, compare, normalise, real_images, require_parity, run_fresh
from . import formulas as formulas
from .folder import is_folder
from .names import to_timm
from .recognise import PREFIX, Extracted

TOLERANCE, DEEP_TOLERANCE = 1e-5, 1e-4  # of the largest number of an image; the second above twelve blocks
WORK = 25e6 * 224**2  # parameters times pixels of a ResNet-50: a network that costs more is compared on fewer images
WEIGHTS = "weights.safetensors"

_HEAD = "import sys, torch\nfrom safetensors.torch import load_file, save_file\nx = load_file(sys.argv[1])['x']\n"
_TAIL = "\nwith torch.no_grad():\n    save_file({'y': f(x).contiguous()}, sys.argv[2])\n"


def write_import(encoder: LoadedEncoder, extracted: Extracted, out: Path, force: bool = False) -> dict[str, Any]:
    """Write ``out`` and, next to it, the report ``<stem>.parity.json``; return the report.

    The checkpoint is read back from disk and compared, on real images, with the library of the weights before it gets
    its name. Raises SpecError if ``out`` exists, CheckpointError if features differ.
    """
    report = out.with_suffix(".parity.json")
    if out.suffix != ".safetensors":
        raise SpecError(f"--out {out}: a checkpoint is a .safetensors file", f"--out {out.with_suffix('.safetensors')}")
    if out.exists() and not force:
        raise SpecError(f"--out {out}: already exists", "give another name, or replace it with --force")
    tensors = {PREFIX + name: value.contiguous() for name, value in encoder.backbone.state_dict().items()}
    with replacing(out, sum(t.nbytes for t in tensors.values())) as partial:
        checkpoint.write(partial, tensors, encoder.meta)
        result = check(load_encoder(partial), extracted, encoder.path)
        write_atomically(report, (json.dumps(result | {"checkpoint": out.name}, indent=2) + "\n").encode())
    return result


def check(ours: LoadedEncoder, extracted: Extracted, source: Path) -> dict[str, Any]:
    """Compare features with the library that ``source`` came from, on real images at the native size.

    Raises CheckpointError above the tolerance.
    """
    net, image = ours.backbone, ours.meta.image
    size = net.image_size if net.is_vit else image.size
    cost = sum(p.numel() for p in net.parameters()) * size**3 / 224
    images, dataset = real_images(ours, max(2, min(IMAGES, int(IMAGES * WORK / max(1, cost)))))
    x = normalise(at_size(images, size), image)
    library, y = reference_features(ours, extracted, source, x)
    tolerance = DEEP_TOLERANCE if net.depth > 12 else TOLERANCE
    with torch.no_grad():
        parity: Parity = compare({"y": net(x).pooled}, {"y": y}, tolerance)
    require_parity(parity, tolerance, f"the import of {source}", library)
    return {"against": library, "images": len(x), "of": dataset, "size": size, "tolerance": tolerance, **asdict(parity)}


def reference_features(ours: LoadedEncoder, extracted: Extracted, source: Path, x: Tensor) -> tuple[str, Tensor]:
    """Return the name of the reference and its features of ``x`` (B, 3, S, S).

    The reference is the library of the weights in a fresh process, if it can build the network, and the formulas of
    the papers on the file's own tensors otherwise.
    """
    program = _program(ours, extracted, source)
    if program is None:
        with torch.no_grad():
            return _by_formulas(ours, extracted, x)
    library, code = program
    with tempfile.TemporaryDirectory() as folder:
        if library == "torchvision":
            save_file({name: value.contiguous() for name, value in extracted.tensors.items()}, Path(folder) / WEIGHTS)
        y = run_fresh(_HEAD + code + _TAIL, {"x": x}, Path(folder), f"the import of {source}", library)["y"]
    return f"{library} {importlib.metadata.version(library)}", y


def _program(ours: LoadedEncoder, extracted: Extracted, source: Path) -> tuple[str, str] | None:
    """Return a library and Python that defines ``f`` from images to features with it; None if no library can."""
    spec, net, tensors, layout = ours.spec.backbone, ours.backbone, extracted.tensors, extracted.layout.name
    folder = (source if source.is_dir() else source.parent).resolve()
    if layout == "timm_folder" and net.stem == "imagenet":
        model = f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"
        pool = f", {pooling(net)['global_pool']!r}" if net.is_vit else ""
        return "timm", f"import timm\nf = {model}.eval()\nf.reset_classifier(0{pool})"
    if layout == "hf" and is_folder(source) and importlib.util.find_spec("transformers"):
        pooled = "last_hidden_state[:, 0]" if net.is_vit else "pooler_output.flatten(1)"
        model = f"AutoModel.from_pretrained({str(folder)!r}).eval()"
        return "transformers", f"from transformers import AutoModel\nm = {model}\nf = lambda x: m(x).{pooled}"
    if layout == "torchvision" and not spec.args and hasattr(torchvision.models, spec.arch):
        build, head = f"{spec.arch}(num_classes={len(tensors['fc.bias'])})", "fc"
    elif layout == "torchvision_vit" and "heads.head.bias" in tensors:
        hidden = vit_shape(net, net.image_size).hidden
        sizes = f"{net.image_size}, {net.patch}, {net.depth}, {net.heads}, {net.dim}"
        classes = len(tensors["heads.head.bias"])
        build, head = f"VisionTransformer({sizes}, {hidden}, num_classes={classes})", "heads"
    else:
        return None
    load = f"f.load_state_dict(load_file({WEIGHTS!r}))\nf.{head} = torch.nn.Identity()\nf.eval()"
    return "torchvision", f"from torchvision.models import *\nf = {build}\n{load}"


def _by_formulas(ours: LoadedEncoder, extracted: Extracted, x: Tensor) -> tuple[str, Tensor]:
    spec, net, tensors = ours.spec.backbone, ours.backbone, extracted.tensors
    reference = "the papers' formulas on the file's own tensors"
    facebook = "storage_tokens" in tensors
    if extracted.naming.rules and not facebook:
        tensors, reference = to_timm(dict(tensors), extracted.naming), "the papers' formulas on the renamed tensors"
    rotary = is_rotary_arch(spec.arch)
    if rotary and (facebook or ("blocks.0.gamma_1" in tensors and "pos_embed" not in tensors)):
        return reference, formulas.rotary_vit(tensors, x, net.heads)
    if net.is_vit and not rotary:
        chunks = {m[1]: m[0] for name in tensors if (m := re.match(r"blocks\.\d+\.(\d+)\.", name))}
        block = (lambda i: chunks.get(str(i), "blocks.none.")) if chunks else "blocks.{}.".format
        return reference, formulas.vit(tensors, x, net.heads, block)
    if "layer1.0.conv1.weight" in tensors and spec.padding in (None, "same", "solo") and _is_plain(tensors):
        return reference, formulas.resnet(tensors, x, spec.padding)
    sized = {"img_size": net.image_size, "dynamic_img_size": True} if net.is_vit else {}
    plain = timm.create_model(spec.arch, num_classes=0, **sized, **spec.args).eval()
    if net.is_vit:
        plain.reset_classifier(0, pooling(net)["global_pool"])
    plain.load_state_dict({name: value for name, value in tensors.items() if name in plain.state_dict()})
    return f"timm {timm.__version__}, a plain {spec.arch}", plain(x)


def _is_plain(tensors: Mapping[str, Tensor]) -> bool:
    return "conv1.weight" in tensors and not any(re.search(r"\.(se|attn|aa)\.|downsample\.2", name) for name in tensors)
