"""One rank as a process: what torchrun and the libraries exchange through its environment, and when it has to stop.

The only reader of the environment in training: torchrun tells a rank its place there, and DeepSpeed and gloo are configured there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from components.artifacts.locks import locked
from components.training.job import JobFiles
from model_core.spec.errors import ActwrightError, JobError

logger = logging.getLogger(__name__)

_STOPPED_BY_DEADLINE = 75
_ALIVE_EVERY_S = 5.0


class StopRequest:
    """Set by SIGTERM, by the end of stdin when a launcher supervises, or after `limit_s` (0: never). A deadline ends the process surely."""

    def __init__(self, *, watch_stdin: bool, grace_s: float, limit_s: float = 0.0) -> None:
        self._asked = threading.Event()
        self._grace_s = grace_s
        signal.signal(signal.SIGTERM, lambda *_: self.request("SIGTERM"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the launcher, which decides
        if watch_stdin:
            threading.Thread(target=self._until_stdin_ends, name="stdin-watch", daemon=True).start()
        if limit_s > 0:
            limit = threading.Timer(limit_s, self.request, args=(f"train.time_limit_s of {limit_s:.0f} s is over",))
            limit.daemon = True
            limit.start()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def request(self, why: str) -> None:
        """Stop after the current step, with a checkpoint; at the latest when the grace period is over."""
        if not self._asked.is_set():
            self._asked.set()
            logger.warning("job.stopping because=%s", why)
            deadline = threading.Timer(self._grace_s, os._exit, args=(_STOPPED_BY_DEADLINE,))
            deadline.daemon = True
            deadline.start()

    def _until_stdin_ends(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        self.request("the launcher is gone")


def tell_alive(folder: Path, rank: int) -> None:
    """Touch this rank's file every few seconds while the process runs: one that is stopped, or whose machine is, falls silent."""
    path = folder / f"rank_{rank:05d}"

    def touch() -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk ends a training where it saves, not here
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(os.getpid()))
            time.sleep(_ALIVE_EVERY_S)

    threading.Thread(target=touch, name="alive", daemon=True).start()


def rank_from_environment() -> int | None:
    """This process's rank as torchrun set it; None where torchrun did not start this process."""
    rank = os.environ.get("RANK")
    return None if rank is None else int(rank)


def has_gpu() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def configure_libraries(threads: int | None) -> None:
    """Set what DeepSpeed, gloo and torch read from the environment, before they start. threads: of torch; none: a share of the cores."""
    import torch

    os.environ["DS_ACCELERATOR"] = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # One machine: gloo would otherwise bind to whatever the host name resolves to, which need not exist here.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Share this machine's cores among its ranks; torchrun itself would give each of several ranks one thread.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // ranks))


@contextlib.contextmanager
def sole_writer(files: JobFiles, rank: int, patience_s: float) -> Iterator[None]:
    """Rank 0 holds the folder's lock; an earlier run that is still saving gets `patience_s` to end."""
    with contextlib.ExitStack() as held:
        if rank == 0:
            try:
                held.enter_context(locked(files.lock, timeout_s=patience_s))
            except TimeoutError as error:
                raise JobError(f"another training is writing into {files.out.name}; wait for it or stop it, then run again") from error
        yield


def write_error(files: JobFiles, error: Exception) -> int:
    """Tell the launcher which error ended this rank; returns the exit code."""
    logger.exception("job.failed")
    ours = isinstance(error, ActwrightError)
    message = str(error) if ours else f"training failed with {type(error).__name__}: {error}; the log has the traceback: {files.log.name}"
    with contextlib.suppress(OSError):
        files.error.write_text(
            json.dumps({"error": type(error).__name__ if ours else JobError.__name__, "unexpected": not ours, "message": message})
        )
    return 1
