"""The environment of a run: everything except the config that determines its bits.

A run stores its environment. Continuing a run compares the stored environment with the present one.
"""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache

import torch

NUMERICS = "4"
"""The version of grokscope's arithmetic. Increase it if a change of the loss or the update changes any bit."""


def describe(device: str, n_threads: int | None = None) -> dict[str, str]:
    """Return the environment of this process: versions, threads, instruction set, device, precision and kernel.

    Args:
        device: The device that the run uses: "cpu", "cuda" or "cuda:N".
        n_threads: The number of threads that the run uses; by default that of torch in this process.
    """
    environment = {
        "grokscope numerics": NUMERICS,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": "cpu",
        "threads": str(n_threads or torch.get_num_threads()),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "parameter dtype": "float32",
        "optimizer kernel": "fused",
        "MKL_CBWR": os.environ.get("MKL_CBWR", "not set"),
        "float32 matrix products": torch.get_float32_matmul_precision(),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
    }
    if torch.device(device).type == "cuda":
        exists = (torch.device(device).index or 0) < torch.cuda.device_count()
        environment["device"] = torch.cuda.get_device_name(device) if exists else f"no {device}"
        environment["cuda"] = str(torch.version.cuda)
        environment["cudnn"] = str(torch.backends.cudnn.version())
    return environment


def drift(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the differences between two environments, one clause each, such as "torch was 2.4.0, is 2.5.1"."""
    differences = []
    for name in sorted({*then, *now}):
        if then.get(name) == now.get(name):
            continue
        difference = f"{name} was {then.get(name, 'not recorded')}, is {now.get(name, 'none')}"
        if name == "threads" and name in then:
            difference += f" (OMP_NUM_THREADS={then[name]} restores it)"
        if name == "ensemble" and name in then:
            difference += " (training a run of an ensemble alone gives other bits)"
        differences.append(difference)
    return differences


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products inside a `with` block: "float32", "tf32" or "bfloat16".

    A device without that precision uses float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision({"float32": "highest", "tf32": "high", "bfloat16": "medium"}[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def keep_memory() -> None:
    """Make glibc keep freed memory for this process. On other systems do nothing.

    By default glibc returns the large tensors of each training step to the kernel and requests them again. For
    `nanda2023` this costs 3,600 page faults and 10 to 20% of the time of each step.
    """
    trim_threshold, mmap_threshold, never = -1, -3, 2**31 - 1  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(trim_threshold, never)
        # Older versions reject more than 32 MB. A rejected value would leave the threshold fixed at 128 kB.
        if not libc.mallopt(mmap_threshold, never):
            libc.mallopt(mmap_threshold, 2**25)
