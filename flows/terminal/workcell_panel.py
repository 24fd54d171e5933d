"""A workcell's progress: one live panel, or plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_COLORS = {"RUN": "green", "STRETCH": "yellow", "HOLD": "red", "SAFE_STOP": "bold red"}
_PLAIN_EVERY_S = 5.0


class WorkcellPanel:
    """Mode, step, successes so far, latencies. `update` takes the cell's JSON lines."""

    def __init__(self, task: str, episodes: int, *, live: bool | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._is_live = self.console.is_terminal if live is None else live
        self._task, self._episodes = task, episodes
        self._now: dict[str, Any] = {}
        self._last = ""
        self._live: Live | None = None
        self._printed_at = 0.0

    @contextlib.contextmanager
    def shown(self) -> Iterator[WorkcellPanel]:
        """Draw while the block runs."""
        if not self._is_live:
            yield self
            return
        with Live(self._panel(), console=self.console, refresh_per_second=4) as self._live:
            yield self
        self._live = None

    def update(self, line: Mapping[str, Any]) -> None:
        """One line of the cell: what it does now, or how an episode ended."""
        if isinstance(line.get("live"), dict):
            self._now = dict(line["live"])
        elif "stop_reason" in line:
            how = "solved" if line.get("success") else str(line["stop_reason"]).replace("_", " ")
            why = f": {line['detail']}" if line.get("detail") else ""
            self._last = f"episode {line.get('done')}: {how} after {line.get('steps')} steps{why}"
            if self._live is None:
                self.console.print(f"{self._task} {self._last}", soft_wrap=True)
        if self._live is not None:
            self._live.update(self._panel())
        elif self._now.get("mode") and time.monotonic() - self._printed_at > _PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            self.console.print(self.line())

    def line(self) -> str:
        """The state as one plain line."""
        now = self._now
        where = f"{self._task} episode {now.get('episode', 0)}/{self._episodes} step {now.get('step', 0)} {now.get('mode') or '-'}"
        return f"{where}, {now.get('successes', 0)} of {now.get('finished', 0)} solved, {self._times()}"

    def _panel(self) -> Table:
        now = self._now
        mode = str(now.get("mode") or "waiting")
        table = Table.grid(padding=(0, 2))
        table.add_row("task", f"{self._task}   episode {now.get('episode', 0)} of {self._episodes}, step {now.get('step', 0)}")
        table.add_row("mode", Text(mode, style=_COLORS.get(mode, "dim")))
        shares = now.get("modes") or {}
        total = sum(shares.values()) or 1
        table.add_row("so far", "  ".join(f"{name} {100 * count / total:.0f} %" for name, count in shares.items()) or "-")
        table.add_row("solved", f"{now.get('successes', 0)} of {now.get('finished', 0)}")
        if now.get("thinking"):
            table.add_row("thinking", f"{now['thinking']} is predicted, the actions follow")
        table.add_row("answers", f"{now.get('decisions', 0)}, {self._times()}; {self._refused()}")
        table.add_row("last", self._last or "-")
        return table

    def _times(self) -> str:
        return f"p50 {self._now.get('p50_ms', 0):.0f} ms, p99 {self._now.get('p99_ms', 0):.0f} ms"

    def _refused(self) -> str:
        count = self._now.get("refused", 0)
        return f"{count} refused or late" + (f" (last: {self._now['why']})" if count and self._now.get("why") else "")
