"""The flow runs of one deployment, as Prefect's API tells of them: made once, resumed, and put back where their process is gone."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.adapters.http import NoAnswerError, request
from flows.platform.error_messages import StateNotKeptError, explained
from flows.platform.settings import Settings
from model_core.spec.errors import NotReady

logger = logging.getLogger(__name__)

_SAID_TO_RUN = frozenset({"PENDING", "RUNNING"})
_GONE = _SAID_TO_RUN | {"CRASHED"}
_OF_RUN = b"PREFECT__FLOW_RUN_ID="
_PAGE = 200
_TEMPORARY_FAILURE = 75  # of sysexits.h
_AGAIN_S, _MOST_AGAIN_S = 2.0, 300.0
_PUT_BACK = "AwaitingRetry"  # Prefect's own name of the state


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRuns:
    """api: of Prefect. deployment: its full name, "flow/deployment". All methods raise `NotReady` where Prefect does not answer."""

    api: str
    deployment: str

    def deployment_id(self) -> str:
        """The id under which Prefect knows the deployment."""
        return str(self._ask("GET", f"/deployments/name/{self.deployment}")["id"])

    def all(self) -> Sequence[Mapping[str, Any]]:
        """The runs, those that are not over first, then the newest."""
        found: list[Mapping[str, Any]] = []
        wanted = {"flow_runs": {"deployment_id": {"any_": [self.deployment_id()]}}, "limit": _PAGE, "sort": "START_TIME_DESC"}
        while page := self._ask("POST", "/flow_runs/filter", {**wanted, "offset": len(found)}):
            found += page
            if len(page) < _PAGE:
                break
        return found

    def make(self, name: str, parameters: Mapping[str, Any], *, key: str) -> None:
        """One run for all calls with this key; the parameters of the first call count."""
        body = {"name": name, "parameters": dict(parameters), "idempotency_key": key, "state": {"type": "SCHEDULED"}}
        self._ask("POST", f"/deployments/{self.deployment_id()}/create_flow_run", body)

    def resume(self, run: Mapping[str, Any]) -> None:
        """Let a suspended run go on."""
        self._ask("POST", f"/flow_runs/{run['id']}/resume", {})

    def put_back_lost(self, runs: Sequence[Mapping[str, Any]], *, none_runs: bool, lost: Collection[str] = ()) -> list[str]:
        """Let those run again whose worker is gone; tells which. Where a run ends again and again, it waits longer each time.

        none_runs: no worker runs flows yet, so a run that is said to be running has lost its own. lost: ids of others that have
        (`RunsWithoutProcess`). What is left of a run is ended: a flow outlives a worker that is killed.
        """
        done = []
        for run in runs:
            if run["state_type"] == "CRASHED" or (run["state_type"] in _GONE and (none_runs or run["id"] in lost)):
                _end_what_is_left(run["id"])
                self._put_back(run, min(_AGAIN_S * 2 ** min(int(run["run_count"]), 16), _MOST_AGAIN_S))
                done.append(f"{run['name']}: its process ended, it is run again")
            elif _waits_for_a_clock_set_back(run):
                self._put_back(run, _AGAIN_S)
                done.append(f"{run['name']}: the clock was set back while it waited, it is run again")
        return done

    def _put_back(self, run: Mapping[str, Any], wait_s: float) -> None:
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=wait_s)
        state = {"type": "SCHEDULED", "name": _PUT_BACK, "state_details": {"scheduled_time": at.isoformat()}}
        self._ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        try:
            reply = request(method, f"{self.api}{path}", timeout_s=20.0, headers={"Content-Type": "application/json"}, body=content)
        except NoAnswerError as error:
            raise NotReady(f"Prefect does not answer at {self.api} ({error.reason}). Fix: start its server again") from error
        if not reply.ok:
            raise NotReady(f"Prefect answered {reply.status} to {method} {path}: {reply.body[:200]!r}. Fix: see its log")
        return reply.json()


@contextlib.contextmanager
def crashed_where_prefect_is_away(settings: Settings) -> Iterator[None]:
    """For the body of a flow: a run whose state Prefect did not take has not failed. It ends as one that was killed, and is put back."""
    try:
        yield
    except Exception as error:
        found = explained(error, settings) or error
        if isinstance(found, StateNotKeptError):
            logger.warning("flow.crashed because=%s", found)
            raise SystemExit(_TEMPORARY_FAILURE) from error
        raise


class RunsWithoutProcess:
    """Finds the runs that Prefect calls running and that have had no process on this machine for a while.

    What a process or its worker tells of its end is lost where the server is away for longer than they try again.
    """

    def __init__(
        self,
        *,
        after_s: float = 60.0,
        processes: Callable[[], Iterable[tuple[int, str]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._after_s, self._processes, self._clock = after_s, processes or _processes_of_runs, clock
        self._since: dict[str, float] = {}

    def of(self, runs: Iterable[Mapping[str, Any]]) -> frozenset[str]:
        """Their ids. A run that is about to start has no process yet, so one look says nothing."""
        now, said = self._clock(), {str(run["id"]) for run in runs if run["state_type"] in _SAID_TO_RUN}
        here = {run for _, run in self._processes()} if said else set()
        self._since = {run: self._since.get(run, now) for run in said - here}
        return frozenset(run for run, since in self._since.items() if now - since >= self._after_s)


def _waits_for_a_clock_set_back(run: Mapping[str, Any]) -> bool:
    """Whether a run that was put back is planned for later than any is put back for, as the clock was set back since."""
    planned = run.get("next_scheduled_start_time") if (run["state_type"], run.get("state_name")) == ("SCHEDULED", _PUT_BACK) else None
    if not planned:
        return False
    wait = datetime.datetime.fromisoformat(planned) - datetime.datetime.now(datetime.UTC)
    return wait.total_seconds() > _MOST_AGAIN_S + _AGAIN_S


def _end_what_is_left(run: str) -> None:
    """End the processes of a flow run on this machine, and what they started."""
    for pid, of in _processes_of_runs():
        if of == run:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _processes_of_runs() -> Iterator[tuple[int, str]]:
    """Each process on this machine that works for a flow run, with the id of that."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(_OF_RUN):
                    yield int(entry.name), variable.removeprefix(_OF_RUN).decode(errors="replace")
