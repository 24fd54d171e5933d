"""Freed memory is kept, in a process of its own: the setting holds for the whole process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
import numpy as np
from serving.gateway.http.malloc import keep_freed
assert keep_freed() is True
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def pictures():
    for room in [np.empty(857_000, np.uint8) for _ in range(16)]:
        room.fill(1)
pictures()
before = faults()
for _ in range(10):
    pictures()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant")
def test_memory_of_sixteen_messages_is_used_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 500, done  # by default every round takes them all anew: more than 30,000
