"""The card: front matter that the Hub reads, only what is known, text from outside kept harmless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from sslctl.exchange.exports.card import card, encode_code, join_code, prepare_code
from sslctl.exchange.exports.formats import ExportJob, ExportResult
from sslctl.exchange.exports.scores import Score
from sslctl.runs.meta import DataFacts, ImageSpec, Imported
from tests.exchange.exports.encoders import code_in, encoder

WRITTEN = ExportResult("x = 1\n", [(32, 32)], "timm", notes=["timm does otherwise"], remark="A table follows")

IMAGE = ImageSpec(size=96, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def test_a_card_of_a_run_says_what_made_it(tmp_path: Path) -> None:
    ours = encoder("vit", 32, "/home/somebody/secret-project/photos")
    path = tmp_path / "card.md"
    path.write_text(card(ExportJob(ours, tmp_path, "net"), WRITTEN, "timm: equal", "cc-by-4.0"))
    text = path.read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "license": "cc-by-4.0",
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "sslctl", "swav"],
    }
    assert code_in(path) == "x = 1\n"
    assert "| data | photos, 1234 images, sha256 " + "f" * 64 in text and "secret-project" not in text
    assert "swav, 777 steps. Its features have 16 numbers." in text and "Checked against sslctl: timm: equal." in text
    assert "Note: timm does otherwise." in text and "A table follows" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["backbone"]["args"]["depth"] == 2 and recipe["run"] == {"batch_size": 256}


def test_a_card_of_imported_weights_claims_no_run() -> None:
    ours = encoder("resnet", 32)
    imported = Imported(layout="moco v2", file="a|b\nc.pth")
    ours.meta = ours.meta.but(imported=imported, data=DataFacts(name="unknown"))
    text = card(ExportJob(replace(ours, notes=["its size was guessed"]), Path("x"), "net"), WRITTEN, "equal")
    assert "from another tool (moco v2)" in text and "Note: its size was guessed." in text
    assert "| imported from | layout moco v2, file a\\|b c.pth |" in text
    assert "777" not in text and "Recipe" not in text and "None" not in text
    assert "| licence | unknown (to be chosen by whoever publishes it) |" in text


def test_scores_stand_in_the_table_and_in_the_front_matter() -> None:
    row = Score("knn: k 20, a|b", "flowers", 0.6251, (0.5, 0.75))
    text = card(ExportJob(encoder("resnet", 32), Path("x"), "net"), WRITTEN, "equal", scores=[row])
    assert "| knn: k 20, a\\|b | flowers | 62.5 % (50.0 to 75.0) |" in text
    (result,) = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert result["dataset"]["name"] == "flowers" and result["metrics"][0]["value"] == 0.6251


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "torch": torch, "Image": Image, "ImageOps": ImageOps}
    exec(code, names)
    return names


@pytest.mark.parametrize("image", [IMAGE, IMAGE.model_copy(update={"size": 32})], ids=["large", "small"])
@pytest.mark.parametrize("shape", [(427, 640), (300, 300), (120, 90)])
def test_images_are_prepared_as_evaluation_prepares_them(image: ImageSpec, shape: tuple[int, int]) -> None:
    photo = load_sample_image("china.jpg")[: shape[0], : shape[1]]
    x = run(prepare_code(image))["prepare"](Image.fromarray(photo))
    ours = image.transform()(photo)
    assert x.shape == ours.shape == (3, image.size, image.size) and x.dtype == torch.float32
    off = (x - ours).abs() * torch.tensor(image.std)[:, None, None] * 255
    assert off.max() < 3 and off.mean() < 0.2, "grey levels by which Pillow rounds otherwise"


def test_raw_pixels_and_arrays_of_numpy() -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg"))
    raw = run(prepare_code(IMAGE, "numpy", raw=True))["prepare"](photo)
    plain = run(prepare_code(IMAGE, "numpy"))["prepare"](photo)
    assert raw.dtype == np.uint8 and raw.shape == (96, 96, 3) and isinstance(plain, np.ndarray)
    expected = (raw / 255 - np.array(IMAGE.mean)) / np.array(IMAGE.std)
    np.testing.assert_allclose(plain, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_rotation_and_alpha_of_a_file_are_applied() -> None:
    photo = Image.fromarray(load_sample_image("china.jpg")).convert("RGBA")
    photo.getexif()[0x0112] = 6
    turned = run(prepare_code(IMAGE))["prepare"](photo)
    upright = run(prepare_code(IMAGE))["prepare"](photo.convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(turned, upright)


def test_the_parts_make_one_program() -> None:
    code = join_code("net = lambda x: x * 2\n", prepare_code(IMAGE), encode_code("net(x)", "(B, 3)"))
    names = run(code)
    assert names["encode"](torch.ones(1)).tolist() == [2]
    assert code.endswith('# features = encode(prepare(Image.open("photo.jpg"))[None])\n') and "\n\n\n\n" not in code
