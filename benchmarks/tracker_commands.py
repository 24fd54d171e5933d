"""Commands that read the tracker, at 5,000 runs and 100 model versions, beside MLflow's own client asking the same of the same database.

Each side is a process from its start to its answer; the answers are compared. Commands of ours: `runs list`, `runs compare`, `lineage`,
`champion status`.
Run: python benchmarks/tracker_commands.py      writes benchmarks/results/tracker_commands.json
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "tracker_commands.json"
RUNS, VERSIONS, CURVES, REPEATS = 5000, 100, 20, 3
MODEL = "actwright"
PEER = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
experiment = client.get_experiment_by_name("actwright").experiment_id
what = sys.argv[2]
if what == "list":
    found = client.search_runs([experiment], "tags.stage = 'train'", max_results=20)
    print(json.dumps([run.data.tags["actwright.run_id"] for run in found]))
elif what == "compare":
    runs = [client.search_runs([experiment], f"tags.`actwright.run_id` = '{name}'")[0] for name in sys.argv[3:]]
    print(json.dumps([run.data.metrics["curve/0"] for run in runs]))
elif what == "lineage":
    found = client.search_model_versions("name = 'actwright'", max_results=1000)
    print(json.dumps(sorted(int(v.version) for v in found if v.tags["dataset_version"].startswith(sys.argv[3]))))
else:
    print(json.dumps(int(client.get_model_version_by_alias("actwright", "champion").version)))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        filled(home)
        url = f"sqlite:///{home}/mlflow.db"
        digest = f"{7:08x}"
        cases = {
            "runs list": (("runs", "list", "--stage", "train"), ("list",), lambda told: [run["id"] for run in told["runs"]]),
            "runs compare": (("runs", "compare", run_id(3), run_id(4998)), ("compare", run_id(3), run_id(4998)), compared_curve),
            "lineage": (("lineage", digest), ("lineage", digest), lambda told: sorted(int(v.split("/")[1]) for v in told["versions"])),
            "champion status": (("champion", "status", MODEL), ("champion",), lambda told: told["champion"]),
        }
        rows = {}
        for name, (ours, peers, answer_of) in cases.items():
            times: dict[str, list[tuple[float, float]]] = {"ours": [], "mlflow": []}
            for _ in range(REPEATS):
                told = timed([sys.executable, "-m", "flows.commands.main", *ours], home, times["ours"])
                wanted = timed([sys.executable, "-c", PEER, url, *peers], home, times["mlflow"])
                if answer_of(told) != wanted or wanted in ([], None):
                    raise SystemExit(f"{name}: ours {answer_of(told)}, MLflow's client {wanted}")
            ours_s, mlflow_s = (statistics.median(wall for wall, _ in times[side]) for side in ("ours", "mlflow"))
            rows[name] = {
                "ours_wall_s": round(ours_s, 2),
                "ours_processor_s": round(statistics.median(used for _, used in times["ours"]), 2),
                "mlflow_client_wall_s": round(mlflow_s, 2),
                "ratio": round(mlflow_s / ours_s, 1),
            }
    result = {
        "runs": RUNS,
        "curves_a_run": CURVES,
        "versions": VERSIONS,
        "commands": rows,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


def run_id(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}{number:016x}"


def filled(home: Path) -> None:
    """A home with that many runs and versions, written as MLflow writes them."""
    from components.adapters.mlflow.registry import MlflowRegistry
    from components.adapters.mlflow.server import Connection, TrackingAddress
    from components.artifacts.empty_databases import copy_database

    copy_database("mlflow", home / "mlflow.db")
    address = TrackingAddress(home=home.resolve())
    experiment = Connection(address).experiment()
    ids = [(f"{number:032x}", run_id(number)) for number in range(RUNS)]
    stages = ("collect", "train", "evaluate", "gate")
    with closing(sqlite3.connect(home / "mlflow.db")) as db, db:
        named = "run_uuid, name, start_time, end_time, experiment_id, source_type, status, lifecycle_stage"
        empty = "user_id, source_name, entry_point_name, source_version"
        db.executemany(
            f"INSERT INTO runs ({named}, artifact_uri, {empty}) VALUES (?, ?, ?, ?, ?, 'LOCAL', 'FINISHED', 'active', ?, '', '', '', '')",
            [
                (server, f"{stages[n % 4]} loop", 1000 * n, 1000 * n + 900, experiment, (home / "artifacts" / server).resolve().as_uri())
                for n, (server, _) in enumerate(ids)
            ],
        )
        tags = [(server, key, value) for n, (server, ours) in enumerate(ids) for key, value in tags_of(ours, stages[n % 4]).items()]
        db.executemany("INSERT INTO tags (run_uuid, key, value) VALUES (?, ?, ?)", tags)
        curves = [(server, f"curve/{curve}", n / (1 + curve)) for n, (server, _) in enumerate(ids) for curve in range(CURVES)]
        metric = "INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, 0, 0, 0)"
        db.executemany(metric, curves)
        db.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, 'seed', ?)", [(s, str(n)) for n, (s, _) in enumerate(ids)])
    registry = MlflowRegistry(address)
    made = [
        registry.create_version(
            MODEL,
            checkpoint_uri=f"file:///nowhere/{number}",
            checkpoint_digest=f"{number:064x}",
            contract_id=f"{number:016x}",
            run_id=run_id(4 * number + 1),
            lineage={"dataset_version": f"{number // 10:08x}" + "0" * 56},
        )
        for number in range(VERSIONS)
    ]
    registry.promote(made[-1], expected=None)


def tags_of(ours: str, stage: str) -> dict[str, str]:
    return {"actwright.run_id": ours, "stage": stage, "recipe": "loop", "mlflow.runName": f"{stage} loop"}


def compared_curve(told: dict) -> list[float]:
    return told["metrics"]["curve/0"]


def timed(argv: list[str], home: Path, times: list[tuple[float, float]]) -> object:
    """What a process tells as JSON; its wall and processor seconds go into `times`."""
    environment = {**os.environ, "ACTWRIGHT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(argv, env=environment, cwd=home, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{argv}: {done.stderr[-2000:]}")
    times.append((wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
