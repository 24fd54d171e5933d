"""A console in the process of the test: its application over a home, with people who have tokens or need none."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
