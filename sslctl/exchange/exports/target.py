"""The place of an export on disk: complete or absent, and nothing overwritten but an earlier export."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...errors import MachineError, SpecError
from .formats import FORMATS

HINT = "give another name; --force does not remove it"


class Target:
    """An export on disk: a folder, or a file with a card and a report named after it.

    It is a folder if the format is one, or if ``--out`` does not end in a suffix of the format's file.
    """

    def __init__(self, out: Path, suffixes: tuple[str, ...]) -> None:
        self.out = Path(os.path.abspath(out))
        self.folder = self.out.suffix not in suffixes
        others = {suffix for form in FORMATS.values() for suffix in form.suffixes} | {".pt", ".pkl"}
        if self.folder and self.out.suffix in others:
            raise SpecError(
                f"--out {out}: this format writes {' or '.join(suffixes) or 'a folder'}, not {self.out.suffix}",
                f"--out {out.stem}{suffixes[0] if suffixes else '/'}",
            )
        stem = self.out.stem
        self.main = f"model{suffixes[0]}" if suffixes and self.folder else self.out.name
        self.card = "README.md" if self.folder else f"{stem}.README.md"
        self.report = "parity.json" if self.folder else f"{stem}.parity.json"
        # The path that the format writes, relative to the directory that holds the export.
        self.name = f"{self.out.name}/{self.main}" if suffixes and self.folder else self.out.name

    @property
    def home(self) -> Path:
        """Return the directory of the card and the report."""
        return self.out if self.folder else self.out.parent

    def refuse_existing(self, force: bool) -> None:
        """Raise SpecError for an earlier export unless ``force``, and for any other file in the way.

        An earlier export is the files of its report, byte for byte: a card that somebody edited stays.
        """
        if self.folder and os.path.lexists(self.out):
            if self.out.is_symlink() or not self.out.is_dir():
                raise SpecError(f"--out {self.out}: already exists and is not a folder", HINT)
            existing = [path.name for path in self.out.iterdir()]
        else:
            existing = [name for name in (self.main, self.card, self.report) if os.path.lexists(self.home / name)]
        if not existing:
            return
        earlier = self.earlier_files()
        for name in sorted(existing):
            if name != self.report and name not in earlier:
                raise SpecError(f"--out {self.out}: {name} already exists and is not an export of sslctl", HINT)
            if name in earlier and sha256(self.home / name) != earlier[name]:
                raise SpecError(f"--out {self.out}: {name} was changed since it was exported", HINT)
        if not force:
            raise SpecError(f"--out {self.out}: already exists", "give another name, or replace it with --force")

    def earlier_files(self) -> dict[str, str]:
        """Return the files that an earlier export's report lists, with their sha256."""
        try:
            files = json.loads((self.home / self.report).read_text("utf-8"))["files"]
            return {str(name): str(value) for name, value in files.items() if os.path.basename(name) == name}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    @contextlib.contextmanager
    def build_folder(self) -> Iterator[Path]:
        """Make a temporary directory next to the target to build in. Raises MachineError if the disk refuses."""
        build = self.out.parent / f".{self.out.name}.part-{os.getpid()}"
        try:
            (build / self.out.name if self.folder else build).mkdir(parents=True)
            yield build
        except OSError as e:
            reason = e.strerror or e
            raise MachineError(f"cannot write {self.out}: {reason}", "see its permissions and the free space") from e
        finally:
            shutil.rmtree(build, ignore_errors=True)

    def publish(self, build: Path) -> None:
        """Move the build in ``build`` to its final name: a folder in one step; of files, the main one last."""
        if self.folder:
            if self.out.exists():
                self.out.rename(build / "replaced")  # deleted with the build folder
            (build / self.out.name).rename(self.out)
            return
        old, new = self.earlier_files(), sorted((path.name for path in build.iterdir()), key=self.main.__eq__)
        for name in old.keys() - set(new):
            (self.home / name).unlink(missing_ok=True)
        for name in new:
            (build / name).replace(self.home / name)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, empty for anything but a regular file."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
