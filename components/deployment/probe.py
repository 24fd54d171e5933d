"""Ask a running policy service who it is and one question, as a person who wants to know whether it works.

The question goes over the link of a workcell, started as a process of its own: HELLO with the embodiment that the contract names, READY,
one OBSERVE, the answer, END. The answer to noise may be a refusal: what is probed is the service, not its skill.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.deployment.service_address import ServiceCredentials, ServiceUrl, fetch
from components.release.package import probe_observations
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, NotReady, SpecError
from model_core.spec.protocol.steering_input import drawing, typed_points
from model_core.spec.protocol.wire import Chunk, Observe, Ready, Reject, decode_message, encode_message
from model_core.spec.types import Observation

_START_S = 30.0  # for the link's process to start and to end, beside the service's own time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probed:
    """What came back. ms: connect, handshake and answer, as seen from here."""

    url: ServiceUrl
    ready: Ready
    contract_id: str
    asked: Observation
    answer: Chunk | Reject
    ms: Mapping[str, float]
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def contract(self) -> PolicyContract:
        """The contract that the service states."""
        return self.ready.contract

    def report(self) -> dict[str, Any]:
        """For programs."""
        body = self.contract.embodiment
        return {
            "url": self.url.http,
            "session": self.url.session,
            "model_version": self.ready.model_version,
            "bundle_digest": self.ready.bundle_digest,
            "contract_id": self.contract_id,
            "contract_is_whole": self.contract.contract_id == self.contract_id,
            "embodiment": body.name,
            "control_hz": body.control_hz,
            "lease_s": self.ready.lease_s,
            "levels": {name: dict(ms) for name, ms in self.ready.levels.items()},
            "parts": list(self.parts),
            "round_trip_ms": self.ms["answer"],
            "connect_ms": self.ms["connect"],
            "handshake_ms": self.ms["handshake"],
            **_answer(self.answer),
        }


def probe(url: str, credentials: ServiceCredentials | None = None, *, instruction: str = "", level: str = "", line: str = "") -> Probed:
    """Shake hands and ask one synthetic question. url: "http://host:port" or its WebSocket form. line: drawn for the gripper, "x,y x,y".

    Raises SpecError for an address that is none, an instruction that is too long or a line that leaves the image, NotReady when no service
    answers, the model is not loaded or we are not let in, ContractError when the service refuses the very embodiment that its contract
    names.
    """
    where, credentials = ServiceUrl.of(url), credentials or ServiceCredentials()
    try:
        described = json.loads(fetch(f"{where.http}/v1/contract", credentials))
        contract = PolicyContract.from_json(described["contract"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ContractError):
            raise
        raise NotReady(f"{where.http} answers, but not as an actwright policy service ({error!r})") from error
    if len(instruction) > contract.max_instruction_chars:
        raise SpecError(f"the instruction has {len(instruction)} characters, this policy takes at most {contract.max_instruction_chars}")
    steering = drawing(typed_points(line), contract.embodiment, contract.reasoning.trace_camera) if line else None
    (observation,) = probe_observations(contract, 1, None)
    if instruction:
        observation = replace(observation, instruction=instruction)
    observe = Observe(
        session_id="",
        epoch=1,
        seq=1,
        episode_id="probe",
        step=0,
        deadline_ms=1e3 * credentials.timeout_s,
        observation=observation,
        age_ms={camera.name: 0.0 for camera in contract.embodiment.cameras},
        level=level,
        steering=steering,
    )
    reply = _asked(where, credentials, contract, observe)
    ready, answer = (decode_message(base64.b64decode(reply[name])) for name in ("ready", "answer"))
    assert isinstance(ready, Ready)
    assert isinstance(answer, Chunk | Reject)
    return Probed(
        url=where,
        ready=ready,
        contract_id=str(described["contract_id"]),
        asked=observation,
        answer=answer,
        ms=reply["ms"],
        parts=tuple(reply["parts"]),
        notes=() if steering is None else (f"steered along {len(steering.points_N2)} drawn points",),
    )


def _asked(where: ServiceUrl, credentials: ServiceCredentials, contract: PolicyContract, observe: Observe) -> Mapping[str, Any]:
    """What the link's process answers. Raises ContractError or NotReady."""
    question = {
        "url": where.session,
        "cell": f"probe-{uuid.uuid4().hex[:8]}",
        "timeout_s": credentials.timeout_s,
        "token": credentials.token,
        "ca_file": None if credentials.ca_file is None else str(credentials.ca_file.resolve()),
        "contract": contract.to_json(),
        "observe": base64.b64encode(encode_message(observe)).decode(),
    }
    command = [sys.executable, "-m", "serving.probe"]
    patience_s = 2 * credentials.timeout_s + _START_S
    try:
        done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotReady(f"{where.session}: no answer within {patience_s:g} s") from error
    try:
        reply = json.loads(done.stdout)
    except ValueError as error:
        raise NotReady(f"the link to {where.session} ended with code {done.returncode}: {done.stderr.strip()[-400:]}") from error
    if "error" in reply:
        raise (ContractError if reply["refused"] else NotReady)(f"{where.session}: {reply['error']}")
    return reply


def _answer(answer: Chunk | Reject) -> dict[str, Any]:
    if isinstance(answer, Chunk):
        trace = None if answer.trace_N2 is None else answer.trace_N2.tolist()
        rest = {"depth_tokens": answer.depth_codes_G is not None, "trace": trace, "level": answer.level, "flags": list(answer.flags)}
        return {"answer": "chunk", "actions": list(answer.actions_KA.shape), "timing_ms": dict(answer.timing_ms), **rest}
    return {"answer": "refusal", "code": answer.code.value, "reason": answer.reason}
