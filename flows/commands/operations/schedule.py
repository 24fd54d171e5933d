"""`actwright schedule` and `approve`: the retraining deployment, served from this machine until it is stopped."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from components.adapters.http import NoAnswerError, answers, get, request
from components.config.recipe import Recipe
from flows.commands.operations.up import asked_to_stop, prefect_page
from flows.platform.child_process import Child
from flows.platform.prefect_server import prefect_api, running_server
from flows.platform.settings import point_prefect_at
from flows.platform.wiring import open_platform
from flows.terminal.output import print_line, print_result
from model_core.spec.documents import to_document
from model_core.spec.errors import JobError, SpecError
from model_core.spec.files import atomic_write

_LOOK_S, _ASK_EVERY_S, _GONE_S = 1.0, 5.0, 30.0


class Pulse:
    """Whether a server still answers, asked now and then."""

    def __init__(self, url: str, *, ask: Callable[[str], bool] = answers, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._ask, self._clock = url, ask, clock
        self._heard = self._asked = clock()

    def silent_s(self) -> float:
        """Seconds since it answered last; 0 while it does."""
        now = self._clock()
        if now - self._asked >= _ASK_EVERY_S:
            self._asked = now
            if self._ask(self._url):
                self._heard = now
        return now - self._heard if self._heard < self._asked else 0.0


def serve_schedule(recipe: Recipe, *, cron: str, automatic: bool) -> None:
    """Register the deployment and run what becomes due until Ctrl-C.

    Raises `SpecError` for a cron that Prefect cannot read, `JobError` when the schedule's process ends by itself or its Prefect is gone.
    """
    platform = open_platform()
    check_cron(cron)
    stop = asked_to_stop()
    path = platform.settings.home.resolve() / "recipes" / f"{recipe.digest[:12]}.json"
    atomic_write(path, json.dumps(recipe.to_json(), indent=1, sort_keys=True))
    with prefect_page(platform) as page:
        point_prefect_at(f"{page}/api")
        command = [sys.executable, "-m", "flows.pipeline.retrain", str(path), cron, "automatic" if automatic else "propose"]
        server = Child("schedule", command, log=platform.settings.prefect_home / "schedule.log")
        try:
            how = "runs" if automatic else "proposes"
            print_line(f"retraining of {recipe.name} {how} itself at '{cron}' (UTC) and when recordings arrive; Ctrl-C stops this")
            print_line(f"prefect  {page}/deployments")
            print_result(deployment="retrain/retrain", prefect=page, cron=cron, automatic=automatic, recipe=recipe.name)
            pulse = Pulse(f"{page}/api/health")
            while not stop.wait(_LOOK_S):
                if server.process.poll() is not None:
                    raise JobError(f"the schedule's process ended with code {server.process.returncode}:\n{server.last_lines()}")
                if not platform.settings.prefect_api_url and pulse.silent_s() > _GONE_S:  # one of your own is brought back by you
                    raise JobError(
                        f"Prefect at {page} has not answered for {_GONE_S:.0f} s, so nothing is scheduled any more (was it that of an "
                        "`actwright up` that was stopped?); start `actwright schedule` again: it brings a server where none runs"
                    )
        finally:
            _pause(f"{page}/api")
            server.stop(grace_s=10.0)
    print_line("schedule stopped")


def check_cron(cron: str) -> None:
    """Raise `SpecError` for what Prefect cannot read as a schedule."""
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError as error:  # pydantic's is one
        raise SpecError(
            f"--cron {cron!r} is no schedule: expected minute hour day month weekday as numbers, *, ranges or steps, such as '0 3 * * *'"
        ) from error


def approve_proposal(beginning: str) -> dict[str, Any]:
    """Run an open proposal here, or list them all."""
    platform = open_platform()
    with prefect_api(platform.settings) if beginning != "list" else contextlib.nullcontext():
        if beginning == "list":
            from components.release.retraining_proposals import ProposalBook

            known = ProposalBook(platform.settings.home.resolve() / "proposals").all()
            for proposal in known:
                print_line(f"{proposal.proposal_id}  {proposal.state:9} {proposal.recipe['name']}: {proposal.reason}")
            return {"proposals": [p.proposal_id for p in known]}
        from flows.pipeline.retrain import book_of, run_proposal

        done = run_proposal(platform, book_of(platform).find(beginning))
        return {"proposal": done.proposal_id, "state": to_document(done.state), "run": done.run}


def tell_new_recordings(count: int) -> bool:
    """Send the event that triggers the retraining deployment; False if no server runs."""
    platform = open_platform()
    url = running_server(platform.settings)
    if not url:
        return False
    point_prefect_at(url)
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    from flows.pipeline.retrain import NEW_RECORDINGS

    emit_event(NEW_RECORDINGS, resource={"prefect.resource.id": "actwright.raw"}, payload={"recordings": count})
    EventsWorker.drain_all(timeout=5)
    return True


def _pause(api: str) -> None:
    """Pause the deployment: planned runs must not pile up while no process serves it."""
    try:
        deployment = get(f"{api}/deployments/name/retrain/retrain", timeout_s=10).json()["id"]
        url, headers = f"{api}/deployments/{deployment}/pause_deployment", {"Content-Type": "application/json"}
        paused = request("POST", url, timeout_s=10, headers=headers, body=b"{}")
        problem = "" if paused.ok else f"status {paused.status}"
    except (NoAnswerError, ValueError, KeyError) as error:
        problem = str(error)
    if problem:
        print_line(f"the schedule could not be paused ({problem}); runs planned ahead start when `actwright schedule` is started again")
