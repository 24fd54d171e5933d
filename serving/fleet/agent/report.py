"""What an agent tells its controller: read from the disk and from the service itself, not from what was wished."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.spec.fleet.documents import MOST_EPISODES, CellReport, OverrideInForce, Phase, ShadowComparison, Slot
from serving.cell_files.boot_clock import Moment
from serving.cell_files.cell_facts import read_facts
from serving.cell_files.finished_episodes import FinishedEpisodes
from serving.cell_files.permit import Permit, episodes_left, is_lost, read_contact
from serving.cell_files.update_lock import UpdateLock
from serving.fleet.agent.agent_state import SLOTS, StateFile
from serving.fleet.agent.rules import agent_version, target_of
from serving.fleet.agent.settings import AgentSettings
from serving.fleet.agent.update import Update
from serving.fleet.intake.problems import UpdateRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Where the facts are."""

    settings: AgentSettings
    state: StateFile
    update: Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The agent at this moment. clock_offset_s: the controller's clock less ours, None where it was never heard."""

    moment: Moment
    phase: Phase
    clock_offset_s: float | None


def report_of(reporter: Reporter, permit: Permit | None, now: Now, shadow: tuple[ShadowComparison, ...]) -> CellReport:
    """The report that goes out now, with the next number. Raises OSError or `NotReady` where the cell's files cannot be read."""
    settings, state = reporter.settings, reporter.state.now
    files = settings.cell_files
    episodes, lock, facts, contact = FinishedEpisodes(files), UpdateLock(files), read_facts(files), read_contact(files)
    told = episodes.oldest(MOST_EPISODES)
    running, contract = answering(reporter.update, permit)
    tasks = settings.tasks or ((facts.task,) if facts else ())
    return CellReport(
        cell=settings.cell,
        site=settings.site,
        agent_version=agent_version(),
        sequence=reporter.state.next_sequence(),
        boot=now.moment.boot,
        sent_at_s=now.moment.wall_s,
        tasks=tasks,
        labels=dict(settings.labels),
        clock_offset_s=now.clock_offset_s,
        revision=state.revision,
        slots=tuple(Slot(name=name, state=state.slot(name).state, release=state.slot(name).release) for name in SLOTS),
        running=running,
        contract=contract,
        limits=facts.limits if facts else "",
        version=state.highest,
        phase=now.phase,
        target=target_of(state, permit.slot if permit else ""),
        error=state.error or state.shadow_error,
        in_episode=lock.is_held,
        offline=permit is not None and is_lost(permit, contact, now.moment),
        episodes_left=episodes_left(permit, contact, now.moment, lock.begun) if permit else None,
        override=OverrideInForce(name=permit.override.name, reason=permit.override.reason) if permit and permit.override else None,
        episodes=told,
        waiting=max(len(episodes) - len(told), 0),
        shadow=shadow,
    )


def answering(update: Update, permit: Permit | None) -> tuple[str, str]:
    """(release, contract id) that the permitted service itself says that it serves; "" where it does not answer."""
    if permit is None:
        return "", ""
    service = update.service(permit.slot)
    try:
        if service.started_for() == permit.release and service.status().state == "ready":
            bundle, contract = service.served()
            return (permit.release if bundle == permit.bundle_digest else ""), contract
    except (UpdateRefused, ValueError, KeyError):
        pass
    return "", ""
