"""What a task says while it works, notes and progress, to functions that its caller gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from .results import Failed

Level = Literal["note", "warning", "detail"]
Progress = Callable[[str, int, int], None]  # label, done, total (0 where it is unknown)
FIRST = 5  # warnings about images of one kind


class Note(str):
    """A sentence for people, with its ``level``."""

    level: Level

    def __new__(cls, text: str, level: Level = "note") -> Self:
        note = super().__new__(cls, text)
        note.level = level
        return note


Notes = Callable[[Note], None]


@dataclass(frozen=True)
class Feedback:
    """The caller's two functions; either may be missing."""

    progress: Progress | None = None
    notes: Notes | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Feedback:
        """Return the functions that a task's options hold."""
        return cls(options.get("progress"), options.get("notes"))

    def note(self, text: str, level: Level = "note") -> None:
        if self.notes is not None:
            self.notes(Note(text, level))

    def detail(self, text: str) -> None:
        self.note(text, "detail")

    def warn(self, text: str) -> None:
        self.note(text, "warning")

    def warn_all(self, texts: Iterable[str]) -> None:
        for text in dict.fromkeys(texts):
            self.warn(text)

    def warn_unreadable(self, failed: Iterable[Failed], total: int, most: int | None = None) -> None:
        """Warn of the images that cannot be read, of ``most`` by name."""
        failed = list(failed)
        for entry in failed[:most]:
            self.warn(f"{entry.image}: {entry.reason}")
        if failed:
            self.warn(f"{len(failed)} of {total} images cannot be read")

    def counter(self, label: str) -> Callable[[int, int], None]:
        """Return a function of (done, total) that reports progress under ``label``."""

        def count(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(label, done, total)

        return count
