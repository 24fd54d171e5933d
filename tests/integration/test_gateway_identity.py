"""TLS and roles at every endpoint, over real sockets: who is let in, who is not, and what expiry does to a running episode."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from model_core.access import Caller, Role, Tokens, read_table, token_digest
from model_core.spec.errors import ContractError, NotReady
from model_core.spec.protocol.wire import Chunk, End, Ready
from model_core.spec.types import RefusalCode
from serving.gateway.inference.stub_policy import StubPolicy, expected_actions, stub_contract
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from serving.workcell.link.handshake import wait_until_up
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.link.websocket_link import AsyncLink
from tests.loopback import serve, wait_until
from tests.peers import Peer, rejected

SECRETS = {"observe": "look-only-secret", "operate": "robot-secret", "admin": "boss-secret"}
OTHERS = {"second boss": "other-boss-secret", "admin": "second-token-of-the-boss"}  # subject -> token, both admin


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def table(expires_at: float | None = None) -> dict[str, object]:
    ours = {token_digest(secret): {"subject": role, "role": role, "expires_at": expires_at} for role, secret in SECRETS.items()}
    more = {token_digest(secret): {"subject": who, "role": "admin", "expires_at": expires_at} for who, secret in OTHERS.items()}
    return {**ours, **more}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def policy() -> StubPolicy:
    return StubPolicy()


def guarded(policy: StubPolicy, clock: Clock) -> Gateway:
    model = LoadedModel(policy=policy, contract=policy.contract, model_version=policy.model_version)
    tokens = Tokens(read_table(table(expires_at=2000.0)), clock=clock)
    return Gateway(lambda: model, GatewayLimits(warm_up_s=0.0, lease_s=2.0), tokens=tokens)


@pytest.fixture
def gateway(policy: StubPolicy, clock: Clock) -> Gateway:
    return guarded(policy, clock)


@pytest.fixture(scope="module")
def closed_door() -> Iterator[str]:
    """One service for everybody who is not let in."""
    gateway = guarded(StubPolicy(), Clock())
    with serve(gateway) as where:
        wait_until(lambda: gateway.state == "ready")
        yield where
        assert gateway.is_ready
        assert not gateway.sessions


@pytest.fixture
def address(gateway: Gateway) -> Iterator[str]:
    with serve(gateway) as where:
        wait_until(lambda: gateway.state == "ready")
        yield where


def status_of(address: str, method: str, path: str, token: str = "", tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = b"" if method == "POST" else None
    request = urllib.request.Request(f"http{'s' if tls else ''}://{address}{path}", data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5, context=tls) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


GETS = ("/v1/contract", "/v1/models", "/v1/status", "/v1/kills", "/metrics", "/no-such-place")
POSTS = ("/v1/act", "/v1/admin/drain", "/v1/admin/resume", "/v1/admin/kill", "/v1/admin/kills")


@pytest.mark.parametrize(("method", "path"), [*(("GET", path) for path in GETS), *(("POST", path) for path in POSTS)])
def test_every_endpoint_needs_a_token(closed_door: str, method: str, path: str) -> None:
    for token in ("", "wrong"):
        status, body = status_of(closed_door, method, path, token)
        assert (status, json.loads(body)["code"]) == (401, "AUTH")


def test_probes_of_an_orchestrator_need_none(address: str) -> None:
    assert status_of(address, "GET", "/livez")[0] == 200
    assert status_of(address, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("role", "method", "path", "expected"),
    [
        ("observe", "GET", "/v1/contract", 200),
        ("observe", "POST", "/v1/act", 403),
        ("observe", "POST", "/v1/admin/drain", 403),
        ("operate", "POST", "/v1/act", 400),  # let in, and then no message
        ("operate", "POST", "/v1/admin/kill", 403),
        ("operate", "POST", "/v1/admin/drain", 200),
        ("operate", "POST", "/v1/admin/resume", 200),
        ("admin", "POST", "/v1/admin/kill", 200),
        ("admin", "GET", "/v1/admin/kill", 405),
    ],
)
def test_a_role_decides_what_may_be_done(address: str, role: str, method: str, path: str, expected: int) -> None:
    status, body = status_of(address, method, path, SECRETS[role])
    assert status == expected
    if status == 403:
        assert json.loads(body)["code"] == "AUTH"


def test_a_kill_is_released_by_two_principals_and_by_no_operator(address: str, gateway: Gateway) -> None:
    def resume(secret: str) -> int:
        return status_of(address, "POST", "/v1/admin/resume", secret)[0]

    assert status_of(address, "POST", "/v1/admin/kill", SECRETS["admin"])[0] == 200
    assert resume(SECRETS["operate"]) == 403
    assert resume(SECRETS["admin"]) == 202
    assert resume(SECRETS["admin"]) == 409  # one token twice
    assert resume(OTHERS["admin"]) == 409  # the same principal under two tokens
    assert gateway.service_state.kills.in_force
    assert resume(OTHERS["second boss"]) == 200
    assert not gateway.service_state.kills.in_force


def test_a_kill_between_two_releases_needs_both_again(address: str, gateway: Gateway) -> None:
    for _ in range(2):
        assert status_of(address, "POST", "/v1/admin/kill", SECRETS["admin"])[0] == 200
        assert status_of(address, "POST", "/v1/admin/resume", SECRETS["admin"])[0] == 202
    assert status_of(address, "POST", "/v1/admin/kill", SECRETS["admin"])[0] == 200
    assert status_of(address, "POST", "/v1/admin/resume", OTHERS["second boss"])[0] == 202
    assert gateway.service_state.kills.in_force


@pytest.mark.parametrize("path", ["/v1/session", "/", "/openpi", "/vla-eval", "/anything"])
@pytest.mark.parametrize(("token", "expected"), [("", 401), ("wrong", 401), (SECRETS["observe"], 403)])
def test_no_socket_is_opened_without_a_role(closed_door: str, path: str, token: str, expected: int) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else None
    with pytest.raises(InvalidStatus) as caught, connect(f"ws://{closed_door}{path}", additional_headers=headers, proxy=None):
        pass
    assert caught.value.response.status_code == expected


def test_an_expiring_token_finishes_its_episode_under_the_lease_and_begins_no_other(
    address: str, policy: StubPolicy, clock: Clock, gateway: Gateway
) -> None:
    with Peer(address, token=SECRETS["operate"], body=policy.contract.embodiment) as peer:
        assert isinstance(peer.greet(), Ready)
        peer.observe(1)
        peer.receive_kind(Chunk)
        clock.now = 2031.0  # expired, tolerance included
        peer.observe(2)
        peer.receive_kind(Chunk)  # the running episode goes on ...
        assert peer.ready is not None
        peer.send(End(session_id=peer.ready.session_id, epoch=1, episode_id="e", stop_reason="success"))
        peer.observe(3, episode_id="next")
        assert "no longer valid" in rejected(peer.receive(), RefusalCode.AUTH).reason  # ... but none begins ...
        assert "token" in rejected(peer.receive(), RefusalCode.LEASE).reason  # ... and traffic no longer renews the lease
    with pytest.raises(InvalidStatus), Peer(address, token=SECRETS["operate"]):
        pass


def test_a_cell_is_not_taken_over_with_another_token(address: str, policy: StubPolicy) -> None:
    body = policy.contract.embodiment
    with Peer(address, token=SECRETS["operate"], body=body) as holder, Peer(address, token=SECRETS["admin"], body=body) as other:
        assert isinstance(holder.greet(), Ready)
        rejected(other.greet(), RefusalCode.AUTH)
        holder.observe(1)
        holder.receive_kind(Chunk)


def test_controls_over_a_session_need_the_role_too(address: str, policy: StubPolicy, gateway: Gateway) -> None:
    with Peer(address, token=SECRETS["operate"], body=policy.contract.embodiment) as peer:
        peer.greet()
        peer.control("KILL")
        rejected(peer.receive(), RefusalCode.AUTH)
        assert not gateway.service_state.kills.in_force
        peer.control("DRAIN", text="maintenance")
        wait_until(lambda: gateway.service_state.draining)


def test_no_secret_is_ever_logged(address: str, caplog: pytest.LogCaptureFixture, policy: StubPolicy) -> None:
    with caplog.at_level(logging.DEBUG):
        status_of(address, "POST", "/v1/admin/drain", SECRETS["admin"])
        status_of(address, "GET", "/v1/status", "a-wrong-secret")
        with contextlib.suppress(InvalidStatus), Peer(address, token=SECRETS["operate"], body=policy.contract.embodiment) as peer:
            peer.greet()
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("serving", "uvicorn.error")))
    assert "admin.drain" in ours
    for secret in (*SECRETS.values(), "a-wrong-secret", *map(token_digest, SECRETS.values())):
        assert secret not in "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("serving"))


# --- TLS, and the process ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "actwright test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def secured(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python -m serving.gateway` with TLS and tokens, on every interface of this machine."""
    folder = tmp_path_factory.mktemp("secured")
    (folder / "tokens.json").write_text(json.dumps(table()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cert, key = certificate
    argv = [*f"--stub 0 --stub-cameras 2 --stub-size 378 --host 0.0.0.0 --port {port}".split(), "--cert", str(cert), "--key", str(key)]
    command = [sys.executable, "-m", "serving.gateway", *argv, "--tokens-file", str(folder / "tokens.json")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ACTWRIGHT_")}
    process = subprocess.Popen(command, env={**environment, "ACTWRIGHT_LIMITS": '{"warm_up_s": 0}'}, stderr=subprocess.DEVNULL)
    trusted = ssl.create_default_context(cafile=str(cert))
    try:
        wait_until(lambda: is_ready(f"127.0.0.1:{port}", trusted), timeout_s=60)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(15)


def is_ready(address: str, tls: ssl.SSLContext) -> bool:
    time.sleep(0.1)
    try:
        return status_of(address, "GET", "/readyz", tls=tls)[0] == 200
    except OSError:
        return False


def test_a_cell_speaks_tls_with_its_token(secured: str, certificate: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    contract = stub_contract(cameras=2, size=378)  # pictures of 857 kB: many TLS records
    with Peer(secured, token=SECRETS["operate"], tls=trusted, body=contract.embodiment) as peer:
        assert isinstance(peer.greet(), Ready)
        for seq in (1, 2, 3):
            asked = peer.observe(seq, value=60 + seq)
            assert np.array_equal(peer.receive_kind(Chunk).actions_KA, expected_actions(asked.observation, contract))
    assert status_of(secured, "GET", "/v1/models", SECRETS["observe"], tls=trusted)[0] == 200
    assert status_of(secured, "GET", "/v1/models", tls=trusted)[0] == 401


def test_no_handshake_over_tls_goes_unanswered(secured: str, certificate: tuple[Path, Path]) -> None:
    # Six at a time, so that the server's session tickets meet the clients' first requests. A client that reads and writes one TLS
    # session from two threads loses about one handshake in 150 here.
    trusted = ssl.create_default_context(cafile=str(certificate[0]))

    def shake(_: int) -> None:
        with Peer(secured, token=SECRETS["operate"], tls=trusted):
            pass

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(shake, range(300)))) == 300


def test_a_certificate_that_nobody_vouches_for_is_not_spoken_to(secured: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        Peer(secured, token=SECRETS["operate"], tls=ssl.create_default_context())
    with pytest.raises(Exception):  # plain text to a TLS port
        Peer(secured, token=SECRETS["operate"])


def test_a_cell_that_does_not_trust_the_certificate_says_so_and_dials_no_more(secured: str) -> None:
    body, url = StubPolicy().contract.embodiment, f"wss://{secured}/v1/session"
    link = AsyncLink(url, LinkSettings(cell="c", embodiment=body))
    link.start()
    began = time.monotonic()
    try:
        with pytest.raises(ContractError, match=r"not trusted here.*--ca-file"):
            wait_until_up(link, patience_s=60)
    finally:
        link.close()
    assert time.monotonic() - began < 30
    plain = AsyncLink(url.replace("wss", "ws"), LinkSettings(cell="c", embodiment=body))
    plain.start()
    try:
        with pytest.raises(NotReady, match="call wss://"):
            wait_until_up(plain, patience_s=1)
    finally:
        plain.close()


def test_without_tokens_nothing_is_answered_beyond_loopback(policy: StubPolicy) -> None:
    # Should the socket have been bound to everywhere by somebody else, the doorkeeper looks at where a request arrived.
    import asyncio

    from serving.gateway.http.auth_middleware import AuthMiddleware

    async def inner(scope: object, receive: object, send: object) -> None:
        raise AssertionError("let in")

    said: list[dict[str, object]] = []

    async def send(message: object) -> None:
        said.append(message)  # type: ignore[arg-type]

    scope = {"type": "http", "path": "/livez", "method": "GET", "headers": [], "server": ("10.0.0.5", 3000)}
    asyncio.run(AuthMiddleware(inner)(scope, None, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 403


def test_a_peer_without_a_lease_is_not_answered_for_ever_after_its_token_ran_out(gateway: Gateway, address: str, clock: Clock) -> None:
    caller = Caller(subject="operate", role=Role.OPERATE, digest=token_digest(SECRETS["operate"]))
    assert not gateway.access.has_outstayed(caller)
    clock.now = 2031.0
    assert not gateway.access.has_outstayed(caller)  # as long as a lease would last
    wait_until(lambda: gateway.access.has_outstayed(caller))
