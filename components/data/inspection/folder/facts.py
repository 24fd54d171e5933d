"""What was observed of a folder that should not be so. A fact is no judgement: a rule says what it means."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One observation. kind: which rule reads it. where: episode id, file or field. reason: expected and got, in one sentence."""

    kind: str
    where: str
    reason: str


@dataclass(slots=True)
class FactList:
    """Facts as they are found, and how many places were looked at for each kind: without evidence no rule says that all is well."""

    facts: list[Fact] = field(default_factory=list[Fact])
    looked_at: dict[str, int] = field(default_factory=dict[str, int])

    def look(self, kind: str, count: int = 1) -> None:
        """`count` more places were looked at for this kind of fact."""
        self.looked_at[kind] = self.looked_at.get(kind, 0) + count

    def add(self, kind: str, where: str, reason: str) -> None:
        """Record a fact."""
        self.facts.append(Fact(kind=kind, where=where, reason=reason))

    def check(self, kind: str, holds: bool, where: str, reason: str) -> bool:
        """Look at one place, and record a fact unless it `holds`. Returns `holds`."""
        self.look(kind)
        if not holds:
            self.add(kind, where, reason)
        return holds
