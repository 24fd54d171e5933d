"""The signed documents of the fleet: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import json
import stat

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.spec.errors import SpecError, WireError
from model_core.spec.fleet.documents import (
    MOST_EPISODES,
    CellReport,
    DesiredState,
    EpisodeRecord,
    ShadowComparison,
    Slot,
    UpdateError,
    canonical,
)
from model_core.spec.fleet.signatures import make_key, opened, public_path, read_private, read_public, sealed, trusted, written_public

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KNOWN = trusted(KEY.public_key())
A, B = "a" * 64, "b" * 64
REPORT = CellReport(
    cell="cell-1",
    site="lab",
    agent_version="0.1.0",
    sequence=7,
    boot="b1",
    sent_at_s=1.0,
    slots=(Slot(name="a", state="probed", release=A), Slot(name="b")),
    running=A,
    error=UpdateError(code="PROBES", message="other tokens", release=B, since_at_s=2.5),
    episodes=(EpisodeRecord(id="cell-1-1", release=A, task="button", started_at_s=0.5, ended_at_s=0.75, outcome="success"),),
    shadow=(ShadowComparison(release=B, task="button", count=3, distances={"action": 0.25}),),
)
STATE = DesiredState(cell="cell-1", revision=3, acknowledged_sequence=7, sent_at_s=1.5, release=B, rollback_to=(A,))


@pytest.mark.parametrize("document", [REPORT, STATE], ids=["report", "state"])
def test_a_document_read_back_equals_what_was_signed(document) -> None:
    assert opened(sealed(document, KEY), type(document), KNOWN) == document


def test_a_signature_of_another_key_is_refused() -> None:
    with pytest.raises(WireError, match="is not known here"):
        opened(sealed(REPORT, Ed25519PrivateKey.generate()), CellReport, KNOWN)


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(WireError, match="expected a desired-state, got 'cell-report'"):
        opened(sealed(REPORT, KEY), DesiredState, KNOWN)


def test_a_signature_is_of_one_kind_of_document() -> None:
    """The same bytes as another kind: the kind is signed too."""
    message = json.loads(sealed(REPORT, KEY))
    message["kind"] = "desired-state"
    with pytest.raises(WireError, match="does not hold"):
        opened(json.dumps(message).encode(), DesiredState, KNOWN)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_changed_byte_is_found(data) -> None:
    message = bytearray(sealed(STATE, KEY))
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != message[place]))
    with pytest.raises(WireError):
        opened(bytes(message), DesiredState, KNOWN)


@pytest.mark.parametrize("message", [b"", b"{}", b"[]", b"\xff", b"null", b'{"body":1}', b"[" * 10_000, b" " * (2**20 + 1)])
def test_what_is_no_document_is_refused(message) -> None:
    with pytest.raises(WireError):
        opened(message, CellReport, KNOWN)


def signed_by_hand(body: bytes) -> bytes:
    signature = KEY.sign(b"actwright/desired-state/1\n" + body).hex()
    return b'{"body":%s,"form":1,"key":"%s","kind":"desired-state","signature":"%s"}' % (
        body,
        next(iter(KNOWN)).encode(),
        signature.encode(),
    )


def test_the_form_of_a_signature_is_as_documented() -> None:
    assert opened(signed_by_hand(canonical(STATE)), DesiredState, KNOWN) == STATE
    assert signed_by_hand(canonical(STATE)) == sealed(STATE, KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "3"},
        {"revision": 2.5},
        {"revision": -1},
        {"release": "A" * 64},
        {"release": "a" * 63},
        {"release": "a" * 64 + "\n"},
        {"cell": "../cell"},
        {"sent_at_s": None},
        {"report_every_s": 0},
        {"form": 2},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_signed_document_that_breaks_its_rules_is_refused(change) -> None:
    body = json.loads(canonical(STATE)) | change
    with pytest.raises(WireError):
        opened(signed_by_hand(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()), DesiredState, KNOWN)


def test_a_signed_document_in_another_spelling_is_refused() -> None:
    with pytest.raises(WireError, match="canonical"):
        opened(signed_by_hand(json.dumps(json.loads(canonical(STATE))).encode()), DesiredState, KNOWN)


def test_nothing_is_signed_that_nobody_could_read() -> None:
    with pytest.raises(WireError, match="desired-state"):
        sealed(msgspec.structs.replace(STATE, blocked=("A" * 64,)), KEY)


def test_a_report_holds_a_bounded_number_of_episodes() -> None:
    many = msgspec.structs.replace(REPORT, episodes=REPORT.episodes * (MOST_EPISODES + 1))
    with pytest.raises(WireError, match="length"):
        opened(sealed(many, KEY), CellReport, KNOWN)


def test_key_files_are_private_read_back_and_never_replaced(tmp_path) -> None:
    path = tmp_path / "keys" / "cell-1.pem"
    key = make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path).private_bytes_raw() == key.private_bytes_raw()
    assert read_public(public_path(path).read_text(), "here").public_bytes_raw() == key.public_key().public_bytes_raw()
    with pytest.raises(SpecError, match="never replaced"):
        make_key(path)
    path.chmod(0o644)
    with pytest.raises(SpecError, match="others than its owner"):
        read_private(path)


@pytest.mark.parametrize("content", [b"", b"no key", written_public(KEY.public_key()).encode()], ids=["empty", "text", "public"])
def test_a_file_without_a_private_key_is_refused(tmp_path, content) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SpecError, match=r"key\.pem"):
        read_private(path)
