"""Other tools' files: an encoder exported and imported, each checked for equal features; what a file is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import SpecError
from . import options as opt
from .feedback import Feedback, Notes
from .options import Option, one_of

if TYPE_CHECKING:
    from .results import Export, Import, Inspection

BRANCHES = ("auto", "online", "momentum")


@opt.task
def export(
    encoder: opt.Encoder,
    out: Annotated[Path, Option("File or folder to write.")],
    *,
    format: Annotated[str, Option("timm, hf, torchvision, detectron2, onnx or pt2.")] = "timm",
    features: Annotated[str, Option("Output of onnx and pt2: pooled, cls, patches or all.")] = "pooled",
    preprocess: Annotated[bool, Option("onnx, pt2: take uint8 (B, H, W, 3) and normalise in the graph.")] = False,
    licence: Annotated[str, Option("For the card, as apache-2.0.", names="--license")] = "unknown",
    scores: Annotated[
        Sequence[str | Path] | None,
        Option("For the card: files with what knn, linear-eval or finetune --json printed.", type=list[Path] | None),
    ] = None,
    force: opt.Force = False,
    notes: Notes | None = None,
) -> Export:
    """Write an encoder in another tool's format, with a card.

    That tool, in a fresh process, must give the same features of real images; otherwise nothing is left behind and
    CheckpointError is raised. Raises MachineError where the tool is not installed, SpecError where ``out`` is taken or
    the format cannot hold the encoder.
    """
    from ..exchange.exports.formats import find_format

    form = find_format(format)
    form.require()

    from ..exchange.exports import write
    from .encoders import load
    from .results import Export, ExportParity

    feedback, model = Feedback(None, notes), load(encoder, notes=notes)
    feedback.note(f"exporting {model.arch}, comparing it with {form.library} in a fresh process")
    done = write.export(
        model,
        Path(out),
        form,
        features=features,
        preprocess=preprocess,
        licence=licence,
        score_files=[Path(path) for path in scores or ()],
        force=force,
    )
    feedback.warn_all(done.notes)
    feedback.note(f"{done.images}: {done.parity}; the tolerance is {done.tolerance:g}")
    feedback.note(f"load it, from {done.path.parent}, with:\n{done.code.rstrip()}")
    return Export(
        out=str(out),
        format=format,
        parity=ExportParity(**asdict(done.parity), tolerance=done.tolerance, grey_levels=done.grey),
        images=done.images,
        report=str(done.report),
        load=done.code,
        notes=done.notes,
    )


@opt.task
def import_weights(
    file: Annotated[str | Path, Option("Another tool's file or folder.", metavar="FILE", type=Path)],
    out: Annotated[Path, Option("Checkpoint to write: .safetensors.")],
    *,
    layout: Annotated[str | None, Option("Whose file it is, where the file does not show it.")] = None,
    branch: Annotated[str, Option("auto (as the authors do), online or momentum.")] = "auto",
    arch: Annotated[str | None, Option("timm's name, where the weights do not show it.")] = None,
    depth: Annotated[int | None, Option("Blocks of the ViT, where the file may hold only some.", min=1)] = None,
    heads: Annotated[int | None, Option("Heads of the ViT, which no shape shows.", min=1)] = None,
    force: opt.Force = False,
    notes: Notes | None = None,
) -> Import:
    """Turn weights of another tool into a checkpoint, and compare its features with those of that tool.

    Raises SpecError where ``out`` is taken or ``file`` is not another tool's, CheckpointError where the weights are
    not recognised, are incomplete, or give other features.
    """
    one_of("--branch", branch, BRANCHES, "branch")

    from ..exchange.imports.parity import write_import
    from ..exchange.imports.recognise import ImportOptions
    from ..exchange.open_encoder import import_any, is_foreign
    from .results import Import, ImportParity

    feedback, path = Feedback(None, notes), Path(file)
    by_name = str(file).startswith(("timm:", "random:")) and not path.exists()
    if by_name or (path.exists() and not is_foreign(path)):
        hint = f"see what it is: sslctl inspect {file}" if path.exists() else f"as it is: sslctl knn {file} --data …"
        raise SpecError(f"{file}: not a file or folder of another tool, so there is nothing to import", hint)
    options = ImportOptions(layout, branch, arch, depth, heads)  # type: ignore[arg-type]  # checked above
    encoder, extracted = import_any(path, options)
    origin, image = encoder.meta.imported, encoder.meta.image
    assert origin is not None
    which = f", {origin.branch}" if origin.branch else ""
    off = f"; wrappers removed: {', '.join(origin.wrappers)}" if origin.wrappers else ""
    left = ", ".join(f"{group} ({n})" for group, n in origin.left_over.items())
    count = len(encoder.backbone.state_dict())
    feedback.note(f"recognised: {origin.title} ({origin.layout}), names of {origin.names}")
    feedback.note(f"taken: {encoder.arch}, {image.size} px, {count} tensors after '{origin.prefix}'{which}{off}")
    feedback.note(f"left over: {left or 'nothing'}")
    feedback.warn_all(encoder.notes)
    parity = ImportParity(**write_import(encoder, extracted, Path(out), force))
    feedback.note(
        f"against {parity.against}, {parity.images} images of {parity.of} at {parity.size} px: largest difference "
        f"{parity.absolute:.2g} ({parity.relative:.2g} of the largest number), smallest cosine {parity.cosine:.7f}"
    )
    facts: dict[str, Any] = origin.model_dump(mode="json") | {"left_over": extracted.left_over}
    return Import(
        out=str(out),
        **facts,
        backbone=encoder.spec.backbone.model_dump(mode="json", exclude_defaults=True),
        image=image.model_dump(mode="json"),
        sha256=encoder.meta.sha256,
        notes=encoder.notes,
        parity=parity,
    )


@opt.task
def inspect(
    path: Annotated[str | Path, Option("Any file or folder.", metavar="PATH", type=Path)],
    *,
    notes: Notes | None = None,
) -> Inspection:
    """Find out what a file or folder is: a run, a checkpoint, weights of another tool, images. Nothing in it is run.

    Raises CheckpointError where it is none of these, or damaged.
    """
    from ..exchange import inspection
    from .results import Inspection

    found = inspection.inspect(Path(path))
    if "schema" in found:
        found["checkpoint_schema"] = found.pop("schema")
    Feedback(None, notes).warn_all(found.get("notes", []))
    return Inspection(**found)
