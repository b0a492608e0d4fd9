"""The encoder of a checkpoint, ready to use, and what its file says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import Backbone, hollow_backbone
from ..errors import SpecError
from ..spec.schema import DataSpec, Spec
from ..views.evaluation import EvalTransform
from .checkpoint import find, meta_of, opened, refuse_mismatch
from .meta import Meta


@dataclass
class LoadedEncoder:
    """An encoder in eval mode with what its file says about it, a checkpoint or imported weights.

    ``meta.sha256`` is that of the encoder's tensors where it comes from no run of ours; ``notes`` is what its user must
    be told.
    """

    backbone: Backbone
    spec: Spec
    meta: Meta
    path: Path
    notes: list[str] = field(default_factory=list)

    @property
    def arch(self) -> str:
        return self.spec.backbone.arch

    def transform(self, size: int | None = None) -> EvalTransform:
        """Return how images come to this encoder, at ``size`` px where it is given."""
        return self.meta.image.transform(size)

    def identity(self) -> dict[str, Any]:
        """Return what tells this encoder from every other: how it is built, and its weights."""
        built = self.spec.backbone.model_dump(mode="json")
        return {"backbone": built, "size": self.meta.image.size, "sha256": self.meta.sha256}

    def training_data(self) -> DataSpec:
        """Return the images that it was trained on. Raises SpecError for imported weights."""
        if self.meta.imported is not None:
            raise SpecError(f"{self.path}: imported weights, whose training images are not known", "give --data")
        return self.spec.data


def load_encoder(path: Path) -> LoadedEncoder:
    """Load the encoder in a checkpoint file or run directory; only its tensors are read.

    The mask token of a run that hid patches is not part of the encoder. Raises CheckpointError unless every weight of
    the backbone is there with its shape and none is left over.
    """
    path = find(path)
    with opened(path) as file:
        meta = meta_of(path, file)
        names = [key for key in file.keys() if key.startswith(meta.encoder)]  # noqa: SIM118 - no mapping
        state = {key.removeprefix(meta.encoder): file.get_tensor(key) for key in names}
    state.pop("mask_token", None)
    spec = meta.checked_spec(path)
    backbone = hollow_backbone(spec.backbone, meta.image.size)
    refuse_mismatch(path, backbone.state_dict(), state)
    backbone.load_state_dict(state, assign=True)
    return LoadedEncoder(backbone.eval().requires_grad_(False), spec, meta, path)
