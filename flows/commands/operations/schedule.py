"""`actwright schedule` and `approve`: the retraining deployment, served from this machine until it is stopped."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.adapters.http import NoAnswerError, answers, get, request
from components.config.recipe import Recipe
from flows.commands.operations.up import asked_to_stop, prefect_page
from flows.platform.child_process import Child
from flows.platform.flow_runs import FlowRuns, RunsWithoutProcess
from flows.platform.prefect_server import prefect_api, running_server
from flows.platform.settings import Settings, point_prefect_at
from flows.platform.wiring import Platform, open_platform
from flows.terminal.output import print_line, print_result
from model_core.spec.documents import to_document
from model_core.spec.errors import JobError, NotReady, SpecError
from model_core.spec.files import atomic_write

if TYPE_CHECKING:
    from components.config.launch.cluster_job import JobSpec

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What is retrained when, and where: recipe, cron in UTC, at once or proposed, and the cluster's job that trains (none: here).

    pool: the work pool of Kubernetes whose workers run the flows, each as a Job ("": this command's own worker); image: of those Jobs.
    """

    recipe: Recipe
    cron: str
    automatic: bool = False
    cluster: JobSpec | None = None
    kubeconfig: Path | None = None
    pool: str = ""
    image: str = ""


def serve_schedule(schedule: Schedule) -> None:
    """Register the deployment and run what becomes due, and what people asked for, until Ctrl-C.

    A worker that ends is started again, and runs whose process is gone are put back. Raises `SpecError` for a cron that Prefect cannot
    read, `JobError` when the Prefect of another command is gone.
    """
    platform, recipe = open_platform(), schedule.recipe
    check_cron(schedule.cron)
    stop = asked_to_stop()
    path = platform.settings.home.resolve() / "recipes" / f"{recipe.digest[:12]}.json"
    atomic_write(path, json.dumps(recipe.to_json(), indent=1, sort_keys=True))
    with prefect_page(platform) as page:
        point_prefect_at(f"{page}/api")
        worker = Worker(platform.settings, _served(schedule, path), is_in_pool=bool(schedule.pool))
        try:
            how = "runs" if schedule.automatic else "proposes"
            where = f" on {schedule.cluster.nodes} machines of a cluster" if schedule.cluster else ""
            print_line(f"retraining of {recipe.name} {how} itself at '{schedule.cron}' (UTC) and when recordings arrive; Ctrl-C stops this")
            print_line(f"a retraining trains{where or ' here'}; prefect  {page}/deployments")
            told = {"deployment": "retrain/retrain", "prefect": page, "cron": schedule.cron, "automatic": schedule.automatic}
            print_result(**told, recipe=recipe.name)
            runs = FlowRuns(api=f"{page}/api", deployment="retrain/retrain")
            desk = RetrainingDesk(runs, platform, path, lost=None if schedule.pool else RunsWithoutProcess())
            pulse = Pulse(f"{page}/api/health")
            is_first = not schedule.pool  # flows of a pool run whether this command does or not
            while not stop.wait(_LOOK_S):
                is_first = worker.keep() or is_first
                is_first = not desk.turn(none_runs=is_first) and is_first
                if not platform.settings.prefect_api_url and pulse.silent_s() > _GONE_S:  # one of your own is brought back by you
                    raise JobError(
                        f"Prefect at {page} has not answered for {_GONE_S:.0f} s, so nothing is scheduled any more (was it that of an "
                        "`actwright up` that was stopped?); start `actwright schedule` again: it brings a server where none runs"
                    )
        finally:
            _pause(f"{page}/api")
            worker.stop()
    print_line("schedule stopped")


def _served(schedule: Schedule, recipe: Path) -> dict[str, Any]:
    """The arguments of `flows.pipeline.retrain.serve_deployment`."""
    cluster = to_document(schedule.cluster) if schedule.cluster else None
    kubeconfig = str(schedule.kubeconfig.resolve()) if schedule.kubeconfig else ""
    pool = {"name": schedule.pool, "variables": {"image": schedule.image}} if schedule.pool else None
    told = {"recipe": str(recipe), "cron": schedule.cron, "automatic": schedule.automatic, "cluster": cluster, "kubeconfig": kubeconfig}
    return {**told, "pool": pool}


class Worker:
    """The process that works for the pool, started again where it ends. is_in_pool: it only registers the deployment, once."""

    def __init__(self, settings: Settings, served: Mapping[str, Any], *, is_in_pool: bool = False) -> None:
        self._is_in_pool = is_in_pool
        self._log, self._child = settings.prefect_home / "schedule.log", None
        self._command = [sys.executable, "-m", "flows.pipeline.retrain", json.dumps(served)]

    def keep(self) -> bool:
        """Let it run; whether it was started now, so that no flow is running."""
        code = None if self._child is None else self._child.process.poll()
        if self._child is not None and (code is None or (self._is_in_pool and code == 0)):
            return False
        if self._child is not None and self._is_in_pool:
            raise JobError(f"the deployment was not registered:\n{self._child.last_lines()}")
        if self._child is not None:
            print_line(f"the worker ended with code {self._child.process.returncode} and is started again:\n{self._child.last_lines()}")
            self._child.stop()  # flows that it left in its group
        self._child = Child("schedule", self._command, log=self._log)
        return not self._is_in_pool

    def stop(self) -> None:
        """End it with its flows."""
        if self._child is not None:
            self._child.stop(grace_s=10.0)


class RetrainingDesk:
    """Lets a flow run carry out each retraining that a person asked for, and puts back the runs that lost their process."""

    def __init__(self, runs: FlowRuns, platform: Platform, recipe: Path, *, lost: RunsWithoutProcess | None) -> None:
        from components.release.retraining_proposals import ProposalBook

        self._runs, self._recipe, self._book = runs, recipe, ProposalBook(platform.settings.home.resolve() / "proposals")
        self._made: set[str] = set()
        self._lost = lost  # none: Prefect's worker sees how each Job ends, and tells of those that crashed

    def turn(self, *, none_runs: bool) -> bool:
        """Look once; False where Prefect does not answer, or does not know the deployment yet, and the look is to be made again."""
        from components.release.retraining_proposals import ProposalState

        asked = [one for one in self._book.all() if one.state is ProposalState.REQUESTED and one.proposal_id not in self._made]
        try:
            for one in asked:
                self._runs.make(
                    f"retrain {one.proposal_id}", {"recipe": str(self._recipe), "approved": one.proposal_id}, key=one.proposal_id
                )
                self._made.add(one.proposal_id)
                print_line(f"{one.proposal_id}: a person asked for it, a flow run was made")
            known = self._runs.all()
            for line in self._runs.put_back_lost(known, none_runs=none_runs, lost=self._lost.of(known) if self._lost else ()):
                print_line(line)
        except NotReady as error:
            logger.debug("schedule.waits because=%s", error)
            return False
        return True


def check_cron(cron: str) -> None:
    """Raise `SpecError` for what Prefect cannot read as a schedule."""
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValueError as error:  # pydantic's is one
        raise SpecError(
            f"--cron {cron!r} is no schedule: expected minute hour day month weekday as numbers, *, ranges or steps, such as '0 3 * * *'"
        ) from error


def approve_proposal(beginning: str, *, scheduled: bool = False) -> dict[str, Any]:
    """Run an open proposal here, or (scheduled) let the schedule that is served run it; "list" lists them all."""
    from components.release.retraining_proposals import ProposalBook, ProposalState

    platform = open_platform()
    book = ProposalBook(platform.settings.home.resolve() / "proposals")
    if beginning == "list":
        known = book.all()
        for proposal in known:
            print_line(f"{proposal.proposal_id}  {proposal.state:9} {proposal.recipe['name']}: {proposal.reason}")
        return {"proposals": [p.proposal_id for p in known]}
    if scheduled:
        found = book.find(beginning)
        done = book.mark(found, ProposalState.REQUESTED) if found.state is ProposalState.OPEN else found
        print_line(f"{done.proposal_id} is {done.state}; the `actwright schedule` of this home runs it, also after it was stopped")
        return {"proposal": done.proposal_id, "state": to_document(done.state), "run": done.run}
    with prefect_api(platform.settings):
        from flows.pipeline.retrain import run_proposal

        done = run_proposal(platform, book.find(beginning))
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
