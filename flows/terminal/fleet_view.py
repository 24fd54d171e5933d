"""A fleet as the controller tells of it: a live table, or a plain line where something changed and there is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from components.deployment.fleet_demo.timeline import CellNow, Sample

_COLORS = {1: "dim", 2: "green", 3: "red"}


class FleetView:
    """numbers: digest of a release -> its number for people. limits: of the guards of each rollout."""

    def __init__(self, numbers: Mapping[str, int], limits: Mapping[str, float], *, live: bool | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._is_live = self.console.is_terminal if live is None else live
        self._numbers, self._limits, self._said = numbers, limits, ""
        self._live: Live | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[FleetView]:
        """Draw while the block runs."""
        if not self._is_live:
            yield self
            return
        with Live(Table.grid(), console=self.console, refresh_per_second=4) as self._live:
            yield self
        self._live = None

    def update(self, sample: Sample) -> None:
        """One answer of the controller."""
        if self._live is not None:
            self._live.update(self._table(sample))
        elif (line := self.line(sample)) != self._said:
            self._said = line
            self.console.print(line, soft_wrap=True)

    def line(self, sample: Sample) -> str:
        """The fleet as one plain line: the version of each cell, with an arrow where another one is proposed."""
        cells = " ".join(self._cell(cell) for cell in sample.cells.values())
        where = f"rollout {sample.rollout}: {sample.status}, {sample.stage}" if sample.rollout else "no rollout yet"
        return f"{where}   cells {cells or '-'}"

    def _table(self, sample: Sample) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, cell in sample.cells.items():
            color = _COLORS.get(self._numbers.get(cell.running, 0), "")
            table.add_row(name, Text(self._cell(cell), style=color), self._doing(cell))
        whole = Table.grid()
        whole.add_row(table)
        whole.add_row("")
        for line in self._below(sample):
            whole.add_row(Text(line, style="red" if line.startswith("OVERRIDE") else ""))
        return whole

    def _doing(self, cell: CellNow) -> str:
        """What goes on at a cell beside its episodes."""
        parts = [cell.phase] if cell.moves else []
        if cell.shadow:
            parts.append(f"version {self._version(cell.shadow)} in its shadow, {cell.shadowed} decisions compared")
        return ", ".join([*parts, *([cell.error] if cell.error else [])])

    def _below(self, sample: Sample) -> list[str]:
        from components.report.fleet_demo import evidence_lines

        if not sample.rollout:
            return ["no rollout yet"]
        override = [f"OVERRIDE by {sample.newest['override']}"] if sample.newest["override"] else []
        return [sample.told, *evidence_lines(sample.newest, self._limits), *override]

    def _cell(self, cell: CellNow) -> str:
        return f"{self._version(cell.running)}>{self._version(cell.proposed)}" if cell.moves else self._version(cell.running)

    def _version(self, release: str) -> str:
        return str(self._numbers[release]) if release in self._numbers else "-"
