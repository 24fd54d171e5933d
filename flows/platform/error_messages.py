"""What a failure of the platform means for a person: our own error behind Prefect's, a full disk, or a server that went away."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from model_core.spec.errors import ActwrightError, JobError, StorageError
from model_core.spec.files import takes_nothing_more, why_full

if TYPE_CHECKING:
    from flows.platform.settings import Settings

_PLATFORM = ("prefect", "httpx", "httpcore", "sqlalchemy")


class StateNotKeptError(JobError):
    """Prefect did not take what a run told it: its server is away, or cannot write."""


def explained(error: Exception, settings: Settings) -> ActwrightError | None:
    """The error of ours that explains a failure of Prefect; None for an error that is not Prefect's."""
    if type(error).__module__.split(".")[0] not in _PLATFORM:
        return None
    ours = next((e for e in _chain(error) if isinstance(e, ActwrightError)), None)
    if ours is not None:
        return ours
    home = settings.home.resolve()
    if takes_nothing_more(home):
        return StorageError(f"{why_full(home)} and run again, finished work is kept")
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StateNotKeptError(
        f"Prefect does not keep this run's state: {first}. Look into {settings.prefect_home / 'server.log'}, then run again; "
        "finished work is kept"
    )


def of_the_disk(error: OSError) -> StorageError | None:
    """A full disk, or a path where no file can be, explained; None for every other error of the system."""
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        named = isinstance(error.filename, str)
        full = why_full(Path(error.filename), where) if named else "the disk is full; free some space"
        return StorageError(f"{full} and run again, finished work is kept")
    if error.errno == errno.EFBIG:
        return StorageError(f"a file may not grow as it must{where}; raise the limit (ulimit -f) and run again, finished work is kept")
    if error.errno in (errno.EROFS, errno.EACCES):
        return StorageError(f"cannot write{where} ({error.strerror}); check its permissions and run again")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP):
        path = error.filename2 or error.filename
        return StorageError(f"{path} cannot be used as it was named ({error.strerror}); name another path and run again")
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__]
