"""Whether the robot of a cell process that died in an episode is off: its watchdog knows, and nothing else here does."""

from __future__ import annotations

from pathlib import Path

from serving.cell_files.update_lock import RunningEpisode
from serving.workcell.watchdog.heartbeat import SharedBeat, StopLevel


def motors_are_off(left: RunningEpisode) -> bool:
    """The watchdog of the episode has latched its stop, or the cell disarmed it at rest. Without a watchdog no one knows: False."""
    path = Path(left.watchdog)
    if not left.watchdog or not path.is_file():
        return False
    beat = SharedBeat(path)
    try:
        return beat.level is StopLevel.STOP or not beat.is_armed
    finally:
        beat.close()
