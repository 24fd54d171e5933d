"""Where the repository is on disk: the one place that derives a folder from the location of the source code."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INFRA = REPOSITORY / "infra"
