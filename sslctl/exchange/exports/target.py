"""Where an export goes: whole or not at all, beside what is there or in the place of an earlier export alone."""

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

OTHER = "give another name; --force does not remove it"


class Target:
    """One export on disk: a folder, or one file with a card and a report that bear its name.

    ``folder`` where the format is one, or where ``--out`` does not end as its files do: then the file lies in it.
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
        # What the format is asked to write, relative to the directory that holds the export.
        self.name = f"{self.out.name}/{self.main}" if suffixes and self.folder else self.out.name

    @property
    def home(self) -> Path:
        """The directory of the card and the report."""
        return self.out if self.folder else self.out.parent

    def refuse_taken(self, force: bool) -> None:
        """SpecError where the place is taken: by an earlier export without ``force``, by anything else in any case.

        An earlier export is what its report lists, byte for byte: a card that somebody edited is theirs.
        """
        if self.folder and os.path.lexists(self.out):
            if self.out.is_symlink() or not self.out.is_dir():
                raise SpecError(f"--out {self.out}: is there already and no folder", OTHER)
            held = [path.name for path in self.out.iterdir()]
        else:
            held = [name for name in (self.main, self.card, self.report) if os.path.lexists(self.home / name)]
        if not held:
            return
        listed = self.earlier()
        for name in sorted(held):
            if name != self.report and name not in listed:
                raise SpecError(f"--out {self.out}: {name} is there already, and no export of sslctl", OTHER)
            if name in listed and sha256(self.home / name) != listed[name]:
                raise SpecError(f"--out {self.out}: {name} was changed since it was exported", OTHER)
        if not force:
            raise SpecError(f"--out {self.out}: is there already", "give another name, or replace it with --force")

    def earlier(self) -> dict[str, str]:
        """Files of the export that is there, with their sha256, as its report lists them."""
        try:
            files = json.loads((self.home / self.report).read_text("utf-8"))["files"]
            return {str(name): str(value) for name, value in files.items() if os.path.basename(name) == name}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        """A directory beside the target to build in; gone afterwards. MachineError where the disk refuses."""
        place = self.out.parent / f".{self.out.name}.part-{os.getpid()}"
        try:
            (place / self.out.name if self.folder else place).mkdir(parents=True)
            yield place
        except OSError as e:
            reason = e.strerror or e
            raise MachineError(f"cannot write {self.out}: {reason}", "see its permissions and the free space") from e
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def take(self, place: Path) -> None:
        """Move what was built in ``place`` to its name: the folder in one step; of files, the main one last."""
        if self.folder:
            if self.out.exists():
                self.out.rename(place / "replaced")  # goes with the workplace
            (place / self.out.name).rename(self.out)
            return
        old, new = self.earlier(), sorted((path.name for path in place.iterdir()), key=self.main.__eq__)
        for name in old.keys() - set(new):
            (self.home / name).unlink(missing_ok=True)
        for name in new:
            (place / name).replace(self.home / name)


def sha256(path: Path) -> str:
    """Of a file's bytes; empty where it is none."""
    if path.is_symlink() or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
