"""Python for the card of an export: how an image is prepared, without any library but Pillow and numpy."""

from __future__ import annotations

from ...runs.meta import ImageSpec


def prepare(image: ImageSpec, kind: str = "torch", raw: bool = False) -> str:
    """Code that defines ``prepare``, from a PIL image to what the net takes: the evaluation transform, by Pillow.

    ``image`` is the encoder's size, mean and std; ``kind`` the arrays that come out; ``raw`` leaves uint8 (S, S, 3).
    """
    size, short = image.size, image.transform().short
    lines = [
        "def prepare(image):  # a PIL image",
        '    image = ImageOps.exif_transpose(image).convert("RGB")',
        "    w, h = image.size",
        f"    w, h = int({short} * w / min(w, h)), int({short} * h / min(w, h))",
        f"    left, top = round((w - {size}) / 2), round((h - {size}) / 2)",
        "    image = image.resize((w, h), Image.Resampling.BICUBIC)",
        f"    image = image.crop((left, top, left + {size}, top + {size}))",
    ]
    if raw:
        lines += [f"    x = np.array(image)  # uint8 ({size}, {size}, 3)"]
    else:
        mean, std = ([round(float(v), 6) for v in getattr(image, key)] for key in ("mean", "std"))
        lines += [
            f"    x = (np.asarray(image, np.float32) / 255 - np.float32({mean})) / np.float32({std})",
            f"    x = np.ascontiguousarray(x.transpose(2, 0, 1))  # (3, {size}, {size})",
        ]
    lines += ["    return torch.from_numpy(x)" if kind == "torch" else "    return x"]
    return "\n".join(lines) + "\n"


def encode(result: str, width: str) -> str:
    """Code that defines ``encode`` for a net of torch: ``result`` of the batch x, ``width`` what that is."""
    return f"def encode(x):\n    with torch.inference_mode():\n        return {result}  # {width}\n"


USE = '# features = encode(prepare(Image.open("photo.jpg"))[None])\n'


def joined(*parts: str) -> str:
    """Code in parts, two lines between them, and how it is used."""
    return "\n\n".join(part.rstrip("\n") + "\n" for part in parts) + "\n\n" + USE
