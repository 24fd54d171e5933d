"""`python -m flows.web`: print the OpenAPI document of the console, from which `make console` makes the pages' types."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from components.artifacts.step_store import StepStore
from flows.platform.settings import load_settings
from flows.platform.wiring import Platform
from flows.web.console_endpoints import console_endpoints
from flows.web.http.openapi import openapi_document
from flows.web.http.people import People


def described() -> dict[str, Any]:
    """The document; nothing is opened for it."""
    nowhere = Platform(settings=load_settings(), store=StepStore(Path("nowhere")))
    return openapi_document(console_endpoints(nowhere, People(None)))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(described(), indent=1, sort_keys=True) + "\n")
