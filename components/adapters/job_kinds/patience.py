"""How long a job of a cluster is waited for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds, before it is called a failure.

    pending: from submission, or from admission by a queue, until all pods run. queued: until a queue admits it, each time.
    image: for an image that cannot be pulled (registries have bad minutes). lost: for an API server that does not answer.
    look: between two looks at a quiet job.
    """

    pending: float = 1800.0
    queued: float = 7 * 24 * 3600.0
    image: float = 120.0
    lost: float = 300.0
    look: float = 5.0
