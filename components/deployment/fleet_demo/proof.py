"""What the cells' own records prove, read without asking agents or controller: audit files, drivers' logs, counts of begun episodes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artifacts.audit_files import read_audit
from model_core.spec.audit.format import Kind
from model_core.spec.audit.reading import AuditFile
from model_core.spec.types import StopReason

_WHOLE = {StopReason.SUCCESS.value, StopReason.MAX_STEPS.value, StopReason.REFUSED.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProof:
    """episodes: that were audited. cut, changed, lost: findings, each a sentence; empty where nothing was found. bundles: digest of a
    bundle -> (successes, episodes) on it. cut: an episode that did not end with its success or its horizon. changed: an episode with
    answers or commands of more than one version. lost: an audit file or a record that is missing or wrong."""

    episodes: int = 0
    cut: Sequence[str] = ()
    changed: Sequence[str] = ()
    lost: Sequence[str] = ()
    bundles: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    @property
    def holds(self) -> bool:
        """Nothing was found."""
        return not (self.cut or self.changed or self.lost)

    @property
    def told(self) -> str:
        """One line."""
        found = f"{len(self.cut)} cut, {len(self.changed)} with a version change inside, {len(self.lost)} lost audit records"
        return f"{self.episodes} episodes: {found}"


def prove(cells: Mapping[str, Path]) -> FleetProof:
    """Read everything that the cells recorded. cells: name -> folder with audit/, cell/ and, where the robot writes one, driver.jsonl."""
    cut: list[str] = []
    changed: list[str] = []
    lost: list[str] = []
    bundles: dict[str, tuple[int, int]] = {}
    episodes = 0
    for name, folder in sorted(cells.items()):
        files = [read_audit(path) for path in sorted((folder / "audit").glob("**/[0-9]*-*.mcap"))]
        episodes += len(files)
        begun = _begun(folder / "cell" / "begun.json")
        if begun != len(files):
            lost.append(f"{name}: {begun} episodes were begun, {len(files)} are audited")
        changed += [f"{name}: {found}" for found in _changes_in_log(folder / "driver.jsonl")]
        for one in files:
            where = f"{name}, {one.path.name}"
            cut += [f"{where}: {why}" for why in _cut(one)]
            changed += [f"{where}: {why}" for why in _changed(one)]
            lost += [f"{where}: {why}" for why in _lost(one)]
            _count(bundles, one)
    return FleetProof(episodes=episodes, cut=cut, changed=changed, lost=lost, bundles=bundles)


def _cut(found: AuditFile) -> Iterable[str]:
    end = found.of(Kind.END)[0].body if found.of(Kind.END) else {}
    reason = str(end.get("stop_reason", ""))
    if reason not in _WHOLE:
        yield f"it ended with {reason or 'no end'}: {end.get('detail') or 'no detail'}"


def _changed(found: AuditFile) -> Iterable[str]:
    begins, decisions, executed = ([record.body for record in found.of(kind)] for kind in (Kind.BEGIN, Kind.DECISION, Kind.EXECUTED))
    answers = [body["chunk"] for body in decisions if body.get("chunk")]
    for name, bodies in (("bundle_digest", [*begins, *answers]), ("contract_id", [*begins, *answers, *_moves(executed)])):
        values = {str(body.get(name, "")) for body in bodies}
        if len(values) > 1:
            yield f"{name} is {' and '.join(sorted(value[:12] for value in values))}"


def _moves(executed: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [body for body in executed if body.get("chunk_id")]


def _lost(found: AuditFile) -> Iterable[str]:
    if found.problem:
        yield found.problem
        return
    seal = found.of(Kind.SEAL)[0].body if found.of(Kind.SEAL) else {}
    count = int((seal.get("counts") or {}).get("lost_records", 0))
    if count or not seal.get("complete", False):
        yield f"{count} records were not written" if count else "it was closed before the episode was over"


def _count(bundles: dict[str, tuple[int, int]], found: AuditFile) -> None:
    begins, ends = found.of(Kind.BEGIN), found.of(Kind.END)
    if begins and ends:
        digest = str(begins[0].body.get("bundle_digest", ""))
        successes, trials = bundles.get(digest, (0, 0))
        bundles[digest] = (successes + bool(ends[0].body.get("success", False)), trials + 1)


def _begun(path: Path) -> int:
    try:
        return int(json.loads(path.read_bytes())["begun"])
    except FileNotFoundError:
        return 0


def _changes_in_log(path: Path) -> Iterable[str]:
    """A driver's own log, where there is one: between two resets all commands that move are of one model version and contract."""
    if not path.exists():
        return
    seen: set[tuple[str, str]] = set()
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = json.loads(text)
        if line.get("event") == "reset":
            seen = set()
        elif line.get("event") == "breach":
            yield f"driver's log, line {number}: {line.get('found')}"
        elif line.get("chunk_id"):
            seen.add((str(line["model_version"]), str(line["contract_id"])))
            if len(seen) > 1:
                yield f"driver's log, line {number}: a command of {line['model_version']} in an episode of another version"
                seen = {(str(line["model_version"]), str(line["contract_id"]))}
