"""What the Kubernetes client raises, as errors that name what, where and what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from model_core.spec.errors import JobError


@contextlib.contextmanager
def explained(what: str, *, sends: bool = False) -> Iterator[None]:
    """Turn what the client raises into a `JobError`. sends: a manifest, which the client checks by types of its own before it is sent."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if sends and isinstance(error, ValueError):
            raise JobError(
                f"{what}: the Kubernetes client refused the manifest, nothing was sent: {error}. Fix: correct the field that it names; "
                "quantities and values of variables are text ('1', not 1)"
            ) from error
        body = str(getattr(error, "body", "") or error)
        answer = _message_of(body)
        raise JobError(f"{what}: the cluster answered {status_of(error) or type(error).__name__}: {answer}") from error


def unless_missing(call: Callable[[], Any]) -> None:
    """Call it; what is not there is fine."""
    try:
        call()
    except Exception as error:
        if status_of(error) != 404:
            raise


def _message_of(body: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("message", body))
    return (body.splitlines() or [""])[0][:300]


def status_of(error: Exception) -> int:
    """The HTTP status in an error of the client, 0 where it has none."""
    return int(getattr(error, "status", 0) or 0)
