"""What a checkpoint says beside its tensors, as frozen models: nothing of a wrong type is read, nothing is indexed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import CheckpointError, SslctlError
from ..spec.parsing import check_spec
from ..spec.schema import SCHEMA, Spec
from ..version import __version__
from ..views.evaluation import EvalTransform

HINT = "give a checkpoint that `sslctl pretrain` wrote"
Numbers = tuple[float, float, float]


class Facts(BaseModel):
    """A part of what a file says; keys of later versions are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, populate_by_name=True)


class ImageSpec(Facts):
    """The images that an encoder takes: side in px, and the mean and deviation of pixels in [0, 1]."""

    size: int = Field(ge=1, le=1 << 14)
    mean: Numbers
    std: Numbers

    def transform(self, size: int | None = None) -> EvalTransform:
        """Return images as evaluation sees them, at ``size`` px where it is given."""
        return EvalTransform(size or self.size, self.mean, self.std)


class DataFacts(Facts):
    """The images that an encoder was trained on; None where they are not known."""

    name: str
    fingerprint: str | None = None
    images: int | None = None


class Imported(Facts):
    """The origin of weights that no run of ours made, as far as their file says."""

    layout: str
    title: str | None = None
    file: str | None = None
    name: str | None = None  # of timm's model
    tag: str | None = None
    method: str | None = None
    branch: str | None = None
    names: str | None = None  # whose names the tensors have
    prefix: str | None = None
    left_over: dict[str, int] = {}
    wrappers: list[str] = []


class Meta(Facts):
    """All that a checkpoint says: the spec of its run, how far it is, and what is needed to use its encoder."""

    schema_version: int = Field(SCHEMA, alias="schema", ge=1, le=SCHEMA)
    method: str | None = None
    spec: dict[str, Any]
    step: int = Field(0, ge=0)
    encoder: str = ""  # prefix of the encoder's tensors
    image: ImageSpec
    data: DataFacts
    versions: dict[str, str] = {}
    sha256: str = ""  # of the tensors
    scaler: dict[str, Any] | None = None  # of fp16
    probe: dict[str, float] | None = None  # of the checkpoint that the online probe found best
    imported: Imported | None = None
    finetuned: dict[str, Any] | None = None  # the protocol
    classes: list[str] | None = None

    def but(self, **changes: Any) -> Self:
        """Return the same with ``changes``, and the versions of today."""
        versions = {"sslctl": __version__, "torch": torch.__version__}
        return self.model_copy(update={"versions": versions, **changes})

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def checked_spec(self, path: Path) -> Spec:
        """Return the spec. Raises CheckpointError where this version cannot read it."""
        try:
            return check_spec(self.spec)
        except SslctlError as e:
            raise CheckpointError(f"{path}: its spec cannot be read: {e.message}", "written by another version?") from e


def parse_meta(path: Path, text: str | None) -> Meta:
    """Return the meta in the header of the safetensors file ``path``.

    Raises CheckpointError where ``text`` is not one: another tool's file, a newer schema, a value of a wrong type.
    """
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not {"schema", "spec", "step", "encoder", "image", "sha256"} <= content.keys():
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of sslctl", HINT)
    version = content["schema"]
    if isinstance(version, int) and version > SCHEMA:
        raise CheckpointError(f"{path}: schema {version}, newer than {SCHEMA}", "upgrade: pip install -U sslctl")
    try:
        return Meta.model_validate_json(json.dumps(content), strict=True)
    except (ValidationError, ValueError) as e:
        first = e.errors(include_url=False, include_input=False)[0] if isinstance(e, ValidationError) else {"msg": e}
        where = ".".join(str(part) for part in first.get("loc", ()))  # type: ignore[union-attr]
        raise CheckpointError(f"{path}: its header is damaged: {where}: {first['msg']}", HINT) from e
