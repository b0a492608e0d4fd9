"""Other people's encoders in the form of ours: a spec and a meta that say what is known, and what is not."""

from __future__ import annotations

from pathlib import Path

from ...backbones import Backbone
from ...runs import checkpoint
from ...runs.checkpoint import digest
from ...runs.encoder import LoadedEncoder
from ...runs.meta import DataFacts, ImageSpec, Imported, Meta
from ...spec.parsing import check_spec
from ...spec.schema import BackboneSpec

PREFIX = "encoder."
UNKNOWN = "unknown"


def as_loaded(
    backbone: Backbone, spec: BackboneSpec, image: ImageSpec, source: Imported, path: Path, notes: list[str]
) -> LoadedEncoder:
    """A LoadedEncoder for weights that no run of ours made.

    Its images are unknown, and its step is 0, since none of our runs led here.
    """
    method = source.method or UNKNOWN
    whole = check_spec(
        {"data": {"path": UNKNOWN}, "backbone": spec.model_dump(mode="json"), "method": {"name": method}}
    )
    meta = Meta(
        method=method,
        spec=whole.dump(),
        encoder=PREFIX,
        image=image,
        data=DataFacts(name=UNKNOWN),
        imported=source,
        sha256=digest({PREFIX + name: value for name, value in backbone.state_dict().items()}),
    ).but()
    return LoadedEncoder(backbone.eval().requires_grad_(False), whole, meta, path, notes)


def write(encoder: LoadedEncoder, path: Path) -> None:
    """``encoder`` as a checkpoint that holds it alone. Raises MachineError where the disk refuses."""
    checkpoint.write(path, {PREFIX + k: v.contiguous() for k, v in encoder.backbone.state_dict().items()}, encoder.meta)
