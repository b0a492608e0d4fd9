"""``sslctl attn-map``: where a network looks, as pictures, and how well that finds the objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from ..tasks.results import AttentionMaps, Measured


def attn_map(result: AttentionMaps) -> str:
    """Paint what a network looks at.

    The attention of a ViT's [CLS] token over images of any size, each head, their mean, masks, an overlay, a sheet; of
    a convolutional net the places that make its embedding. With --masks, how well that finds the objects.

    Images that cannot be read are listed at the end, with exit code 3.

    Examples:

      sslctl attn-map runs/dino-vit_tiny_patch16_224-photos-1a2b3c photo.jpg

      sslctl attn-map last.safetensors photos/ --out maps/ --size 480 --threshold 0.5 --npy

      sslctl attn-map timm:vit_small_patch16_224 holiday.mp4 --kind rollout

      sslctl attn-map last.safetensors val/ --masks masks/
    """
    if result.files is not None:
        return result.files[0] if len(result.files) == 1 else str(result.out)
    lines = _scores(result) if result.scores is not None else []
    return "\n".join([*lines, *(entry.files[-1] for entry in result.images or [] if entry.files)])


def _scores(result: AttentionMaps) -> list[str]:
    """A line for each map, percentages with their 95 % intervals."""
    rows = [
        [name, row.name, _cell(row.jaccard), _cell(row.corloc), _cell(row.pointing)]
        for name, maps in (result.scores or {}).items()
        for row in maps
    ]
    lines = [output.table(["", "", "Jaccard", "CorLoc", "pointing game"], rows)]
    lines.append(f"{result.scored} images; best head: for every object the one that fits it best (DINO's figure)")
    for name, found in (result.gains or {}).items():
        gain, low, high = (f"{100 * x:+.1f}" for x in (found.jaccard, *found.interval))
        lines.append(f"Jaccard of the best head above {name}: {gain} points ({low} to {high})")
    return lines


def _cell(found: Measured | None) -> str:
    if found is None:
        return "-"
    low, high = found.interval
    return f"{100 * found.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
