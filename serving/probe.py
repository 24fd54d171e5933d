"""`python -m serving.probe`: one request over a workcell's link, for programs that may not import it. JSON in, JSON out; no torch.

Standard input: {"url", "cell", "timeout_s", "token", "ca_file", "contract", "observe"}. Standard output: {"ready", "answer", "parts",
"ms"} or {"error", "refused"}. Messages are base64 of the wire's own bytes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ActwrightError, ContractError, NotReady
from model_core.spec.protocol.wire import Message, Observe, Reject, decode_message, encode_message
from model_core.spec.types import RefusalCode
from serving.workcell.link.credentials import Credentials
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkEvent, LinkSettings, ObserveRequest
from serving.workcell.link.waiting_link import WaitingLink
from serving.workcell.link.websocket_link import AsyncLink


def main() -> int:
    """Ask the request on standard input; 0 when it was answered or refused, 1 with the reason otherwise."""
    try:
        reply = ask_once(json.load(sys.stdin))
    except ActwrightError as error:
        reply = {"error": str(error), "refused": isinstance(error, ContractError)}
    sys.stdout.write(json.dumps(reply) + "\n")
    return int("error" in reply)


def ask_once(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Shake hands, ask, end. Raises ContractError when the service refuses the handshake, NotReady when no service answers in time."""
    timeout_s, observe = float(asked["timeout_s"]), _message(asked["observe"])
    assert isinstance(observe, Observe)
    settings = LinkSettings(
        cell=asked["cell"],
        embodiment=PolicyContract.from_json(asked["contract"]).embodiment,
        deadline_s=timeout_s,
        connect_timeout_s=timeout_s,
        heartbeat_s=timeout_s,
        accepts_parts=True,
        software="actwright-probe",
        world_waits=True,
    )
    ca_file = asked.get("ca_file")
    credentials = Credentials(token=asked["token"], ca_file=None if ca_file is None else Path(ca_file))
    link = AsyncLink(asked["url"], settings, credentials=credentials)
    began = time.monotonic()
    link.start()
    with contextlib.closing(link):
        up = wait_until_up(link, timeout_s)
        heard = _answer(WaitingLink(link, time.monotonic), observe)
        assert link.ready is not None
        last = heard[-1]
        answer = last.chunk or Reject(seq=last.seq, code=RefusalCode(last.code), reason=last.reason, epoch=link.epoch)
        link.end_episode(observe.episode_id, "probed", success=False)
        return {
            "ready": _text(link.ready),
            "answer": _text(answer),
            "parts": [one.part.field for one in heard if one.part is not None],
            "ms": {
                "connect": 1e3 * (up.asked_at_s - began),
                "handshake": 1e3 * (up.t_s - up.asked_at_s),
                "answer": 1e3 * last.stood_still_s,
            },
        }


def _answer(link: WaitingLink, observe: Observe) -> list[LinkEvent]:
    question = ObserveRequest(
        episode_id=observe.episode_id,
        step=observe.step,
        observation=observe.observation,
        taken_at_s=time.monotonic(),
        age_ms=observe.age_ms,
        level=observe.level,
        steering=observe.steering,
    )
    seq = link.ask(question)
    heard = link.poll()
    answers = [one for one in heard if one.kind in ("chunk", "refused") and one.seq == seq]
    if not answers:
        raise NotReady(next((one.reason for one in reversed(heard) if one.reason), "the link was lost"))
    return [*[one for one in heard if one.kind == "part"], answers[0]]


def _message(text: str) -> Message:
    return decode_message(base64.b64decode(text))


def _text(message: Message) -> str:
    return base64.b64encode(encode_message(message)).decode()


if __name__ == "__main__":
    sys.exit(main())
