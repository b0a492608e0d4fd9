"""What this machine offers: device, precision, loader processes, each by detection unless asked for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import MachineError, SpecError

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` takes CUDA, then MPS, then the CPU.

    A process that torchrun started takes the CUDA device of its place on the machine.
    """
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise SpecError(f"--device '{name}': no such device", "one of auto, cpu, cuda, cuda:N, mps") from e
    missing = {"cuda": not has_cuda, "mps": not has_mps, "cpu": False}.get(device.type, True)
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"--device '{name}': not on this machine", "leave it out to take what is there")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of forward passes; ``auto`` is bf16 where the device computes in it, else fp32."""
    if precision == "auto":
        has = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else device.type == "cpu" and cpu_has_bf16()
        )
        precision = "bf16" if has else "fp32"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        raise SpecError(f"--precision '{precision}': no such precision", "one of auto, fp32, bf16, fp16")
    return dtypes[precision]


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX), twice as fast as float32."""
    supported: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(supported.get("avx512_bf16") or supported.get("amx_bf16"))


@contextlib.contextmanager
def fast_matmul(like: torch.Tensor) -> Iterator[None]:
    """Multiply matrices such as ``like`` by the faster of the CPU's two libraries that keeps float32.

    torch leaves products to MKL, which is slow on processors of other makers. oneDNN, which torch ships too, takes them
    where lower precision is allowed (``torch.set_float32_matmul_precision``), whether it then lowers it or not.
    """
    before = torch.get_float32_matmul_precision()
    if like.device.type == "cpu" and like.dtype == torch.float32 and _keeps_float32():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def _keeps_float32() -> bool:
    """Return whether products that may be of lower precision are exact all the same: measured, since no flag says."""
    before = torch.get_float32_matmul_precision()
    x = torch.linspace(-1, 1, 256 * 384).view(256, 384).sin()
    try:
        torch.set_float32_matmul_precision("medium")
        error = (x @ x.T).double() - x.double() @ x.double().T
    finally:
        torch.set_float32_matmul_precision(before)
    return float(error.abs().max()) < 1e-4  # bfloat16 errs by 1e-1 here


def tune_for(device: torch.device) -> None:
    """Have torch make the most of ``device``: on CUDA it tries which of cuDNN's convolutions is fastest."""
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def keep_freed_memory() -> None:
    """Keep the memory of freed CPU tensors for the next ones, in this process and those that it forks.

    glibc hands large blocks back to the system as they are freed and asks for them again, and every page then costs a
    fault and its clearing: a sixth of augmentation, a fifteenth of a ResNet's step. Other C libraries stay as they are.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return ``x`` on ``device``; to CUDA from pinned memory, or else this process would wait for the device."""
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


class SideStream:
    """A CUDA stream of its own, for work that runs beside the device's current stream; other devices do it in turn."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, ready for the device's current stream, whose results ``work`` may not use."""
        if self.stream is None:
            return work()
        with torch.cuda.stream(self.stream):
            result = work()
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for x in _tensors(result):
            x.record_stream(current)  # else its memory is taken for the next batch while a step still reads it
        return result


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_cuda:
            yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, field.name) for field in fields(value)])


def choose_workers(number: int | None) -> int:
    """Return ``number``, or one process less than the CPUs available to this one and its torchrun neighbours."""
    if number is not None:
        return number
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


def free_memory(device: torch.device) -> int | None:
    """Return the bytes free on ``device``, within the container's limit if any; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    with contextlib.suppress(OSError, ValueError, StopIteration):
        free = _bytes_in("/proc/meminfo", "MemAvailable:")
        with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
            group = Path("/sys/fs/cgroup")
            limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
            free = min(free, int(limit) - int(used))
        return free
    return None


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use so far, by the device or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, ValueError, StopIteration):
        return _bytes_in("/proc/self/status", "VmHWM:")  # getrusage starts at the peak of the process that started this
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _bytes_in(path: str, name: str) -> int:
    """Return the value of ``name`` in a file of Linux that counts in KiB."""
    lines = Path(path).read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
