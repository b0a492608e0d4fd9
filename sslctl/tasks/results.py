"""The results of tasks: frozen models, of which ``--json`` prints ``model_dump_json()``."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..version import __version__

SCHEMA = 1
Interval = tuple[float, float]


def says(text: str, **more: Any) -> Any:
    """Return a field with its description for docs/json.md."""
    return Field(description=text, **more)


class Part(BaseModel):
    """A part of a result. Optional fields that were not set are left out of its JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields, keys = type(self).model_fields, self.model_fields_set
        values = {k: v for k, v in handler(self).items() if v is not None or k in keys or k not in fields}
        return {(fields[k].alias or k) if k in fields else k: v for k, v in values.items()}


class Result(Part):
    """What a task returns. Its JSON also has ``schema``, the version of these keys, and ``sslctl``, the program's."""

    @model_serializer(mode="wrap")
    def _with_versions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": SCHEMA, "sslctl": __version__, **self._without_unset(handler)}

    @model_validator(mode="wrap")
    @classmethod
    def _without_versions(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in ("schema", "sslctl")}
        return handler(value)

    def model_dump_json(self, **options: Any) -> str:
        """Return one line of ASCII, so that it fits any stream, whatever file names hold."""
        return json.dumps(self.model_dump(mode="json", **options), allow_nan=False)


class Failed(Part):
    """An image that cannot be read."""

    image: str
    reason: str


class Gate(Part):
    """``--fail-under``."""

    fail_under: float
    passed: bool


class Dataset(Part):
    name: str
    fingerprint: str


class Checkpoint(Part):
    """The encoder's file; ``method`` and ``step`` in scores, ``sha256`` in embeddings."""

    path: str
    method: str | None = None
    step: int | None = None
    sha256: str | None = None


class Sets(Part):
    train: Dataset
    test: Dataset


class Protocol(Part):
    """How a score was computed; each evaluation adds keys of its own, such as ``held_out_top1``."""

    model_config = ConfigDict(extra="allow")

    name: str
    k: int | None = None
    temperature: float | None = None
    leave_one_out: bool | None = None
    l2: float | None = None
    lr: float | None = None
    labels: str | None = says("the labels used, where not all", default=None)
    draws: int | None = says("draws of labels that were averaged", default=None)
    seeds: int | None = says("seeds that were averaged", default=None)
    spread: float | None = says("standard deviation of top-1 over draws or seeds", default=None)
    arch: str | None = None
    size: int | None = says("side of the images in px", default=None)
    precision: str | None = None


class Retrieval(Part):
    model_config = ConfigDict(extra="allow")

    map: float | None = None
    map_interval: Interval | None = None
    recall: dict[str, float] = {}


class Grid(Part):
    """One setting of several that were scored; beside top-1 the protocol of it."""

    model_config = ConfigDict(extra="allow")

    top1: float
    top5: float | None = None
    interval: Interval
    chosen_on: str | None = None

    def __str__(self) -> str:
        return _percentages(self)


class Accuracy(Part):
    """Shares of test images whose class was ranked first, or among the first five."""

    top1: float
    top5: float
    interval: Interval = says("95 % interval of top1 over test images (Wilson)")
    n_train: int
    n_test: int
    classes: int
    protocol: Protocol
    retrieval: Retrieval | None = None

    def __str__(self) -> str:
        return _percentages(self)


def _percentages(a: Accuracy | Grid) -> str:
    low, high = a.interval
    top5 = "" if a.top5 is None else f", top-5 {100 * a.top5:.1f} %"
    return f"top-1 {100 * a.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f}){top5}"


class Overlap(Part):
    """Test images that are training images as well."""

    by: str
    images: int
    share: float
    examples: list[tuple[str, str]]
    top1_without: float | None = says("top-1 without these images", default=None)


class AbsentClasses(Part):
    """Classes without an image in one of the sets."""

    train: list[str] = []
    test: list[str] = []


class ClassRow(Part):
    """The accuracy of one class."""

    name: str = Field(alias="class")
    images: int
    top1: float | None
    interval: Interval | None


class ConfusionMatrix(Part):
    """``counts[i][j]``: test images of class i that were taken for class j."""

    classes: list[str]
    counts: list[list[int]]


class Scored(Result):
    """What every score says."""

    task: Literal["knn", "linear-eval", "finetune"]
    n_train: int
    n_test: int
    interval: Interval
    protocol: Protocol
    overlap: Overlap
    data: Sets
    checkpoint: Checkpoint
    notes: list[str] = []
    gate: Gate | None = None
    run: str | None = says("directory of a fine-tuning", default=None)

    @property
    def headline(self) -> tuple[str, float]:
        """Name and value of the number that ``--fail-under`` is about."""
        raise NotImplementedError


class ClassScore(Scored, Accuracy):
    """The score of an encoder on classes: of ``knn``, ``linear_eval`` and ``finetune``."""

    grid: list[Grid] | None = says("every setting, where several were scored", default=None)
    grid_best: Grid | None = says("the best of them, chosen on the test images and so flattering", default=None)
    baselines: dict[str, Accuracy] | None = says("pixels, random", default=None)
    classes_absent: AbsentClasses | None = None
    per_class: list[ClassRow] | None = None
    mean_per_class: float | None = None
    confusion: ConfusionMatrix | None = None
    skipped: list[Failed] | None = says("images that cannot be read", default=None)

    @property
    def headline(self) -> tuple[str, float]:
        return "top-1", self.top1


class Column(Part):
    """The score of one target: average precision of a label, R2 and mean absolute error of a number."""

    name: str
    images: int | None = None
    ap: float | None = None
    r2: float | None = None
    mae: float | None = None


class TargetsScore(Scored):
    """The score of an encoder on the columns of a table: of ``linear_eval`` and ``finetune`` with ``targets``."""

    metric: Literal["mAP", "R2"]
    value: float
    columns: list[Column]

    @property
    def headline(self) -> tuple[str, float]:
        return "value", self.value

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f})"


class Rates(Part):
    """Rates of a run and shares of its time, medians over its metric lines; the most memory in any of them."""

    images_per_second: float | None = None
    data_wait: float | None = says("share of the time spent waiting for data", default=None)
    augment: float | None = says("share of the time spent on augmentation", default=None)
    memory_gib: float | None = None


class PretrainedRun(Result, Rates):
    """A finished run of ``pretrain``."""

    run: str = says("the run directory")
    checkpoint: str
    steps: int
    loss: float | None
    health: str | None
    probe: dict[str, float] | None = says("the last scores of the online probe", default=None)
    best: str | None = says("the checkpoint that the probe found best", default=None)


class Plan(Result):
    """What a run would be: of ``plan`` and ``pretrain --dry-run``."""

    spec: dict[str, Any]
    images: int
    steps: int
    steps_per_epoch: int
    parameters: int
    backbone_parameters: int
    memory: str = says("the estimate in words")
    memory_bytes: int
    free_bytes: int | None
    largest_batch: int | None = says("most images in one forward pass")
    derivation: list[str] = says("what follows from the numbers of the spec")
    warnings: list[str]


class Preview(Result):
    preview: str = says("the picture")
    images: int
    views: int


class Bench(Result):
    """Seconds for a batch of ``images``, each part measured by itself, and what limits the run."""

    images: int
    decode: float
    crop: float
    augment: float
    step: float
    encoder: float = says("forward and backward passes of the bare backbones")
    update: float
    objective: float = says("heads and loss: the rest of the step")
    ratio: float = says("step over encoder")
    workers: int
    flops: float
    peak_flops: float
    share_of_peak: float
    memory: int
    precision: str
    start: float = says("seconds of compilation in the first steps")
    images_per_second: float
    loader_images_per_second: float | None = says("null for a set in memory")
    device_images_per_second: float
    bottleneck: str
    advice: str
    device: str
    parameters: int
    backbone_parameters: int
    memory_bytes: int
    free_bytes: int | None
    largest_batch: int | None


class Trial(Part):
    """A batch that fits."""

    batch: int
    seconds: float
    memory: int
    images_per_second: float


class BatchSearch(Result):
    """Which batches fit into memory."""

    batch_size: int = says("that of the spec")
    trials: list[Trial]
    largest_batch_tried: int | None
    steady_from: int | None = says("the smallest batch that is nearly as fast as any")
    room_bytes: int | None
    image_bytes_estimated: int
    ended_by: Literal["memory", "images", "time"]
    reason: str
    accumulate: int | None = says("optim.accumulate with which the batch of the spec fits")


class RankedEncoder(Part):
    name: str
    checkpoint: str
    method: str
    step: int
    images: int
    width: int
    measures: dict[str, float | None]
    scores: dict[str, float]


class RankAgreement(Part):
    """Rank correlation of a measure with a score, over ``n`` encoders."""

    spearman: float | None
    kendall: float | None
    n: int


class Ranking(Result):
    """Encoders in the order of the measure ``by``, the best first."""

    by: str
    encoders: list[RankedEncoder]
    agreement: dict[str, dict[str, RankAgreement]] = says("by score, then by measure")
    data: dict[str, str] = says("fingerprints of the sets")
    views: int
    left_out: list[str]
    notes: list[str]


class Report(Result):
    report: str = says("the page")
    runs: list[str]
    missing: list[str] = says("what the page does not show, and why")
    seconds: float


class ComparedRun(Part):
    """One run of a comparison; the newest values of its metrics."""

    run: str
    task: Literal["pretrain", "finetune"]
    steps: int
    method: str | None = None
    arch: str | None = None
    data: str | None = None
    labels: str | None = None
    epoch: float | None = None
    loss: float | None = None
    health: str | None = None
    probe_knn: float | None = None
    probe_linear: float | None = None
    top1: float | None = None
    value: float | None = None
    interval: Interval | None = None
    n_train: int | None = None
    n_test: int | None = None


class Comparison(Result):
    runs: list[ComparedRun]
    plot: str


class Painted(Part):
    """The pictures of one image."""

    image: str
    files: list[str]
    grid: list[int] | None = says("rows and columns of patches", default=None)
    size: list[int] | None = says("height and width in px", default=None)
    stride: int | None = None
    foreground: float | None = says("share of the patches that are not background", default=None)


class Measured(Part):
    value: float
    interval: Interval


class MapRow(Part):
    """How well one map finds the objects."""

    name: str = Field(alias="map")
    jaccard: Measured | None = None
    corloc: Measured | None = None
    pointing: Measured | None = None


class Gain(Part):
    """Jaccard of the best head above that of a baseline."""

    jaccard: float
    interval: Interval


class AttentionMaps(Result):
    """What ``attn_map`` wrote and scored: pictures of images, a film, or scores by true masks."""

    arch: str
    kind: str
    block: int
    threshold: float
    area: int
    out: str | None = None
    images: list[Painted] | None = None
    failed: list[Failed] | None = None
    scored: int | None = None
    without_mask: int | None = None
    scores: dict[str, list[MapRow]] | None = None
    gains: dict[str, Gain] | None = None
    video: str | None = None
    frames: int | None = None
    rate: float | None = None
    files: list[str] | None = None


class Explained(Part):
    first: float
    colours: list[float]


class PatchColours(Result):
    """What ``pca`` wrote."""

    out: str
    sheet: str
    arch: str
    area: int
    whole: bool
    explained: Explained = says("shares of the variance")
    images: list[Painted]
    failed: list[Failed]


class Neighbour(Part):
    image: str
    label: str | None = Field(None, alias="class")
    similarity: float


class Query(Part):
    image: str
    label: str | None = Field(None, alias="class")
    neighbours: list[Neighbour]


class Neighbours(Result):
    out: str
    arch: str
    queries: list[Query]
    same_class: float | None = says("share of the neighbours that have the class of their query")
    failed: list[Failed]


class Projection(Result):
    out: str
    arch: str
    by: str
    about: str
    images: int
    failed: list[Failed]


class Embeddings(Result):
    """A file of features."""

    out: str
    names: str | None = says("the file of names and labels, where they are not in ``out``")
    format: str
    images: int
    shape: list[int]
    features: str
    arch: str
    size: int
    precision: str
    data: Dataset
    checkpoint: Checkpoint
    before: int = says("images that an interrupted command had done")
    skipped: list[Failed]


class ExportParity(Part):
    """How far the other library's features are from ours."""

    absolute: float
    relative: float
    cosine: float
    strangers: int
    tolerance: float
    grey_levels: float


class Export(Result):
    out: str
    format: str
    parity: ExportParity
    images: str
    report: str
    load: str = says("Python that loads it")
    notes: list[str]


class ImportParity(Part):
    against: str
    images: int
    of: str
    size: int
    tolerance: float
    absolute: float
    relative: float
    cosine: float
    strangers: int


class Import(Result):
    """Another tool's weights as a checkpoint."""

    model_config = ConfigDict(extra="allow")

    out: str
    layout: str
    title: str | None
    method: str | None
    branch: str | None
    names: str | None
    prefix: str | None
    left_over: dict[str, list[str]]
    backbone: dict[str, Any]
    image: dict[str, Any]
    sha256: str
    notes: list[str]
    parity: ImportParity


class Inspection(Result):
    """What a file or folder is; which keys there are depends on ``kind``."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["run", "checkpoint", "features", "weights", "tensors", "export", "images"]
    path: str
    bytes: int
    files: int | None = None
    file: str | None = None
    title: str | None = None
    layout: str | None = None
    names: str | None = None
    method: str | None = None
    branch: str | None = None
    prefix: str | None = None
    backbone: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    images: int | None = None
    classes: list[str] | int | None = None
    step: int | None = None
    data: dict[str, Any] | None = None
    health: Any = None
    scores: dict[str, Any] | None = None
    last_line: dict[str, Any] | None = None
    finetuned: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    reason: str | None = says("why no encoder is in it", default=None)
    hint: str | None = None
    export: dict[str, Any] | None = None
    changed: list[str] | None = says("files that are not as the export's report says", default=None)
    left_over: dict[str, Any] | None = None
    checkpoints: list[str] | None = None
    unreadable: list[str] | None = None
    spec: dict[str, Any] | None = None
    checkpoint_schema: int | None = None
    sha256: str | None = None
    versions: dict[str, str] | None = None
    numbers: int | None = None
    groups: dict[str, int] | None = None
    tensors: dict[str, tuple[list[int], str]] | None = says("shape and type of each", default=None)
    notes: list[str] | None = None


class MethodRow(Part):
    name: str
    title: str
    paper: str
    year: int
    kind: str
    recipes: list[str]
    linear: float | None = says("best published linear top-1 on ImageNet, in per cent")
    knn: float | None = says("best published kNN top-1 on ImageNet, in per cent")


class MethodList(Result):
    methods: list[MethodRow]


class Parameter(Part):
    name: str
    default: Any
    description: str


class RecipeRow(Part):
    name: str
    linear: float | None
    knn: float | None
    spec: dict[str, Any]


class MethodDetails(Result, MethodRow):
    description: str
    parameters: list[Parameter]
    views: dict[str, Any]
    recipe: dict[str, Any]
    recipes: list[RecipeRow]  # type: ignore[assignment]  # whole here, names in the list


class Unreadable(Part):
    name: str
    reason: str


class DataInfo(Result):
    """What a set of images is."""

    name: str
    images: int
    classes: dict[str, int]
    widths: tuple[int, int, int] = says("smallest, median, largest, in px")
    heights: tuple[int, int, int]
    unreadable: list[Unreadable]
    duplicates: list[list[str]] = says("images that are the same to the byte")
    fingerprint: str


class DataPack(Result):
    """A set stored as one file of pixels."""

    pack: str
    images: int
    bytes: int
    classes: int
    size: int
    cut: Literal["square", "whole"]
    unreadable: list[Unreadable]
