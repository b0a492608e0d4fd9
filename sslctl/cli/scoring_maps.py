"""``attn-map --masks``: maps of an encoder beside those of random weights, of these as sharp, and of the middle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output
from .evaluating import progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..data import Source
    from ..runs.encoder import LoadedEncoder
    from ..visualize.maps.attention import AttentionMaps, Look
    from ..visualize.maps.localisation import Eyes

OWN, RANDOM, SHARP, CENTRE = "this encoder", "random weights", "random, as sharp", "centre prior"


def score_masks(
    encoder: LoadedEncoder, source: Source, masks: Path, look: Look
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Scores of the maps by the true ``masks``, ready for JSON, and the images that cannot be read."""
    from ..visualize.maps.localisation import gain, localise, rows
    from ..visualize.maps.true_masks import Truth

    truth = Truth(masks)
    output.note(f"{look.kind} maps of {encoder.spec.backbone.arch} against the masks in {masks}")
    found, failed = localise(source, truth, _eyes(encoder, look), progress())
    if truth.missing:
        output.warn(f"{len(truth.missing)} images have no mask and are left out, the first: {truth.missing[0]}")
    gains = {name: gain(found[OWN], found[name]) for name in (RANDOM, SHARP, CENTRE)}
    return {
        "scored": len(found[OWN]["best head"]["jaccard"]),
        "without_mask": len(truth.missing),
        "scores": {name: [row.as_dict() for row in rows(part)] for name, part in found.items()},
        "gains": {name: {"jaccard": v, "interval": [low, high]} for name, (v, low, high) in gains.items()},
    }, failed


def _eyes(encoder: LoadedEncoder, look: Look) -> Eyes:
    """The maps of ``encoder`` and those beside which they stand."""
    from ..evaluate.baselines import random_backbone
    from ..visualize.maps.attention import attention_maps
    from ..visualize.maps.localisation import as_sharp, centre_prior

    net = encoder.backbone
    fresh = random_backbone(encoder.spec.backbone, encoder.meta.image.size).to(next(net.parameters()))

    def eyes(image: NDArray[np.uint8]) -> dict[str, AttentionMaps]:
        own, random = attention_maps(net, image, look), attention_maps(fresh, image, look)
        return {
            OWN: own,
            RANDOM: random,
            SHARP: as_sharp(random, own),
            CENTRE: centre_prior(image, look, net.stride),
        }

    return eyes


def describe(scores: dict[str, Any]) -> str:
    """The table for people: a line for each map, percentages with their 95 % intervals."""
    lines = [("", "", "Jaccard", "CorLoc", "pointing game")]
    for name, rows in scores["scores"].items():
        for row in rows:
            cells = [_cell(row.get(key)) for key in ("jaccard", "corloc", "pointing")]
            lines.append((name, row["map"], cells[0], cells[1], cells[2]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.append(f"{scores['scored']} images; best head: for every object the one that fits it best (DINO's figure)")
    for name, found in scores["gains"].items():
        gain, low, high = (f"{100 * x:+.1f}" for x in (found["jaccard"], *found["interval"]))
        text.append(f"Jaccard of the best head above {name}: {gain} points ({low} to {high})")
    return "\n".join(text)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval"]
    return f"{100 * found['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
