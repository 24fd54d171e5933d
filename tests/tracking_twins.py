"""Twins of the tracker and the registry that need no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

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
        return next((version for version in self._versions.get(name, []) if version.alias == "champion"), None)

    def promote(self, candidate: ModelVersion, *, expected: int | None) -> ModelVersion:
        """Move the alias if it is where it is expected."""
        current = self.champion(candidate.name)
        if current is not None and current.version == candidate.version:
            return current
        found = current.version if current else None
        if found != expected:
            raise TrackingError(f"champion of {candidate.name} is version {found}, expected {expected}: someone promoted in between")
        versions = self._versions[candidate.name]
        if current is not None:
            versions[current.version - 1] = replace(current, alias="candidate")
        promoted = replace(versions[candidate.version - 1], alias="champion", replaced="" if found is None else str(found))
        versions[candidate.version - 1] = promoted
        return promoted

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions, oldest first."""
        return list(self._versions.get(name, []))
