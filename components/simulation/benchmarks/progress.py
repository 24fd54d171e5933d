"""How far an attempt came: partial credit for the stages of a task."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class MeasuresProgress(Protocol):
    """A simulator that measures stages."""

    @property
    def progress(self) -> float:
        """The best stage of this episode so far, 0..1; 1 is the success itself."""
        ...
