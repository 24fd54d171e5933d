"""The C source beside this file as a library: compiled once for each processor by the machine's C compiler, kept in the user's cache.

Where there is no compiler, or no folder to keep the library in, there is none, and the engine computes with torch as ever.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decoder.c")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC")
_COMPILE_S = 120


@cache
def decoder_library() -> ctypes.CDLL | None:
    """The compiled decoder; None where it cannot be had, with the reason in the log."""
    compiler = shutil.which("cc")
    try:
        folder = _private_folder(Path.home() / ".cache" / "actwright")
        path = folder / f"decoder-{_digest()}.so"
        if not path.is_file():
            if compiler is None:
                logger.info("decoder.not_compiled reason=no C compiler; computing with torch. Fix: install cc")
                return None
            _compile(compiler, path)
        library = ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        detail = error.stderr.strip()[-300:] if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning("decoder.not_compiled reason=%s; computing with torch", detail)
        return None
    pointer = ctypes.c_void_p
    library.actwright_lanes.restype = ctypes.c_int32
    library.actwright_block.argtypes, library.actwright_block.restype = [pointer, pointer], None
    library.actwright_logits.argtypes, library.actwright_logits.restype = [pointer, pointer, pointer, ctypes.c_int64], None
    return library


def _private_folder(folder: Path) -> Path:
    """`folder`, made where it is missing. Raises `OSError` where another user could put a library there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder}: expected a folder that only this user may write, got mode {stat.filemode(found.st_mode)}")
    return folder


def _digest() -> str:
    """Of everything that the library depends on: a home folder may be shared by machines with different processors."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    features = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    parts = [SOURCE.read_text(encoding="utf-8"), *_FLAGS, platform.machine(), platform.processor(), *features]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    """Compile into a file beside `path` and rename it: processes that compile at the same time do not disturb each other."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, "-o", name, str(SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_S)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
