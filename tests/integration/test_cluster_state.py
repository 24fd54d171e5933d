"""The runbook's own commands bring the platform's databases back, on a real PostgreSQL."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.adapters.champions.table import ChampionTable
from components.config.judging.champion_entry import ChampionEntry
from tests.postgres import Postgres, postgres_server, programs

pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: package postgresql)")
ROOT = Path(__file__).parents[2]
# Prefect in a process of its own, with its server inside: makes a run that waits for a person, or says which there are
PREFECT = """
import asyncio, sys
from prefect.client.orchestration import get_client
from prefect.states import Paused
from prefect import flow

@flow
def retrain(): ...

async def main():
    async with get_client() as client:
        if sys.argv[1] == "make":
            run = await client.create_flow_run(retrain, name="approval", state=Paused(timeout_seconds=10**6))
        runs = await client.read_flow_runs()
        print("seen", [(run.name, run.state.type.value) for run in runs])

asyncio.run(main())
"""


def commands(heading: str) -> str:
    """The shell of one section of the runbook, as it would run on the machine of the database."""
    text = (ROOT / "docs" / "cluster_state.md").read_text()
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = "".join(block for block in re.findall(r"```\n(.*?)```", section, re.S) if " scale " not in block)
    assert "kubectl" in lines
    plain = re.sub(r"kubectl -n actwright exec (-i )?postgres-0 -- ", "", lines)
    assert "kubectl" not in plain
    return plain


def run(server: Postgres, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    found = programs()
    assert found is not None
    environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PATH": f"{found}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def url(server: Postgres, name: str, driver: str = "postgresql") -> str:
    return f"{driver}://postgres@127.0.0.1:{server.port}/{name}"


@pytest.fixture
def server(tmp_path):
    with postgres_server() as one:
        made = run(one, tmp_path, f'psql -q -U postgres -f "{ROOT}/infra/k8s/base/databases.sql"')
        assert made.returncode == 0, made.stderr
        yield one


def entry(number: int) -> ChampionEntry:
    return ChampionEntry(model="arm", number=number, version=number, replaced=None, how="gate")


def test_what_was_backed_up_is_there_again_and_what_came_later_is_not(server, tmp_path):
    table = ChampionTable(url(server, "champions"))
    assert table.add(entry(1)) is not None
    done = run(server, tmp_path, commands("Backup"))
    assert done.returncode == 0, done.stderr
    table.add(entry(2))
    identity = table.table_id
    done = run(server, tmp_path, commands("Restore"))
    assert done.returncode == 0, done.stderr
    again = ChampionTable(url(server, "champions"))
    assert [one.version for one in again.history("arm")] == [1]
    assert again.table_id == identity  # the next promotion goes on in the same table


def test_a_damaged_dump_is_not_restored_and_the_databases_stay(server, tmp_path):
    table = ChampionTable(url(server, "champions"))
    table.add(entry(1))
    assert run(server, tmp_path, commands("Backup")).returncode == 0
    (tmp_path / "mlflow.dump").write_bytes((tmp_path / "mlflow.dump").read_bytes()[:-9])
    done = run(server, tmp_path, commands("Restore"))
    assert done.returncode != 0
    assert "mlflow.dump: FAILED" in done.stdout
    assert [one.version for one in table.history("arm")] == [1]


def prefect(server: Postgres, folder: Path, *command: str) -> str:
    environment = {**os.environ, "PREFECT_API_DATABASE_CONNECTION_URL": url(server, "prefect", "postgresql+asyncpg")}
    environment |= {"PREFECT_HOME": str(folder / "prefect-home"), "PREFECT_API_URL": "", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180"}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.soak  # short: the same commands with the table of champions alone
@pytest.mark.timeout(600)
def test_a_waiting_run_of_prefect_and_versions_of_mlflow_come_back_through_an_older_schema(server, tmp_path):
    psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed (make setup-all)")
    from mlflow import MlflowClient

    (tmp_path / "runs.py").write_text(PREFECT)
    waiting = "seen [('approval', 'PAUSED')]"
    assert waiting in prefect(server, tmp_path, "runs.py", "make")
    prefect(server, tmp_path, "-m", "prefect", "server", "database", "downgrade", "--yes", "--revision", "-1")
    tracking = url(server, "mlflow", "postgresql+psycopg2")
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    made = client.create_run(client.create_experiment("actwright", artifact_location=tmp_path.as_uri()))
    client.log_metric(made.info.run_id, "train/loss", 0.5, step=3)
    client.create_registered_model("arm")
    client.create_model_version("arm", source=tmp_path.as_uri(), run_id=made.info.run_id)
    client.set_registered_model_alias("arm", "champion", "1")
    done = run(server, tmp_path, commands("Backup"))
    assert done.returncode == 0, done.stderr
    client.set_terminated(made.info.run_id)
    client.delete_registered_model_alias("arm", "champion")
    done = run(server, tmp_path, commands("Restore"))
    assert done.returncode == 0, done.stderr
    prefect(server, tmp_path, "-m", "prefect", "server", "database", "upgrade", "--yes")
    assert waiting in prefect(server, tmp_path, "runs.py", "tell")
    upgraded = subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", tracking], capture_output=True, text=True, check=False)
    assert upgraded.returncode == 0, upgraded.stderr[-2000:]
    again = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    assert again.get_model_version_by_alias("arm", "champion").run_id == made.info.run_id
    assert again.get_run(made.info.run_id).info.status == "RUNNING"
    assert [(point.step, point.value) for point in again.get_metric_history(made.info.run_id, "train/loss")] == [(3, 0.5)]
    with psycopg2.connect(url(server, "mlflow")) as database, database.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs")
        assert cursor.fetchone() == (1,)
