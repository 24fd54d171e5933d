"""Ask a running policy service one question, as a person who wants to know whether it works."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from components.package import probe_observations
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import NotReady
from model_core.spec.wire import Chunk, Observe, Reject, decode_message, encode_message


def probe_service(url: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Fetch the contract and ask one synthetic question. Returns what came back, with timings in milliseconds.

    url: "http://host:port". The answer to noise may be a refusal: what is probed is the service, not its skill. Raises
    NotReady when nobody answers or the model is not loaded.
    """
    base = url.rstrip("/")
    described = json.loads(_fetch(f"{base}/v1/contract", None, timeout_s))
    contract = PolicyContract.from_json(described["contract"])
    (observation,) = probe_observations(contract, 1, None)
    question = Observe(session_id="", epoch=0, seq=1, episode_id="probe", step=0, deadline_ms=1e3 * timeout_s, observation=observation)
    began = time.monotonic()
    answer = decode_message(_fetch(f"{base}/v1/act", encode_message(question), timeout_s))
    round_trip_ms = 1e3 * (time.monotonic() - began)
    return {
        "url": base,
        "model_version": described["model_version"],
        "contract_id": described["contract_id"],
        "contract_is_whole": contract.contract_id == described["contract_id"],
        "embodiment": contract.embodiment.name,
        "control_hz": contract.embodiment.control_hz,
        "round_trip_ms": round_trip_ms,
        **_answer(answer),
    }


def _answer(answer: object) -> dict[str, Any]:
    if isinstance(answer, Chunk):
        said = {"depth_tokens": answer.depth_codes_G is not None, "trace": None if answer.trace_N2 is None else answer.trace_N2.tolist()}
        return {"answer": "chunk", "actions": list(answer.actions_KA.shape), "timing_ms": dict(answer.timing_ms), **said}
    if isinstance(answer, Reject):
        return {"answer": "refusal", "code": answer.code.value, "reason": answer.reason}
    return {"answer": "nonsense", "reason": f"the service sent {type(answer).__name__}"}


def _fetch(url: str, body: bytes | None, timeout_s: float) -> bytes:
    try:
        with urllib.request.urlopen(url, data=body, timeout=timeout_s) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        content = error.read()
        if error.headers.get_content_type() == "application/x-actwright-message":
            return content  # a refusal in our own words
        raise NotReady(f"{url} answered {error.code}: {content[:300].decode(errors='replace')}") from error
    except OSError as error:
        raise NotReady(f"nobody answers at {url} ({error}); start one with `actwright serve`") from error
