"""An encoder, images, a machine: opened for every task in one way; and the one path from images to features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from ..data import BadImage, Source, open_one, open_source
from ..data.decode import EXTENSIONS, to_rgb
from ..data.folder import Split
from ..data.source import FileSource
from ..errors import DataError
from ..evaluate.features.cache import Cache, cache_beside, cached_features
from ..evaluate.features.extract import FeatureSet
from ..exchange.open_encoder import open_encoder
from ..runs.encoder import LoadedEncoder
from ..runtime import distributed
from ..runtime.device import choose_device, choose_dtype, choose_workers
from ..spec.schema import DataSpec
from ..views.evaluation import EvalTransform
from .feedback import Feedback, Notes
from .options import MachineOptions, one_of, with_defaults
from .results import Failed


@dataclass(frozen=True)
class Machine:
    """Where and how passes over images run."""

    device: torch.device
    dtype: torch.dtype
    workers: int
    batch_size: int

    @classmethod
    def of(cls, o: MachineOptions) -> Machine:
        """Return what the options name, or what is there; joins the processes that torchrun started.

        Raises SpecError for an unknown word, MachineError for a device that is not there.
        """
        device = choose_device(o["device"])
        dtype = choose_dtype(o["precision"], device)
        distributed.join(device)
        return cls(device, dtype, choose_workers(o["workers"]), o["batch_size"])

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


@dataclass
class Encoder(LoadedEncoder):
    """A loaded encoder that computes features of images."""

    def __post_init__(self) -> None:
        self._versions = self._count_writes()

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.backbone.dim

    @property
    def changed(self) -> bool:
        """Whether its weights were written to since it was loaded: then it is not the encoder of its file any more."""
        return self._count_writes() != self._versions

    def _count_writes(self) -> list[int]:
        return [tensor._version for tensor in (*self.backbone.parameters(), *self.backbone.buffers())]

    def embed(self, images: object, **options: Unpack[MachineOptions]) -> Tensor:
        """Features of ``images``, float32 (n, dim), on the CPU, one row an image, as every evaluation computes them.

        ``images``: what ``--data`` takes (a folder, a list file, …), an image file, or a sequence of paths, PIL images
        or arrays (H, W, 3) or (H, W) of uint8. Raises DataError where one of them cannot be read.
        """
        o = with_defaults(MachineOptions, options)
        source = as_source(images)
        found = features_of(self, source, Machine.of(o), Feedback.of(o), store=False)
        if found.skipped:
            name, reason = found.skipped[0]
            raise DataError(f"{name}: {reason}; {len(found.skipped)} of {len(source)} images cannot be read")
        return found.x


def load(encoder: str | Path | LoadedEncoder, *, notes: Notes | None = None) -> Encoder:
    """Load an encoder: of a run directory or checkpoint, another tool's file or folder, or ``timm:NAME``.

    Raises CheckpointError for what holds no complete encoder, SpecError for an unknown name, MachineError where
    weights cannot be fetched.
    """
    if isinstance(encoder, Encoder):
        return encoder
    loaded = encoder if isinstance(encoder, LoadedEncoder) else open_encoder(encoder)
    Feedback(None, notes).warn_all(loaded.notes)
    return Encoder(**{field.name: getattr(loaded, field.name) for field in fields(LoadedEncoder)})


def as_source(images: object) -> Source:
    """The images that a path, a word for ``--data`` or a sequence means. Raises DataError where there are none."""
    if isinstance(images, str | Path):
        return open_images(images)
    if isinstance(images, Image.Image):
        return Pictures([images])
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return Pictures([images])
    items: list[Any] = list(images) if isinstance(images, Iterable) else []
    if not items:
        raise DataError("there are no images to embed", "give paths, PIL images, arrays, or a folder")
    if all(isinstance(item, str | Path) for item in items):
        return FileSource("images", "", [str(Path(item).expanduser().absolute()) for item in items])
    return Pictures(items)


class Pictures(Source):
    """PIL images and arrays that the caller holds in memory."""

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__("images")
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def item_name(self, i: int) -> str:
        return f"image {i}"

    def read(self, i: int) -> NDArray[np.uint8]:
        item = self.items[i]
        if isinstance(item, str | Path):
            return FileSource("images", "", [str(Path(item).expanduser().absolute())]).read(0)
        if isinstance(item, Image.Image):
            return _pixels(item, self.item_name(i))
        array = np.asarray(item)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
            shape = f"{array.dtype} {array.shape}"
            raise BadImage(f"not an image: {shape}; it should be uint8 (H, W, 3) or (H, W)", self.item_name(i))
        return array if array.ndim == 3 else np.repeat(array[..., None], 3, 2)

    def fingerprint(self) -> str:
        return ""  # features of these are never stored

    def take(self, indices: NDArray[np.int64]) -> Pictures:
        return Pictures([self.items[i] for i in indices])


def _pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return an image of Pillow's as a file of it would be read: RGB, turned as its EXIF says."""
    try:
        return np.asarray(ImageOps.exif_transpose(to_rgb(image)))
    except OSError as e:
        raise BadImage(str(e), name) from e


def open_images(images: str | Path) -> Source:
    """Return one image file as a set of its own; otherwise what ``--data`` takes."""
    path = Path(images).expanduser()
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return FileSource(path.name, str(path.parent), [path.name])
    source = open_source(str(images))
    if len(source) == 0:
        raise DataError(f"{images}: holds no images")
    return source


def data_of(encoder: LoadedEncoder, data: str | Path | None, **changes: Any) -> DataSpec:
    """The images at ``data``, or else those that the encoder was trained on; ``changes`` to how they are opened."""
    spec = encoder.training_data() if data is None else DataSpec(path=str(data))
    return spec.model_copy(update=changes)


def open_as_is(data: str | Path | DataSpec, split: str, download: bool, feedback: Feedback) -> Source:
    """Return the part ``split`` of a set, with its notes; checked for readable images where ``data`` is a spec."""
    one_of("--split", split, ("train", "val"), "part")
    part: Split = "val" if split == "val" else "train"
    if isinstance(data, DataSpec):
        source = open_one(data.model_copy(update={"download": download}), part)
    else:
        source = open_source(str(data), split=part, download=download)
    for line in source.notes:
        feedback.note(line)
    return source


def cache_of(encoder: Encoder, store: bool) -> Cache | None:
    """Where features of the encoder are stored; None where they are not to be, or would not be those of its file."""
    return cache_beside(encoder.path) if store and encoder.path.exists() and not encoder.changed else None


def features_of(
    encoder: Encoder,
    source: Source,
    machine: Machine,
    feedback: Feedback,
    *,
    what: str = "",
    store: bool = True,
) -> FeatureSet:
    """Features of ``source`` as evaluation computes them: those stored beside the run, or else by a pass over it.

    ``store``: whether stored features may be used, and new ones are stored.
    """
    what = what or f"images of {source.name}, {encoder.arch}"
    cache = cache_of(encoder, store)
    return features_by(
        encoder.backbone, encoder.transform(), encoder.identity(), source, machine, feedback, what, cache
    )


def features_by(
    net: nn.Module,
    transform: EvalTransform,
    identity: Any,
    source: Source,
    machine: Machine,
    feedback: Feedback,
    what: str,
    cache: Cache | None = None,
) -> FeatureSet:
    """Return features of ``source`` by any network, which ``identity`` (JSON) tells from others in the cache."""
    label = f"features of {len(source)} {what}"
    found = cached_features(
        cache,
        identity,
        net,
        source,
        transform,
        batch_size=machine.batch_size,
        workers=machine.workers,
        device=machine.device,
        dtype=machine.dtype,
        starting=lambda: feedback.note(label),
        progress=feedback.counter(label),
    )
    if found.from_cache:
        feedback.note(f"{label}: computed before (or --no-cache)")
    if found.not_stored:
        feedback.warn(f"features are not stored: {found.not_stored}")
    return found.features


def failed_of(*features: FeatureSet) -> list[Failed]:
    """Return the images without features."""
    return [Failed(image=name, reason=reason) for part in features for name, reason in part.skipped]
