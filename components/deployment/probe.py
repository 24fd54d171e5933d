"""Ask a running policy service who it is and one question, as a person who wants to know whether it works.

The question goes over the same WebSocket that workcells use: HELLO with the body that the contract names, READY, one OBSERVE,
what comes back, END. The answer to noise may be a refusal: what is probed is the service, not its skill.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.deployment.audit_replay import decode_depth, stages_of
from components.drawing.decision import DecisionView
from components.release.package import probe_observations
from model_core.spec.contract import PolicyContract
from model_core.spec.errors import ContractError, NotReady, SpecError, WireError
from model_core.spec.protocol.steering_input import drawing, typed_points
from model_core.spec.protocol.trust import bearer, distrust, tls_context
from model_core.spec.protocol.wire import (
    MAX_MESSAGE_BYTES,
    Chunk,
    Control,
    End,
    Hello,
    Message,
    Observe,
    Part,
    Ready,
    Reject,
    SteeringInput,
    decode_message,
    encode_message,
)
from model_core.spec.types import Observation, Trace

SESSION_PATH = "/v1/session"
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrl:
    """One service by its two addresses."""

    http: str
    session: str

    @staticmethod
    def of(text: str, *, before: str = "") -> ServiceUrl:
        """Read an address as a person types it. Raises SpecError saying what to type instead; before: what is typed in front of it."""
        parts = urlsplit(text if "://" in text else f"//{text}")
        typed = f"{before}http://{parts.netloc or text}"
        if "://" not in text:
            raise SpecError(f"{text!r} lacks its http://; type: {typed}")
        if parts.scheme not in _SCHEMES:
            raise SpecError(f"{text!r}: the scheme must be one of {', '.join(_SCHEMES)}, such as {typed}")
        try:
            port = parts.port
        except ValueError as error:
            raise SpecError(f"{text!r}: {error}; an address looks like http://127.0.0.1:3000") from error
        if not parts.hostname or parts.path.rstrip("/") not in ("", SESSION_PATH) or parts.query:
            raise SpecError(
                f"{text!r} is not the address of a service; it looks like http://{parts.hostname or '127.0.0.1'}:{port or 3000}"
            )
        ws = _SCHEMES[parts.scheme]
        return ServiceUrl(http=f"{'https' if ws == 'wss' else 'http'}://{parts.netloc}", session=f"{ws}://{parts.netloc}{SESSION_PATH}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """How to be let in. token: bearer token, "" for none. ca_file: who may sign the service's certificate (None: the system's)."""

    token: str = ""
    ca_file: Path | None = None
    timeout_s: float = 10.0

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        return bearer(self.token)

    def tls(self, url: str) -> ssl.SSLContext | None:
        """The context for `url`; None without TLS. Raises SpecError for a CA file that cannot be read."""
        return tls_context(url, self.ca_file)


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
        """What the service promises."""
        return self.ready.contract

    def told(self) -> dict[str, Any]:
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


def probe_service(url: str, *, timeout_s: float = 10.0, token: str = "", ca_file: Path | None = None) -> dict[str, Any]:
    """`probe` as one document."""
    return probe(url, Knock(token=token, ca_file=ca_file, timeout_s=timeout_s)).told()


def probe(url: str, knock: Knock | None = None, *, instruction: str = "", level: str = "", line: str = "") -> Probed:
    """Shake hands and ask one synthetic question. url: "http://host:port" or its WebSocket form. line: drawn for the gripper, "x,y x,y".

    Raises SpecError for an address that is none, an instruction that is too long or a line that leaves the picture, NotReady when nobody
    answers, the model is not loaded or we are not let in, ContractError when the service refuses the very body that its contract names.
    """
    where, knock = ServiceUrl.of(url), knock or Knock()
    try:
        described = json.loads(_fetch(f"{where.http}/v1/contract", knock))
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
    asked = _Question(contract=contract, contract_id=str(described["contract_id"]), observation=observation, level=level, steering=steering)
    return asyncio.run(_converse(where, knock, asked))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Question:
    """What is asked, of a service that says it keeps this contract."""

    contract: PolicyContract
    contract_id: str
    observation: Observation
    level: str
    steering: SteeringInput | None


async def _converse(where: ServiceUrl, knock: Knock, asked: _Question) -> Probed:
    # Not websockets.sync: it reads and writes in two threads, which one TLS session does not allow.
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    body = asked.contract.embodiment
    began = time.monotonic()
    ms: dict[str, float] = {}
    try:
        async with connect(
            where.session,
            additional_headers=knock.headers,
            ssl=knock.tls(where.session),
            open_timeout=knock.timeout_s,
            close_timeout=1.0,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
        ) as socket:
            ms["connect"] = 1e3 * (time.monotonic() - began)

            async def receive(until: float) -> Message:
                data = await asyncio.wait_for(socket.recv(), max(until - time.monotonic(), 0.01))
                if isinstance(data, str):
                    raise NotReady(f"{where.session} answers in text: {data[:200]!r}; is this an actwright service?")
                return decode_message(data)

            began = time.monotonic()
            cell = f"probe-{uuid.uuid4().hex[:8]}"
            hello = Hello(cell=cell, epoch=1, embodiment=body, software="actwright-probe", accepts_parts=True)
            await socket.send(encode_message(hello))
            ready = _ready(await receive(began + knock.timeout_s))
            ms["handshake"] = 1e3 * (time.monotonic() - began)
            began = time.monotonic()
            ids = {"session_id": ready.session_id, "epoch": ready.epoch}
            question = Observe(
                **ids,
                seq=1,
                episode_id="probe",
                step=0,
                deadline_ms=1e3 * knock.timeout_s,
                observation=asked.observation,
                age_ms={camera.name: 0.0 for camera in body.cameras},
                level=asked.level,
                steering=asked.steering,
            )
            await socket.send(encode_message(question))
            answer, parts = await _await(receive, began + knock.timeout_s)
            ms["answer"] = 1e3 * (time.monotonic() - began)
            await socket.send(encode_message(End(**ids, episode_id="probe", stop_reason="probed")))
    except (OSError, TimeoutError, WebSocketException) as error:
        raise NotReady(f"{where.session}: {_why(error)}") from error
    except WireError as error:
        raise NotReady(f"{where.session} answers, but not as an actwright policy service ({error})") from error
    notes = () if asked.steering is None else (f"steered along {len(asked.steering.points_N2)} drawn points",)
    return Probed(
        url=where, ready=ready, contract_id=asked.contract_id, asked=asked.observation, answer=answer, ms=ms, parts=parts, notes=notes
    )


def _ready(answer: Message) -> Ready:
    if isinstance(answer, Ready):
        return answer
    if isinstance(answer, Reject):
        kind = ContractError if answer.code.value == "CONTRACT" else NotReady
        raise kind("\n  ".join([f"the service refused the handshake: {answer.code.value}: {answer.reason}", *answer.details]))
    raise NotReady(f"expected READY, the service sent {type(answer).__name__.upper()}")


async def _await(receive: Callable[[float], Awaitable[Message]], until: float) -> tuple[Chunk | Reject, tuple[str, ...]]:
    parts: list[str] = []
    while True:
        message = await receive(until)
        if isinstance(message, Chunk | Reject):
            return message, tuple(parts)
        if isinstance(message, Part):
            parts.append(message.field)
        elif not isinstance(message, Control):
            raise NotReady(f"expected CHUNK or REJECT, the service sent {type(message).__name__.upper()}")


def view_of_probe(probed: Probed, codebooks: Iterable[Path] = ()) -> DecisionView:
    """The question and its answer as a picture's content."""
    answer, contract = probed.answer, probed.contract
    chunk = answer if isinstance(answer, Chunk) else None
    codes_G = None if chunk is None else chunk.depth_codes_G
    refused = "" if chunk is not None else f"; refused: {answer.code.value}: {answer.reason}" if isinstance(answer, Reject) else ""
    stages = {} if chunk is None else stages_of(chunk.timing_ms)
    if stages:
        stages["wire and the rest"] = max(probed.ms["answer"] - sum(stages.values()), 0.0)
    return DecisionView(
        title=f"{probed.ready.model_version} at {probed.url.http}: one synthetic decision",
        images=probed.asked.images,
        action=contract.embodiment.action,
        raw_KA=None if chunk is None else chunk.actions_KA,
        trace=None if chunk is None or chunk.trace_N2 is None else Trace(points_N2=chunk.trace_N2),
        trace_camera=contract.reasoning.trace_camera,
        depth_HW=decode_depth(codes_G, contract.reasoning.codebook_digest, codebooks),
        codes_G=codes_G,
        notes=[
            f'"{probed.asked.instruction}" on noise; connect {probed.ms["connect"]:.1f} ms, handshake {probed.ms["handshake"]:.1f} ms, '
            f"answer {probed.ms['answer']:.1f} ms{refused}",
            f"contract {probed.contract_id}, body {contract.embodiment.name}",
            *probed.notes,
        ],
        timing_ms=stages,
    )


def contract_lines(contract: PolicyContract, levels: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """The contract for a person, a line each."""
    body, reasoning = contract.embodiment, contract.reasoning
    lines = [f"contract  {contract.contract_id} (protocol {contract.protocol}), body {body.name} at {body.control_hz:g} Hz"]
    for camera in body.cameras:
        sent = f"{camera.color} as {' or '.join(camera.encodings)}, resized by the {camera.resize}, at most {camera.max_age_ms:.0f} ms old"
        lines.append(f"camera    {camera.name}: {camera.width}x{camera.height} {sent}")
    lines += [f"state     {dim.name}: {dim.low:g} .. {dim.high:g} {dim.unit} ({dim.frame})" for dim in body.proprio.dims]
    for dim, mode in zip(body.action.dims, body.action.modes, strict=True):
        opens = f", {body.gripper_open:g} opens" if dim.name == body.gripper_dim else ""
        lines.append(f"action    {dim.name}: {dim.low:g} .. {dim.high:g} {dim.unit} ({dim.frame}), {mode or 'absolute'}{opens}")
    ask, committed = contract.execute_horizon, contract.max_prefix_rows
    lines.append(f"chunk     {contract.chunk_length} rows, ask again after {ask}; up to {committed} rows may be committed")
    rows, columns = reasoning.depth_grid
    steered = "may be steered" if reasoning.steering else "cannot be steered"
    lines.append(
        f"says      depth {rows}x{columns} of {reasoning.depth_codes} codes, up to {reasoning.trace_points} trace points on "
        f"{reasoning.trace_camera or 'the first camera'}, {steered}"
    )
    for level in reasoning.levels:
        measured = {name.removesuffix("_ms"): ms for name, ms in sorted(levels.get(level, {}).items())}
        lines.append(f"level     {level}" + (f": {', '.join(f'{name} {ms:.0f} ms' for name, ms in measured.items())}" if measured else ""))
    words = f"{len(contract.words)} words" if contract.words else f"any text of at most {contract.max_instruction_chars} characters"
    return [*lines, f"language  {words}"]


def _answer(answer: Chunk | Reject) -> dict[str, Any]:
    if isinstance(answer, Chunk):
        trace = None if answer.trace_N2 is None else answer.trace_N2.tolist()
        said = {"depth_tokens": answer.depth_codes_G is not None, "trace": trace, "level": answer.level, "flags": list(answer.flags)}
        return {"answer": "chunk", "actions": list(answer.actions_KA.shape), "timing_ms": dict(answer.timing_ms), **said}
    return {"answer": "refusal", "code": answer.code.value, "reason": answer.reason}


def _fetch(url: str, knock: Knock) -> bytes:
    try:
        asked = urllib.request.Request(url, headers=knock.headers)
        with urllib.request.urlopen(asked, timeout=knock.timeout_s, context=knock.tls(url)) as reply:
            return reply.read()
    except urllib.error.HTTPError as error:
        content = _first_line(error.read()[:300].decode(errors="replace")) or str(error.reason)
        if error.code in (401, 403):
            raise NotReady(f"{url} answered {error.code}: {content}; give a token (--token-file, or ACTWRIGHT_TOKEN)") from error
        raise NotReady(f"{url} answered {error.code} ({content}); is this an actwright service?") from error
    except OSError as error:
        if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError) and url.startswith("http://"):
            raise NotReady(f"{url}: the connection was closed without an answer; where the service speaks TLS, type https://") from error
        raise NotReady(f"nobody answers at {url} ({_why(error)}); start a service with `actwright serve`") from error
    except http.client.HTTPException as error:
        raise NotReady(f"{url} does not speak HTTP ({type(error).__name__}); is this an actwright service?") from error


def _first_line(text: str) -> str:
    """What a service that is not ours says of itself, in a few words: a page of HTML tells nobody more."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "a page of HTML" if line.startswith("<") else line[:120]


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    text = str(reason) or type(reason).__name__
    if isinstance(reason, ssl.SSLCertVerificationError):
        return distrust(reason)
    if "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS; type http:// in place of https://"
    return text
