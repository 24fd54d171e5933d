"""A console in the process of the test: its application over a home, with people who have tokens or need none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from starlette.testclient import TestClient

from components.artifacts.step_store import StepStore
from flows.platform.settings import Settings
from flows.platform.wiring import Platform
from flows.web.app import create_app
from flows.web.console_endpoints import console_endpoints
from flows.web.http.endpoint import Endpoint
from flows.web.http.operator_log import OperatorLog
from flows.web.http.pages import Pages
from flows.web.http.people import People
from model_core.access import Tokens, read_table, token_digest

GOLDEN_HOME = Path("tests/golden/home_aa4ee54/home")
TOKENS = {"observe": "watching", "operate": "working", "admin": "deciding"}
_TABLE = {token_digest(token): {"subject": role, "role": role} for role, token in TOKENS.items()}
SAME_SITE = {"origin": "http://127.0.0.1:3100", "sec-fetch-site": "same-origin"}


def platform_over(home: Path, **settings: str) -> Platform:
    """A platform that reads `home` and starts nothing."""
    return Platform(settings=Settings(home=home, **settings), store=StepStore(home / "store"))


def tokens() -> Tokens:
    """One person of each role; the name is the role's."""
    return Tokens(read_table(_TABLE))


def token_file(folder: Path) -> Path:
    """The same table as a file."""
    path = folder / "tokens.json"
    path.write_text(json.dumps(_TABLE))
    return path


def client_of(endpoints: Sequence[Endpoint], people: People, *, only_loopback: bool = True, log: OperatorLog | None = None) -> TestClient:
    """A client of the application over these endpoints; it is no browser unless a test sends what browsers send."""
    app = create_app(endpoints, people, Pages(), only_loopback=only_loopback, log=log)
    return TestClient(app, base_url="http://127.0.0.1:3100", raise_server_exceptions=False)


def console_over(home: Path = GOLDEN_HOME, *, people: People | None = None, **settings: str) -> TestClient:
    """The whole console over a home."""
    people = people or People(None)
    return client_of(console_endpoints(platform_over(home, **settings), people), people, log=OperatorLog.of_home(home))


def add_training(database: Path, run_id: str) -> None:
    """A second training beside the golden one in MLflow's database: half the learning rate, twice the loss at odd steps alone, and an
    account of what it was trained on."""
    with closing(sqlite3.connect(database)) as db, db:
        [(old,)] = db.execute("SELECT run_uuid FROM runs WHERE name LIKE 'train%'").fetchall()
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            rows = [dict(zip(names, row, strict=True)) for row in db.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [old])]
            for row in rows:
                row["run_uuid"] = "f" * 32
                if row.get("key") == "actwright.run_id":
                    row["value"] = run_id
                if row.get("key") == "train.learning_rate":
                    row["value"] = "0.0005"
                if row.get("key") == "train/loss":
                    row["value"] *= 2
                if table == "runs":
                    row["start_time"] += 1000
                if row.get("step", 1) % 2 or table == "latest_metrics":
                    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        for source, frames in (("expert", 30.0), ("policy:arm_1", 10.0), ("nobody", 0.0)):
            name = f"account/train/{source}/frames"
            db.execute("INSERT INTO latest_metrics VALUES (?, ?, 0, 0, 0, ?)", [name, frames, "f" * 32])
