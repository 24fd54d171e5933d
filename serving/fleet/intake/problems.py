"""Why an update does not go on, typed; nothing here ever stops the release that runs."""

from __future__ import annotations

import errno
from pathlib import Path

from model_core.spec.errors import ActwrightError
from model_core.spec.files import lacks_inodes, why_full
from model_core.spec.fleet.documents import ErrorCode

# what another try cannot change: the release stays refused until the controller proposes again
FINAL: frozenset[ErrorCode] = frozenset({"SIGNATURE", "AGENT_TOO_OLD", "MAY_NOT_RUN", "START", "PROBES"})
_ROOM_WAIT_S = 15.0  # what cells of this computer wait for, another one may leave at any time, and to look costs little


class UpdateRefused(ActwrightError, RuntimeError):  # noqa: N818
    """The update stops here. ``args`` is (code, message)."""

    @property
    def code(self) -> ErrorCode:
        """Which kind."""
        return self.args[0]

    def __str__(self) -> str:
        return str(self.args[1])


def problem_of(error: Exception) -> UpdateRefused:
    """Any failure of a step as an `UpdateRefused`; a full disk by its name."""
    if isinstance(error, UpdateRefused):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if isinstance(error.filename, str) and lacks_inodes(Path(error.filename)):
            return UpdateRefused("NO_SPACE", f"{why_full(Path(error.filename))}; the download goes on where it was")
        return UpdateRefused("NO_SPACE", f"the disk is full: {error}. Fix: make room; the download goes on where it was")
    return UpdateRefused("INTERNAL", f"{type(error).__name__}: {error}")


def wait_s(error: UpdateRefused, growing_s: float) -> float:
    """How long until another try, in seconds. growing_s: after so many failures, where there is nothing better to know."""
    return min(growing_s, _ROOM_WAIT_S) if error.code == "NO_SPACE" else growing_s
