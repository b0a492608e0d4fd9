"""What to run: the frozen run spec, read from YAML and flags, checked whole, written back."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import SpecError
from .crops import parse_crops

SCHEMA = 1

Data = dict[str, Any]


class Section(BaseModel):
    """A part of the spec: unknown keys, non-finite numbers and words for numbers are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSpec(Section):
    """Where images come from."""

    path: str = Field(description="folder, list, array pack, name of a public set, or demo")
    val: str | None = Field(None, description="images for evaluation; otherwise a seeded part of the data")
    val_fraction: float = Field(0.1, gt=0, lt=1, description="share kept for evaluation where val is not given")
    workers: int | None = Field(None, ge=0, le=512, description="loader processes; by default as the machine allows")
    in_memory: bool | None = Field(None, description="hold all pixels in memory; by default where the set is small")
    decode: Literal["full", "reduced"] = Field(
        "full", description="reduced: JPEGs far larger than the views need are read at 1/2, 1/4 or 1/8"
    )
    bad_images: Literal["skip", "fail"] = Field("skip", description="what to do with an image that cannot be read")
    bad_limit: float = Field(0.01, ge=0, le=1, description="share of unreadable images that is an error")
    download: bool = Field(False, description="fetch a public set that is not there yet")


def _within_an_image(scale: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"{scale[0]} to {scale[1]} is not a range within (0, 1]")
    return scale


Scale = Annotated[tuple[float, float], AfterValidator(_within_an_image)]


class ViewsSpec(Section):
    """The views; a value left out is the method's own."""

    multi_crop: str | None = Field(None, description="crop grammar, for example 2x160+4x96")
    scale: Scale | None = Field(
        None, description="range of a global crop's share of the area, where multi_crop says none"
    )
    local_scale: Scale | None = Field(None, description="the same of a local crop")
    flip: float | None = Field(None, ge=0, le=1, description="probability of a horizontal flip")
    jitter: float | None = Field(None, ge=0, le=1, description="probability of colour jitter")
    jitter_strength: float = Field(1.0, ge=0, le=2, description="factor on the method's jitter ranges")
    hue: float | None = Field(None, ge=0, le=0.5, description="range of hue jitter in turns, whatever the strength")
    grayscale: float | None = Field(None, ge=0, le=1, description="probability of dropping colour")
    blur: float | None = Field(None, ge=0, le=1, description="probability of Gaussian blur")
    solarize: float | None = Field(None, ge=0, le=1, description="probability of solarization")
    interpolation: Literal["bilinear", "bicubic"] | None = Field(None, description="how crops are resized")
    colour: Literal["exact", "matrix"] = Field(
        "exact", description="how colours are jittered: as torchvision, or by one matrix an image, faster, approximate"
    )

    @field_validator("multi_crop")
    @classmethod
    def _grammar(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parse_crops(text)
            except SpecError as e:
                raise ValueError(f"{e.message.split(': ', 1)[1]}; {e.hint}") from e
        return text


class BackboneSpec(Section):
    """The encoder: a timm model without its classifier."""

    arch: str = Field("resnet50", description="timm model name")
    stem: Literal["auto", "imagenet", "small"] = Field(
        "auto", description="small: 3x3 without pooling, auto below 64 px"
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the student")
    position: Literal["timm", "dino"] = Field("timm", description="whose resizing of position embeddings (ViT)")
    native_size: int | None = Field(
        None, ge=8, le=4096, description="side in px of a ViT's own grid of positions; by default that of the views"
    )
    norm_eps: float | None = Field(None, gt=0, lt=1, description="epsilon of a ViT's norms; by default timm's, 1e-6")
    width: int | None = Field(None, ge=1, le=8, description="factor on all channels of a ResNet, its stem included")
    padding: Literal["same", "solo"] | None = Field(
        None, description="of a ResNet: same, TensorFlow's (BYOL); solo, 2 px in the small stem (solo-learn)"
    )
    grad_checkpointing: bool = Field(
        False, description="ViT: a step keeps only each block's input, half the memory or less for a third more time"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="further arguments of timm.create_model")


class MethodSpec(BaseModel):
    """The objective's name; the method checks its own parameters, which stand beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimSpec(Section):
    """How weights move."""

    name: Literal["adamw", "sgd", "lars", "larc"] = Field("adamw", description="larc: the LARS of SwAV (apex)")
    lr: float = Field(5e-4, gt=0, le=1000, description="peak learning rate at batch size 256, before scaling")
    lr_scaling: Literal["linear", "sqrt", "none"] = Field("linear", description="how lr grows with batch_size / 256")
    lr_end: float = Field(0.0, ge=0, description="final learning rate, not scaled")
    schedule: Literal["cosine", "linear", "constant", "step"] = "cosine"
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (), description="epochs at which a step schedule falls to a tenth"
    )
    per_epoch: bool = Field(False, description="move the learning rate once an epoch")
    warmup_epochs: float = Field(10.0, ge=0)
    warmup_from: float = Field(0.0, ge=0, description="first learning rate of the warm-up, not scaled")
    warmup_reaches: bool = Field(True, description="last warm-up step has the peak (otherwise the one after it)")
    weight_decay: float = Field(1e-6, ge=0)
    weight_decay_end: float | None = Field(None, ge=0, description="cosine towards this value")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    trust: float = Field(0.001, gt=0, description="trust coefficient of LARS and LARC")
    lr_in_momentum: bool = Field(False, description="LARS: momentum gathers lr times gradient, as in SimCLR")
    clip: float = Field(0.0, ge=0, description="largest gradient norm; 0 does not clip")
    clip_each: bool = Field(False, description="clip every tensor by itself (DINO) instead of all together")
    accumulate: int = Field(1, ge=1, le=4096, description="parts in which a batch goes through the network")


class RunSpec(Section):
    """How long, how large, where."""

    out: str | None = Field(None, description="run directory; by default runs/METHOD-ARCH-DATA-ID, ID from the spec")
    epochs: float | None = Field(None, gt=0, le=1e6)
    steps: int | None = Field(None, gt=0, le=10**9, description="instead of epochs")
    batch_size: int = Field(256, ge=2, le=1 << 20, description="images in one optimizer step, over all processes")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | None = Field(None, description="memory layout; by default for convolutional nets")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    compile: bool | Literal["graphs"] | None = Field(
        None, description="torch.compile the backbones; graphs: as CUDA graphs too; by default on CUDA, in long runs"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of torch; by default torch's own")
    seed: int = Field(0, ge=0, lt=2**31)
    checkpoint_every: int | None = Field(None, ge=1, description="steps; by default once an epoch")
    keep: int = Field(2, ge=1, description="numbered checkpoints kept beside last")
    log_every: int | None = Field(
        None, ge=1, description="steps between metric lines; by default about a hundred lines"
    )
    max_time: float | None = Field(None, gt=0, description="minutes after which to save and stop with exit code 75")
    fail_on_collapse: bool = Field(False, description="stop with exit code 6 when the representation collapses")
    probe_data: str | None = Field(None, description="labelled images on which to score the encoder during the run")
    probe_every: int | None = Field(None, ge=1, description="steps between probes; by default an epoch")
    probe_images: int = Field(5000, ge=2, description="most images to learn from, and to test on, in one probe")
    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field(
        (), description="where metric lines go beside metrics.jsonl; several with commas between them"
    )

    @field_validator("log_to", mode="before")
    @classmethod
    def _in_one_word(cls, names: Any) -> Any:
        """Accept ``tensorboard,wandb`` as on the command line, and lists, which strict mode refuses."""
        names = [word.strip() for word in names.split(",")] if isinstance(names, str) else names
        return (
            tuple(dict.fromkeys(names)) if isinstance(names, list) and all(isinstance(n, str) for n in names) else names
        )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; one of them says how long the run is")
        return self


class _Dumper(yaml.SafeDumper):
    """A YAML writer that quotes words which YAML 1.2 takes for numbers, such as a folder named 1e5 or 08."""

    def text(self, value: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.0-9][-+.0-9eE]*$"), list("-+.0123456789"))


class Spec(Section):
    """Everything a run depends on."""

    schema_version: int = Field(SCHEMA, alias="schema", ge=1)
    data: DataSpec
    views: ViewsSpec = ViewsSpec()
    backbone: BackboneSpec = BackboneSpec()
    method: MethodSpec
    optim: OptimSpec = OptimSpec()
    run: RunSpec = RunSpec()

    @field_validator("schema_version")
    @classmethod
    def _known_schema(cls, version: int) -> int:
        if version > SCHEMA:
            raise ValueError(f"newer than {SCHEMA}, the newest that this sslctl reads; pip install -U sslctl")
        return version

    def dump(self) -> Data:
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        return str(yaml.dump(self.dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000))

    def method_params(self) -> Data:
        return dict(self.method.__pydantic_extra__ or {})
