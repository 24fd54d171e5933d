"""Which model is champion: MLflow as `ModelRegistry`. Unlike a record of a run, its answer is needed, so it raises."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.adapters.mlflow.promotions import Promotions, versions_of
from components.adapters.mlflow.server import Connection, TrackingAddress
from components.artifacts.locks import locked
from components.config.records import ModelVersion
from model_core.spec.errors import TrackingError, require

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"


class MlflowRegistry:
    """Model versions in MLflow. See `components.config.ports.ModelRegistry`.

    Of any number of machines that promote at once one wins (`components.adapters.mlflow.promotions`); a file lock beside the records
    spares the processes of one `home` that contest.
    """

    def __init__(self, address: TrackingAddress) -> None:
        self._address = address
        self._connection = Connection(address)

    def create_version(
        self,
        name: str,
        *,
        checkpoint_uri: str,
        checkpoint_digest: str,
        contract_id: str,
        run_id: str,
        lineage: Mapping[str, str],
    ) -> ModelVersion:
        """Register a checkpoint; its digest is its identity."""
        with self._locked(name), self._asking(f"registering {name}") as client:
            for version in self._versions(client, name):
                if version.checkpoint_digest == checkpoint_digest:
                    return version
            run = self._connection.find_or_create_run(run_id, f"register-{name}", {}, time.time_ns() // 1_000_000)
            pointer = json.dumps({"uri": checkpoint_uri, "sha256": checkpoint_digest}, indent=1)
            client.log_text(run, pointer, "checkpoint/checkpoint.json")
            tags = {**lineage, "checkpoint_digest": checkpoint_digest, "checkpoint_uri": checkpoint_uri}
            tags |= {"contract_id": contract_id, "run_id": run_id}
            # "runs:/" because a server refuses sources that are local paths outside a run's artifacts
            created = client.create_model_version(name, source=f"runs:/{run}/checkpoint", run_id=run, tags=tags)
            return _model_version(created, "")

    def champion(self, name: str) -> ModelVersion | None:
        """The version that carries the alias, or None."""
        with self._asking(f"asking for the champion of {name}") as client:
            return self._champion(client, name)

    def promote(self, candidate: ModelVersion, *, expected: int | None) -> ModelVersion:
        """Move the alias if it is where the gate saw it."""
        with self._locked(candidate.name), self._asking(f"promoting {candidate.name} {candidate.version}") as client:
            promotions = Promotions(client, candidate.name, CHAMPION)
            last = promotions.last()
            if not last.is_done:  # decided, and its process ended or is still about to move the alias
                promotions.move_alias(last.number, last.version)
            current = self._champion(client, candidate.name)
            found = current.version if current else None
            if current is not None and current.version == candidate.version:
                return current
            if found != expected or not promotions.claim(last.number + 1, str(candidate.version)):
                newer = found if found != expected else promotions.last().version
                raise TrackingError(
                    f"champion of {candidate.name} is version {newer}, expected {expected}: someone promoted in between; "
                    f"judge version {candidate.version} against version {newer} and promote again"
                )
            if found is not None:
                client.set_model_version_tag(candidate.name, str(candidate.version), "replaced", str(found))
            promotions.move_alias(last.number + 1, str(candidate.version))
            promoted = self._champion(client, candidate.name)
            require(promoted is not None and promoted.version == candidate.version, "MLflow did not move the alias", error=TrackingError)
            assert promoted is not None
            return promoted

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        with self._asking(f"listing versions of {name}") as client:
            return self._versions(client, name)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[MlflowClient]:
        self._connection.check(insist=True)
        with self._connection.asking(what) as client:
            yield client

    def _locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        return locked(self._address.home / "locks" / f"registry-{name}.lock")

    def _versions(self, client: MlflowClient, name: str) -> list[ModelVersion]:
        with contextlib.suppress(Exception):  # exists already; a real failure shows in the search below
            client.create_registered_model(name)
        champion = self._champion_number(client, name)
        return sorted((_model_version(v, champion) for v in versions_of(client, name)), key=lambda v: v.version)

    def _champion(self, client: MlflowClient, name: str) -> ModelVersion | None:
        number = self._champion_number(client, name)
        return _model_version(client.get_model_version(name, number), number) if number else None

    def _champion_number(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            aliases = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return ""
            raise
        return str(aliases.get(CHAMPION, ""))


def _model_version(found: Any, champion: str) -> ModelVersion:
    tags = dict(found.tags)
    own = ("checkpoint_digest", "contract_id", "dataset_version", "replaced")
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        checkpoint_digest=tags.get("checkpoint_digest", ""),
        contract_id=tags.get("contract_id", ""),
        dataset_version=tags.get("dataset_version", ""),
        alias=CHAMPION if str(found.version) == champion else "candidate",
        replaced=tags.get("replaced", ""),
        lineage={key: value for key, value in sorted(tags.items()) if key not in own},
    )
