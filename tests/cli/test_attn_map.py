"""``sslctl attn-map`` on real files: pictures and numbers, broken images, films, scores by true masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .calling import call, result, tiny_resnet


def test_it_paints_what_it_can_read_and_exits_with_3_for_the_rest(flags_vit: Path, flags: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes((flags / "red" / "0.png").read_bytes())
    one = tmp_path / "one"
    found = result(
        "attn-map", flags_vit, tmp_path / "in" / "a.png", "--out", one, "--size", "64", "--npy", "--block", "0"
    )
    kinds = ("head0", "head1", "mask0", "mask1", "mean", "overlay", "sheet", "union")
    assert sorted(p.name for p in one.iterdir()) == ["a.npy", *(f"a_{kind}.png" for kind in kinds)]
    entry = found["images"][0]
    assert (entry["grid"], entry["stride"]) == ([7, 10], 8)  # 24x32 in the area of 64x64, 8 px a patch
    numbers = np.load(one / "a.npy")
    assert numbers.shape == (2, 7, 10) and 0 < numbers.sum() < 2
    assert (found["kind"], found["block"], found["area"], found["failed"]) == ("attention", 0, 64, [])
    (tmp_path / "in" / "c.png").write_bytes(b"\x89PNG")
    done = call("attn-map", flags_vit, tmp_path / "in", "--out", tmp_path / "all", "--json", "--pictures", "overlay")
    manifest = json.loads(done.stdout)
    assert done.exit_code == 3
    assert [Path(entry["image"]).name for entry in manifest["images"]] == ["a.png", "b.png"]
    assert [Path(entry["image"]).name for entry in manifest["failed"]] == ["c.png"] and "c.png" in done.stderr
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["a_overlay.png", "b_overlay.png"]


def test_a_resnet_has_a_saliency_and_no_blocks(flags: Path, tmp_path: Path) -> None:
    resnet = tiny_resnet(flags, tmp_path / "resnet")
    found = result("attn-map", resnet, flags / "red" / "0.png", "--out", tmp_path / "maps")
    assert found["kind"] == "grad-cam" and len(found["images"][0]["files"]) == 4
    for words, message in [
        (("--block", "1"), "--kind grad-cam is not computed for a block"),
        (("--kind", "attention"), "need a ViT"),
        (("--kind", "rolout"), "--kind 'rolout'"),
        (("--pictures", "heads,shet"), "did you mean 'sheet'"),
    ]:
        done = call("attn-map", resnet, flags, "--out", tmp_path / "none", *words)
        assert done.exit_code == 2 and message in done.stderr and not (tmp_path / "none").exists()


def test_masks_score_the_maps_beside_random_weights_and_the_middle(flags_vit: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(6):  # an object in the middle, by which the centre prior must win
        for folder in ("in", "masks"):
            (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
        mask = np.zeros((48, 64), np.uint8)
        mask[8:40, 10:54] = 255
        picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "in" / "deep" / f"{i}.png")
        if i < 5:
            Image.fromarray(mask).save(tmp_path / "masks" / "deep" / f"{i}.png")
    (tmp_path / "masks" / "deep" / "4.png").write_bytes(b"no mask")
    words = ("attn-map", flags_vit, tmp_path / "in", "--masks", tmp_path / "masks", "--size", "96")
    done = call(*words, "--json")
    assert done.exit_code == 3 and "images have no mask" in done.stderr
    found = json.loads(done.stdout)
    assert (found["scored"], found["without_mask"]) == (4, 1)
    assert [entry["reason"].split(" cannot")[0] for entry in found["failed"]] == ["mask 4.png"]
    scores = {name: {row["map"]: row for row in part} for name, part in found["scores"].items()}
    assert list(scores) == ["this encoder", "random weights", "random, as sharp", "centre prior"]
    assert list(scores["this encoder"]) == ["head 0", "head 1", "mean", "union", "best head"]
    centre = scores["centre prior"]["map"]
    assert centre["jaccard"]["value"] > 0.5 and centre["corloc"]["value"] == centre["pointing"]["value"] == 1
    assert centre["corloc"]["interval"][0] < 0.6  # four images say little
    best = scores["this encoder"]["best head"]["jaccard"]["value"]
    assert best >= max(scores["this encoder"][f"head {i}"]["jaccard"]["value"] for i in range(2))
    plain, sharp = (scores[name]["head 0"] for name in ("random weights", "random, as sharp"))
    assert sharp["pointing"] == plain["pointing"]  # the largest stays the largest
    assert sharp["jaccard"]["value"] == pytest.approx(plain["jaccard"]["value"], abs=0.1)  # two steps sharpen little
    assert list(found["gains"]) == ["random weights", "random, as sharp", "centre prior"]
    gain = found["gains"]["centre prior"]
    assert gain["jaccard"] == pytest.approx(best - centre["jaccard"]["value"])
    assert "out" not in found  # scores alone, no pictures
    text = call(*words).stdout
    assert "centre prior      map        " in text and "Jaccard of the best head above centre prior: -" in text
    none = call("attn-map", flags_vit, tmp_path / "in", "--masks", tmp_path / "in" / "nowhere")
    assert none.exit_code == 3 and "no such folder" in none.stderr


def test_moving_pictures_give_a_film(flags_vit: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)) for _ in range(5)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
    found = result("attn-map", flags_vit, tmp_path / "a.webp", "--out", tmp_path / "out", "--size", "32")
    assert (found["frames"], found["rate"]) == (5, 10.0)
    assert [Path(file).name for file in found["files"]] == ["a_attention.mp4"]
    (tmp_path / "b.mp4").write_bytes(b"no film")
    done = call("attn-map", flags_vit, tmp_path / "b.mp4", "--out", tmp_path / "out")
    assert done.exit_code == 3 and "finds no video" in done.stderr
