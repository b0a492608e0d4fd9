"""What this machine offers: device, precision, loader processes, each by detection unless asked for."""

from __future__ import annotations

import os

import torch

from .errors import MachineError, SpecError


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes CUDA, then MPS, then the CPU. MachineError where it is not there.

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
    """What forward passes compute in; ``auto`` is bf16 where the device has instructions for it, and fp32 elsewhere."""
    if precision == "auto":
        has = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and cpu_has_bf16()
        precision = "bf16" if has else "fp32"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        raise SpecError(f"--precision '{precision}': no such precision", "one of auto, fp32, bf16, fp16")
    return dtypes[precision]


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX), about twice as fast as float32."""
    supported: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(supported.get("avx512_bf16") or supported.get("amx_bf16"))


def choose_workers(asked: int | None) -> int:
    """``asked``, or a process for every CPU that this one may use but one."""
    if asked is not None:
        return asked
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, available - 1))
