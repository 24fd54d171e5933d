"""The champion as it is nearly always: table, alias and version agree, or there never was one. Then MLflow, which takes seconds to load, is
not needed."""

from __future__ import annotations

from dataclasses import dataclass

from components.adapters.champions.table import ChampionTable
from components.adapters.mlflow.champions import CHAMPION, TABLE_TAG
from components.adapters.mlflow.reading.records import TrackingReader, VersionRow
from components.config.judging.champion_entry import ChampionEntry


@dataclass(frozen=True, slots=True)
class SettledChampion:
    """The newest entry of the table, and the version in MLflow that it names and that carries the alias; both None before the first one."""

    entry: ChampionEntry | None
    version: VersionRow | None


def settled_champion(reader: TrackingReader, table: ChampionTable, name: str) -> SettledChampion | None:
    """The champion of the model `name`; None where something has to be looked at or repaired (`components.adapters.mlflow.champions`)."""
    model, entry = reader.model(name), table.newest(name)
    if entry is None and (model is None or (not model.tags.get(TABLE_TAG) and not reader.versions(name))):
        return SettledChampion(None, None)  # without a version there is nothing that an older release could have promoted
    if model is None or entry is None or model.tags.get(TABLE_TAG, "") != table.table_id or model.aliases.get(CHAMPION) != entry.version:
        return None
    if entry.version is None:
        return SettledChampion(entry, None)
    found = [row for row in reader.versions(name) if row.version == entry.version]
    return SettledChampion(entry, found[0]) if found else None
