"""The files that embeddings go into: npy, safetensors, parquet; names and labels inside or beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...data.source import Source
from ...errors import MachineError
from ...files import replacing
from .journal import HEADER, Spool

GROUP = 16 << 20  # bytes of features in a row group of parquet


@dataclass(frozen=True)
class Rows:
    """What the rows of a file are: the images of ``source`` but the ``bad`` ones, in order."""

    source: Source
    bad: dict[int, str]
    meta: dict[str, Any]

    def positions(self) -> Iterator[int]:
        return (i for i in range(len(self.source)) if i not in self.bad)

    def label(self, i: int) -> str | None:
        return None if self.source.labels is None else self.source.classes[self.source.labels[i]]


@dataclass(frozen=True)
class Form:
    """A format: ``seal`` makes the file of the rows in a spool; ``names_apart``: a .jsonl has names and labels."""

    seal: Callable[[Spool, Rows], None]
    names_apart: bool = False
    needs: str = ""  # a module beside our own dependencies, and the extra that brings it
    extra: str = ""

    def require(self) -> None:
        """Raise MachineError with the line to type where the library is missing."""
        if self.needs and find_spec(self.needs) is None:
            raise MachineError(f"this format needs {self.needs}", f"pip install 'sslctl[{self.extra}]'")


def seal_npy(spool: Spool, rows: Rows) -> None:
    """Write features float32 (n, ...) alone: numpy's format 1.0 (numpy.lib.format), which can be mapped."""
    shape = "".join(f"{n}, " for n in (spool.rows, *spool.shape))
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape.rstrip()}), }}"
    length = HEADER - 10  # a magic string, the version, the length itself
    head = b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
    write_names(spool, rows)
    spool.seal(head)


def seal_safetensors(spool: Spool, rows: Rows) -> None:
    """Write ``features`` float32 (n, ...), ``index`` and, if there are any, ``labels``, int64 (n,).

    The header is padded with blanks, as the format allows; its metadata has ``order.meta`` as JSON under ``sslctl``.
    """
    index = np.fromiter(rows.positions(), "<i8", spool.rows)
    more = {"index": index} | (
        {} if rows.source.labels is None else {"labels": rows.source.labels[index].astype("<i8")}
    )
    at = spool.rows * spool.row_bytes
    tensors: dict[str, Any] = {
        "features": {"dtype": "F32", "shape": [spool.rows, *spool.shape], "data_offsets": [0, at]}
    }
    for name, values in more.items():
        tensors[name] = {"dtype": "I64", "shape": [spool.rows], "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    head = json.dumps({"__metadata__": {"format": "pt", "sslctl": json.dumps(rows.meta)}} | tensors)
    write_names(spool, rows)
    spool.seal(
        (HEADER - 8).to_bytes(8, "little") + head.ljust(HEADER - 8).encode(),
        b"".join(v.tobytes() for v in more.values()),
    )


def seal_parquet(spool: Spool, rows: Rows) -> None:
    """Write columns ``name``, ``label`` (or null), ``index`` and ``features``, a list of fixed length.

    A map of features is one such list too; its shape stands in the file's metadata, as JSON under ``sslctl``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    features = spool.rows_on_disk()
    width = spool.row_bytes // 4
    schema = pa.schema(
        {"name": pa.string(), "label": pa.string(), "index": pa.int64(), "features": pa.list_(pa.float32(), width)},
        metadata={"sslctl": json.dumps(rows.meta | {"shape": spool.shape})},
    )
    step = max(1, GROUP // spool.row_bytes)
    positions = rows.positions()
    with replacing(spool.out, features.nbytes) as partial, parquet.ParquetWriter(partial, schema) as file:
        for start in range(0, spool.rows, step):
            part = features[start : start + step]
            index = [next(positions) for _ in range(len(part))]
            flat = pa.array(np.asarray(part).reshape(-1), pa.float32())
            columns = [
                pa.array([rows.source.item_name(i) for i in index]),
                pa.array([rows.label(i) for i in index], pa.string()),
                pa.array(index, pa.int64()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            file.write_batch(pa.record_batch(columns, schema=schema))
    spool.remove()


def write_names(spool: Spool, rows: Rows) -> None:
    """Write the .jsonl next to the file: ``name`` and ``label`` (null where there is none), one line a row."""
    path = spool.out.with_suffix(".jsonl")
    with replacing(path, 100 * spool.rows) as partial, partial.open("w", encoding="utf-8") as file:
        for i in rows.positions():
            file.write(json.dumps({"name": rows.source.item_name(i), "label": rows.label(i)}) + "\n")


FORMATS = {
    "npy": Form(seal_npy, names_apart=True),
    "safetensors": Form(seal_safetensors, names_apart=True),
    "parquet": Form(seal_parquet, needs="pyarrow", extra="parquet"),
}
