"""The whole way by command line, with TLS and tokens: serve a bundle, probe it, drive a robot with an audit, ask the audit again."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from components.artifacts.audit_files import read_audit
from components.config.recipe import PackageConfig
from components.deployment.cell_process import named_robot
from components.deployment.gateway_service import Listening
from components.deployment.probe import probe
from components.deployment.probe_view import contract_lines, view_of_probe
from components.deployment.service_address import ServiceCredentials, ServiceUrl
from components.release.package import write_bundle
from model_core.spec.audit.format import Kind, digest
from model_core.spec.errors import NotReady, SpecError
from model_core.spec.execution.cell_options import CellOptions
from model_core.spec.protocol.wire import Chunk
from tests.fakes import make_embodiment
from tests.faults.fork_server import Done, ForkServer
from tests.integration.loop_runs import serving
from tests.tiny_checkpoint import INSTRUCTIONS, write_tiny_checkpoint

x509 = pytest.importorskip("cryptography.x509")
pytestmark = pytest.mark.xdist_group("ranks")
TOKEN = "a-token-for-this-test"


@dataclass(frozen=True, kw_only=True)
class Served:
    root: Path
    process: subprocess.Popen[str]
    told: dict[str, str]
    ranks: ForkServer

    @property
    def credentials(self) -> ServiceCredentials:
        return ServiceCredentials(token=TOKEN, ca_file=self.root / "cert.pem", timeout_s=60)

    def actwright(self, *words: object) -> Done:
        return self.ranks.run(*(str(word) for word in words), under=self.root)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACTWRIGHT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def write_certificate(folder: Path) -> None:
    """Self-signed, for 127.0.0.1, for a day."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "actwright test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


@pytest.fixture(scope="module")
def served(ranks: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    write_tiny_checkpoint(root / "checkpoint", embodiment=make_embodiment(size=32))
    write_bundle(PackageConfig(golden_probes=2), root / "checkpoint", "tiny/1", root / "bundle", None)
    write_certificate(root)
    entry = {"subject": "test", "role": "operate", "expires_at": None}
    (root / "tokens.json").write_text(json.dumps({digest(TOKEN.encode()): entry}))
    (root / "token").write_text(TOKEN + "\n")
    words = ["bundle", "--port", "0", "--cert", "cert.pem", "--key", "key.pem", "--tokens", "tokens.json"]
    with serving(root, environment(), *words) as (process, told):
        yield Served(root=root, process=process, told=told, ranks=ranks)
    said_at_the_end = (root / "serve.err").read_text()
    assert said_at_the_end.rstrip().endswith("stopped")
    assert "actwright probe https://" in said_at_the_end


def test_probe_shakes_hands_asks_and_draws(served: Served) -> None:
    probed = probe(served.told["policy"], served.credentials)
    told = probed.report()
    assert (told["model_version"], told["answer"], told["contract_is_whole"]) == ("tiny/1", "chunk", True)
    assert told["parts"] == ["depth", "trace"]
    assert {"connect_ms", "handshake_ms", "round_trip_ms"} <= told.keys()
    view = view_of_probe(probed)
    assert {"queue", "depth", "trace", "action"} <= view.timing_ms.keys()
    assert isinstance(probed.answer, Chunk)
    text = "\n".join(contract_lines(probed.contract, probed.ready.levels))
    for said in ("camera    front: 32x32", "action    gripper", "level     full", "says      depth 10x10"):
        assert said in text


def test_probe_asks_for_a_level(served: Served) -> None:
    probed = probe(served.told["policy"], served.credentials, level="action", instruction=INSTRUCTIONS[0])
    assert (probed.report()["level"], probed.parts) == ("action", ())
    refused = served.actwright(
        *("probe", served.told["policy"], "--token-file", "token", "--ca-file", "cert.pem", "--timeout-s", 60), *("--level", "nosuch")
    )
    assert refused.code == 3, refused.told
    assert "level 'nosuch' is not in the contract" in refused.told


def test_probe_steers_along_a_drawn_line(served: Served) -> None:
    probed = probe(served.told["policy"], served.credentials, line="2,3 20,20")
    assert probed.report()["flags"] == ["steering:rev1"]
    assert isinstance(probed.answer, Chunk)
    assert probed.answer.trace_N2 is not None
    assert np.abs(probed.answer.trace_N2 - np.array([[2, 3], [20, 20]]) * 255 / 31).max() <= 8
    with pytest.raises(SpecError, match="outside"):
        probe(served.told["policy"], served.credentials, line="2,3 20,90")
    with pytest.raises(SpecError, match="at most"):
        probe(served.told["policy"], served.credentials, instruction="x" * 5000)


def test_who_may_not_come_in_is_told_why(served: Served) -> None:
    with pytest.raises(NotReady, match="--token-file"):
        probe(served.told["policy"], ServiceCredentials(ca_file=served.root / "cert.pem"))
    with pytest.raises(NotReady, match="--ca-file"):
        probe(served.told["policy"], ServiceCredentials(token=TOKEN))
    with pytest.raises(NotReady):
        probe(served.told["policy"].replace("https", "http"), ServiceCredentials(token=TOKEN, timeout_s=3))


def test_a_cell_works_and_its_audit_can_be_proven_and_asked_again(served: Served) -> None:
    done = served.actwright(
        *("workcell", "run", "--robot", "strict", "--option", "contract=bundle/checkpoint/contract.json", "--option", "steps=12"),
        *("--task", "button", "--url", served.told["policy"], "--token-file", "token", "--ca-file", "cert.pem"),
        *("--audit", "audit", "--deadline-ms", 30_000, "--episodes", 2, "--result", "cell.json"),
    )
    assert done.code == 0, done.told
    told = json.loads(done.said)
    assert told["episodes"] == 2
    assert told["model_version"] == "tiny/1"
    assert "then try  actwright audit list audit" in done.told
    assert told["flags"]["blank:front"] >= 2  # the strict driver's images are of one grey
    assert f"noticed in answers: blank:front ({told['flags']['blank:front']})" in done.told
    first, second = sorted((served.root / "audit" / "cell-1").glob("*.mcap"))
    found = [read_audit(first), read_audit(second)]
    assert all(one.is_proven and one.of(Kind.SEAL)[0].body["complete"] for one in found), [one.problem for one in found]
    assert found[1].records[0].body["before"]["tip"] == found[0].tip
    assert len(found[0].of(Kind.EXECUTED)) == 12
    assert found[0].records[0].body["bundle_digest"]
    again = served.actwright("audit", "replay", first, "--decision", 1, "--bundle", "bundle", "--out", "look.png")
    assert again.code == 0, again.told
    asked = json.loads(again.said)
    assert asked["equal"] is True
    assert asked["same_bundle"] is True
    assert (served.root / "look.png").stat().st_size > 5000


def test_a_cell_of_another_body_does_not_move_and_says_so(served: Served, tmp_path: Path) -> None:
    done = served.actwright(
        *("workcell", "run", "--robot", "strict", "--task", "button", "--url", served.told["policy"], "--result", tmp_path / "cell.json"),
        *("--token-file", "token", "--ca-file", "cert.pem"),
    )
    assert done.code == 3, done.told
    assert json.loads(done.said)["refused_to_move"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("127.0.0.1:3000", "type: http://127.0.0.1:3000"),
        ("ftp://host:1", "scheme"),
        ("http://host:99999", "Port out of range"),
        ("http://host/v2/other", "looks like http://host:3000"),
        ("http://", "looks like"),
    ],
)
def test_an_address_that_is_none_says_what_to_type(typed: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ServiceUrl.of(typed)


@pytest.mark.parametrize("typed", ["http://h:3000", "http://h:3000/", "ws://h:3000/v1/session", "ws://h:3000"])
def test_both_forms_of_an_address_are_understood(typed: str) -> None:
    assert ServiceUrl.of(typed) == ServiceUrl(http="http://h:3000", session="ws://h:3000/v1/session")
    assert ServiceUrl.of("https://[::1]:7").session == "wss://[::1]:7/v1/session"


@pytest.mark.parametrize(
    ("options", "said"),
    [({"host": "0.0.0.0"}, "no tokens"), ({"port": 70_000}, "0..65535"), ({"certificate": Path("c")}, "both --cert and --key")],
)
def test_listening_is_checked_before_anything_starts(options: dict, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Listening(**options)
    assert Listening(host="0.0.0.0", tokens=Path("t")).needs_token


@pytest.mark.parametrize(
    ("change", "said"),
    [({"strategy": "warp"}, "sync, async"), ({"strategy": "prefix"}, "--realtime"), ({"robot": "arm"}, "MODULE:FACTORY")],
)
def test_a_cell_order_is_checked_before_anything_starts(change: dict, said: str) -> None:
    order = {"robot": "metaworld", "task": "t", "url": "ws://h:1/v1/session", "cell": "c", "result": Path("r.json")}
    told = {**order, **change}
    with pytest.raises(SpecError, match=said):
        CellOptions(**{**told, "robot": named_robot(told["robot"])[0]})


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_fault_server_ends_with_the_command_that_was_stopped(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", "from flows.commands.main import main; main()", "fault-server", "--port", "0"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it puts into the background
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment())
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "listening"
        os.kill(process.pid, number)  # to the command alone, as a supervisor does
        process.stdout.read()  # ends when nobody holds the other end: the tool is gone too
        assert process.wait(30) == (0 if number is signal.SIGINT else -number)
    finally:
        process.kill()
        process.wait()
