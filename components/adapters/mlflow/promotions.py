"""What older versions recorded of a model's champion: its alias, and promotions as parameters of a run.

An older promotion wrote `<model>.champion.<n>` = its version into the run of the model's oldest version, then moved the alias, then wrote
`<model>.champion.<n>.done`. One without "done" was decided, and its process ended before the alias moved.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def unfinished_promotion(client: MlflowClient, name: str) -> str:
    """The version whose promotion an older version decided and did not finish; "" where there is none."""
    prefix = re.sub(r"[^-./ \w]", "-", name) + ".champion."  # what a parameter's name may hold
    for version in sorted(versions_of(client, name), key=lambda v: int(v.version)):
        run = client.get_run(version.run_id) if version.run_id else None
        if run is None or run.info.lifecycle_stage != "active":
            continue
        params = run.data.params
        numbers = [int(key.removeprefix(prefix)) for key in params if re.fullmatch(re.escape(prefix) + r"\d+", key)]
        newest = f"{prefix}{max(numbers, default=0)}"
        return "" if f"{newest}.done" in params else params.get(newest, "")
    return ""


def versions_of(client: MlflowClient, name: str, *, page: int = 1000) -> list[ModelVersion]:
    """Every version of a registered model. MLflow answers a page at a time, and by itself only the first."""
    found = client.search_model_versions(f"name='{name}'", max_results=page)
    versions = list(found)
    while found.token:
        found = client.search_model_versions(f"name='{name}'", max_results=page, page_token=found.token)
        versions += found
    return versions
