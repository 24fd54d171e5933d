"""Who is champion of one model: the table decides, and MLflow's alias follows it and is repaired from it.

Every reader asks `Champions.current`. It takes over what an older version recorded, puts an alias back that stands elsewhere, and carries
out a promotion whose process ended between the row and the alias. MLflow lets the last caller set an alias, so who sets it looks at the
table once more: when everybody is done, the alias is the newest row's.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from components.adapters.champions.table import ChampionTable
from components.adapters.mlflow.promotions import unfinished_promotion
from components.config.judging.champion_entry import ChampionEntry, How
from model_core.spec.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

logger = logging.getLogger(__name__)

CHAMPION = "champion"
TABLE_TAG, NUMBER_TAG = "actwright.champions", "actwright.champion_number"
_ALIAS_TRIES = 4


class Champions:
    """The champions of the model `name`. Raises what MLflow's client raises, and `TrackingError`."""

    def __init__(self, client: MlflowClient, table: ChampionTable, name: str) -> None:
        self._client, self._table, self._name = client, table, name

    def is_registered(self) -> bool:
        """Whether MLflow knows the model. Raises `TrackingError` where it names another table."""
        model = self._model()
        if model is not None:
            self._check_table(model)
        return model is not None

    def current(self) -> ChampionEntry | None:
        """The newest entry; None where the model never had a champion. Its version exists in MLflow and carries the alias."""
        model = self._model()
        if model is not None:
            self._check_table(model)
        entry = self._table.newest(self._name) or (self._taken_over(model) if model is not None else None)
        if entry is None:
            return None
        if entry.version is not None and self._is_gone(entry, model):
            reason = f"version {entry.version} was deleted in MLflow"
            entry = self.follow(self.add(entry, None, how="withdrawn", reason=reason) or self._newest())
            logger.warning("%s has no champion any more: %s", self._name, reason)
        elif model is not None and _alias_of(model) != entry.version:
            entry = self._repaired(entry, model)
        return entry

    def add(self, after: ChampionEntry | None, version: int | None, *, how: How, reason: str = "") -> ChampionEntry | None:
        """Make `version` (None: no version) champion if `after` is still the newest entry; None if it is not. The alias is not moved yet.

        `follow` moves it.
        """
        found = self._version(version) if version is not None else None
        if after is None:
            self._client.set_registered_model_tag(self._name, TABLE_TAG, self._table.table_id)
        return self._table.add(
            ChampionEntry(
                model=self._name,
                number=(after.number if after else 0) + 1,
                version=version,
                replaced=after.version if after else None,
                checkpoint_digest=found.tags.get("checkpoint_digest", "") if found else "",
                how=how,
                reason=reason,
            )
        )

    def follow(self, entry: ChampionEntry) -> ChampionEntry:
        """Let the alias name the version of `entry`, or of the newest entry where there is a newer one by then. Returns that entry."""
        while True:
            self._set_alias(entry.version)
            newest = self._newest()
            if newest.number == entry.number:
                self._client.set_registered_model_tag(self._name, NUMBER_TAG, str(entry.number))
                return entry
            entry = newest

    def adopt_table(self, reason: str) -> ChampionEntry | None:
        """Let this table decide from now on, where MLflow names another one. The champion is whom the alias names, under a number above
        every number that MLflow has heard of. Returns the entry, None for a model without an alias."""
        model = self._model()
        if model is None:
            return None
        newest, alias = self._table.newest(self._name), _alias_of(model)
        number = max(newest.number if newest else 0, int(model.tags.get(NUMBER_TAG, "0")))
        self._client.set_registered_model_tag(self._name, TABLE_TAG, self._table.table_id)
        if alias is None:
            return newest
        before = ChampionEntry(model=self._name, number=number, version=newest.version if newest else None, replaced=None, how="taken over")
        entry = self.add(before, alias, how="taken over", reason=reason)
        return self.follow(entry or self._newest())

    def _newest(self) -> ChampionEntry:
        newest = self._table.newest(self._name)
        if newest is None:
            raise TrackingError(
                f"the table of champions at {self._table.place} lost its rows of {self._name}. Fix: restore it from a copy, or "
                f"`actwright champion take-over {self._name} --reason TEXT`"
            )
        return newest

    def _check_table(self, model: RegisteredModel) -> None:
        """Two tables for one model would be two champions."""
        named = model.tags.get(TABLE_TAG, "")
        if named and named != self._table.table_id:
            raise TrackingError(
                f"the champions of {self._name} are in another table: MLflow names table {named}, and the one at {self._table.place} is "
                f"{self._table.table_id}. Fix: let ACTWRIGHT_CHAMPIONS_URL name the table that the other machines use; where that one is "
                f"lost, `actwright champion take-over {self._name} --reason TEXT` lets this one decide from now on"
            )

    def _taken_over(self, model: RegisteredModel) -> ChampionEntry | None:
        """What an older version recorded becomes the first entry."""
        named = unfinished_promotion(self._client, self._name)
        version = int(named) if named and self._version(int(named)) else _alias_of(model)
        if version is None:
            return None
        entry = self.add(None, version, how="taken over", reason="of an older version's registry") or self._newest()
        logger.warning("%s: version %s is champion number %d, taken over from MLflow's alias", self._name, entry.version, entry.number)
        return entry

    def _is_gone(self, entry: ChampionEntry, model: RegisteredModel | None) -> bool:
        """Whether the version was deleted. One that this registry never had is another matter: it is the wrong registry."""
        assert entry.version is not None
        found = self._version(entry.version) if model is not None else None
        digest = found.tags.get("checkpoint_digest", "") if found else ""
        if found and (not entry.checkpoint_digest or digest == entry.checkpoint_digest):
            return False
        if model is not None and not found and model.tags.get(TABLE_TAG) == self._table.table_id:
            return True
        raise TrackingError(
            f"champion of {self._name} is version {entry.version} (checkpoint {entry.checkpoint_digest[:12]}) by the table at "
            f"{self._table.place}, and MLflow has {f'checkpoint {digest[:12]}' if found else 'nothing'} under that number. Fix: correct "
            "ACTWRIGHT_MLFLOW_URI or ACTWRIGHT_CHAMPIONS_URL; where the registry was begun again, "
            f"`actwright champion withdraw {self._name} --expected {entry.version} --reason TEXT`"
        )

    def _repaired(self, entry: ChampionEntry, model: RegisteredModel) -> ChampionEntry:
        """Put the alias where the table says; tell why it stood elsewhere."""
        newest, stood = self._newest(), _alias_of(model)
        if newest.number == entry.number:  # else somebody promotes right now, and moves it
            was, now = (f"version {number}" if number is not None else "no version" for number in (stood, entry.version))
            if model.tags.get(NUMBER_TAG) == str(entry.number):
                logger.warning(
                    "the alias %r of %s was moved by hand to %s; it is %s again, as the table of champions says. To make another version "
                    "champion: `actwright champion promote %s/VERSION --reason TEXT`",
                    *(CHAMPION, self._name, was, now, self._name),
                )
            elif entry.how != "taken over":
                logger.warning(
                    "the alias %r of %s stood at %s; it follows number %d, which made %s champion, and whose process had not moved it",
                    *(CHAMPION, self._name, was, entry.number, now),
                )
        return self.follow(newest)

    def _set_alias(self, version: int | None) -> None:
        from mlflow.exceptions import MlflowException

        for attempt in range(1, _ALIAS_TRIES + 1):
            try:
                if version is None:
                    self._client.delete_registered_model_alias(self._name, CHAMPION)
                else:
                    self._client.set_registered_model_alias(self._name, CHAMPION, str(version))
                return
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # deleted since: the next look at the table finds that
                    return
                # Two that set a new alias at once: one is told BAD_REQUEST, and succeeds when it asks again.
                if error.error_code != "BAD_REQUEST" or attempt == _ALIAS_TRIES:
                    raise
                time.sleep(0.1 * attempt)

    def _model(self) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self._name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _version(self, number: int) -> ModelVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(self._name, str(number))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _alias_of(model: RegisteredModel) -> int | None:
    named = model.aliases.get(CHAMPION, "")
    return int(named) if named else None
