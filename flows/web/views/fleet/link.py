"""Questions and orders of one person to the fleet's controller, which knows that person by a token of their own.

The controller counts persons: two release a kill. So an order goes there with the token that the person signed in with, never with one of
the console. A console without tokens belongs to one person, whose token is ACTWRIGHT_TOKEN, as for commands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from components.deployment.fleet.controller import URL, ask, order, whole_log
from components.deployment.service_address import ServiceCredentials
from flows.platform.settings import Settings
from flows.web.http.endpoint import Person
from flows.web.http.foreign import read_foreign
from model_core.spec.errors import NotReady

T = TypeVar("T")
_ORDER_TIMEOUT_S, _ASK_TIMEOUT_S = 10.0, 3.0
_MOST_WAITING = 8  # threads that a controller which hangs may keep from the cells' orders


class FleetLink:
    """The controller that the settings name. needs_token: people sign in here with tokens; then the controller must be named, for a token
    is shown only where somebody said so."""

    def __init__(self, settings: Settings, *, needs_token: bool) -> None:
        self._named, self._ca_file = settings.fleet_url, settings.fleet_ca_file
        self._own, self._needs_token = settings.token.get_secret_value().strip(), needs_token
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    @property
    def url(self) -> str:
        """Its address; "" where none was named and none may be guessed."""
        return self._named or ("" if self._needs_token else URL)

    def ask(self, person: Person, path: str, kind: type[T]) -> T:
        """What it tells. Raises `NotReady` where it is absent or hangs, `OrderRefused` where it refuses."""
        found = self._asked(lambda: ask(self._known(), path, self._credentials(person, _ASK_TIMEOUT_S)))
        return read_foreign(found, kind, who=f"the controller at {self.url}", path=path)

    def log(self, person: Person) -> list[dict[str, Any]]:
        """Every entry of its log. Raises as `ask`."""
        return self._asked(lambda: whole_log(self._known(), self._credentials(person, _ASK_TIMEOUT_S)))

    def order(self, person: Person, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What came of an order. Raises as `ask`."""
        return order(self._known(), path, body, self._credentials(person, _ORDER_TIMEOUT_S))

    def _asked(self, asking: Callable[[], T]) -> T:
        if not self._waiting.acquire(blocking=False):
            raise NotReady(f"the controller at {self.url} is slow: {_MOST_WAITING} questions to it wait. Fix: see its log")
        try:
            return asking()
        finally:
            self._waiting.release()

    def _known(self) -> str:
        if not self.url:
            raise NotReady(
                "this console knows no fleet controller. Fix: start one with `actwright fleet up`, set ACTWRIGHT_FLEET_URL for the console "
                f"(https://..., or on loopback {URL}) and start the console again"
            )
        return self.url

    def _credentials(self, person: Person, timeout_s: float) -> ServiceCredentials:
        token = person.token if self._needs_token else self._own
        return ServiceCredentials(token=token, ca_file=Path(self._ca_file) if self._ca_file else None, timeout_s=timeout_s)
