"""What a service found of the candidate in its shadow, fetched and made into lines for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.deployment.service_address import ServiceCredentials, ServiceUrl, fetch
from model_core.spec.errors import NotReady


def fetch_comparison(url: str, credentials: ServiceCredentials) -> dict[str, Any]:
    """The comparison of GET /v1/shadow. Raises NotReady, with what to do, where none answers or there is no shadow."""
    found = json.loads(fetch(f"{ServiceUrl.of(url).http}/v1/shadow", credentials))
    if found["state"] == "none":
        raise NotReady(f"{url} has no shadow. Fix: start it with `actwright serve champion --shadow MODEL`")
    if "tasks" not in found:  # it waits for a file that names one
        raise NotReady(f"{url} compares nothing: {found['state']}. Fix: wait until the agent of the cell names a candidate, or see its log")
    return found


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """One line for the candidate, then for each task its measures with their intervals, its refusals and its times."""
    counts = ", ".join(f"{found[name]} {name}" for name in ("seen", "dropped", "late", "garbage", "restarts"))
    lines = [f"{found['model_version'] or 'the candidate'}: {found['state']}; {counts}"]
    for task, told in sorted(found["tasks"].items()):
        lines.append(f"{task}: {told['compared']} decisions compared")
        for name, one in sorted(told["measures"].items()):
            between = "" if one["low"] is None else f" ({one['low']:.4g} to {one['high']:.4g})"
            lines.append(f"  {name:<24} {one['mean']:>10.4g}{between} {one['unit']}, {one['episodes']} episodes")
        refused = told["refused"]
        codes = ", ".join(f"{code} {count}" for code, count in sorted(refused["codes"].items()))
        share = f"{refused['low']:.1%} to {refused['high']:.1%}"
        lines.append(f"  refused                  {refused['count']:>10} of {told['asked']} ({share}) {codes}; live {told['live_refused']}")
        if told["ms"] and told["live_ms"]:
            ms, live = told["ms"], told["live_ms"]
            lines.append(f"  ms, p50 and p99          {ms['p50']:.1f}, {ms['p99']:.1f}; live {live['p50']:.1f}, {live['p99']:.1f}")
    return lines
