"""What an objective is: the contract that every method keeps and the engine relies on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ..errors import SpecError
from ..layers.encoder import Encoder
from ..schedule import Step
from ..views.augment import Views as Views
from ..views.recipe import ViewRecipe


class Params(BaseModel):
    """Hyper-parameters of an objective; the defaults are the paper's, the field descriptions are the help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Facts(NamedTuple):
    """What an objective may need to know about its surroundings before the first batch."""

    images: int
    batch_size: int  # global
    classes: int = 0
    globals: int = 2  # views of each image
    locals: int = 0

    def require_views(self, least: int) -> None:
        """SpecError where there are fewer than ``least`` views of an image: the objective compares views."""
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


P = TypeVar("P", bound=Params)


class Method(nn.Module, Generic[P]):
    """An objective. It owns every tensor that must survive a restart, as a parameter or a persistent buffer."""

    Params: ClassVar[type[Params]] = Params
    views: ClassVar[ViewRecipe]
    recipe: ClassVar[dict[str, Any]] = {}  # the paper's choices for other sections of the spec, below all the user's
    shares_norm: ClassVar[bool] = True  # batch norm's statistics are those of all processes, or else of each by itself
    student: Encoder

    def __init__(self, params: P) -> None:
        super().__init__()
        self.params = params

    def forward(self, views: Views, step: Step) -> Output:
        """The paper's algorithm box."""
        raise NotImplementedError

    def after_backward(self, step: Step) -> None:
        """Gradients are there and clipped, the optimizer has not stepped: freeze a layer here (drop its gradient)."""

    def after_step(self, step: Step) -> None:
        """The optimizer has stepped: move a teacher here."""

    def encoder(self) -> nn.Module:
        """The backbone that evaluation and export take: the better one, where there are two."""
        return self.student.backbone

    def groups(self) -> list[Group]:
        """Everything decayed and adapted but biases and norms (one axis or none)."""
        return self.split_by_axes()

    def all_alike(self) -> list[Group]:
        """Everything in one group, as where a paper's optimizer is given ``model.parameters()``."""
        return [Group([(name, p) for name, p in self.named_parameters() if p.requires_grad])]

    def split_by_axes(self) -> list[Group]:
        decay, rest = Group(), Group(decay=False, adapt=False)
        for name, p in self.named_parameters():
            if p.requires_grad:
                (decay if p.ndim > 1 else rest).params.append((name, p))
        return [decay, rest]
