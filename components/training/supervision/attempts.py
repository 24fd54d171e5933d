"""A training that loses its processes is started again from its last complete checkpoint, as often as its budget says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from model_core.spec.errors import JobError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class AttemptLostError(JobError):
    """The processes of one attempt were killed, crashed or hung; a further attempt may go on where it saved."""


def with_restarts(attempt: Callable[[], T], *, restarts: int) -> T:
    """`attempt()`, again after each `AttemptLostError` while the budget lasts; raises the last one, and any other error at once."""
    for left in range(restarts, 0, -1):
        try:
            return attempt()
        except AttemptLostError as error:
            logger.warning("train.restarted left=%d because=%s", left - 1, str(error).splitlines()[0])
    return attempt()
