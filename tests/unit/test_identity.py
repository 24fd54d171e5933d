"""Tokens and roles: what a table may say, who is let in, and what is never written down."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from model_core.access import Caller, Denial, Role, Tokens, check_binding, is_loopback, read_table, token_digest
from model_core.spec.errors import SpecError
from serving.gateway.operations.binding import bound_host

TOKEN = "a-long-random-secret"


def table(role: str = "operate", expires_at: float | None = None, token: str = TOKEN) -> dict[str, dict[str, object]]:
    return {token_digest(token): {"subject": "cell-7", "role": role, "expires_at": expires_at}}


def tokens(**entry: object) -> Tokens:
    return Tokens(read_table(table(**entry)), clock=lambda: 1000.0)  # type: ignore[arg-type]


def test_a_known_token_is_its_caller() -> None:
    caller = tokens().admit(f"Bearer {TOKEN}", Role.OPERATE)
    assert isinstance(caller, Caller)
    assert (caller.subject, caller.role) == ("cell-7", Role.OPERATE)
    assert isinstance(tokens().admit(f"Api-Key {TOKEN}", Role.OBSERVE), Caller)  # as the openpi client spells it


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", f"{TOKEN}", "Bearer wrong", "Bearer " + "x" * 5000])
def test_who_has_no_token_is_told_so(header: str | None) -> None:
    denial = tokens().admit(header, Role.OBSERVE)
    assert isinstance(denial, Denial)
    assert denial.status == 401


def test_a_role_allows_what_the_lower_ones_do() -> None:
    for role in Role:
        for needed in Role:
            found = tokens(role=role.value).admit(f"Bearer {TOKEN}", needed)
            assert isinstance(found, Caller) == (list(Role).index(role) >= list(Role).index(needed))
    denial = tokens(role="observe").admit(f"Bearer {TOKEN}", Role.ADMIN)
    assert isinstance(denial, Denial)
    assert denial.status == 403
    assert "admin" in denial.reason


def test_expiry_has_a_tolerance_for_clocks_that_disagree() -> None:
    now = [1000.0]
    desk = Tokens(read_table(table(expires_at=1000.0)), clock=lambda: now[0])
    caller = desk.admit(f"Bearer {TOKEN}", Role.OPERATE)
    assert isinstance(caller, Caller)
    now[0] = 1029.0
    assert desk.still_valid(caller)
    now[0] = 1031.0
    assert not desk.still_valid(caller)
    denial = desk.admit(f"Bearer {TOKEN}", Role.OPERATE)
    assert isinstance(denial, Denial)
    assert "expired" in denial.reason


def test_a_revoked_token_is_noticed_and_a_broken_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, now = tmp_path / "tokens.json", [0.0]
    file.write_text(json.dumps(table()))
    desk = Tokens.from_file(file, clock=lambda: now[0])
    caller = desk.admit(f"Bearer {TOKEN}", Role.OPERATE)
    assert isinstance(caller, Caller)
    file.write_text("{ broken")
    os.utime(file, ns=(1, 1))
    now[0] = 5.0
    with caplog.at_level(logging.ERROR):
        assert desk.still_valid(caller)
    assert "tokens.unreadable" in caplog.text
    file.write_text(json.dumps(table(token="another-secret")))
    os.utime(file, ns=(2, 2))
    now[0] = 10.0
    assert not desk.still_valid(caller)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "tokens"),
        ({}, "at least one"),
        ({TOKEN: {"subject": "x", "role": "admin"}}, "never the token itself"),
        ({token_digest(TOKEN): {"subject": "x", "role": "root"}}, "role"),
        ({token_digest(TOKEN): {"subject": "", "role": "admin"}}, "subject"),
        ({token_digest(TOKEN): {"subject": "x", "role": "admin", "until": 1}}, "until"),
        ({token_digest(TOKEN): {"subject": "x", "role": "admin", "expires_at": True}}, "expires_at"),
        ({token_digest(TOKEN): {"subject": "x", "role": "admin", "expires_at": float("nan")}}, "expires_at"),
        ({token_digest(TOKEN): {"subject": "x", "role": "admin", "expires_at": "never"}}, "expires_at"),
        ({"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": {"subject": "x", "role": "admin"}}, "empty token"),
    ],
)
def test_a_wrong_table_is_refused_naming_the_entry(document: object, told: str) -> None:
    with pytest.raises(SpecError, match=told) as caught:
        read_table(document)
    assert TOKEN not in str(caught.value)
    assert token_digest(TOKEN) not in str(caught.value)


def test_an_empty_token_has_no_digest() -> None:
    with pytest.raises(SpecError, match="token"):
        token_digest(" ")


def test_the_environment_names_a_table_or_none() -> None:
    assert Tokens.from_environment({}) is None
    assert Tokens.from_environment({"ACTWRIGHT_TOKENS": json.dumps(table())}) is not None
    for environment in (
        {"ACTWRIGHT_TOKENS": ""},
        {"ACTWRIGHT_TOKENS": "{"},
        {"ACTWRIGHT_TOKENS_FILE": ""},
        {"ACTWRIGHT_TOKENS_FILE": "/nowhere/tokens.json"},
        {"ACTWRIGHT_TOKENS": "{}", "ACTWRIGHT_TOKENS_FILE": "x"},
    ):
        with pytest.raises(SpecError, match=r"ACTWRIGHT_TOKENS|token"):
            Tokens.from_environment(environment)


def test_only_loopback_needs_no_tokens() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"))
    for host in ("0.0.0.0", "10.0.0.1", "::", "robots.example"):
        with pytest.raises(SpecError, match="reachable from other machines"):
            check_binding(host, None)
        check_binding(host, tokens())
    check_binding("127.0.0.1", None)


def test_where_bentoml_binds_is_read_from_its_command_line() -> None:
    assert bound_host(["bentoml", "serve", "x", "--host", "127.0.0.1"], {}) == "127.0.0.1"
    assert bound_host(["bentoml", "serve", "--host=10.1.1.1"], {}) == "10.1.1.1"
    assert bound_host(["bentoml", "serve", "x"], {}) == "0.0.0.0"
    assert bound_host(["bentoml", "serve", "x"], {"BENTOML_HOST": "127.0.0.1"}) == "127.0.0.1"
    assert bound_host(["bentoml", "build"], {}) is None
