"""Which release a cell gets that never ran one: by rule, so that a cell that joins needs no order. Pure.

While a rollout is open that concerns the cell, the cell is part of it. Else it gets what the newest rollout that concerns it left behind:
the new release where it passed, the old one where it was rolled back. Where there is none, what a person named for its site, or for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from model_core.spec.fleet.documents import checked_name, checked_reason
from model_core.spec.fleet.release import NO_RELEASE
from model_core.spec.settings import digest
from serving.fleet.controller.rollout.state import Status

ALL_SITES = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRelease:
    """What a person names. release: digest. sites: for whose cells, empty for all."""

    release: str
    sites: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        digest("release", self.release)
        for site in self.sites:
            checked_name("sites", site)
        checked_reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A rollout as it stands. release, baseline: the new and the old one."""

    id: int
    plan: str
    release: str
    baseline: str
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What a cell is to run. release: "" for nothing yet. rollout: that left it behind, None where a person named it."""

    release: str = ""
    rollout: int | None = None
    plan: str = ""
    reason: str = ""


def first_release(site: str, left: Sequence[Left], named: Mapping[str, str], may_run: Callable[[str], bool]) -> First:
    """left: the rollouts that concern the cell, oldest first. named: site -> digest, `ALL_SITES` for every other. may_run: whether nothing
    forbids a release at this site."""
    for one in reversed(left):
        if one.status.is_open:
            return First()
        release = {Status.PASSED: one.release, Status.ROLLED_BACK: one.baseline}.get(one.status, "")
        if release and release != NO_RELEASE and may_run(release):
            told = f"its first release: what {one.plan} left behind ({one.status})"
            return First(release=release, rollout=one.id, plan=one.plan, reason=told)
    release = named.get(site) or named.get(ALL_SITES, "")
    return First(release=release, reason="its first release, named by a person") if release and may_run(release) else First()
