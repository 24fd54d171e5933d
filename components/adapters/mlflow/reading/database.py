"""MLflow's database, read by SQL: the file of one machine, or the PostgreSQL that a server stands on.

The tables are MLflow's own affair and change with its releases, so only a schema that was seen is read (`SCHEMAS`, the head of MLflow's
migrations as its table `alembic_version` names it). Any other is refused: its server answers the same questions by REST.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.adapters.mlflow.reading.points import curve_of
from components.adapters.mlflow.reading.records import RUN_TAG, Curve, ModelRow, RunRow, VersionRow
from model_core.spec.errors import TrackingError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, TableClause

SCHEMAS = {"dc11669786a5": "3.17.2"}  # head of the migrations -> the MLflow that writes it
_DELETED = "Deleted_Internal"  # MLflow's stage of a version that was deleted
_TOGETHER = 500  # runs in one question: SQLite takes at most 32,766 values in one, older ones 999


class DatabaseReader:
    """Reads `url` (as SQLAlchemy and MLflow write it). See `TrackingReader`."""

    def __init__(self, url: str, experiment: str) -> None:
        self._url, self._experiment = url, experiment

    def runs(self, *, tags: Mapping[str, str], limit: int) -> list[RunRow]:
        """The newest runs that carry all of `tags`."""
        with self._reading() as connection:
            runs, query = self._of_experiment()
            for key, value in tags.items():
                query = query.where(runs.c.run_uuid.in_(_with_tag(key, value)))
            return _complete(connection, query.order_by(runs.c.start_time.desc(), runs.c.run_uuid).limit(limit))

    def run(self, digits: str) -> list[RunRow]:
        """The runs whose id begins with `digits`."""
        with self._reading() as connection:
            runs, query = self._of_experiment()
            ours = _with_tag(RUN_TAG, digits, begins=True)
            found = query.where(runs.c.run_uuid.startswith(digits, autoescape=True) | runs.c.run_uuid.in_(ours))
            return _complete(connection, found.order_by(runs.c.start_time))

    def curves(self, run: RunRow, names: Sequence[str], *, most: int) -> list[Curve]:
        """These curves of a run. Long ones are thinned by the database, so that a million points are not fetched for a picture."""
        from sqlalchemy import case, func, select

        table = _table("metrics", "run_uuid", "key", "value", "timestamp", "step", "is_nan")
        value = case((table.c.is_nan, math.nan), else_=table.c.value)
        place = func.row_number().over(partition_by=table.c.key, order_by=(table.c.step, table.c.timestamp))
        count = func.count().over(partition_by=table.c.key)
        columns = (table.c.key, table.c.step, value.label("value"), table.c.timestamp, place.label("place"), count.label("count"))
        numbered = select(*columns).where(table.c.run_uuid == run.server_id, table.c.key.in_(names)).subquery()
        every = (numbered.c.count - 1) // most + 1
        wanted = (numbered.c.place % every == 0) | (numbered.c.place == numbered.c.count)
        asked = select(numbered.c.key, numbered.c.step, numbered.c.value).where(wanted).order_by(numbered.c.place)
        points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        with self._reading() as connection:
            for key, step, found in _rows(connection, asked):
                points[key].append((step, math.nan if found is None else found))
        return [curve_of(name, points[name], most + 1) for name in names if name in points]

    def model(self, name: str) -> ModelRow | None:
        """The registered model."""
        from sqlalchemy import select

        with self._reading() as connection:
            models, aliases = _table("registered_models", "name"), _table("registered_model_aliases", "name", "alias", "version")
            if connection.execute(select(models.c.name).where(models.c.name == name)).first() is None:
                return None
            tags = _table("registered_model_tags", "name", "key", "value")
            return ModelRow(
                name=name,
                tags=dict(_rows(connection, select(tags.c.key, tags.c.value).where(tags.c.name == name))),
                aliases=dict(_rows(connection, select(aliases.c.alias, aliases.c.version).where(aliases.c.name == name))),
            )

    def versions(self, name: str = "") -> Sequence[VersionRow]:
        """Every version that was not deleted: MLflow keeps the row of one that was."""
        from sqlalchemy import select

        with self._reading() as connection:
            versions = _table("model_versions", "name", "version", "current_stage")
            tags = _table("model_version_tags", "name", "version", "key", "value")
            asked = select(versions.c.name, versions.c.version).where(versions.c.current_stage.is_distinct_from(_DELETED))
            asked = asked.order_by(versions.c.name, versions.c.version)
            told = select(tags.c.name, tags.c.version, tags.c.key, tags.c.value)
            if name:
                asked, told = asked.where(versions.c.name == name), told.where(tags.c.name == name)
            of: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
            for model, version, key, value in _rows(connection, told):
                of[model, version][key] = value
            return [VersionRow(name=n, version=v, tags=of[n, v]) for n, v in _rows(connection, asked)]

    def _of_experiment(self) -> tuple[TableClause, Select[Any]]:
        """The table of runs, and the question for those of our experiment that are not deleted."""
        from sqlalchemy import select

        runs = _table("runs", "run_uuid", "name", "status", "start_time", "end_time", "experiment_id", "lifecycle_stage")
        experiments = _table("experiments", "experiment_id", "name")
        ours = select(experiments.c.experiment_id).where(experiments.c.name == self._experiment)
        columns = (runs.c.run_uuid, runs.c.name, runs.c.status, runs.c.start_time, runs.c.end_time)
        return runs, select(*columns).where(runs.c.experiment_id.in_(ours), runs.c.lifecycle_stage == "active")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        from sqlalchemy import create_engine, make_url, select
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        shown = make_url(self._url).render_as_string(hide_password=True)
        try:
            with create_engine(self._url, poolclass=NullPool).connect() as connection:
                head = connection.execute(select(_table("alembic_version", "version_num").c.version_num)).scalar()
                if head not in SCHEMAS:
                    raise TrackingError(
                        f"{shown} holds MLflow's tables of schema {head}; read are those of {', '.join(map(str, SCHEMAS.items()))}. Fix: "
                        "let its MLflow server answer (`mlflow server --backend-store-uri ...`) and name that in ACTWRIGHT_MLFLOW_URI"
                    )
                yield connection
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise TrackingError(f"MLflow's database {shown} cannot be read: {cause}. Fix: see that it is there and answers") from error


def _table(name: str, *columns: str) -> TableClause:
    from sqlalchemy import column, table

    return table(name, *(column(each) for each in columns))


def _rows(connection: Connection, query: Select[Any]) -> Sequence[Any]:
    return connection.execute(query).all()


def _with_tag(key: str, value: str, *, begins: bool = False) -> Select[Any]:
    """The runs whose tag `key` is `value`, or begins with it."""
    from sqlalchemy import select

    tags = _table("tags", "run_uuid", "key", "value")
    is_right = tags.c.value.startswith(value, autoescape=True) if begins else tags.c.value == value
    return select(tags.c.run_uuid).where(tags.c.key == key, is_right)


def _complete(connection: Connection, query: Select[Any]) -> list[RunRow]:
    """The runs of `query` with their tags, parameters and last values, a few questions for all of them."""
    found = _rows(connection, query)
    ids = [row[0] for row in found]
    tags, params, metrics = (_of_runs(connection, name, ids) for name in ("tags", "params", "latest_metrics"))
    return [
        RunRow(
            server_id=run,
            name=name or "",
            status=status.lower(),
            started_ms=started or 0,
            ended_ms=ended,
            tags=tags[run],
            params=params[run],
            metrics=metrics[run],
        )
        for run, name, status, started, ended in found
    ]


def _of_runs(connection: Connection, name: str, ids: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Run -> key -> value, from one of the tables that hold a row for each."""
    from sqlalchemy import select

    table, found = _table(name, "run_uuid", "key", "value"), defaultdict[str, dict[str, Any]](dict)
    for first in range(0, len(ids), _TOGETHER):
        asked = select(table.c.run_uuid, table.c.key, table.c.value).where(table.c.run_uuid.in_(ids[first : first + _TOGETHER]))
        for run, key, value in _rows(connection, asked):
            found[run][key] = value
    return found
