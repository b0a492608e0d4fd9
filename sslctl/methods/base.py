"""What an objective is: the contract that every method keeps and the engine relies on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ..errors import SpecError
from ..layers.encoder import Encoder
from ..schedule import Schedule, Step
from ..spec.schema import Data, Spec
from ..views.augment import Views as Views
from ..views.recipe import ViewRecipe

if TYPE_CHECKING:
    from ..backbones import Backbone

TEACHER_SHARE = 0.2  # of the run, at most, that a teacher's average may reach back


class Params(BaseModel):
    """Hyper-parameters of an objective; the defaults are the paper's, the field descriptions are the help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Context(NamedTuple):
    """What an objective may know about the run before the first batch: the dataset, the batch, the views."""

    images: int
    batch_size: int  # global
    classes: int = 0
    globals: int = 2  # views of each image
    locals: int = 0
    total: int = 0  # optimizer steps; 0 where they are not known

    @property
    def epochs(self) -> float:
        """Return the length of the run in passes over the dataset."""
        return self.total * self.batch_size / self.images

    def require_views(self, least: int) -> None:
        """Raise SpecError where an image has fewer than ``least`` views: the objective compares views."""
        views = self.globals + self.locals
        if views < least:
            reason = f"{views} view of each image; this method compares {least} or more"
            raise SpecError(f"views.multi_crop: {reason}", "for example --multi-crop 2x96")


class Output(NamedTuple):
    """The scalar ``loss``; ``logs`` for the metrics; ``embedding`` (B, D) of a view, on which health is judged."""

    loss: Tensor
    logs: dict[str, Tensor]
    embedding: Tensor


@dataclass
class Group:
    """Parameters that the optimizer treats alike."""

    params: list[tuple[str, nn.Parameter]] = field(default_factory=list)
    decay: bool = True  # weight decay
    adapt: bool = True  # the trust ratio of LARS
    scheduled: bool = True  # False: the learning rate stays at its peak
    lr_scale: float = 1.0  # factor on the learning rate


class Chance(NamedTuple):
    """The loss of a network that has learned nothing, with its formula (None where no number says it).

    ``normal`` is what a healthy curve looks like.
    """

    normal: str
    level: float | None = None
    formula: str = ""


CONTRASTIVE = "starts near chance and falls as images are told apart; the more others, the higher it ends"
CLUSTERING = "starts near ln K and falls as views agree on sharp prototypes; at rest at ln K, the targets say nothing"
PRETEXT = "starts at chance and falls as the task is solved; near 0 at once, there is a shortcut"

P = TypeVar("P", bound=Params)


class Method(nn.Module, Generic[P]):
    """An objective, with all that is known of it.

    It owns every tensor that must survive a restart, as a parameter or a persistent buffer. What is known of it before
    it is built (recipes, chance, advice) are class attributes and class methods.
    """

    Params: ClassVar[type[Params]] = Params
    views: ClassVar[ViewRecipe]
    recipe: ClassVar[Data] = {}  # the paper's choices for other sections of the spec, below all the user's
    recipes: ClassVar[str] = ""  # YAML: published runs by name, and ``small``; see recipes.py
    tiny: ClassVar[Data] = {}  # parameters for a run of seconds
    compares_views: ClassVar[bool] = True
    needs_vit: ClassVar[bool] = False
    shares_norm: ClassVar[bool] = True  # batch norm has the statistics of all processes, or else of each by itself
    health_on_features: ClassVar[bool] = False  # ``Output.embedding`` is of the backbone, not of the head
    curves: ClassVar[Mapping[str, str]] = {}  # what is normal for its own metrics, by their names
    student: Encoder

    def __init__(self, params: P) -> None:
        super().__init__()
        self.params = params

    def forward(self, views: Views, step: Step) -> Output:
        """Compute the loss: the paper's algorithm box."""
        raise NotImplementedError

    def after_backward(self, step: Step) -> None:
        """Freeze a layer by dropping its gradient: gradients are there and clipped, the optimizer has not stepped."""

    def after_step(self, step: Step) -> None:
        """Move a teacher: the optimizer has stepped."""

    def encoder(self) -> Backbone:
        """Return the backbone that evaluation and export take: the better one, where there are two."""
        return self.student.backbone

    def groups(self) -> list[Group]:
        """Return the parameters as the optimizer takes them: biases and norms are neither decayed nor adapted."""
        return self.split_by_axes()

    def one_group(self) -> list[Group]:
        """Return all parameters as one group, as where a paper's optimizer is given ``model.parameters()``."""
        return [Group([(name, p) for name, p in self.named_parameters() if p.requires_grad])]

    def split_by_axes(self) -> list[Group]:
        """Return two groups: weights, and biases and norms (one axis or none), neither decayed nor adapted."""
        decay, rest = Group(), Group(decay=False, adapt=False)
        for name, p in self.named_parameters():
            if p.requires_grad:
                (decay if p.ndim > 1 else rest).params.append((name, p))
        return [decay, rest]

    @classmethod
    def chance(cls, params: P, context: Context) -> Chance:
        """Return the loss of a network that has learned nothing."""
        return Chance("falls, faster at first")

    @classmethod
    def derived(cls, params: P, context: Context) -> list[str]:
        """Return what follows from the parameters and is worth knowing, a line each."""
        lines, batch = [], context.batch_size
        momentum = _momentum(params)
        if momentum is not None and momentum < 1:
            reach = f"the teacher averages over about {1 / (1 - momentum):.0f} of {context.total} steps"
            lines.append(f"{reach} (momentum {momentum:g})")
        if queue := min(getattr(params, "queue", 0), context.images):
            lines.append(f"the queue holds {queue / batch:.3g} batches, {queue / context.images:.0%} of the images")
        if k := prototypes(params):
            each = f"{context.images / k:.3g} images and {batch / k:.2g} of a batch to each"
            lines.append(f"{k} prototypes: {each}")
        return lines

    @classmethod
    def advice(cls, params: P, context: Context, spec: Spec) -> list[str]:
        """Return the combinations that are known to fail, each with what to do."""
        lines, images, total = [], context.images, context.total
        queue, momentum, k = getattr(params, "queue", 0), _momentum(params), prototypes(params)
        if queue > images:
            enough = f"cut to that; {images // 4} is enough"
            lines.append(f"method.queue {queue} is more than the {images} images, and {enough}")
        if momentum is not None and momentum < 1 and 1 / (1 - momentum) > TEACHER_SHARE * total:
            better = max(0.0, 1 - 1 / max(1.0, TEACHER_SHARE / 2 * total))
            lines.append(
                f"method.momentum {momentum:g}: the teacher averages over {1 / (1 - momentum):.0f} steps in a run of "
                f"{total}, so it stays near its random start; for example --set method.momentum={better:.2g}"
            )
        if k > images:
            lines.append(f"method.prototypes {k}: more than the {images} images; {max(2, images // 4)} are enough")
        for key in ("freeze_prototypes_epochs", "freeze_last_layer_epochs"):
            if getattr(params, key, 0) >= context.epochs:
                frozen = f"the prototypes never move in {context.epochs:.2g} epochs; set it to 0"
                lines.append(f"method.{key} {getattr(params, key):g}: {frozen}")
        return lines


def prototypes(params: Params) -> int:
    """Return the number of prototypes, the largest where there are several sets; 0 without any."""
    count: int | tuple[int, ...] = getattr(params, "prototypes", 0)
    return max(count) if isinstance(count, tuple) else count


def _momentum(params: Params) -> float | None:
    """Return the teacher's momentum at the start; None without a teacher."""
    schedule = getattr(params, "momentum", None)
    return schedule.base if isinstance(schedule, Schedule) else None
