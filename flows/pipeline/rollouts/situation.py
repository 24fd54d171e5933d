"""Where a requested rollout stands, from what the controller tells of it: pure. A flow run sleeps until this is another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

NO_ANSWER = "the controller does not answer"


class Step(StrEnum):
    """What is to be done."""

    WAIT = "wait"
    START = "start"
    PASSED = "passed"
    FAILED = "failed"
    DECLINED = "declined"

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be waited for."""
        return self in (Step.PASSED, Step.FAILED, Step.DECLINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """key: equal as long as nothing happened that a person wants to see. told: one line."""

    step: Step
    key: str
    told: str


def situation_of(asked: Mapping[str, Any], rollout: Mapping[str, Any] | None) -> Situation:
    """asked: an entry of /v1/requests. rollout: an answer of /v1/rollouts/{id}, None before one was started."""
    version = f"{asked['model']}/{asked['version']}"
    if rollout is not None:
        return _of_rollout(version, rollout)
    if asked["decision"] == "declined":
        return Situation(step=Step.DECLINED, key="declined", told=f"{version} was declined by {asked['decided_by']}: {asked['reason']}")
    if asked["decision"] == "approved":
        release = asked["release"]
        told = f"{version} was approved by {asked['decided_by']} with release {release[:16]}"
        return Situation(step=Step.START, key=f"approved {release}", told=told)
    if not asked["releases"]:
        told = f"{version} waits for a release. Fix: `actwright fleet release create`, publish it, and `actwright fleet offer` it"
        return Situation(step=Step.WAIT, key="no release", told=told)
    told = f"{version} waits for a person. Fix: `actwright fleet requests approve {version}`, or `actwright fleet requests decline`"
    return Situation(step=Step.WAIT, key=f"open {' '.join(asked['releases'])}", told=told)


def _of_rollout(version: str, rollout: Mapping[str, Any]) -> Situation:
    status, stage = rollout["status"], rollout["stage"] or "before the first stage"
    key = f"rollout {rollout['id']} {status} {stage}"
    if status == "passed":
        return Situation(step=Step.PASSED, key=key, told=f"{version}: rollout {rollout['id']} passed: {rollout['reason']}")
    if status in ("rolled back", "aborted"):
        told = f"{version}: rollout {rollout['id']} was {status} in stage {stage}: {rollout['reason']}"
        return Situation(step=Step.FAILED, key=key, told=told)
    return Situation(step=Step.WAIT, key=key, told=f"{version}: rollout {rollout['id']}: {rollout['told']}")
