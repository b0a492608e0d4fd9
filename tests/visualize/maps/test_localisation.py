"""Scores of maps by true masks: the published protocol's golden numbers, boxes, parts, pointing, intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sslctl.data.source import FileSource
from sslctl.errors import DataError
from sslctl.visualize.maps.attention import AttentionMaps, MapOptions
from sslctl.visualize.maps.localisation import (
    BEST,
    box,
    box_overlap,
    centre_prior,
    entropy,
    gain,
    interval,
    jaccard,
    largest_part,
    match_entropy,
    score_image,
    score_maps,
    summarise,
)
from sslctl.visualize.maps.true_masks import TrueMasks, split_objects

GOLDEN = Path(__file__).parents[2] / "golden"
LOOK = MapOptions("attention", 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def maps_of(raw: torch.Tensor, stride: int = 1, share: float = 0.6) -> AttentionMaps:
    height, width = (stride * n for n in raw.shape[1:])
    return AttentionMaps(np.zeros((height, width, 3), np.uint8), raw, stride, share)


def test_jaccard_is_that_of_the_published_protocol() -> None:
    golden = load_file(GOLDEN / "jaccard_reference.safetensors")
    objects = torch.from_numpy(split_objects(golden["mask"].numpy()))
    assert len(objects) == len(golden["objects"]) and 255 in golden["mask"]
    overlap = jaccard(golden["head_masks"].bool(), objects)
    torch.testing.assert_close(overlap.amax(0), golden["per_object_best"], rtol=1e-12, atol=0)
    torch.testing.assert_close(overlap.amax(0).mean(), golden["image_score"], rtol=1e-12, atol=0)


def test_the_largest_part_and_its_box() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]]).bool()
    part = largest_part(mask)
    assert int(part.sum()) == 4 and (box(part) in ((0, 4, 4, 5), (1, 1, 4, 3)))
    mask[3, 2] = True  # now the one in the middle has five
    assert box(largest_part(mask)) == (1, 1, 4, 3)
    spiral = torch.zeros(9, 9, dtype=torch.bool)
    spiral[::2], spiral[1::4, 8], spiral[3::4, 0] = True, True, True
    assert torch.equal(largest_part(spiral), spiral)
    assert not largest_part(torch.zeros(3, 3, dtype=torch.bool)).any()
    assert box_overlap((0, 0, 4, 4), (2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert box_overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0


def test_every_number_of_one_image() -> None:
    good, bad = torch.zeros(4, 4), torch.zeros(4, 4)
    good[1:3, 1:3], bad[0, 3] = 1.0, 1.0
    good[1, 1] = 2.0
    objects = np.zeros((1, 8, 8), bool)
    objects[0, 2:6, 2:6] = True
    found = score_image(maps_of(torch.stack([bad, good]), stride=2, share=0.99), objects)
    assert found["head 0"] == {"jaccard": 0, "corloc": 0, "pointing": 0}
    assert found["head 1"] == {"jaccard": 1, "corloc": 1, "pointing": 1}
    assert found[BEST] == {"jaccard": 1}
    assert found["union"]["jaccard"] == pytest.approx(16 / 20) and found["union"]["corloc"] == 1
    assert found["mean"]["pointing"] == 1
    two = np.concatenate([objects, np.zeros((1, 8, 8), bool)])
    two[1, :2, 6:] = True
    both = score_image(maps_of(torch.stack([bad, good]), stride=2, share=0.99), two)
    assert both[BEST] == {"jaccard": 1} and both["head 0"] == {"jaccard": 0.5, "corloc": 1, "pointing": 1}
    assert score_image(maps_of(good[None]), np.zeros((0, 4, 4), bool)) == {}
    large = np.kron(objects[0], np.ones((3, 3), bool))[None]  # a mask finer than the map
    assert score_image(maps_of(torch.stack([bad, good]), stride=2, share=0.99), large) == found


def test_the_centre_prior_lies_in_the_middle_of_any_image() -> None:
    maps = centre_prior(np.zeros((30, 60, 3), np.uint8), LOOK, 8)
    height, width = maps.image.shape[:2]
    assert maps.grid == (-(-height // 8), -(-width // 8))
    y, x = (maps.raw[0] / maps.raw[0].sum()).sum(1), (maps.raw[0] / maps.raw[0].sum()).sum(0)
    middle = [float((p * (torch.arange(len(p)) + 0.5) * 8).sum()) for p in (y, x)]
    assert middle == pytest.approx([height / 2, width / 2], abs=2)


def test_even_maps_are_made_as_sharp_as_others_by_a_factor_on_their_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, other = torch.randn(3, 6, 5, generator=generator), torch.randn(4, 6, 5, generator=generator)

    def attention(logits: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits.flatten(1), 1).view(logits.shape)

    assert entropy(torch.ones(2, 6, 5)) == pytest.approx(torch.full((2,), np.log(30)))
    even, sharp = maps_of(0.7 * attention(0.1 * scores)), maps_of(attention(5 * scores))  # [CLS] keeps the rest
    made = match_entropy(even, sharp).raw
    torch.testing.assert_close(made, sharp.raw, rtol=1e-4, atol=1e-7)
    back = match_entropy(sharp, even).raw
    torch.testing.assert_close(back, even.raw / 0.7, rtol=1e-3, atol=0)
    as_others = match_entropy(even, maps_of(attention(3 * other))).raw
    assert float(entropy(as_others).mean()) == pytest.approx(float(entropy(attention(3 * other)).mean()), rel=1e-6)
    holes = torch.zeros(1, 6, 5)  # as of grad-cam, which leaves places out
    holes[0, 2, 1:3] = torch.tensor([1.0, 2.0])
    assert (
        torch.isfinite(match_entropy(even, maps_of(holes)).raw).all()
        and torch.isfinite(match_entropy(maps_of(holes), even).raw).all()
    )


def test_intervals_and_gains_are_over_images() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    mean, low, high = interval("jaccard", values)
    assert mean == pytest.approx(0.5)
    assert high - mean == pytest.approx(1.96 * np.std(values) / 2, rel=1e-3) == pytest.approx(mean - low, rel=1e-3)
    assert interval("corloc", [1.0] * 50)[1:] == pytest.approx((0.9287, 1.0), abs=1e-3)
    a = {BEST: {"jaccard": [0.5, 0.7, 0.9]}}
    b = {BEST: {"jaccard": [0.4, 0.6, 0.8]}}
    assert gain(a, b) == pytest.approx((0.1, 0.1, 0.1))  # on the same images, so that what they share cancels
    assert [row.name for row in summarise(a)] == [BEST]


def test_images_that_cannot_be_read_are_an_error_if_there_are_no_others(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "masks" / "b.png")

    def prior(image: np.ndarray) -> dict[str, AttentionMaps]:
        return {"prior": centre_prior(image, LOOK, 8)}

    truth = TrueMasks(tmp_path / "masks")
    with pytest.raises(DataError, match="none of its 1 images and masks can be read"):
        score_maps(FileSource("in", str(tmp_path), ["a.jpg"]), truth, prior)
    scores, failed = score_maps(FileSource("in", str(tmp_path), ["a.jpg", "b.png"]), truth, prior)
    assert [Path(entry["image"]).name for entry in failed] == ["a.jpg"]
    assert len(scores["prior"]["map"]["jaccard"]) == 1
