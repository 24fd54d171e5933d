"""The C library keeps the memory of a freed message for the next one.

By default glibc returns a few freed megabytes to the system at once and requests them again for the next images, page by page:
with sixteen cells that took a third of a request's time.
"""

from __future__ import annotations

import ctypes

# mallopt's names and numbers, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
KEPT_BYTES = 64 * 2**20


def keep_freed(most_bytes: int = KEPT_BYTES) -> bool:
    """Keep up to `most_bytes` freed bytes in this process. False where the C library has no such option."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_TRIM_THRESHOLD, most_bytes))
