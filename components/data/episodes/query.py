"""What a person asks of the table of episodes, and the SQL of it. Every value is a parameter; only known names become columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_core.spec.errors import require

# what a row may be sorted by, and what is compared then: what a person stated counts before what was recorded
COLUMNS = {
    "set": "p.name",
    "episode": "e.episode_id",
    "task": "e.task",
    "instruction": "COALESCE(r.instruction, e.instruction)",
    "robot": "e.robot",
    "outcome": "COALESCE(r.outcome, e.outcome)",
    "ending": "e.ending",
    "producer": "e.producer",
    "model": "e.model",
    "cell": "e.cell",
    "length": "COALESCE(r.length, e.length)",
    "seconds": "e.seconds",
    "findings": "COALESCE(e.findings, -1)",
    "at": "e.at",
}
EXACT = ("task", "robot", "outcome", "ending", "producer", "model", "cell")  # asked for by their whole value
_WORDS = ("e.episode_id", "e.task", COLUMNS["instruction"], "e.producer", "e.cell", "p.name", "COALESCE(r.causes, '')")
MOST_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeQuery:
    """Which episodes, in which order. "" and 0 ask for nothing.

    text: every word of it stands in the id, task, instruction, producer, cell, name of the set or a cause. place: key of one place.
    kind: set, edit, recordings or audit. findings: "some" or "none" of the inspection, "unknown" where it was not inspected. choice:
    "included", "left_out" or "open": what a person decided. sort: a name of `COLUMNS`. offset, limit: of the page, 1 to 1000 rows.
    """

    text: str = ""
    place: str = ""
    kind: str = ""
    task: str = ""
    robot: str = ""
    outcome: str = ""
    ending: str = ""
    producer: str = ""
    model: str = ""
    cell: str = ""
    min_frames: int = 0
    max_frames: int = 0
    findings: str = ""
    choice: str = ""
    sort: str = "set"
    descending: bool = False
    offset: int = 0
    limit: int = 100

    def __post_init__(self) -> None:
        require(self.sort in COLUMNS, f"sort must be one of {', '.join(COLUMNS)}", got=self.sort)
        require(self.findings in ("", "some", "none", "unknown"), "findings must be some, none or unknown", got=self.findings)
        require(self.choice in ("", "included", "left_out", "open"), "choice must be included, left_out or open", got=self.choice)
        require(self.offset >= 0 and 1 <= self.limit <= MOST_ROWS, f"a page has 1 to {MOST_ROWS} rows from 0 on", got=self.limit)


_FINDINGS = {"some": "e.findings > 0", "none": "e.findings = 0", "unknown": "e.findings IS NULL"}
_CHOICES = {"included": "r.included = 1", "left_out": "r.included = 0", "open": "r.included IS NULL"}


def condition(asked: EpisodeQuery) -> tuple[str, list[Any]]:
    """The WHERE clause and its parameters."""
    parts, values = ["1"], list[Any]()
    for word in asked.text.split():
        parts.append("(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in _WORDS) + ")")
        values += [_inside(word)] * len(_WORDS)
    given = {COLUMNS[name]: getattr(asked, name) for name in EXACT} | {"e.place": asked.place, "p.kind": asked.kind}
    for column, value in given.items():
        if value:
            parts.append(f"{column} = ?")
            values.append(value)
    for sign, frames in ((">=", asked.min_frames), ("<=", asked.max_frames)):
        if frames:
            parts.append(f"{COLUMNS['length']} {sign} ?")
            values.append(frames)
    parts += [table[value] for table, value in ((_FINDINGS, asked.findings), (_CHOICES, asked.choice)) if value]
    return " AND ".join(parts), values


def order(asked: EpisodeQuery) -> str:
    """The ORDER BY clause; episodes that are equal in it stand as in their set."""
    way = "DESC" if asked.descending else "ASC"
    return f"{COLUMNS[asked.sort]} {way}, p.name, e.number, e.file"


def _inside(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
