"""Other people's encoders in the form of ours: a spec and a meta that say what is known, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...backbones import Backbone
from ...runs import checkpoint
from ...runs.checkpoint import LoadedEncoder, digest
from ...spec.parsing import check_spec
from ...spec.schema import SCHEMA, BackboneSpec

PREFIX = "encoder."
UNKNOWN = "unknown"


def as_loaded(
    backbone: Backbone, spec: BackboneSpec, image: dict[str, Any], source: dict[str, Any], path: Path, notes: list[str]
) -> LoadedEncoder:
    """A LoadedEncoder for weights that no run of ours made.

    ``image`` is size, mean and std; ``source`` is what stands under ``meta["imported"]``, with ``method`` where it is
    known. Data are unknown: the fingerprint is None. The step is 0, since none of ours led here.
    """
    method = source.get("method") or UNKNOWN
    whole = check_spec(
        {"data": {"path": UNKNOWN}, "backbone": spec.model_dump(mode="json"), "method": {"name": method}}
    )
    meta = {
        "schema": SCHEMA,
        "method": method,
        "spec": whole.dump(),
        "step": 0,
        "encoder": PREFIX,
        "image": image,
        "data": {"name": UNKNOWN, "fingerprint": None, "images": None},
        "versions": {"sslctl": __version__, "torch": torch.__version__},
        "imported": source,
        "sha256": digest({PREFIX + name: value for name, value in backbone.state_dict().items()}),
    }
    return LoadedEncoder(backbone.eval().requires_grad_(False), whole, meta, path, notes)


def write(encoder: LoadedEncoder, path: Path) -> None:
    """``encoder`` as a checkpoint that holds it alone. Raises MachineError where the disk refuses."""
    checkpoint.write(path, {PREFIX + k: v.contiguous() for k, v in encoder.backbone.state_dict().items()}, encoder.meta)
