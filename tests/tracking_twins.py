"""Twins of the tracker and the registry that need no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from components.config.judging.champion_entry import ChampionEntry, How
from components.config.ports import DatasetInput, Metric
from components.config.records import ModelVersion
from model_core.spec.errors import TrackingError


class NullTracker:
    """Forgets everything but the id it was given."""

    def start_run(
        self,
        name: str,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        run_id: str = "",
        dataset: DatasetInput | None = None,
    ) -> str:
        """Return `run_id`, or `name`."""
        return run_id or name

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """Forget."""

    def log_image(self, name: str, path: Path) -> None:
        """Forget."""

    def log_text(self, name: str, text: str) -> None:
        """Forget."""

    def finish(self, status: str = "finished") -> None:
        """Forget."""

    def server_run_id(self, run_id: str) -> str:
        """No server, no id."""
        return ""


class MemoryRegistry:
    """A registry that lives as long as the object; the same promises as the real one."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ModelVersion]] = {}
        self._entries: dict[str, list[ChampionEntry]] = {}

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
        """Register once per digest."""
        versions = self._versions.setdefault(name, [])
        for version in versions:
            if version.checkpoint_digest == checkpoint_digest:
                return version
        rest = {key: value for key, value in lineage.items() if key != "dataset_version"}
        versions.append(
            ModelVersion(
                name=name,
                version=len(versions) + 1,
                contract_id=contract_id,
                checkpoint_digest=checkpoint_digest,
                dataset_version=lineage.get("dataset_version", ""),
                lineage=dict(sorted({**rest, "checkpoint_uri": checkpoint_uri, "run_id": run_id}.items())),
            )
        )
        return versions[-1]

    def champion(self, name: str) -> ModelVersion | None:
        """The promoted version, or None."""
        entry = self.champion_entry(name)
        return self._labelled(name, entry.version) if entry is not None and entry.version is not None else None

    def champion_entry(self, name: str) -> ChampionEntry | None:
        """The newest entry."""
        return self._entries[name][-1] if self._entries.get(name) else None

    def champion_history(self, name: str) -> list[ChampionEntry]:
        """Every entry."""
        return list(self._entries.get(name, []))

    def promote(self, candidate: ModelVersion, *, expected: int | None, how: How = "gate", reason: str = "") -> ModelVersion:
        """Compare and set."""
        name, current = candidate.name, self.champion(candidate.name)
        if current is not None and current.version == candidate.version:
            return current
        found = current.version if current else None
        if found != expected:
            raise TrackingError(f"champion of {name} is version {found}, expected {expected}: someone promoted in between")
        if found is not None and how != "rollback":
            versions = self._versions[name]
            versions[candidate.version - 1] = replace(versions[candidate.version - 1], replaced=str(found))
        self._add(name, candidate.version, how, reason)
        return self._labelled(name, candidate.version)

    def withdraw(self, name: str, *, expected: int, reason: str) -> ChampionEntry:
        """Compare and set."""
        current = self.champion(name)
        found = current.version if current else None
        if found != expected:
            raise TrackingError(f"champion of {name} is version {found}, expected {expected}: someone was faster")
        return self._add(name, None, "withdrawn", reason)

    def adopt_table(self, name: str, reason: str) -> ChampionEntry | None:
        """There is no other table."""
        return self.champion_entry(name)

    def _add(self, name: str, version: int | None, how: How, reason: str) -> ChampionEntry:
        entries, before = self._entries.setdefault(name, []), self.champion_entry(name)
        replaced, number = before.version if before else None, len(entries) + 1
        entries.append(ChampionEntry(model=name, number=number, version=version, replaced=replaced, how=how, reason=reason))
        return entries[-1]

    def _labelled(self, name: str, version: int) -> ModelVersion:
        return next(one for one in self.versions(name) if one.version == version)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        entry = self.champion_entry(name)
        champion = entry.version if entry else None
        found = self._versions.get(name, [])
        return [replace(one, alias="champion" if one.version == champion else "candidate") for one in found]
