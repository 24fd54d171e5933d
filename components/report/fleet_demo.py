"""The demonstration of a fleet as one page: versions, rollouts with their stages and evidence, what each cell ran when. Stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluation.intervals import percent
from components.report.page import render_template
from model_core.spec.files import atomic_write
from model_core.statistics.intervals import clopper_pearson

_WAITS = {
    "evidence": "waiting for episodes of the new version, as evidence",
    "episode": "waiting for running episodes to end, the new release ready",
    "update": "download, verification, probes and swap",
}


def write_demo_page(document: Mapping[str, Any], folder: Path) -> Path:
    """Write folder/report.html and return it. document: demo.json of the demonstration."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.html", render_template("fleet_demo.html", demo_values(document)))
    return folder / "report.html"


def demo_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, as text."""
    numbers = {one["digest"]: one["number"] for one in document["versions"]}
    proof = document["proof"]
    return {
        "title": "a fleet on one machine",
        "sentences": sentences(document),
        "versions": [_version(one) for one in document["versions"]],
        "rollouts": [_rollout(one, numbers, document["guards"]) for one in document["rollouts"]],
        "cells": [_cell(name, stretches, document, numbers) for name, stretches in document["cells"].items()],
        "total": f"{document['seconds']:.0f} s",
        "proof": proof["told"],
        "findings": [*proof["cut"], *proof["changed"], *proof["lost"]],
        "log": [{name: str(entry[name]) for name in ("number", "subject", "action", "detail", "hash")} for entry in document["log"]],
    }


def sentences(document: Mapping[str, Any]) -> list[str]:
    """The result in a few lines, for the page and for a terminal."""
    found: list[str] = []
    if reached := document["reached"]:
        cells = reached["cells"]
        found.append(f"from `rollout start` to version 2 on {cells} of {cells} cells: {reached['seconds']:.0f} s")
        found += [f"  {reached['parts'][name]:.0f} s of it {words}" for name, words in _WAITS.items()]
    for one in document["rollouts"]:
        where = f" in stage {one['stage']}" if one["status"] != "passed" else ""
        found.append(f"{one['name']}: {one['status']}{where}, after {one['finished']} episodes of it; {one['reason']}")
    for one in document["versions"]:
        if one["override"]:
            found.append(f"version {one['number']} OVERRIDE by {one['override']['name']}: {one['override']['reason']}")
    if document["problem"]:
        found.append(f"not finished: {document['problem']}")
    return [*found, document["proof"]["told"]]


def evidence_lines(rollout: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """What the controller counts of a rollout against its limits: guards, and the comparison in shadow. limits: counter of a guard -> the
    largest share of episodes."""
    guards = [f"{name.replace('_', ' ')} in {told} (at most {limits[name]:.0%})" for name, told in guard_counts(rollout, limits).items()]
    found = [f"guards: {', '.join(guards)}"] if rollout["finished"] else []
    if rollout["decisions"]:
        found.append(f"in shadow: {shadow_words(rollout)}")
    return found


def guard_counts(rollout: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, str]:
    """Counter -> episodes of the new version with such an event, of how many."""
    return {name: rollout["guards"].get(name, f"0 of {rollout['finished']}") for name in limits}


def shadow_words(rollout: Mapping[str, Any]) -> str:
    """How far the candidate's answers were from those that moved the robot, over all compared decisions."""
    distances = rollout["distances"]
    told = {
        "action": "first actions {:.1%} of their range apart",
        "trace": "traces {:.3g} px",
        "depth": "decoded depth {:.3g} of its unit",
        "refused": "{:.0%} refused",
    }
    parts = [words.format(distances[name]) for name, words in told.items() if name in distances]
    return ", ".join([f"{rollout['decisions']} decisions compared", *parts])


def _version(one: Mapping[str, Any]) -> dict[str, Any]:
    successes, episodes = one["successes"], one["episodes"]
    low, high = clopper_pearson(successes, episodes) if episodes else (0.0, 1.0)
    return {
        "number": one["number"],
        "digest": one["digest"][:16],
        "model_version": one["model_version"],
        "solved": f"{successes} of {episodes}",
        "interval": f"{percent(low)} to {percent(high)}",
        "override": f"OVERRIDE by {one['override']['name']}: {one['override']['reason']}" if one["override"] else "",
    }


def _rollout(one: Mapping[str, Any], numbers: Mapping[str, int], limits: Mapping[str, float]) -> dict[str, Any]:
    proofs = [f"not worse by {margin}: {factor:g} to 1" for margin, factor in one["proofs"].items()]
    return {
        "title": f"{one['name']} over version {numbers.get(one['baseline'], '?')}: {one['status']}",
        "reason": one["reason"],
        "override": f"OVERRIDE by {one['override']}" if one["override"] else "",
        "stages": [{"stage": stage["stage"], "from": f"{stage['from_s'] - one['started_s']:.0f} s"} for stage in one["stages_s"]],
        "strata": [
            {
                "stratum": row["stratum"],
                "new": f"{row['new_successes']} of {row['new_trials']}",
                "old": f"{row['old_successes']} of {row['old_trials']}",
            }
            for row in one["strata"]
        ],
        "guards": [
            {"name": name.replace("_", " "), "counted": counted, "limit": f"{limits[name]:.0%}"}
            for name, counted in guard_counts(one, limits).items()
        ],
        "shadow": shadow_words(one) if one["decisions"] else "",
        "evidence": "; ".join([*proofs, f"worse: {one['worse']:g} to 1"]),
    }


def _cell(name: str, stretches: Sequence[Mapping[str, Any]], document: Mapping[str, Any], numbers: Mapping[str, int]) -> dict[str, Any]:
    """A row of the picture: shares of the whole time with the version that ran."""
    total = max(document["seconds"], 1e-9)
    parts = [
        {
            "number": numbers.get(one["release"], 0),
            "share": f"{100 * (one['to_s'] - one['from_s']) / total:.3f}",
            "is_shadowed": bool(one["shadow"]),
            "told": f"{'version ' + str(numbers[one['release']]) if one['release'] in numbers else 'none'}"
            f"{', version ' + str(numbers.get(one['shadow'], '?')) + ' in its shadow' if one['shadow'] else ''}: "
            f"{one['from_s']:.0f} to {one['to_s']:.0f} s",
        }
        for one in stretches
    ]
    return {"name": name, "task": document["tasks"].get(name, ""), "parts": parts}
