"""True masks of objects: the file of each image, and the meaning of its grey levels."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data.decode import MAX_PIXELS, BadImage
from ...data.source import FileSource, Source
from ...errors import DataError

ENDINGS = frozenset(".bmp .gif .png .tif .tiff .webp".split())
VOID = 255
HINT = "masks in --masks have the same paths as the images in their folder (a/b.jpg: a/b.png)"


class TrueMasks:
    """The masks in a folder; ``missing`` names images without one after a call of ``pairs``."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"--masks {folder}: no such folder", HINT)
        self.folder = folder
        paths = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
        files = sorted(path for path in paths if path.suffix.lower() in ENDINGS)
        self.by_path = {path.relative_to(folder).with_suffix(""): path for path in files}
        often = Counter(path.stem for path in files)
        self.by_name = {path.stem: path for path in files if often[path.stem] == 1}
        self.missing: list[str] = []

    def pairs(self, source: Source) -> list[tuple[int, Path]]:
        """Return the images of ``source`` that have a mask, each with its file. Raises DataError if none has."""
        pairs: list[tuple[int, Path]] = []
        self.missing = []
        for i in range(len(source)):
            name = PurePath(source.names[i] if isinstance(source, FileSource) else source.item_name(i)).with_suffix("")
            path = self.by_path.get(Path(name)) or self.by_name.get(name.name)
            if path is None:
                self.missing.append(source.item_name(i))
            else:
                pairs.append((i, path))
        if not pairs:
            raise DataError(
                f"--masks {self.folder}: none of its {len(self.by_path)} masks belongs to {source.name}", HINT
            )
        return pairs

    def read(self, path: Path) -> NDArray[np.bool_]:
        """Read the objects in a mask, bool (objects, H, W). Raises BadImage for a file that is not a mask."""
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage("mask of more than 64 megapixels", str(path))
                if image.mode not in ("1", "L", "P", "I", "I;16"):
                    raise BadImage(
                        f"mask {path.name} is in colour; use a grey level or palette index for each object", str(path)
                    )
                levels = np.array(image)
        except BadImage:
            raise
        except Exception as e:  # decoders raise errors of many kinds for corrupt files
            raise BadImage(f"mask {path.name} cannot be read: {e}", str(path)) from e
        return split_objects(levels)


def split_objects(levels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Split a mask (H, W) into its objects: (objects, H, W).

    0 is background. A single other level is the object; of several, each is an object except 255, which is void
    (PASCAL VOC) and counts as background.
    """
    ids = [level for level in np.unique(levels) if level]
    if len(ids) > 1:
        ids = [level for level in ids if level != VOID]
    return np.stack([levels == level for level in ids]) if ids else np.zeros((0, *levels.shape), bool)
