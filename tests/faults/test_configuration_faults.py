"""F37: senseless configuration is refused at the start, the field is named, and it never becomes a different motion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model_core.access import read_table, token_digest
from model_core.spec.documents import from_document
from model_core.spec.errors import ActwrightError, ContractError, SpecError
from serving.fault_injection.script import script_of
from serving.gateway.operations.limits import GatewayLimits
from serving.workcell.__main__ import main as workcell
from serving.workcell.link.credentials import Credentials
from serving.workcell.link.link_types import LinkSettings
from serving.workcell.motion.commissioning import Commissioning, template
from serving.workcell.motion.limits import Limits, widest_limits
from serving.workcell.motion.motion_state import MotionSettings
from serving.workcell.motion.scheduler import ScheduleSettings
from tests.fakes import make_contract, make_embodiment
from tests.faults.verdicts import covers

NAN, INF = float("nan"), float("inf")
BODY = make_embodiment()
SENSELESS = (0, -5, 2.7, "4", True, NAN, INF, None)


def refuses(make: Callable[[], object], field: str) -> None:
    with pytest.raises((ActwrightError, TypeError)) as error:
        make()
    assert field in str(error.value)


@covers("F37", I3="a horizon that is 0, -5, 2.7, '4', true or NaN is refused, never coerced")
@pytest.mark.parametrize("value", SENSELESS, ids=repr)
def test_schedule(value: object) -> None:
    for field in ("chunk_length", "execute_horizon", "blend_rows"):
        good = {"chunk_length": 8, "execute_horizon": 4, "blend_rows": 4}
        refuses(lambda field=field, good=good: ScheduleSettings(**{**good, field: value}), field)  # type: ignore[arg-type]


@covers("F37", I4="a deadline or heartbeat that is none is refused by name")
@pytest.mark.parametrize("value", [0, -1, "4", True, NAN, INF, None], ids=repr)
def test_link(value: object) -> None:
    for field in ("deadline_s", "connect_timeout_s", "heartbeat_s", "max_backoff_s"):
        refuses(lambda field=field: LinkSettings(cell="c", embodiment=BODY, **{field: value}), field)  # type: ignore[arg-type]
    if value != 2.7:
        refuses(lambda: LinkSettings(cell="c", embodiment=BODY, max_dead=value), "max_dead")  # type: ignore[arg-type]


@covers("F37", I3="limits that are no numbers, upside down or unknown are refused by name")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"low": 2.0}, "low"),
        ({"low": NAN}, "low"),
        ({"high": "1"}, "high"),
        ({"high": True}, "high"),
        ({"max_velocity": 0}, "max_velocity"),
        ({"max_velocity": -1}, "max_velocity"),
        ({"max_jump": INF}, "max_jump"),
        ({"gain": 0}, "gain"),
        ({"speed": 3}, "speed"),
    ],
    ids=str,
)
def test_limits(change: dict[str, object], says: str) -> None:
    document = json.loads(json.dumps(widest_limits(BODY).to_json()))
    document["dims"][0] |= change
    refuses(lambda: from_document(Limits, document), says)


@covers("F37", I3="a commissioning file for another cell, body or contract, or with an unknown key, is refused")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workcell": "other"}, "workcell"),
        ({"embodiment": "other"}, "embodiment"),
        ({"contract_id": "0" * 16}, "contract_id"),
        ({"extra": 1}, "extra"),
        ({"version": 2}, "version"),
        ({"kind": "x"}, "kind"),
    ],
    ids=str,
)
def test_commissioning(change: dict[str, object], says: str) -> None:
    contract = make_contract()
    document = template("cell-a", contract).to_json() | change
    with pytest.raises((SpecError, ContractError)) as error:
        from_document(Commissioning, json.loads(json.dumps(document))).limits_for("cell-a", contract, contract.embodiment)
    assert says in str(error.value)


@covers("F37", I7="the service's own bounds are checked by name")
@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": 2.7}, "max_batch"),
        ({"max_queue": "4"}, "max_queue"),
        ({"max_sessions": True}, "max_sessions"),
        ({"hung_s": -1}, "hung_s"),
        ({"lease_s": NAN}, "lease_s"),
        ({"reserve_share": 2}, "reserve_share"),
        ({"max_bach": 4}, "max_bach"),
        ([], "limits"),
    ],
    ids=str,
)
def test_gateway_limits(document: object, says: str) -> None:
    refuses(lambda: GatewayLimits.from_json(document), says)


@covers("F37", I8="an empty token, an empty token file and a table with a senseless entry are refused, and not shown")
def test_tokens(tmp_path: Path) -> None:
    refuses(lambda: token_digest(""), "token")
    empty = tmp_path / "token"
    empty.write_text(" \n")
    refuses(lambda: Credentials(token_file=empty).headers(), "empty")
    refuses(lambda: Credentials(token_file=tmp_path / "none").headers(), "token file")
    for entry in (
        {"subject": "a", "role": "god"},
        {"subject": "", "role": "admin"},
        {"subject": "a", "role": "admin", "expires_at": "soon"},
        {"who": "a"},
    ):
        refuses(lambda entry=entry: read_table({"a" * 64: entry}), "tokens")
    refuses(lambda: read_table({"my-token": {"subject": "a", "role": "admin"}}), "SHA-256")


@covers("F37", I4="state machine settings that would never hold are refused")
@pytest.mark.parametrize(
    "change", [{"safe_stop_after_s": 0}, {"safe_stop_after_s": -1}, {"min_scale": 0}, {"max_rejects": 0}, {"stretch_rows": -1}], ids=str
)
def test_motion(change: dict[str, float]) -> None:
    refuses(lambda: MotionSettings(**change), next(iter(change)))  # type: ignore[arg-type]


@covers("F37", I1="a workcell with a senseless option starts nothing and says which option")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--deadline-ms", "-1"], "deadline-ms"),
        (["--deadline-ms", "nan"], "deadline-ms"),
        (["--episodes", "2.7"], "episodes"),
        (["--execute-horizon", "-5"], "execute-horizon"),
        (["--strategy", "fast"], "strategy"),
        (["--strategy", "prefix"], "realtime"),
        (["--patience-s", "0"], "patience-s"),
        (["--unknown", "1"], "unknown"),
    ],
    ids=str,
)
def test_workcell_options(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    argv = [
        "--robot",
        "serving.workcell.robot.strict_driver:make_robot",
        "--task",
        "t",
        "--url",
        "ws://127.0.0.1:9/v1/session",
        "--cell",
        "c",
    ]
    try:
        code = workcell([*argv, "--result", str(tmp_path / "r.json"), *options])
    except SystemExit as left:
        code = int(str(left.code))
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


@covers("F37", I8="the fault server's own scripts are checked as strictly")
def test_fault_scripts() -> None:
    for document, says in (({"faults": [{"fault": "drop", "every": -1}]}, "every"), ({"seed": True}, "seed"), ({"fautls": []}, "fautls")):
        refuses(lambda document=document: script_of(document), says)
