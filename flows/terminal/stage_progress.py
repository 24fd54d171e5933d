"""A run's progress: one bar per stage, or plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from components.artifacts.step_store import FaultHook, StepResult
from components.config.stages import STAGES

TITLES = {stage.name: stage.title for stage in STAGES}
_PLAIN_EVERY_S = 5.0


class StagePanel:
    """The list of stages on stderr. One per run; `stage` gives what a component reports to.

    quiet: show nothing. titles: stage -> what a person reads, in order of work (default: all stages, as the table names them).
    """

    def __init__(
        self, *, live: bool | None = None, quiet: bool = False, fault: FaultHook | None = None, titles: Mapping[str, str] = TITLES
    ) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)
        self._live = self.console.is_terminal if live is None else live
        self._fault = fault
        self._titles = {**titles}
        self._printed: set[str] = set()
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=28),
            _Spent(),
            TextColumn("[dim]{task.fields[message]}", markup=True),
            console=self.console,
            transient=False,
        )
        self._tasks = {
            name: self._bars.add_task(title, total=None, start=False, message="", visible=True) for name, title in titles.items()
        }

    @contextlib.contextmanager
    def shown(self) -> Iterator[StagePanel]:
        """Draw while the block runs."""
        if not self._live:
            yield self
            return
        with self._bars:
            yield self

    def stage(self, name: str) -> StageProgress:
        """Begin a stage; its component reports here."""
        if self._live:
            self._bars.start_task(self._tasks[name])
        return StageProgress(panel=self, name=name, began=time.monotonic(), fault=self._fault)

    def finish(self, name: str, result: StepResult) -> None:
        """Mark a stage as done, or found done; printed once, even if the stage sends its result somewhere afterwards."""
        how = "finished earlier" if result.cached else f"{result.seconds:.1f} s"
        if self._live:
            self._bars.update(self._tasks[name], total=1, completed=1, message=how)
        elif name not in self._printed:
            self._printed.add(name)
            self.print_line(f"{self.title(name)}: {how}")

    def title(self, name: str) -> str:
        """What a person reads of a stage."""
        return self._titles.get(name) or TITLES[name]

    def print_line(self, line: str) -> None:
        """One line for a person."""
        self.console.print(line)

    def draw(self, name: str, done: int, total: int, message: str) -> None:
        """Move the bar of a stage."""
        self._bars.update(self._tasks[name], total=max(total, 1), completed=min(done, max(total, 1)), message=message)

    @property
    def live(self) -> bool:
        """Whether bars are drawn."""
        return self._live


@dataclass(slots=True)
class StageProgress:
    """`components.config.records.Progress` of one stage: moves its bar, or prints a line now and then."""

    panel: StagePanel
    name: str
    began: float
    fault: FaultHook | None = None
    _printed_at: float = 0.0

    def update(self, done: int, total: int, message: str = "") -> None:
        """See `Progress.update`."""
        if self.fault is not None and done > 0:
            self.fault(self.name, "progress")
        if self.panel.live:
            self.panel.draw(self.name, done, total, message)
        elif time.monotonic() - self._printed_at > _PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            self.panel.print_line(f"{self.panel.title(self.name)}: {done}/{total} {message}".rstrip())


class _Spent(ProgressColumn):
    """Seconds since the stage began."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        return Text("" if seconds is None else f"{seconds:5.0f} s", style="dim")
