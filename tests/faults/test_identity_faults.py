"""F23: tokens that are missing, wrong, too weak, expired in mid-episode or revoked. Nothing of them is ever written down."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from model_core.access import Tokens, read_table, token_digest
from model_core.spec.protocol.wire import Chunk, Ready, Reject
from model_core.spec.types import RefusalCode
from serving.gateway.inference.stub_policy import StubPolicy
from serving.gateway.operations.limits import GatewayLimits
from serving.gateway.sessions.gateway import Gateway, LoadedModel
from tests.faults.peer import CONTRACT, Peer, is_own_answer
from tests.faults.verdicts import covers
from tests.loopback import serve, wait_until

SECRET, WATCHER = "s3cret-operate-token", "s3cret-observe-token"


class Wall:
    """A wall clock that can be turned."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@contextlib.contextmanager
def guarded(wall: Wall, *, expires_in_s: float | None = None, lease_s: float = 1.0) -> Iterator[tuple[str, Tokens]]:
    expires_at = None if expires_in_s is None else time.time() + expires_in_s
    table = {
        token_digest(SECRET): {"subject": "cell-a", "role": "operate", "expires_at": expires_at},
        token_digest(WATCHER): {"subject": "dashboard", "role": "observe", "expires_at": None},
    }
    tokens = Tokens(read_table(table), clock=wall)
    policy = StubPolicy(contract=CONTRACT)
    model = LoadedModel(policy=policy, contract=CONTRACT, model_version=policy.model_version)
    gateway = Gateway(lambda: model, GatewayLimits(warm_up_s=0.0, lease_s=lease_s), tokens=tokens)
    with serve(gateway) as address:
        wait_until(lambda: gateway.is_ready)
        yield address, tokens


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@covers("F23", I8="no token, a wrong one or one whose role is too weak: turned away at the door, and nobody's secret is logged")
@pytest.mark.parametrize(("headers", "status"), [({}, 401), (bearer("wrong-token"), 401), (bearer(WATCHER), 403), (bearer(""), 401)])
def test_who_may_not_operate_is_turned_away(headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "serving")
    with guarded(Wall()) as (address, _):
        with pytest.raises(InvalidStatus) as refused:
            Peer(address, headers=headers)
        assert refused.value.response.status_code == status
        with Peer(address, headers=bearer(SECRET)) as peer:
            assert isinstance(peer.greet(), Ready)
    for text in (json.dumps([record.getMessage() for record in caplog.records]), (refused.value.response.body or b"").decode()):
        assert "s3cret" not in text
        assert "wrong-token" not in text


@covers("F23", I8="a token that expires in mid-episode lets it finish under its lease, and blocks a new session", I5="nothing else changes")
def test_a_token_that_expires_in_mid_episode() -> None:
    wall = Wall()
    with guarded(wall, expires_in_s=100.0, lease_s=2.0) as (address, _), Peer(address, headers=bearer(SECRET)) as peer:
        peer.greet()
        assert is_own_answer(peer.ask(1, value=4), 4, 1)
        wall.offset = 200.0
        assert is_own_answer(peer.ask(2, value=5), 5, 2)  # its lease still runs
        with pytest.raises(InvalidStatus):
            Peer(address, cell="cell-b", headers=bearer(SECRET))
        code = _until_refused(peer, first=3)
        assert code in {RefusalCode.LEASE, RefusalCode.AUTH, None}


def _until_refused(peer: Peer, first: int, patience_s: float = 15.0) -> RefusalCode | None:
    """Ask until the service refuses (its code) or has hung up (None)."""
    ends_at = time.monotonic() + patience_s
    for seq in itertools.count(first):
        assert time.monotonic() < ends_at, "the session never ended"
        try:
            answer = peer.ask(seq, value=6)
        except ConnectionClosed:
            return None
        if isinstance(answer, Reject):
            return answer.code
        time.sleep(0.1)
    return None


@covers("F23", I8="clocks that disagree by a few seconds expire nobody early")
def test_expiry_has_a_tolerance() -> None:
    wall = Wall()
    with guarded(wall, expires_in_s=5.0) as (address, _):
        wall.offset = 15.0
        with Peer(address, headers=bearer(SECRET)) as peer:
            assert isinstance(peer.greet(), Ready)
            assert isinstance(peer.ask(1), Chunk)


@covers("F23", I4="a revoked token: the session ends with its lease", I8="other holders are not touched")
def test_a_revoked_token(tmp_path: Path) -> None:
    wall = Wall()
    with guarded(wall, lease_s=1.0) as (address, tokens), Peer(address, headers=bearer(SECRET)) as peer:
        peer.greet()
        assert isinstance(peer.ask(1), Chunk)
        tokens._table.pop(token_digest(SECRET))
        _until_refused(peer, first=2)
