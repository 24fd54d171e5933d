"""One result of comparing an embodiment file with a recorded set."""

from __future__ import annotations

from dataclasses import dataclass

AGREES, TOLD, UNKNOWN, CONTRADICTS = "agrees", "told", "unknown", "contradicts"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """check: what was compared; where: the field of the file. verdict: "agrees", "told" (to know, no contradiction), "unknown" or
    "contradicts". said: the numbers.
    """

    check: str
    where: str
    verdict: str
    said: str

    def __str__(self) -> str:
        return f"{self.verdict:<11} {self.check}: {self.where}: {self.said}"
