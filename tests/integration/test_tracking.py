"""Runs and versions in a real MLflow: its SQLite file, and its server killed in the middle."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from components.adapters.mlflow.champions import Champions
from components.adapters.mlflow.promotions import versions_of
from components.adapters.mlflow.reading.database import DatabaseReader
from components.adapters.mlflow.reading.open import open_reader
from components.adapters.mlflow.registry import MlflowRegistry
from components.adapters.mlflow.runs import MlflowTracker
from components.adapters.mlflow.server import TrackingAddress, server_command
from components.adapters.mlflow.spool import RecordSpool
from components.artifacts.empty_databases import copy_database
from components.config.judging.champion_entry import version_to_roll_back_to
from components.config.ports import DatasetInput, Metric
from model_core.spec.errors import TrackingError
from serving.fleet.controller.http.mlflow_hook import read_aliases
from tests.tracking_twins import MemoryRegistry


@pytest.fixture
def home(tmp_path):
    copy_database("mlflow", tmp_path / "mlflow.db")
    return tmp_path


def client_of(address):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address.tracking_uri)


def curve(client, run, key="loss"):
    return [(m.step, m.value) for m in sorted(client.get_metric_history(run, key), key=lambda m: m.step)]


def points(steps):
    return [Metric("loss", 1.0 / (1 + step), step) for step in steps]


def expected(steps):
    return [(step, 1.0 / (1 + step)) for step in steps]


def free_port():
    with closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """MLflow's own server over `home`, in a process group of its own."""

    def __init__(self, home, port):
        command = server_command(home, port)
        self.url = f"http://127.0.0.1:{port}"
        self._log = (home / "server.log").open("ab")
        self._process = subprocess.Popen(
            command.argv, env={**os.environ, **command.environment}, stdout=self._log, stderr=self._log, start_new_session=True, cwd=home
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                if urllib.request.urlopen(f"{self.url}/health", timeout=2).status == 200:
                    return
            except OSError:
                time.sleep(0.2)
        self.kill()
        raise AssertionError((home / "server.log").read_text()[-2000:])

    def kill(self):
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._log.close()


@pytest.fixture
def servers(home):
    started = []

    def start(port):
        started.append(Server(home, port))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def test_a_run_lands_in_sqlite_with_everything(home, tmp_path):
    address = TrackingAddress(home=home)
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG fake")
    tracker = MlflowTracker(address)
    run_id = tracker.start_run(
        "train",
        {"train": {"lr": 0.001, "network": "tiny"}},
        {"stage": "post"},
        run_id="train-abc",
        dataset=DatasetInput(name="loop", version="d" * 64),
    )
    tracker.log_metrics(points(range(2500)))
    tracker.log_image("examples/step_0100.png", picture)
    tracker.log_text("notes/recipe.json", json.dumps({"name": "loop"}))
    tracker.finish()
    assert run_id == "train-abc"
    server_id = tracker.server_run_id(run_id)
    client = client_of(address)
    run = client.get_run(server_id)
    assert run.data.params == {"train.lr": "0.001", "train.network": "tiny"}
    assert run.data.tags["stage"] == "post"
    assert run.data.tags["dataset_version"] == "d" * 64
    assert run.inputs.dataset_inputs[0].dataset.name == "loop"
    assert run.info.status == "FINISHED"
    assert curve(client, server_id) == expected(range(2500))
    assert [a.path for a in client.list_artifacts(server_id, "examples")] == ["examples/step_0100.png"]
    assert json.loads(Path(client.download_artifacts(server_id, "notes/recipe.json")).read_text()) == {"name": "loop"}


def test_a_killed_and_resumed_run_is_one_run_with_one_curve(home):
    address = TrackingAddress(home=home, send_every_s=0.0)
    killed = MlflowTracker(address)
    killed.start_run("train", run_id="train-abc")
    killed.log_metrics(points(range(30)))  # and no finish: the process is gone; its last checkpoint was step 20
    resumed = MlflowTracker(address)
    resumed.start_run("train", run_id="train-abc")
    resumed.log_metrics(points(range(20, 50)))
    resumed.finish()
    client = client_of(address)
    runs = client.search_runs([client.get_experiment_by_name("actwright").experiment_id])
    assert len(runs) == 1
    assert curve(client, runs[0].info.run_id) == expected(range(50))


def test_a_batch_that_is_delivered_twice_counts_once(home, tmp_path):
    address = TrackingAddress(home=home)
    tracker = MlflowTracker(address)
    tracker.start_run("train", {"a": 1}, run_id="train-abc", dataset=DatasetInput(name="loop", version="d" * 64))
    tracker.log_metrics(points(range(40)))
    tracker.log_text("notes.txt", "once")
    tracker.finish()
    before = tracker.server_run_id("train-abc")
    next(iter(address.spool_root.glob("*.cursor.json"))).unlink()  # killed after sending, before the cursor was moved
    assert MlflowTracker(address).replay() == 0
    client = client_of(address)
    assert tracker.server_run_id("train-abc") == before
    assert len(client.search_runs([client.get_experiment_by_name("actwright").experiment_id])) == 1
    assert curve(client, before) == expected(range(40))
    assert len(client.get_run(before).inputs.dataset_inputs) == 1


def test_what_mlflow_never_takes_does_not_block_what_follows(home):
    address = TrackingAddress(home=home)
    tracker = MlflowTracker(address)
    tracker.start_run("train", {"a": 1}, run_id="train-abc")
    tracker.log_metrics([Metric("a name with a § in it", 1.0, 0)])
    tracker.log_text("notes.txt", "hello")
    tracker.log_metrics(points(range(3)))
    tracker.finish()
    assert not RecordSpool(address.spool_root, "train-abc").pending
    assert curve(client_of(address), tracker.server_run_id("train-abc")) == expected(range(3))


# short: a server that is not there yet
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["not there at first", "killed"])
def test_server_killed_in_the_middle_loses_nothing(home, servers, tmp_path, caplog, killed):
    port = free_port()
    first = servers(port) if killed else None
    url = f"http://127.0.0.1:{port}"
    address = TrackingAddress(home=tmp_path / "client", uri=url, send_every_s=0.0, retry_after_s=0.2)
    tracker = MlflowTracker(address)
    tracker.start_run("train", {"lr": 0.1}, run_id="train-abc")
    tracker.log_metrics(points(range(10)))
    if first is not None:
        first.kill()
    began = time.monotonic()
    for step in range(10, 30):
        tracker.log_metrics(points([step]))
    tracker.log_text("notes.txt", "written while the server was away")
    tracker.finish()
    assert time.monotonic() - began < 30
    assert "away" in caplog.text
    unseen = MlflowTracker(address)
    unseen.start_run("train", {"lr": 0.2}, run_id="train-unseen")
    unseen.log_metrics(points(range(5)))
    unseen.finish("failed")
    assert unseen.server_run_id("train-unseen") == ""
    registry = MlflowRegistry(address)
    with pytest.raises(TrackingError, match=f"{url} does not answer.*actwright up"):
        registry.create_version(
            "m", checkpoint_uri="file:///x", checkpoint_digest="c" * 64, contract_id="0" * 16, run_id="train-abc", lineage={}
        )
    servers(port)
    following = MlflowTracker(address)
    following.start_run("train", run_id="train-def")
    following.finish()
    client = client_of(address)
    runs = {
        run.data.tags["actwright.run_id"]: run for run in client.search_runs([client.get_experiment_by_name("actwright").experiment_id])
    }
    assert sorted(runs) == ["train-abc", "train-def", "train-unseen"]
    late = runs["train-unseen"]
    assert (late.info.status, late.data.params) == ("FAILED", {"lr": "0.2"})
    assert curve(client, late.info.run_id) == expected(range(5))
    earlier = runs["train-abc"].info
    assert curve(client, earlier.run_id) == expected(range(30))
    assert earlier.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(earlier.run_id)] == ["notes.txt"]
    version = registry.create_version(
        "m", checkpoint_uri="file:///x", checkpoint_digest="c" * 64, contract_id="0" * 16, run_id="train-abc", lineage={}
    )
    assert registry.promote(version, expected=None).alias == "champion"
    by_rest, by_sql = open_reader(address), open_reader(TrackingAddress(home=home))
    for told in (by_rest, by_sql):
        found = told.runs(tags={}, limit=9)
        assert {run.run_id: run.server_id for run in found} == {name: run.info.run_id for name, run in runs.items()}
        assert {run.run_id: run.metrics for run in found} == {name: run.data.metrics for name, run in runs.items()}
        assert [run.status for run in told.run("train-un")] == ["failed"]
        assert told.run(earlier.run_id[:9])[0].ended_ms == earlier.end_time
    assert by_rest.runs(tags={}, limit=9) == by_sql.runs(tags={}, limit=9)
    assert by_rest.runs(tags={"actwright.run_id": "train-def"}, limit=1) == by_sql.run("train-def")
    for name in ("train-abc", "train-unseen"):
        [run] = by_sql.run(name)
        assert by_rest.curves(run, ["none", "loss"], most=1000) == by_sql.curves(run, ["none", "loss"], most=1000)
        [whole] = by_sql.curves(run, ["loss"], most=1000)
        assert list(zip(whole.steps, whole.values, strict=True)) == curve(client, run.server_id)
        [thin] = by_sql.curves(run, ["loss"], most=3)
        assert (len(thin.steps) <= 4, thin.steps[-1], set(thin.steps) <= set(whole.steps)) == (True, whole.steps[-1], True)
    assert list(by_rest.versions()) == list(by_sql.versions("m")) != []
    assert by_rest.model("m") == by_sql.model("m")
    assert by_sql.model("m").aliases == {"champion": 1}
    assert by_rest.model("unknown") is by_sql.model("unknown") is None
    for name in ("before", "z"):
        client.create_registered_model(name)
    assert read_aliases(url, "champion", page_size=1) == {"m": "1"}
    assert read_aliases(url, "champion") == {"m": "1"}


@pytest.fixture(params=["mlflow", "memory"])
def registry(request):
    if request.param == "memory":
        return MemoryRegistry()
    return MlflowRegistry(TrackingAddress(home=request.getfixturevalue("home")))


def create(registry, letter):
    return registry.create_version(
        "arm",
        checkpoint_uri=f"file:///store/{letter}",
        checkpoint_digest=letter * 64,
        contract_id="0123456789abcdef",
        run_id=f"train-{letter}",
        lineage={"dataset_version": "d" * 64, "code_commit": "abc", "annotator.depth": "truth/1"},
    )


def test_versions_are_numbered_and_the_same_checkpoint_is_one(registry):
    assert registry.champion("arm") is None
    first, second = create(registry, "a"), create(registry, "b")
    assert (first.version, second.version) == (1, 2)
    assert create(registry, "a") == first
    assert [v.version for v in registry.versions("arm")] == [1, 2]
    assert first.dataset_version == "d" * 64
    assert dict(first.lineage) == {
        "annotator.depth": "truth/1",
        "checkpoint_uri": "file:///store/a",
        "code_commit": "abc",
        "run_id": "train-a",
    }


def test_champion_moves_only_from_where_it_was_seen(registry):
    first, second, third = (create(registry, letter) for letter in "abc")
    assert registry.promote(first, expected=None).alias == "champion"
    assert registry.promote(first, expected=None).version == 1  # already so: nothing to do
    promoted = registry.promote(second, expected=1)
    assert (promoted.alias, promoted.replaced) == ("champion", "1")
    with pytest.raises(TrackingError, match="is version 2, expected 1"):
        registry.promote(third, expected=1)
    assert registry.champion("arm").version == 2
    assert [v.alias for v in registry.versions("arm")] == ["candidate", "champion", "candidate"]


def test_of_two_that_promote_at_once_one_wins(home):
    address = TrackingAddress(home=home)
    versions = [create(MlflowRegistry(address), letter) for letter in "ab"]
    outcomes = []

    def promote(version):
        try:
            outcomes.append(MlflowRegistry(address).promote(version, expected=None).version)
        except TrackingError:
            outcomes.append(0)

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[0] == 0
    assert MlflowRegistry(address).champion("arm").version == sorted(outcomes)[1]


def machines(home, tmp_path, count=2):
    """Registries of machines with a home each, so that no file lock keeps them apart, over one database."""
    uri = f"sqlite:///{home}/mlflow.db"
    return [MlflowRegistry(TrackingAddress(home=tmp_path / f"machine-{number}", uri=uri)) for number in range(count)]


def test_of_two_machines_that_saw_the_same_champion_one_wins(home, tmp_path, monkeypatch):
    here, there = machines(home, tmp_path)
    first, second = create(here, "a"), create(here, "b")
    look = Champions.current
    seen = []

    def look_then_be_overtaken(self):
        champion = look(self)
        if not seen:
            seen.append(champion)
            there.promote(second, expected=None)
        return champion

    monkeypatch.setattr(Champions, "current", look_then_be_overtaken)
    with pytest.raises(TrackingError, match="champion of arm is version 2, expected None: someone promoted in between"):
        here.promote(first, expected=None)
    assert seen == [None]
    assert there.champion("arm").version == 2
    assert here.promote(first, expected=2).alias == "champion"
    assert [(one.number, one.version, one.replaced) for one in there.champion_history("arm")] == [(1, 2, None), (2, 1, 2)]


def killed_before_the_alias_moves(registry, version, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(Champions, "follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            registry.promote(version, expected=None)


def alias_of(home):
    named = client_of(TrackingAddress(home=home)).get_registered_model("arm").aliases.get("champion")
    return None if named is None else str(named)


def test_a_promotion_whose_process_ended_before_the_alias_moved_is_carried_out_by_the_next(home, tmp_path, monkeypatch, caplog):
    here, there = machines(home, tmp_path)
    first, second = create(here, "a"), create(here, "b")
    killed_before_the_alias_moves(here, first, monkeypatch)
    assert alias_of(home) is None
    with pytest.raises(TrackingError, match="is version 1, expected None"):
        there.promote(second, expected=None)
    assert there.champion("arm").version == 1
    assert alias_of(home) == "1"
    assert "follows number 1, which made version 1 champion" in caplog.text


def test_a_promoted_version_that_a_person_deleted_blocks_nothing(home, tmp_path, monkeypatch):
    here, there = machines(home, tmp_path)
    _, second, third = (create(here, letter) for letter in "abc")
    killed_before_the_alias_moves(here, second, monkeypatch)
    client_of(TrackingAddress(home=home)).delete_model_version("arm", "2")
    assert there.promote(third, expected=None).version == 3
    assert [(one.version, one.how) for one in there.champion_history("arm")] == [(2, "gate"), (None, "withdrawn"), (3, "gate")]


def test_an_alias_that_a_person_moved_is_put_back_and_the_command_for_it_is_told(home, caplog):
    registry = MlflowRegistry(TrackingAddress(home=home))
    first, second, third = (create(registry, letter) for letter in "abc")
    registry.promote(first, expected=None)
    registry.promote(second, expected=1)
    client_of(TrackingAddress(home=home)).set_registered_model_alias("arm", "champion", "1")
    assert registry.champion("arm").version == 2
    assert alias_of(home) == "2"
    assert "was moved by hand to version 1; it is version 2 again" in caplog.text
    assert "actwright champion promote arm/VERSION" in caplog.text
    client_of(TrackingAddress(home=home)).delete_registered_model_alias("arm", "champion")
    with pytest.raises(TrackingError, match="is version 2, expected 1"):
        registry.promote(third, expected=1)
    assert alias_of(home) == "2"
    assert registry.promote(third, expected=2).version == 3


@pytest.mark.parametrize(
    "is_cut", [pytest.param(False, marks=pytest.mark.soak, id="with its alias"), pytest.param(True, id="cut before the alias moved")]
)
def test_the_champion_of_an_older_home_becomes_the_first_entry(home, caplog, is_cut):
    registry, client = MlflowRegistry(TrackingAddress(home=home)), client_of(TrackingAddress(home=home))
    create(registry, "a"), create(registry, "b")
    run = client.get_model_version("arm", "1").run_id
    client.log_param(run, "arm.champion.1", "1")
    client.log_param(run, "arm.champion.1.done", "yes")
    client.log_param(run, "arm.champion.2", "2")
    if not is_cut:
        client.log_param(run, "arm.champion.2.done", "yes")
    client.set_registered_model_alias("arm", "champion", "1" if is_cut else "2")
    assert registry.champion("arm").version == 2
    assert alias_of(home) == "2"
    [entry] = registry.champion_history("arm")
    assert (entry.number, entry.version, entry.how) == (1, 2, "taken over")
    assert "taken over from MLflow's alias" in caplog.text


def test_a_champion_is_rolled_back_and_withdrawn_under_new_numbers(registry):
    versions = [create(registry, letter) for letter in "abc"]
    for number, version in enumerate(versions):
        registry.promote(version, expected=number or None)
    assert version_to_roll_back_to(registry.champion_history("arm")) == 2
    assert registry.promote(versions[1], expected=3, how="rollback", reason="drops the cup").alias == "champion"
    assert version_to_roll_back_to(registry.champion_history("arm")) == 1
    with pytest.raises(TrackingError, match="is version 2, expected 3"):
        registry.withdraw("arm", expected=3, reason="late")
    registry.withdraw("arm", expected=2, reason="mislabelled")
    assert registry.champion("arm") is None
    assert [v.alias for v in registry.versions("arm")] == ["candidate"] * 3
    told = [(one.number, one.version, one.replaced, one.how) for one in registry.champion_history("arm")[2:]]
    assert told == [(3, 3, 2, "gate"), (4, 2, 3, "rollback"), (5, None, 2, "withdrawn")]
    assert registry.promote(versions[2], expected=None).version == 3


def test_two_tables_for_one_model_are_refused_until_a_person_takes_over(home, tmp_path, caplog):
    here = MlflowRegistry(TrackingAddress(home=home))
    other = MlflowRegistry(TrackingAddress(home=home, champions_url=f"sqlite:///{tmp_path}/another/table.db"))
    first, second = create(here, "a"), create(here, "b")
    here.promote(first, expected=None)
    here.promote(second, expected=1)
    for ask in (lambda: other.champion("arm"), lambda: other.promote(first, expected=2), lambda: other.versions("arm")):
        with pytest.raises(TrackingError, match="the champions of arm are in another table"):
            ask()
    entry = other.adopt_table("arm", "the old one is lost")
    assert (entry.number, entry.version) == (3, 2)  # above every earlier number, though this table has none of them
    assert other.champion("arm").version == 2
    with pytest.raises(TrackingError, match="in another table"):
        here.champion("arm")


def test_a_registry_that_was_begun_anew_is_no_registry_of_these_champions(home, tmp_path):
    registry = MlflowRegistry(TrackingAddress(home=home))
    registry.promote(create(registry, "a"), expected=None)
    copy_database("mlflow", tmp_path / "anew" / "mlflow.db")
    again = MlflowRegistry(TrackingAddress(home=tmp_path / "anew", champions_url=TrackingAddress(home=home).champions))
    with pytest.raises(TrackingError, match="MLflow has nothing under that number"):
        again.champion("arm")
    again.withdraw("arm", expected=1, reason="begun anew")
    assert again.champion("arm") is None
    version = create(again, "b")
    assert again.promote(version, expected=None).version == 1
    assert again.champion_entry("arm").number == 3


def test_an_alias_that_two_set_for_the_first_time_at_once_is_asked_for_again(home, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    registry = MlflowRegistry(TrackingAddress(home=home))
    first = create(registry, "a")
    real, asked = MlflowClient.set_registered_model_alias, []

    def races(self, *arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise MlflowException("UNIQUE constraint failed: registered_model_aliases.name", error_code=BAD_REQUEST)
        return real(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", races)
    assert registry.promote(first, expected=None).alias == "champion"
    assert len(asked) == 2


def test_a_champion_that_is_settled_is_known_without_loading_mlflow(home):
    registry = MlflowRegistry(TrackingAddress(home=home))
    registry.promote(create(registry, "a"), expected=None)
    client = client_of(TrackingAddress(home=home))
    client.delete_model_version("arm", str(create(registry, "b").version))
    create(registry, "c")
    asked = (
        "import sys; from pathlib import Path; from components.adapters.mlflow.registry import MlflowRegistry as R;"
        f"from components.adapters.mlflow.server import TrackingAddress as A; registry = R(A(home=Path({str(home)!r})));"
        "print(registry.champion('arm').version, registry.champion_entry('arm').number);"
        "print([one.version for one in registry.versions('arm')], 'mlflow' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["1 1", "[1, 3] False"]
    assert registry.champion("arm") == registry.versions("arm")[0]
    client.create_registered_model("hand")  # and of no version
    registry.withdraw("arm", expected=1, reason="a test")
    nobody = asked.partition("print(")[0] + (
        "print([registry.champion(name) for name in ('arm', 'hand', 'never')], registry.champion_entry('arm').version);"
        "print([one.alias for one in registry.versions('arm')], registry.versions('hand'), 'mlflow' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", nobody], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[None, None, None] None", "['candidate', 'candidate'] [] False"]
    assert registry.versions("arm") == registry._versions(client, "arm")


def test_a_schema_that_was_never_seen_is_not_read(home):
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    with pytest.raises(TrackingError, match=r"schema 0123456789ab; read are those of .*3\.17\.2.*ACTWRIGHT_MLFLOW_URI"):
        DatabaseReader(f"sqlite:///{home}/mlflow.db", "actwright").runs(tags={}, limit=1)


def test_server_command_is_for_loopback_and_starts_no_job_runner(tmp_path):
    command = server_command(tmp_path, 5123, allowed_hosts=["mlflow.actwright.svc"])
    assert command.argv[command.argv.index("--host") + 1] == "127.0.0.1"
    assert "mlflow.actwright.svc" in command.argv[command.argv.index("--allowed-hosts") + 1]
    assert command.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_every_version_is_found_though_mlflow_answers_a_page_at_a_time(home):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")
    client.create_registered_model("arm")
    for number in range(5):
        client.create_model_version("arm", source=f"file:///nowhere/{number}")
    assert len(client.search_model_versions("name='arm'", max_results=2)) == 2  # what MLflow does, and does not tell
    assert sorted(int(version.version) for version in versions_of(client, "arm", page=2)) == [1, 2, 3, 4, 5]
