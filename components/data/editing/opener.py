"""Open an edited set as a source of a recipe: `kind: edited`, with the file of the edit as its path."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

from components.config.source_config import SourceConfig
from components.data.editing.catalogue import Catalogue
from components.data.editing.edit import Edit, Parent, is_edit
from components.data.editing.edited_source import EditedSource
from components.data.sources.interface import EpisodeSource
from model_core.spec.errors import DatasetError

_READ = ("name", "kind", "path", "include", "tasks", "weight")


def open_edited(config: SourceConfig) -> EpisodeSource:
    """The edited set of a recipe's source. `include` and `tasks` select among its episodes, and enter its digest.

    Raises `DatasetError` for a path that is no edit, for parents that have changed, and for a setting that an edited set does not take.
    """
    where, path = f"source {config.name!r}", Path(config.path)
    if not is_edit(path):
        raise DatasetError(
            f"{where}: {config.path or 'nothing'} is not the file of an edit. Fix: name one that `actwright data list` shows"
        )
    for item in fields(config):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if item.name not in _READ and getattr(config, item.name) != default:
            raise DatasetError(
                f"{where}: an edited set has its embodiment, cameras and rate from its parents, so {item.name} cannot be set here. "
                f"Fix: leave {item.name} out"
            )
    opened = Catalogue(path.parent).open(str(path))
    if not (config.include or config.tasks):
        return opened.source
    parent = Parent(name=opened.source.name, path=str(path), digest=opened.digest)
    parameters = {name: list(words) for name, words in (("episodes", config.include), ("tasks", config.tasks)) if words}
    return EditedSource(config.name, Edit(operation="select", parents=(parent,), parameters=parameters), [opened.source])
