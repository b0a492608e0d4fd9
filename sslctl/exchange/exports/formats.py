"""The formats of an export: what each is, where it goes, what it needs and how near it must come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...errors import MachineError, SpecError, closest

if TYPE_CHECKING:
    from ...runs.encoder import LoadedEncoder


@dataclass(frozen=True)
class Format:
    """One way to write an encoder. ``module`` of this package has ``write(order) -> Written``."""

    title: str
    who: str  # the library that reads it
    module: str
    suffixes: tuple[str, ...] = ()  # of the one file; none where it is a folder
    needs: tuple[str, ...] = ()  # modules beside our own dependencies
    extra: str = ""  # that brings them
    graph: bool = False  # a traced graph: takes --features and --preprocess
    tolerance: float = 1e-5  # largest difference, as a share of an image's largest number

    def writer(self) -> Callable[[Order], Written]:
        found: Callable[[Order], Written] = import_module(f".{self.module}", __package__).write
        return found

    def require(self) -> None:
        """MachineError with the line to type where a library is missing."""
        if missing := [name for name in self.needs if find_spec(name) is None]:
            raise MachineError(
                f"export to {self.who} needs {' and '.join(missing)}", f"pip install 'sslctl[{self.extra}]'"
            )


FORMATS = {
    "timm": Format("folder for timm.create_model", "timm", "timm_folder"),
    "hf": Format(
        "folder for AutoModel and AutoImageProcessor",
        "transformers",
        "hugging_face",
        (),
        ("transformers",),
        "transformers",
    ),
    "torchvision": Format(
        "state dict of torchvision's ResNet or ViT", "torchvision", "torchvision_file", (".safetensors", ".pth")
    ),
    "detectron2": Format("ResNet under detectron2's names", "detectron2", "detectron2_file", (".pth",)),
    # Another engine sums in another order: float32 alone differs by a few 1e-6 in large nets.
    "onnx": Format(
        "ONNX graph", "onnxruntime", "onnx_graph", (".onnx",), ("onnxscript", "onnxruntime"), "onnx", True, 1e-4
    ),
    "pt2": Format("graph of torch.export", "torch.export", "pt2_graph", (".pt2",), graph=True),
}


def find_format(name: str) -> Format:
    """The format of that name; SpecError, with the nearest, for any other."""
    if name not in FORMATS:
        raise SpecError(
            f"--format '{name}': not one of {', '.join(FORMATS)}{closest(name, list(FORMATS))}", "--format timm"
        )
    return FORMATS[name]


@dataclass(frozen=True)
class Order:
    """What to write: ``encoder`` to ``path`` (a file, or a folder that is there), which code calls ``name``."""

    encoder: LoadedEncoder
    path: Path
    name: str
    features: str = "pooled"
    preprocess: bool = False


@dataclass(frozen=True)
class Written:
    """What a format says of what it wrote.

    ``code`` is Python that defines ``prepare`` (a PIL image -> one input without batch) and ``encode`` (a batch ->
    features), run from the directory that holds the export. Both take and give arrays of ``kind``. ``sizes`` (H, W)
    are those at which it must agree with us. ``library`` is the Hub's name for who reads it.
    """

    code: str
    sizes: list[tuple[int, int]]
    library: str
    kind: Literal["torch", "numpy"] = "torch"
    notes: list[str] = field(default_factory=list)
    more: str = ""  # Markdown for the card
    checked_by: str = ""  # who runs the code, where that is not the library itself


def two_sizes(encoder: LoadedEncoder, native: bool = False) -> list[tuple[int, int]]:
    """The size of its images, and, unless ``native`` is all there is, a larger one that is not square."""
    size = encoder.meta.image.size
    if native:
        return [(size, size)]
    step = encoder.backbone.patch or 8
    return [(size, size), (size + 3 * step, size + 2 * step)]
