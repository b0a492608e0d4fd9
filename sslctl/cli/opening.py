"""How a command opens its encoder: through the one door, with what is to be known about it said aloud."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from ..runs.encoder import LoadedEncoder


def open_model(words: Path) -> LoadedEncoder:
    """The encoder that ``words`` names (see ``exchange.opening``); its notes go to stderr as warnings."""
    from ..exchange.open_encoder import open_encoder

    encoder = open_encoder(words)
    for line in encoder.notes:
        output.warn(line)
    return encoder
