"""The policy services of one computer that its cells share: one process for each release, as long as a slot of any cell needs it.

    lock              held (flock) by the agent that starts, joins or leaves a service
    0/, 1/            a service each, on a port of its own: its lock, log and candidate, as in `policy_service`
    0/uses/CELL.SLOT  the release that this slot of this cell needs the service for

A cell changes its release by going from one service to the other, between its own episodes, so neither has to end for that. What is
written down here outlives agents as services do; a service ends with the last use of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_core.spec.errors import SpecError
from model_core.spec.files import atomic_write
from model_core.spec.fleet.candidate import read_candidate
from serving.cell_files.update_lock import locked_by
from serving.fleet.intake.policy_service import PolicyService, ServiceStatus
from serving.fleet.intake.problems import UpdateRefused

_MOST_S = 60.0  # the agent that has the lock may have to end a service that hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedService:
    """What one slot of one cell has of them, as a `PolicyService`. places: the services of the computer, the same for both slots.
    bundle: of this slot."""

    folder: Path
    cell: str
    slot: str
    places: tuple[PolicyService, ...]
    bundle: Path

    @property
    def port(self) -> int:
        """Of the service that this slot uses; 0 for none."""
        used = self._used()
        return used.port if used else 0

    @property
    def session_url(self) -> str:
        """Where cells ask it. Raises `UpdateRefused` where this slot uses none."""
        return self._needed().session_url

    def is_alive(self) -> bool:
        """This slot uses one, whose process may have ended."""
        return self._used() is not None

    def started_for(self) -> str:
        """What the service was started for that this slot uses; "" where none lives."""
        used = self._used()
        release = used.started_for() if used else ""
        return release if used and release == _read(self._use(used)) else ""

    def check_room(self, release: str) -> None:
        """Raises `UpdateRefused` NO_SPACE where cells still use every service for other releases."""
        self._place_for(release)

    def shared(self) -> frozenset[str]:
        """The releases for which other cells use services."""
        uses = {use: release for place in self.places for use, release in self._others(place).items()}
        return frozenset(release for use, release in uses.items() if use.rpartition(".")[0] != self.cell)

    def start(self, release: str) -> None:
        """Use the service of a release, which is started where none answers for it.

        Raises `UpdateRefused`: NO_SPACE where cells still use every service for other releases, START where it cannot be run.
        """
        with self._alone():
            place = self._place_for(release)
            atomic_write(self._use(place), release)
            self._leave(*(other for other in self.places if other is not place))
            if place.started_for() != release or place.status().state == "failed":
                place.bundle = self.bundle
                place.start(release)

    def status(self) -> ServiceStatus:
        """What the service says of itself."""
        used = self._used()
        return used.status() if used else ServiceStatus(state="failed", reason="this slot uses no service")

    def served(self) -> tuple[str, str]:
        """(digest of the bundle, contract id) as the service itself says. Raises `UpdateRefused`."""
        return self._needed().served()

    def stop(self) -> None:
        """Use it no more; it ends where no other slot does. Raises `UpdateRefused` START where it cannot be ended."""
        with self._alone():
            self._leave(*self.places)

    def last_line(self) -> str:
        """The last line of its log."""
        used = self._used()
        return used.last_line() if used else ""

    # --- the candidate in its shadow ------------------------------------------------------------------------------------

    def candidate(self) -> str:
        """The file by which this cell names a candidate; "" where it names none."""
        used = self._used()
        text = used.candidate() if used else ""
        return text if _cell_of(text) == self.cell else ""

    def name_candidate(self, text: str) -> None:
        """Write that file, or remove it ("").

        Raises `UpdateRefused` NO_SPACE where another cell has its candidate compared: a service compares one, for one cell.
        """
        used = self._used()
        if used is None or text == self.candidate():
            return
        with self._alone():
            other = _cell_of(used.candidate())
            if other not in ("", self.cell):
                raise UpdateRefused(
                    "NO_SPACE",
                    f"cell {other} of this computer has a candidate compared, and a service compares for one cell at a time. "
                    f"Fix: nothing, it is tried again; where {other} is gone remove {used.candidate_file}",
                )
            used.name_candidate(text)

    def compared(self) -> dict[str, Any]:
        """What the service found of this cell's candidate. Raises `UpdateRefused`."""
        return self._needed().compared()

    # --- who uses what --------------------------------------------------------------------------------------------------

    def _use(self, place: PolicyService) -> Path:
        return place.folder / "uses" / f"{self.cell}.{self.slot}"

    def _used(self) -> PolicyService | None:
        return next((place for place in self.places if self._use(place).exists()), None)

    def _needed(self) -> PolicyService:
        used = self._used()
        if used is None:
            raise UpdateRefused("INTERNAL", f"slot {self.slot} uses no policy service")
        return used

    def _others(self, place: PolicyService) -> dict[str, str]:
        """CELL.SLOT -> release, of all that use a service, but for this slot."""
        found = (place.folder / "uses").glob("[!.]*")  # one that is being written begins with a dot
        return {path.name: release for path in found if path != self._use(place) and (release := _read(path))}

    def _place_for(self, release: str) -> PolicyService:
        """The service of a release, else one that no other slot uses. The one that this slot uses for it already comes first: the permit
        names its address."""
        ours_first = sorted(self.places, key=lambda place: _read(self._use(place)) != release)
        places = [(place, set(self._others(place).values())) for place in ours_first]
        for place, needed in places:
            if needed == {release} or (not needed and place.started_for() == release):
                return place
        for place, needed in places:
            if not needed:
                return place
        told = "; ".join(f"{place.folder}: {', '.join(sorted(self._others(place)))}" for place in self.places)
        raise UpdateRefused(
            "NO_SPACE",
            f"all {len(self.places)} policy services of this computer are used for other releases ({told}). "
            "Fix: nothing, it is tried again once the others have left one; of a cell that is gone remove the files in uses",
        )

    def _leave(self, *places: PolicyService) -> None:
        """Nothing of this slot stands there any more; a service without uses ends."""
        for place in places:
            if self._use(place).exists() and _cell_of(place.candidate()) == self.cell:
                place.name_candidate("")
            self._use(place).unlink(missing_ok=True)
            if not self._others(place) and place.is_alive():
                place.stop()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other agent of this computer starts, joins or leaves meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not locked_by(descriptor, time.monotonic() + _MOST_S):
                raise UpdateRefused("INTERNAL", f"another agent has held {path} for {_MOST_S:g} s. Fix: see whether one hangs")
            yield
        finally:
            os.close(descriptor)


SlotService = PolicyService | SharedService


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _cell_of(candidate: str) -> str:
    """Whose candidate it is; "" for none, and for a file that no agent wrote."""
    try:
        return read_candidate(candidate.encode(), "candidate.json").cell if candidate else ""
    except SpecError:
        return ""
