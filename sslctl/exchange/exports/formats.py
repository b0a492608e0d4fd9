"""The formats of an export: what each is, which files and libraries it takes, and how close its features must be."""

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
    """A way to write an encoder; ``function`` names its writer in this package, as ``module.function``."""

    title: str
    library: str  # that reads it
    function: str
    suffixes: tuple[str, ...] = ()  # of the file; empty for a folder
    needs: tuple[str, ...] = ()  # modules outside the core dependencies
    extra: str = ""  # that installs them
    graph: bool = False  # a traced graph: takes --features and --preprocess
    tolerance: float = 1e-5  # largest difference, as a share of an image's largest number

    def writer(self) -> Callable[[ExportJob], ExportResult]:
        """Import and return the writer."""
        module, _, name = self.function.partition(".")
        writer: Callable[[ExportJob], ExportResult] = getattr(import_module(f".{module}", __package__), name)
        return writer

    def require(self) -> None:
        """Raise MachineError with the pip line if a library is missing."""
        if missing := [name for name in self.needs if find_spec(name) is None]:
            raise MachineError(
                f"export to {self.library} needs {' and '.join(missing)}", f"pip install 'sslctl[{self.extra}]'"
            )


FORMATS = {
    "timm": Format("folder for timm.create_model", "timm", "timm_folder.write_timm"),
    "hf": Format(
        "folder for AutoModel and AutoImageProcessor",
        "transformers",
        "hugging_face.write_hugging_face",
        (),
        ("transformers",),
        "transformers",
    ),
    "torchvision": Format(
        "state dict of torchvision's ResNet or ViT",
        "torchvision",
        "torchvision_file.write_torchvision",
        (".safetensors", ".pth"),
    ),
    "detectron2": Format(
        "ResNet under detectron2's names", "detectron2", "detectron2_file.write_detectron2", (".pth",)
    ),
    # Another engine sums in another order: float32 alone differs by a few 1e-6 in large nets.
    "onnx": Format(
        "ONNX graph", "onnxruntime", "graph.write_onnx", (".onnx",), ("onnxscript", "onnxruntime"), "onnx", True, 1e-4
    ),
    "pt2": Format("graph of torch.export", "torch.export", "graph.write_pt2", (".pt2",), graph=True),
}


def find_format(name: str) -> Format:
    """Return the format ``name``. Raises SpecError, with the closest name, for an unknown one."""
    if name not in FORMATS:
        raise SpecError(
            f"--format '{name}': not one of {', '.join(FORMATS)}{closest(name, list(FORMATS))}", "--format timm"
        )
    return FORMATS[name]


@dataclass(frozen=True)
class ExportJob:
    """What to write: ``encoder`` to ``path`` (a file or an existing folder), which the card's code calls ``name``."""

    encoder: LoadedEncoder
    path: Path
    name: str
    features: str = "pooled"
    preprocess: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What a writer returns.

    ``code`` is Python that defines ``prepare`` (PIL image -> one input without batch) and ``encode`` (batch ->
    features) on arrays of ``kind``; it runs in the directory that holds the export. ``sizes`` (H, W) are those at
    which the features are compared. ``library`` is the Hub's name of the library.
    """

    code: str
    sizes: list[tuple[int, int]]
    library: str
    kind: Literal["torch", "numpy"] = "torch"
    notes: list[str] = field(default_factory=list)
    remark: str = ""  # Markdown for the card
    checked_by: str = ""  # the library that runs the code, if it is another


def check_sizes(encoder: LoadedEncoder, native: bool = False) -> list[tuple[int, int]]:
    """Return the encoder's image size (H, W) and, unless it takes the ``native`` one alone, a larger oblong one."""
    size = encoder.meta.image.size
    if native:
        return [(size, size)]
    step = encoder.backbone.patch or 8
    return [(size, size), (size + 3 * step, size + 2 * step)]


def small_stem_note(builder: str) -> str:
    """Return the note on an encoder whose stem ``builder`` cannot build."""
    stem = "the stem for small images (3x3, stride 1, no max-pooling)"
    return f"{builder} cannot build {stem}: load these weights with the code in the card"


def resizing_note(library: str, size: int) -> str:
    """Return the note on position embeddings that ``library`` resizes differently."""
    return f"{library} resizes position embeddings differently: features are equal at {size} px only"
