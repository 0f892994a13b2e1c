"""A setting of the C library's allocator that keeps freed memory in the process for the next training step."""

import ctypes
import platform

M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3
"""Parameters of glibc's mallopt(3)."""

LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""Bytes; the largest threshold that glibc accepts on 64-bit machines."""

KEPT_BYTES = 2**30
"""Free memory that stays with the process."""

GROWTH_BYTES = 64 * 2**20
"""Memory that the process takes from the kernel at a time."""


def keep_freed_memory() -> bool:
    """Let this process's allocator reuse activations from step to step instead of returning them to the kernel.

    glibc maps blocks of more than 128 KiB afresh each time, and the kernel clears every page again; in a training
    step on a CPU that is up to a third of the time (`tests/benchmarks/test_allocator.py`). Up to 1 GiB stays with
    the process when it is free.

    Returns:
        Whether the C library knows the setting (glibc does).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = {
        M_MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD,
        M_TRIM_THRESHOLD: KEPT_BYTES,
        M_TOP_PAD: GROWTH_BYTES,
    }
    return all(mallopt(parameter, value) for parameter, value in settings.items())
