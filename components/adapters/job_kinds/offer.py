"""What a cluster serves and holds, as its API server tells it: read with any account's rights, by plain addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.adapters.job_kinds.kinds import JOB_SET, TRAIN_JOB
from components.config.launch.placement import JobKind
from model_core.spec.errors import JobError

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(n|u|m|k|[KMGTPE]i?|)")
_SCALE = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3} | {unit: 1e3**n for n, unit in enumerate("KMGTPE", 1)}
_SCALE |= {f"{unit}i": 1024.0**n for n, unit in enumerate("KMGTPE", 1)}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one read."""

    status: int
    body: bytes

    @property
    def is_there(self) -> bool:
        """Whether it was found, and this account may see it."""
        return self.status == 200

    @property
    def document(self) -> Any:
        """The body."""
        return json.loads(self.body)


Get = Callable[[str], Answer]


def served(get: Get, group: str) -> tuple[str, ...]:
    """The versions of an API group that the cluster serves; () for a group that it does not know."""
    answer = get(f"/apis/{group}")
    if answer.status == 404:
        return ()
    if not answer.is_there:
        raise JobError(f"asking for /apis/{group}: the cluster answered {answer.status}. Fix: use an account that may use discovery")
    return tuple(one["version"] for one in answer.document["versions"])


def has_field(get: Get, api: str, kind: str, path: str) -> bool:
    """Whether the schema that the cluster publishes of `kind` has the field, such as "status.trainerStatus"."""
    answer = get(f"/openapi/v3/apis/{api}")
    if not answer.is_there:
        return False
    schemas: Mapping[str, Any] = answer.document["components"]["schemas"]
    node: Any = next((schema for name, schema in schemas.items() if name.split(".")[-1] == kind), {})
    for name in path.split("."):
        node = node.get("properties", {}).get(name)
        if node is None:
            return False
    return True


def is_trainer_new(get: Get) -> bool:
    """Whether its TrainJobs run again after a queue held them back: from 2.2 on, the first whose TrainJob has status.trainerStatus."""
    return has_field(get, TRAIN_JOB.api, TRAIN_JOB.name, "status.trainerStatus")


def served_kind(get: Get) -> JobKind:
    """The kind that a job is submitted as where nothing else is asked: a TrainJob, else a JobSet, else a Job."""
    if TRAIN_JOB.version in served(get, TRAIN_JOB.group) and JOB_SET.version in served(get, JOB_SET.group) and is_trainer_new(get):
        return "trainjob"
    return "jobset" if JOB_SET.version in served(get, JOB_SET.group) else "job"


def quantity(text: str | int | float) -> float:
    """A quantity of Kubernetes as a number: "16Gi", "500m", 4."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise JobError(f"{text!r} is no quantity of Kubernetes. Fix: write a number with m, k, Ki, M, Mi, G, Gi, T or Ti")
    return float(found[1]) * _SCALE[found[2]]
