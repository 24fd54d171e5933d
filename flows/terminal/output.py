"""How commands end: one JSON line on stdout for programs, sentences on stderr for people, and an exit code that means something."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flows.platform.error_messages import of_the_disk
from model_core.spec.errors import ActwrightError, GateError

DONE, OUR_ERROR, WRONG_USAGE, HELD = 0, 1, 2, 3
OF_OUTCOME = {"promote": DONE, "reject": HELD, "not enough": 4, "invalid": 5}  # of the gate
_INTERRUPTED = 130
_ASKED = 128 + signal.SIGTERM
_STOPPED = "stopped; run the same command again to continue"
_STOPPING = "stopping: current work ends, training writes a checkpoint first; run the same command again to continue"


def print_result(**made: Any) -> None:
    """The command's result: one JSON line on stdout."""
    sys.stdout.write(json.dumps(made, sort_keys=True) + "\n")
    sys.stdout.flush()


def print_line(line: str) -> None:
    """A line for a person, on stderr."""
    sys.stderr.write(line + "\n")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM is answered with a line at once and ends it in order, as Ctrl-C does, with exit code 143.

    The end itself may take seconds (a checkpoint, the last lines for Prefect). Prefect puts a handler of its own in place of ours while a
    flow runs and hands the signal on afterwards, so the line comes from a thread that gets the signal's number whichever handler runs.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    is_printed = threading.Event()

    def listen() -> None:
        while numbers := os.read(reader, 64):
            if signal.SIGTERM in numbers:
                print_line(_STOPPING)
                is_printed.set()
                return

    def leave(*_: object) -> None:
        is_printed.wait(0.5)  # before any other line about the end; not for long, in case the listener waits for our own half-written line
        raise SystemExit(_ASKED)

    listener = threading.Thread(target=listen, name="sigterm-listener", daemon=True)
    listener.start()
    before, fd_before = signal.signal(signal.SIGTERM, leave), signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGTERM, before)
        os.close(writer)  # the listener reads the end of the pipe
        listener.join()
        os.close(reader)


def ended(run: Callable[[], object]) -> int:
    """Run a whole command line and give its exit code; errors of ours become one clear message, others keep their traceback."""
    configure_logging()
    try:
        run()
    except SystemExit as ending:
        if ending.code == _INTERRUPTED:  # typer has turned Ctrl-C into an exit code and prints nothing
            print_line(_STOPPED)
        return ending.code if isinstance(ending.code, int) else OUR_ERROR if ending.code else DONE
    except KeyboardInterrupt:
        print_line(_STOPPED)
        return _INTERRUPTED
    except GateError as error:
        print_line(f"held: {error}")
        return HELD
    except ActwrightError as error:
        print_line(f"{_kind(error)}: {error}")
        return OUR_ERROR
    except OSError as error:
        explained = of_the_disk(error)
        if explained is None:
            raise
        print_line(f"{_kind(explained)}: {explained}")
        return OUR_ERROR
    return DONE


def configure_logging() -> None:
    """Our warnings go to stderr in one line each; other libraries' logs stay in their files."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(_Once())
    logging.raiseExceptions = False  # a log line that Prefect's server did not take is not important to a person
    for room in ("components", "flows", "model_core", "serving"):
        logger = logging.getLogger(room)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)


class _Once(logging.Filter):
    """A warning is printed once per run, not at every attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this sentence is new."""
        text = record.getMessage()
        new = text not in self._printed
        self._printed.add(text)
        return new


def _kind(error: ActwrightError) -> str:
    """`DatasetError` reads "dataset error"."""
    name = type(error).__name__
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return words if words.endswith("error") else "error"
