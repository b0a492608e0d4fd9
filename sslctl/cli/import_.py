"""``sslctl import``: other people's weights as a checkpoint of ours, checked for equal features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..runs.meta import Imported

from ..errors import SpecError, closest
from . import output
from .options import Force, Json

BRANCHES = ["auto", "online", "momentum"]


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Another tool's file or folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Checkpoint to write: .safetensors.", show_default=False)],
    layout: Annotated[
        str | None, typer.Option(help="Whose file it is, where it does not show.", show_default=False)
    ] = None,
    branch: Annotated[str, typer.Option(help="auto (as the authors do), online or momentum.")] = "auto",
    arch: Annotated[
        str | None, typer.Option(help="timm's name, where the weights do not show it.", show_default=False)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="That the ViT has so many blocks and no more.", show_default=False)
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Heads of the ViT; they show in no shape.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn weights of another tool into a checkpoint.

    Recognises the files of MoCo, SwAV, DINO, DINOv2, MAE, lightly, solo-learn, torchvision, timm, Hugging Face and
    others by what is in them. No code in a file is run. The result is read back and compared with the library that
    the weights are for, on real images; the figures stand beside it in a .parity.json.

    Examples:

      sslctl import moco_v2_800ep_pretrain.pth.tar --out moco.safetensors

      sslctl import dino_deitsmall16_pretrain_full_checkpoint.pth --branch online --out student.safetensors

      sslctl import facebook-dinov2-small/ --out dinov2.safetensors --json
    """
    if branch not in BRANCHES:
        raise SpecError(f"--branch '{branch}': not one of {', '.join(BRANCHES)}{closest(branch, BRANCHES)}")

    from ..exchange.imports.parity import write_import
    from ..exchange.imports.recognise import Wishes
    from ..exchange.open_encoder import import_any, is_foreign

    by_name = str(file).startswith(("timm:", "random:")) and not file.exists()
    if by_name or (file.exists() and not is_foreign(file)):
        hint = f"see what it is: sslctl inspect {file}" if file.exists() else f"as it is: sslctl knn {file} --data …"
        raise SpecError(f"{file}: no file or folder of another tool, nothing to import", hint)
    wishes = Wishes(layout, branch, arch, depth, heads)  # type: ignore[arg-type]  # one of BRANCHES, as seen above
    encoder, taken = import_any(file, wishes)
    said = encoder.meta.imported
    assert said is not None
    spec = encoder.spec.backbone.model_dump(mode="json", exclude_defaults=True)
    for line in describe(said, len(encoder.backbone.state_dict()), encoder.spec.backbone.arch, encoder.meta.image.size):
        output.note(line)
    for line in encoder.notes:
        output.warn(line)
    parity = write_import(encoder, taken, out, force)
    output.note(
        f"against {parity['against']}, {parity['images']} images of {parity['of']} at {parity['size']} px: largest "
        f"difference {parity['absolute']:.2g} ({parity['relative']:.2g} of the largest number), smallest cosine "
        f"{parity['cosine']:.7f}"
    )
    result: dict[str, Any] = {
        "out": str(out),
        **said.model_dump(mode="json"),
        "left_over": taken.left,
        "backbone": spec,
    }
    result |= {
        "image": encoder.meta.image.model_dump(mode="json"),
        "sha256": encoder.meta.sha256,
        "notes": encoder.notes,
    }
    output.emit(result | {"parity": parity}, as_json, str(out))


def describe(said: Imported, count: int, arch: str, size: int) -> list[str]:
    """What was recognised and taken, and what was left, for people."""
    branch = f", {said.branch}" if said.branch else ""
    off = f"; taken off besides: {', '.join(said.wrappers)}" if said.wrappers else ""
    left = ", ".join(f"{group} ({n})" for group, n in said.left_over.items())
    return [
        f"recognised: {said.title} ({said.layout}), names of {said.names}",
        f"taken: {arch}, {size} px, {count} tensors after '{said.prefix}'{branch}{off}",
        f"left over: {left or 'nothing'}",
    ]
