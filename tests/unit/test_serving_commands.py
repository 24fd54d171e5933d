"""Serving by command line: wrong usage exits 2 and says what to type; names of models are read; what a cell says becomes a panel."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from components.deployment import cell_process
from components.deployment.cell_process import run_cell
from components.deployment.probe import Probed
from components.deployment.probe_view import contract_lines, view_of_probe
from components.deployment.service_address import ServiceUrl
from components.drawing.decision import draw_decision
from components.release.bundle import find_packed
from flows.commands.serving.commands import add_serving
from flows.pipeline.model_lookup import packed_model, policies_here
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.terminal.workcell_panel import WorkcellPanel
from model_core.spec.contract import PROTOCOL_VERSION
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.execution.cell_options import CellOptions
from model_core.spec.protocol.wire import Ready, Reject
from model_core.spec.types import RefusalCode
from serving.workcell.link.credentials import Credentials
from tests.fakes import make_contract, make_observation


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    add_serving(made)
    return made


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "TOKEN", "TOKENS", "TOKENS_FILE"):
        monkeypatch.delenv(f"ACTWRIGHT_{name}", raising=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve nosuch", "type `actwright serve champion`"),
        ("serve --host 0.0.0.0", "there are no tokens: give --tokens FILE"),
        ("serve --port 70000", "65535"),
        ("serve --key missing.pem", "missing.pem"),
        ("probe 127.0.0.1:3000", "type: actwright probe http://127.0.0.1:3000"),
        ("probe http://127.0.0.1:3000/other", "looks like http://127.0.0.1:3000"),
        ("workcell run --task t --url 127.0.0.1:1", "type: --url http://127.0.0.1:1"),
        ("workcell run --task t --url http://h:1 --strategy prefix", "needs --realtime"),
        ("workcell run --task t --url http://h:1 --watchdog beat", "needs --realtime"),
        ("workcell run --task t --url http://h:1 --robot arm", "MODULE:FACTORY"),
        ("workcell run --task t", "--url"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_type(app: typer.Typer, words: str, said: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2, done.output
    plain = " ".join("".join(c for c in done.output if c not in "│╭╮╰╯─").split())
    assert said in plain


@pytest.mark.parametrize(
    ("written", "said"), [(b"", "is empty"), (b"\xff\xfe", "printable ASCII"), (b"secret-a\nsecret-b\n", "printable ASCII")]
)
def test_a_token_file_without_a_token_is_refused_and_not_shown(app: typer.Typer, tmp_path, written: bytes, said: str) -> None:
    (tmp_path / "token").write_bytes(written)
    done = CliRunner().invoke(app, ["probe", "http://127.0.0.1:9", "--token-file", str(tmp_path / "token")])
    assert done.exit_code == 2, done.output
    assert said in " ".join("".join(c for c in done.output if c not in "│╭╮╰╯─").split())
    assert "secret" not in done.output
    with pytest.raises(SpecError, match=said):
        Credentials(token_file=tmp_path / "token").headers()


def test_fault_tools_get_every_word_and_give_their_own_exit_code(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["fault-proxy", "--nosuch", "1"]).exit_code == 2
    assert CliRunner().invoke(app, ["fault-server", "--help"]).exit_code == 0


def write_bundle(folder: Path, *, version: int = PROTOCOL_VERSION, name: str = "m/1") -> Path:
    (folder / "probes").mkdir(parents=True)
    (folder / "checkpoint").mkdir()
    (folder / "bundle.json").write_text(json.dumps({"model_version": name, "contract_id": "c" * 16, "files": {}}))
    (folder / "probes" / "00.observe").write_bytes(bytes([version, 0]))
    return folder


def test_a_folder_is_read_for_what_it_is(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bento" / "src" / "bundle")
    (tmp_path / "bento" / "bento.yaml").write_text("")
    assert find_packed(bundle).bento is None
    for given in (tmp_path / "bento", tmp_path):
        found = find_packed(given)
        assert (found.bundle, found.bento, found.model_version, found.reasoning) == (bundle, tmp_path / "bento", "m/1", "full")
    assert len(find_packed(bundle).digest) == 64
    (tmp_path / "plain" / "checkpoint").mkdir(parents=True)
    (tmp_path / "plain" / "checkpoint" / "contract.json").write_text("{}")
    assert find_packed(tmp_path / "plain").bundle is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither a bento, a bundle"):
        find_packed(tmp_path / "empty")


def test_a_bundle_of_today_is_served_as_it_is(tmp_path: Path) -> None:
    from components.artifacts.step_store import StepStore

    platform = Platform(settings=Settings(home=tmp_path / "home"), store=StepStore(tmp_path / "home" / "store"))  # pyright: ignore[reportCallIssue]
    bundle = write_bundle(tmp_path / "bundle")
    assert packed_model(platform, str(bundle)).bundle == bundle
    with pytest.raises(SpecError, match="no recipe"):
        packed_model(platform, "nosuch")
    with pytest.raises(CheckpointError, match="no such folder"):
        packed_model(platform, "./nosuch")


def test_what_was_packed_here_is_found_newest_first_and_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")  # pyright: ignore[reportCallIssue]
    assert policies_here(settings) == []
    assert not (tmp_path / "home").exists()
    for age, name in enumerate(("new/1", "old/1")):
        bundle = write_bundle(tmp_path / "home" / "store" / "package" / f"k{age}" / "bento" / "src" / "bundle", name=name)
        os.utime(bundle / "bundle.json", (1000 - age, 1000 - age))
    assert [one.model_version for one in policies_here(settings)] == ["new/1", "old/1"]


def test_a_refusal_is_told_and_drawn() -> None:
    contract = make_contract()
    probed = Probed(
        url=ServiceUrl.of("http://h:1"),
        ready=Ready(session_id="s", epoch=1, model_version="m/1", contract=contract, levels={"full": {"p50_ms": 40.0, "p95_ms": 60.0}}),
        contract_id=contract.contract_id,
        asked=make_observation(contract.embodiment),
        answer=Reject(code=RefusalCode.UNSAFE, reason="outside its limits"),
        ms={"connect": 1.0, "handshake": 2.0, "answer": 3.0},
    )
    told = probed.report()
    assert (told["answer"], told["code"], told["contract_is_whole"]) == ("refusal", "UNSAFE", True)
    view = view_of_probe(probed)
    assert "refused: UNSAFE" in view.notes[0]
    assert draw_decision(view).width > 600
    assert "level     full: p50 40 ms, p95 60 ms" in contract_lines(contract, probed.ready.levels)


def test_a_body_that_does_not_fit_is_told_from_its_first_field(tmp_path, monkeypatch) -> None:
    refused = "the service refused: CONTRACT in 9 fields\n" + "\n".join(f"  dims[{n}].unit" for n in range(9))
    order = CellOptions(robot="strict", task="t", url="ws://h:1/v1/session", cell="c", result=tmp_path / "c.json")
    writes = ["sh", "-c", f"cat > {order.result} <<'END'\n{json.dumps({'refused_to_move': refused})}\nEND\nexit 3"]
    monkeypatch.setattr(cell_process, "cell_command", lambda _: writes)
    said: list[str] = []
    assert run_cell(order, log=tmp_path / "c.log", hear=lambda _: None, complain=said.append) == 3
    (told,) = said
    assert told.splitlines()[0] == "the service refused: CONTRACT in 9 fields"
    assert told.splitlines()[-1] == f"  ... and 4 more, in {order.result}"


def test_a_cell_s_lines_become_a_panel_and_plain_lines() -> None:
    live = {"episode": 2, "step": 31, "mode": "STRETCH", "successes": 1, "finished": 1, "p50_ms": 41.0, "p99_ms": 63.2, "decisions": 9}
    panel = WorkcellPanel("button", 3, live=False)
    panel.console = Console(record=True, width=160, file=io.StringIO())
    with panel.shown():
        panel.update({"live": {**live, "refused": 2, "why": "DEADLINE", "modes": {"RUN": 30, "STRETCH": 10}}})
        panel.update({"cell": "c", "done": 2, "total": 3, "success": False, "stop_reason": "refused", "steps": 4, "detail": "CONTRACT: no"})
        panel.update({"cell": "c", "done": 1, "total": 3, "success": False, "stop_reason": "max_steps", "steps": 40, "detail": ""})
        panel.update({"something": "else"})
    text = panel.console.export_text()
    assert "episode 2: refused after 4 steps: CONTRACT: no" in text
    assert "button episode 2/3 step 31 STRETCH, 1 of 1 solved, p50 41 ms, p99 63 ms" in text
    assert "episode 1: max steps after 40 steps" in text
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(panel._panel())
    shown = console.export_text()
    for said in ("episode 2 of 3, step 31", "STRETCH", "RUN 75 %", "2 refused or late (last: DEADLINE)", "max steps after 40"):
        assert said in shown
