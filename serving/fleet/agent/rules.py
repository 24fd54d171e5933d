"""Which release an agent goes for, and what it may not take: pure functions of what is on this computer and of the last proposal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import metadata

from model_core.spec.fleet.offers import OfferedRelease
from serving.fleet.agent.agent_state import SLOTS, AgentState
from serving.fleet.intake.problems import UpdateRefused

_USABLE = ("verified", "probed")


def agent_version() -> str:
    """Of this program."""
    return metadata.version("actwright")


def target_of(state: AgentState, running: str) -> str:
    """The release to go for; "" to stay. running: the slot that the cell is permitted, "" for none.

    It is what the controller proposes, unless this very proposal was refused here. Where the running slot itself was found broken it is
    first the other slot's, if that one is whole and not blocked: a cell is not left without a working release.
    """
    desired, now = state.desired, state.slot(running)
    is_broken = bool(running) and now.state == "refused"
    if is_broken and (fallback := fallback_of(state, running)):
        return fallback
    if desired is None or not desired.release or state.refused.get(desired.release) == desired.revision:
        return ""
    return desired.release if is_broken or desired.release != now.release else ""


def shadow_of(state: AgentState, running: str) -> str:
    """The release that is to answer in shadow of the running one; "" for none. running: release of the permit, "" for none."""
    desired = state.desired
    if desired is None or not running or desired.shadow in ("", running, *desired.blocked):
        return ""
    return "" if state.refused.get(desired.shadow) == desired.revision else desired.shadow


def fallback_of(state: AgentState, running: str) -> str:
    """The release of the other slot, if its bytes were found right and nothing forbids it; else ""."""
    other, desired = state.slot(other_slot(running)), state.desired
    is_blocked = desired is not None and other.release in desired.blocked
    return other.release if other.state in _USABLE and not is_blocked else ""


def release_before(state: AgentState, running: str, shared: Collection[str]) -> str:
    """What to run first where no policy service of this computer is free for the proposed release; "" to wait until one is.

    shared: the releases for which other cells use services. Where what runs is none of them, its service is this cell's alone, and no
    other cell can free one for it: it goes to a release of the others, if that may run here, and leaves its own to the proposed one.
    """
    desired = state.desired
    if desired is None or not running or state.slot(running).release in shared:
        return ""
    other = state.slot(other_slot(running))
    is_newest = other.number >= state.highest
    allowed = {*desired.rollback_to, *([other.release] if is_newest else [])} - {*desired.blocked}
    found = [release for release in shared if release in allowed and state.refused.get(release) != desired.revision]
    return min(found, key=lambda release: (release != other.release, release), default="")  # what is in the slot need not be fetched


def slot_for(state: AgentState, target: str, running: str) -> str:
    """Where a release goes: the slot that holds it, else the one that does not run."""
    return state.holding(target) or other_slot(running)


def other_slot(slot: str) -> str:
    """ "b" for "a", and "a" for every other."""
    return SLOTS[1] if slot == SLOTS[0] else SLOTS[0]


def row_of(rows: Sequence[OfferedRelease], digest: str, site: str) -> OfferedRelease:
    """The row of a release. Raises `UpdateRefused` NOT_OFFERED."""
    for row in rows:
        if row.digest == digest:
            return row
    raise UpdateRefused("NOT_OFFERED", f"site {site} is not offered release {digest[:16]}. Fix: publish it to this site")


def check_allowed(digest: str, number: int, state: AgentState, *, is_fallback: bool = False) -> None:
    """Raises `UpdateRefused`: BLOCKED, or ROLLBACK for a release older than the newest that ran here, unless it is listed as known good.

    is_fallback: the running release is broken on this computer, and this one ran here before.
    """
    desired = state.desired
    if desired is not None and digest in desired.blocked:
        raise UpdateRefused("BLOCKED", f"release {digest[:16]} is blocked by the controller")
    listed = desired is not None and digest in desired.rollback_to
    if number < state.highest and not (listed or is_fallback):
        raise UpdateRefused(
            "ROLLBACK",
            f"release {digest[:16]} is number {number} of this site, and number {state.highest} has run here. "
            "Fix: list it among the releases that may be taken again",
        )


def check_agent(minimum: str, version: str) -> None:
    """Raises `UpdateRefused` AGENT_TOO_OLD. Versions are numbers with dots between them."""
    if _numbers(version) < _numbers(minimum):
        raise UpdateRefused("AGENT_TOO_OLD", f"the release asks for agent {minimum}, this is {version}. Fix: update the agent")


def _numbers(version: str) -> tuple[int, ...]:
    """Of "1.2.3"; what is no number ends it."""
    found: list[int] = []
    for part in version.split("."):
        digits = "".join(letter for letter in part if letter.isdigit())
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
