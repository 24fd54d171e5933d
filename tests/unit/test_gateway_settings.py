"""What a person configured is taken as it is or refused by name; it is never coerced into something else."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from model_core.spec.errors import SpecError
from model_core.spec.settings import known_keys, real, text, whole
from serving.gateway.__main__ import main
from serving.gateway.operations.limits import GatewayLimits

ODD = [0, -5, 2.7, "4", True, float("nan"), float("inf"), None, [], 10**400]


@pytest.mark.parametrize("value", [v for v in ODD if v != 0] + [0])
def test_a_count_is_a_whole_number(value: object) -> None:
    with pytest.raises(SpecError, match="max_batch: expected a whole number"):
        whole("max_batch", value, low=1)


@pytest.mark.parametrize("value", [-5, "4", True, float("nan"), float("inf"), None, [], 10**400])
def test_a_time_is_a_finite_number(value: object) -> None:
    with pytest.raises(SpecError, match="timeout_s: expected a finite number"):
        real("timeout_s", value)


def test_what_is_sound_is_kept() -> None:
    assert whole("n", 4, low=1) == 4
    assert real("x", 2) == 2.0
    assert text("token", "abc") == "abc"
    with pytest.raises(SpecError, match="token"):
        text("token", "")
    with pytest.raises(SpecError, match="no setting 'horizn'"):
        known_keys("settings", {"horizn": 1}, ("horizon",))


@pytest.mark.parametrize("name", [item.name for item in fields(GatewayLimits)])
@pytest.mark.parametrize("value", [-5, "4", True, float("nan"), None])
def test_every_limit_names_itself_when_it_is_wrong(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"^limits\b.*\b{name}: "):
        GatewayLimits.from_json({name: value})


def test_limits_come_from_json_with_known_keys_only() -> None:
    assert GatewayLimits.from_text("") == GatewayLimits()
    assert GatewayLimits.from_text('{"max_batch": 4, "lease_s": 5}') == GatewayLimits(max_batch=4, lease_s=5)
    for wrong, told in (('{"max_batches": 4}', "max_batches"), ("[1]", "limits"), ("{", "JSON"), ('{"max_batch": 2.7}', "max_batch")):
        with pytest.raises(SpecError, match=told):
            GatewayLimits.from_text(wrong)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--stub", "0.01", "--host", "0.0.0.0"], "host: '0.0.0.0' is reachable"),
        (["--stub", "-1"], "stub: expected"),
        (["--stub", "nan"], "stub: expected"),
        (["--stub", "0.01", "--port", "70000"], "port: expected"),
        (["--stub", "0.01", "--host", ""], "host: expected"),
        (["--stub", "0.01", "--cert", "c.pem"], "TLS needs both"),
        (["--stub", "0.01", "--cert", "none.pem", "--key", "none.pem"], "not a certificate"),
        (["--stub", "0.01", "--tokens-file", "none.json"], "cannot be read"),
        (["--bundle", "nowhere"], "no bundle.json"),
        ([], "name the folder"),
    ],
)
def test_a_wrong_start_is_refused_in_one_sentence(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


def test_limits_in_a_file_are_checked_too(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "limits.json"
    file.write_text(json.dumps({"hung_s": -1}))
    assert main(["--stub", "0.01", "--limits", str(file)]) == 2
    assert "hung_s" in capsys.readouterr().err
