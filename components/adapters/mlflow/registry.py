"""The model registry: MLflow keeps the versions, a table says which one is champion. Their answers are needed, so both raise."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.adapters.champions.table import ChampionTable
from components.adapters.mlflow.champions import CHAMPION, Champions
from components.adapters.mlflow.promotions import versions_of
from components.adapters.mlflow.reading.open import open_reader
from components.adapters.mlflow.server import Connection, TrackingAddress
from components.adapters.mlflow.settled import SettledChampion, settled_champion
from components.artifacts.locks import locked
from components.config.judging.champion_entry import ChampionEntry, How
from components.config.records import ModelVersion
from model_core.spec.errors import ActwrightError, TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowRegistry:
    """Model versions in MLflow. See `components.config.ports.ModelRegistry`.

    Of any number of machines that promote at once one wins (`components.adapters.champions.table`); a file lock beside the records
    spares the processes of one `home` that contest.
    """

    def __init__(self, address: TrackingAddress) -> None:
        self._address = address
        self._connection = Connection(address)
        self._table = ChampionTable(address.champions)

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
            return _model_version(created, None)

    def champion(self, name: str) -> ModelVersion | None:
        """The version that the newest entry names, or None."""
        if (settled := self._settled(name)) is not None:
            return _model_version(settled.version, settled.version.version) if settled.version else None
        with self._asking(f"asking for the champion of {name}") as client:
            entry = Champions(client, self._table, name).current()
            if entry is None or entry.version is None:
                return None
            return _model_version(client.get_model_version(name, str(entry.version)), entry.version)

    def champion_entry(self, name: str) -> ChampionEntry | None:
        """The newest entry."""
        if (settled := self._settled(name)) is not None:
            return settled.entry
        with self._asking(f"asking for the champion of {name}") as client:
            return Champions(client, self._table, name).current()

    def champion_history(self, name: str) -> list[ChampionEntry]:
        """Every entry, oldest first."""
        self.champion_entry(name)
        return self._table.history(name)

    def promote(self, candidate: ModelVersion, *, expected: int | None, how: How = "gate", reason: str = "") -> ModelVersion:
        """Compare and set: the table first, then the alias."""
        name, version = candidate.name, candidate.version
        with self._locked(name), self._asking(f"promoting {name} {version}") as client:
            champions = Champions(client, self._table, name)
            current = champions.current()
            found = current.version if current else None
            if found != version:
                added = champions.add(current, version, how=how, reason=reason) if found == expected else None
                if added is None:
                    newer = champions.current() if found == expected else current
                    newer_version = newer.version if newer else None
                    raise TrackingError(
                        f"champion of {name} is version {newer_version}, expected {expected}: someone promoted in between; "
                        f"judge version {version} against version {newer_version} and promote again"
                    )
                if found is not None and how != "rollback":
                    client.set_model_version_tag(name, str(version), "replaced", str(found))
                champions.follow(added)
            return _model_version(client.get_model_version(name, str(version)), version)

    def withdraw(self, name: str, *, expected: int, reason: str) -> ChampionEntry:
        """Compare and set: from here on no version is champion. Also where MLflow no longer has the version."""
        with self._locked(name), self._asking(f"withdrawing the champion of {name}") as client:
            champions, current = Champions(client, self._table, name), self._table.newest(name)
            is_registered = champions.is_registered()
            found = current.version if current else None
            added = champions.add(current, None, how="withdrawn", reason=reason) if current and found == expected else None
            if added is None:
                raise TrackingError(f"champion of {name} is version {found}, expected {expected}: someone was faster. Fix: look again")
            return champions.follow(added) if is_registered else added

    def adopt_table(self, name: str, reason: str) -> ChampionEntry | None:
        """Let this registry's table decide from now on."""
        with self._locked(name), self._asking(f"taking over the champions of {name}") as client:
            return Champions(client, self._table, name).adopt_table(reason)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        with contextlib.suppress(ActwrightError):  # as `_settled`
            reader = open_reader(self._address)
            if (settled := settled_champion(reader, self._table, name)) is not None:
                champion = settled.version.version if settled.version else None
                return [_model_version(row, champion) for row in reader.versions(name)]
        with self._asking(f"listing versions of {name}") as client:
            return self._versions(client, name)

    def _settled(self, name: str) -> SettledChampion | None:
        """The champion where nothing has to be repaired, which is known without loading MLflow."""
        with contextlib.suppress(ActwrightError):  # MLflow's client then says what is wrong, or can do what the reader cannot
            return settled_champion(open_reader(self._address), self._table, name)
        return None

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
        entry = Champions(client, self._table, name).current()
        champion = entry.version if entry else None
        return sorted((_model_version(v, champion) for v in versions_of(client, name)), key=lambda v: v.version)


def _model_version(found: Any, champion: int | None) -> ModelVersion:
    tags = dict(found.tags)
    own = ("checkpoint_digest", "contract_id", "dataset_version", "replaced")
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        checkpoint_digest=tags.get("checkpoint_digest", ""),
        contract_id=tags.get("contract_id", ""),
        dataset_version=tags.get("dataset_version", ""),
        alias=CHAMPION if int(found.version) == champion else "candidate",
        replaced=tags.get("replaced", ""),
        lineage={key: value for key, value in sorted(tags.items()) if key not in own},
    )
