"""The order of a model's champions, decided by MLflow itself: of any number of machines that promote at once, one wins.

The last caller sets an alias. A parameter of a run is different: its first value stays, and another one is refused. So a promotion
first writes `<model>.champion.<n>` = its version into the run of the model's oldest version, and moves the alias only if that was taken.
`<model>.champion.<n>.done` says that the alias was moved: one that stands elsewhere afterwards was moved by a person, and counts. Without
it the process ended in between, and the next promotion moves the alias first.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_core.spec.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_ALIAS_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPromotion:
    """The newest promotion of a model. number: 0 before the first. is_done: the alias was moved."""

    number: int = 0
    version: str = ""
    is_done: bool = True


class Promotions:
    """The promotions of the model `name`; `alias` is the view of them that others read. Raises what MLflow's client raises."""

    def __init__(self, client: MlflowClient, name: str, alias: str) -> None:
        self._client, self._name, self._alias = client, name, alias
        plain = re.sub(r"[^-./ \w]", "-", name)  # what a parameter's name may hold
        self._prefix = f"{plain}.champion."
        self._run = self._run_of_oldest_version()

    def last(self) -> LastPromotion:
        """The newest one."""
        params = self._params()
        numbers = [int(key.removeprefix(self._prefix)) for key in params if re.fullmatch(r"\d+", key.removeprefix(self._prefix))]
        if not numbers:
            return LastPromotion()
        newest = max(numbers)
        return LastPromotion(number=newest, version=params[f"{self._prefix}{newest}"], is_done=f"{self._prefix}{newest}.done" in params)

    def claim(self, number: int, version: str) -> bool:
        """Make `version` the promotion `number`; False when another version is."""
        from mlflow.exceptions import MlflowException

        key = f"{self._prefix}{number}"
        try:
            self._client.log_param(self._run, key, version)
        except MlflowException:  # refused, or the answer was lost: what stands there decides
            found = self._params().get(key)
            if found is None:
                raise
            return found == version
        return True

    def move_alias(self, number: int, version: str) -> None:
        """Let the alias name the version of promotion `number`."""
        from mlflow.exceptions import MlflowException

        for attempt in range(1, _ALIAS_TRIES + 1):
            try:
                self._client.set_registered_model_alias(self._name, self._alias, version)
                break
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # a person deleted the version since: there is nothing to name
                    break
                # Two that set a new alias at once: one is told BAD_REQUEST, and succeeds when it asks again.
                if error.error_code != "BAD_REQUEST" or attempt == _ALIAS_TRIES:
                    raise
                time.sleep(0.1 * attempt)
        self._client.log_param(self._run, f"{self._prefix}{number}.done", "yes")

    def _params(self) -> dict[str, str]:
        return {k: v for k, v in self._client.get_run(self._run).data.params.items() if k.startswith(self._prefix)}

    def _run_of_oldest_version(self) -> str:
        for version in sorted(versions_of(self._client, self._name), key=lambda v: int(v.version)):
            if version.run_id and self._client.get_run(version.run_id).info.lifecycle_stage == "active":
                return version.run_id
        raise TrackingError(
            f"every run of the versions of {self._name} was deleted, so no promotion can be recorded. Fix: restore one of them in MLflow"
        )


def versions_of(client: MlflowClient, name: str, *, page: int = 1000) -> list[ModelVersion]:
    """Every version of a registered model. MLflow answers a page at a time, and by itself only the first."""
    found = client.search_model_versions(f"name='{name}'", max_results=page)
    versions = list(found)
    while found.token:
        found = client.search_model_versions(f"name='{name}'", max_results=page, page_token=found.token)
        versions += found
    return versions
