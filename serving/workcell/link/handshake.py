"""Wait for the first READY, or say why there is none."""

from __future__ import annotations

import time

from model_core.spec.errors import ContractError, NotReady
from serving.workcell.link.interface import Link
from serving.workcell.link.link_types import LinkEvent


def wait_until_up(link: Link, patience_s: float) -> LinkEvent:
    """Let it dial until READY comes. A missing service gets `patience_s`; one that refuses the contract or the token gets none.

    READY, what came after it, and what the service told before it (KILL, HOLD, DRAIN) is put back: the control loop reads it too.
    """
    give_up_at = time.monotonic() + patience_s
    last = "no answer"
    up: LinkEvent | None = None
    for_the_loop: list[LinkEvent] = []
    if link.is_denied:  # for the last episode; the service, or the token, may be another one by now
        link.renew("asking for another episode")
    while True:
        for heard in link.poll():
            if heard.kind == "up":
                up = heard
            elif heard.kind == "denied":
                last = "\n  ".join([f"the handshake was refused: {heard.code}: {heard.reason}", *heard.details])
                if not heard.is_retryable:
                    raise ContractError(last)
            elif heard.kind == "down":
                up, last = None, heard.reason
            if up is not None or heard.kind == "told":
                for_the_loop.append(heard)
        if up is not None:
            link.put_back(for_the_loop)
            return up
        if time.monotonic() > give_up_at:
            raise NotReady(f"no policy service within {patience_s:g} s: {last}")
        link.wait(0.05)
