"""MAE against the authors' model: loss, prediction and gradient for their mask; what is seen and what is painted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sslctl.backbones import build_backbone
from sslctl.errors import SpecError
from sslctl.methods.base import Context, Views
from sslctl.methods.mae import MAE, MAEParams, patches
from sslctl.methods.resolve import resolve
from sslctl.schedule import Step
from sslctl.spec.derived import lr_schedule
from sslctl.spec.schema import BackboneSpec

from ..stubs import tiny_vit

STEP = Step(3, 10, 5, seed=1)
AUTHORS_NAMES = {
    "decoder_embed": "embed", "decoder_blocks": "blocks", "decoder_norm": "norm", "decoder_pred": "pixels",
    "mask_token": "mask_token",
}  # fmt: skip


class Scripted(MAE):
    """MAE with the authors' noise in place of its own."""

    script: Tensor

    def noise(self, step: Step, index: Tensor, n: int, view: int) -> Tensor:
        return self.script[index]


def of_the_authors(golden: dict[str, Tensor], normalize: bool, dtype: torch.dtype) -> Scripted:
    args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    backbone = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32)
    params = MAEParams(
        normalize_target=normalize, decoder_width=12, decoder_depth=1, decoder_heads=2, decoder_mlp_ratio=2
    )
    method = Scripted(params, backbone, Context(2, 2, globals=1)).to(dtype)
    state = {key.removeprefix("state/"): value for key, value in golden.items() if key.startswith("state/")}
    assert torch.equal(backbone.timm_state()["pos_embed"], state.pop("pos_embed"))
    state.pop("decoder_pos_embed")  # computed, and seen in the prediction
    ours = {}
    for name, value in state.items():
        first = name.split(".")[0]
        where = f"student.head.{AUTHORS_NAMES[first]}" if first in AUTHORS_NAMES else f"student.backbone.net.{first}"
        ours[where + name[len(first) :]] = value.to(dtype)
    missing, unexpected = method.load_state_dict(ours, strict=False)
    assert not unexpected and missing == ["student.backbone.net.pos_embed"]
    method.script = golden["noise"]
    return method


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("normalize", [True, False])
def test_loss_and_gradient_are_the_authors(
    golden: Callable[[str], dict[str, Tensor]], normalize: bool, dtype: torch.dtype, tolerance: float
) -> None:
    case = golden("mae")
    method = of_the_authors(case, normalize, dtype)
    output = method(Views([case["x"].to(dtype)], [], torch.arange(2)), STEP)
    output.loss.backward()
    expected = case[f"norm_pix_{normalize}/loss"]
    assert float(output.loss.detach()) == pytest.approx(float(expected), rel=tolerance)
    gradient = case[f"norm_pix_{normalize}/grad_patch_embed"]
    mine = dict(method.named_parameters())["student.backbone.net.patch_embed.proj.weight"].grad
    assert mine is not None
    assert float((mine.double() - gradient).abs().max()) <= 10 * tolerance * float(gradient.abs().max())


def test_patches_and_prediction_are_the_authors(golden: Callable[[str], dict[str, Tensor]]) -> None:
    case = golden("mae")
    method = of_the_authors(case, True, torch.float64)
    assert torch.equal(patches(case["x"], 8), case["patchify"])
    order = case["noise"].argsort(1)
    features = method.student.backbone(case["x"], keep=order[:, :4])
    painted = method.student.head(features, order)
    torch.testing.assert_close(painted, case["pred"], rtol=0, atol=1e-13 * float(case["pred"].abs().max()))
    assert torch.equal(torch.ones(2, 16).scatter(1, order[:, :4], 0), case["mask"])


def test_the_learning_rate_is_the_authors(golden: Callable[[str], dict[str, Tensor]]) -> None:
    """Their ``adjust_learning_rate``: 9 epochs of 4 steps, 3 of warm-up, to zero."""
    optim = {"lr": 0.6, "lr_scaling": "none", "warmup_epochs": 3.0}
    spec = resolve({"data": {"path": "x"}, "method": {"name": "mae"}, "optim": optim})
    schedule = lr_schedule(spec.optim, 4096)
    found = torch.tensor([schedule.at(Step(i, 36, 4)) for i in range(36)], dtype=torch.float64)
    torch.testing.assert_close(found, golden("mae")["lr_sched"], rtol=0, atol=1e-12)


def test_hidden_pixels_change_the_target_and_not_the_prediction() -> None:
    torch.manual_seed(0)
    method = MAE(MAEParams.model_validate(MAE.tiny), tiny_vit(), Context(9, 2, globals=1)).double().eval()
    x, index = torch.randn(2, 3, 24, 24, dtype=torch.float64), torch.tensor([4, 7])
    order = method.noise(STEP, index, 36, 0).argsort(1)
    hidden = order[0, -1]  # a patch of the first image that is not seen
    changed = x.clone()
    row, column = divmod(int(hidden), 6)
    changed[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0 + torch.rand(3, 4, 4)
    before, after = (method.paint(image, index, STEP, 0) for image in (x, changed))
    assert torch.equal(before[1].pooled, after[1].pooled)
    assert not torch.equal(before[0], after[0])
    assert before[1].patches.shape == (2, 9, 8)  # a quarter of 36


def test_an_image_has_its_mask_in_any_batch_and_another_for_each_view_and_step() -> None:
    method = MAE(MAEParams.model_validate(MAE.tiny), tiny_vit(), Context(9, 2, globals=1))
    whole = method.noise(STEP, torch.arange(6), 36, 0)
    assert torch.equal(method.noise(STEP, torch.tensor([5, 2]), 36, 0), whole[[5, 2]])
    for other in (method.noise(STEP.next, torch.arange(6), 36, 0), method.noise(STEP, torch.arange(6), 36, 1)):
        assert not torch.equal(other, whole)


def test_a_net_without_patches_is_refused_before_the_data() -> None:
    with pytest.raises(SpecError, match="'resnet18' is not a ViT, which mae needs; for example --arch vit_base"):
        resolve({"data": {"path": "/no/such"}, "method": {"name": "mae"}, "backbone": {"arch": "resnet18"}})
