"""The card: front matter that the Hub reads, only what is known, text from outside kept harmless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from sslctl.exchange.exports.card import card
from sslctl.exchange.exports.formats import Order, Written
from sslctl.exchange.exports.scores import Row
from sslctl.runs.meta import DataFacts, Imported
from tests.exchange.exports.encoders import code_in, encoder

WRITTEN = Written("x = 1\n", [(32, 32)], "timm", notes=["timm does otherwise"], more="A table follows")


def test_a_card_of_a_run_says_what_made_it(tmp_path: Path) -> None:
    ours = encoder("vit", 32, "/home/somebody/secret-project/photos")
    path = tmp_path / "card.md"
    path.write_text(card(Order(ours, tmp_path, "net"), WRITTEN, "timm: equal", "cc-by-4.0"))
    text = path.read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "license": "cc-by-4.0",
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "sslctl", "swav"],
    }
    assert code_in(path) == "x = 1\n"
    assert "| data | photos, 1234 images, sha256 " + "f" * 64 in text and "secret-project" not in text
    assert "swav, 777 steps. It gives 16 numbers an image." in text and "Checked against sslctl: timm: equal." in text
    assert "Note: timm does otherwise." in text and "A table follows" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["backbone"]["args"]["depth"] == 2 and recipe["run"] == {"batch_size": 256}


def test_a_card_of_imported_weights_claims_no_run() -> None:
    ours = encoder("resnet", 32)
    imported = Imported(layout="moco v2", file="a|b\nc.pth")
    ours.meta = ours.meta.but(imported=imported, data=DataFacts(name="unknown"))
    text = card(Order(replace(ours, notes=["its size was guessed"]), Path("x"), "net"), WRITTEN, "equal")
    assert "made elsewhere (moco v2)" in text and "Note: its size was guessed." in text
    assert "| imported from | layout moco v2, file a\\|b c.pth |" in text
    assert "777" not in text and "Recipe" not in text and "None" not in text
    assert "| licence | unknown (to be chosen by whoever publishes it) |" in text


def test_scores_stand_in_the_table_and_in_the_front_matter() -> None:
    row = Row("knn: k 20, a|b", "flowers", 0.6251, (0.5, 0.75))
    text = card(Order(encoder("resnet", 32), Path("x"), "net"), WRITTEN, "equal", found=[row])
    assert "| knn: k 20, a\\|b | flowers | 62.5 % (50.0 to 75.0) |" in text
    (result,) = yaml.safe_load(text.split("---\n")[1])["model-index"][0]["results"]
    assert result["dataset"]["name"] == "flowers" and result["metrics"][0]["value"] == 0.6251
