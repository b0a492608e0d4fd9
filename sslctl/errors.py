"""What goes wrong, as one exception: what, why, the next command, the exit code."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; scripts rely on them."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    CHECKPOINT = 4
    ENVIRONMENT = 5
    DIVERGED = 6
    GATE = 7
    STOPPED = 75
    INTERRUPTED = 130


class SslctlError(Exception):
    """An error of the user's making or of the world's, never of ours.

    ``message`` names the subject, the value and the reason; ``hint`` is what to do or type next.
    """

    exit_code = Exit.USAGE

    def __init__(self, message: str, hint: str = "", exit_code: Exit | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class SpecError(SslctlError):
    """The spec or a flag cannot be used."""

    exit_code = Exit.USAGE


class DataError(SslctlError):
    """The images cannot be used."""

    exit_code = Exit.DATA


class CheckpointError(SslctlError):
    """A checkpoint, or a file of somebody else's, is refused."""

    exit_code = Exit.CHECKPOINT


class MachineError(SslctlError):
    """The machine lacks something: disk, memory, a device, an extra, the lock of a run."""

    exit_code = Exit.ENVIRONMENT


class DivergedError(SslctlError):
    """The loss left the finite numbers, or the representation collapsed and the run was told to stop."""

    exit_code = Exit.DIVERGED


class Stopped(SslctlError):
    """Training stopped on request with everything saved; the same command goes on."""

    exit_code = Exit.STOPPED


def ran_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out: Python's, an accelerator's, the CPU's or cuBLAS's (by its text)."""
    by_text = any(words in str(error) for words in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    return by_text or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch.'s


def closest(word: str, known: list[str]) -> str:
    """`` — did you mean 'x'?`` for the known word nearest to ``word``, or an empty string."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" — did you mean '{near[0]}'?" if near else ""
