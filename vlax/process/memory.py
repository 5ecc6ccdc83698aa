"""What the allocator does with freed memory on a CPU: it keeps it.

XLA:CPU allocates what a step works with anew each step, a hundred megabytes for the embedded model, and frees it at its end.
glibc gives blocks of that size back to the system, which clears them page by page when the next step touches them: 29,000 page
faults a step. Kept, they are touched once. The numbers are the same; the process stays as large as it was at its largest.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import sys

VARIABLE = "VLAX_KEEP_MEMORY"  # 0: as glibc does it
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # malloc.h
_WANTED = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_ARENA_MAX, 1))  # one arena: those of threads give back all the same

_kept = False


def kept() -> bool:
    """Whether this process keeps what it frees."""
    return _kept


def keep() -> bool:
    """Keeps it from now on, for the whole process: for programs of our own, before jax starts its threads. False, and nothing
    done, where it would do nothing (no glibc), where a device has memory of its own, and with VLAX_KEEP_MEMORY=0."""
    global _kept
    if os.environ.get(VARIABLE) != "0" and sys.platform == "linux" and cpu_alone():
        libc = ctypes.CDLL(None)
        _kept = hasattr(libc, "gnu_get_libc_version") and all(libc.mallopt(*each) == 1 for each in _WANTED)
    return _kept


def cpu_alone() -> bool:
    """Whether jax, which is not asked since asking starts its threads, will find no accelerator."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and not any(map(importlib.util.find_spec, ("jax_plugins", "libtpu")))
