"""A text or CSV list of image paths, with or without labels."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Sequence

from ..errors import DataError
from .source import FileSource, labels_from_names, printable

EXTENSIONS = (".txt", ".csv", ".tsv", ".lst", ".list")

PATH_COLUMNS = {"path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name"}
_LABEL_COLUMNS = {"label", "labels", "class", "class_name", "classname", "target", "category", "y"}

Rows = list[tuple[int, list[str]]]  # line number, cells


def open_listing(path: str) -> FileSource:
    """Open the images that ``path`` lists, in its order; relative paths start at the list's folder.

    ``.csv`` has commas or semicolons, ``.tsv`` tabs, with quotes as usual. Anything else has one path a line, then
    after a tab, or after the last blank where the line itself is no file, a label. A first row that names its columns
    (path, file, image, …; label, class, …) is a header; otherwise the first column is the path and a second the label.
    Raises DataError naming the line of a file that does not exist, or of a label that is missing.
    """
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{printable(path)} lists no images", "write one path a line, or path,label rows")
    path_column, label_column, rows = _columns(path, rows)
    if not rows:
        raise DataError(f"{printable(path)} has a header and no rows", "write path,label rows below it")
    folder = os.path.dirname(path) or "."
    names = [_cell(path, line, row, path_column, "path") for line, row in rows]
    _check_files(path, folder, [line for line, _ in rows], names)
    if label_column is None:
        return FileSource(path, folder, names)
    labels, classes = labels_from_names([_cell(path, line, row, label_column, "label") for line, row in rows])
    return FileSource(path, folder, names, labels, classes)


def read_rows(path: str) -> Rows:
    """Return the rows of a list with their line numbers, without empty ones. Raises DataError if unreadable."""
    extension = os.path.splitext(path)[1].lower()
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            if extension not in (".csv", ".tsv"):
                return _text_rows(path, [line.rstrip("\r") for line in file.read().split("\n")])
            first = file.readline()
            file.seek(0)
            comma = "\t" if extension == ".tsv" else ";" if first.count(";") > first.count(",") else ","
            reader = csv.reader(file, delimiter=comma, strict=True)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as e:
        raise DataError(f"{printable(path)} cannot be read: {e.strerror}") from e
    except csv.Error as e:
        raise DataError(f"{printable(path)} is no CSV: {e}", "quote paths that hold commas or quotes") from e


def _text_rows(path: str, lines: Sequence[str]) -> Rows:
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        return []
    first = rows[0][1]
    if "\t" in first:
        return [(number, line.split("\t")) for number, line in rows]

    folder = os.path.dirname(path)
    whole, labelled = first.strip(), first.rsplit(maxsplit=1)
    if len(labelled) == 2 and not _is_file(folder, whole) and _is_file(folder, labelled[0].strip()):
        return [(number, line.strip().rsplit(maxsplit=1)) for number, line in rows]
    return [(number, [line.strip()]) for number, line in rows]


def _columns(path: str, rows: Rows) -> tuple[int, int | None, Rows]:
    """Return the columns of path and label, and the rows below a header."""
    first = [cell.strip() for cell in rows[0][1]]
    words = [cell.lower() for cell in first]
    is_file = any(_is_file(os.path.dirname(path), cell) for cell in first)
    paths = [i for i, word in enumerate(words) if word in PATH_COLUMNS]
    labels = [i for i, word in enumerate(words) if word in _LABEL_COLUMNS]
    if paths and not is_file:
        return paths[0], (labels[0] if labels else None), rows[1:]
    if len(first) > 2:
        columns = ", ".join(map(printable, first))
        raise DataError(
            f"{printable(path)} has {len(first)} columns and none is called path: {columns}",
            "name the columns in the first row, for example path,label",
        )
    return 0, (1 if len(first) == 2 else None), rows


def _cell(path: str, line: int, row: list[str], column: int, what: str) -> str:
    value = row[column].strip() if column < len(row) else ""
    if not value:
        raise DataError(f"{printable(path)} line {line}: no {what}", f"every row needs a {what}")
    return value


def _check_files(path: str, folder: str, lines: Sequence[int], names: Sequence[str]) -> None:
    missing = [i for i, name in enumerate(names) if not _is_file(folder, name)]
    if missing:
        first = missing[0]
        others = f" ({len(missing)} of {len(names)} paths are none)" if len(missing) > 1 else ""
        raise DataError(
            f"{printable(path)} line {lines[first]}: {printable(names[first])!r} is no file{others}",
            f"relative paths start at {printable(folder)}",
        )


def _is_file(folder: str, name: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(os.path.join(folder, name)).st_mode)
    except (OSError, ValueError):
        return False
