"""The agent of a cell, in place of this process: `python -m serving.fleet.agent`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def become_agent(config: Path) -> NoReturn:
    """Never returns: signals and the exit code are the agent's own."""
    os.execv(sys.executable, [sys.executable, "-m", "serving.fleet.agent", "--config", str(config)])
