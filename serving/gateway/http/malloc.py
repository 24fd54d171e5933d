"""What the C library does with memory that a message leaves behind: it keeps it for the next one.

By default glibc gives a few freed megabytes back to the system at once and asks for them again with the next pictures, page by page:
with sixteen cells that took a third of a request's time.
"""

from __future__ import annotations

import ctypes

# mallopt's names and numbers, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
KEPT_BYTES = 64 * 2**20


def keep_freed(most_bytes: int = KEPT_BYTES) -> bool:
    """For this process, from now on: up to so many freed bytes are kept. False where the C library knows no such thing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_TRIM_THRESHOLD, most_bytes))
