"""One labelling on a Ray cluster as a folder that every machine of it sees: what is to be done, what is done, what it took.

job.json      `RayJob`
rows/         the rows that are asked, Parquet
answers/      their answers, a file for each block
checkpoint/   Ray's: which rows are written
done.json     `Done` of the last driver that came to the end
driver.log    what drivers wrote
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from components.config.launch.ray_config import RayConfig
from components.data.labelling.engine import LabelJob
from model_core.spec.documents import from_document, to_document
from model_core.spec.files import atomic_write


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """What is done with the rows.

    model: answers the rows; decoder: makes of each what `model` is given (None: rows are that already). carried: columns of the decoder's
    that go into the answers. count: rows. batch, block_rows: at most so many rows a call of the model, a block.
    """

    model: LabelJob
    decoder: LabelJob | None = None
    carried: tuple[str, ...] = ()
    count: int
    batch: int
    block_rows: int
    ray: RayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a driver did. rows: that it labelled, without those that were there; errors: of all. cpus, gpus: of the cluster."""

    rows: int
    errors: int
    wall_s: float
    cpus: float
    gpus: float

    def cost(self, ray: RayConfig, unit: str = "frames") -> str:
        """What 1,000 rows took, and cost where `ray` has prices. The whole cluster counts, idle or not."""
        if not self.rows:
            return f"no {unit} were left"
        hours = self.wall_s / 3600 / self.rows * 1000
        cpu, gpu = hours * self.cpus, hours * self.gpus
        text = f"1,000 {unit} took {cpu:.4f} CPU hours and {gpu:.4f} GPU hours of the cluster"
        price = cpu * ray.cpu_hour_cost + gpu * ray.gpu_hour_cost
        return f"{text}, at a cost of {price:.4f}" if price else text


@dataclass(frozen=True, slots=True)
class RayFolder:
    """The places in a job's folder."""

    root: Path

    @property
    def rows(self) -> Path:
        """Rows that are asked."""
        return self.root / "rows"

    @property
    def answers(self) -> Path:
        """Their answers."""
        return self.root / "answers"

    @property
    def checkpoint(self) -> Path:
        """Ray's."""
        return self.root / "checkpoint"

    @property
    def log(self) -> Path:
        """What drivers wrote."""
        return self.root / "driver.log"

    @property
    def token(self) -> Path:
        """The token of a Ray that was started for this job alone."""
        return self.root / "token"

    def save(self, job: RayJob) -> None:
        """Write what is to be done; it is there once all rows are."""
        atomic_write(self.root / "job.json", json.dumps(to_document(job), indent=1, sort_keys=True) + "\n")

    def load(self) -> RayJob | None:
        """What is to be done; None where it was never written. Raises `SpecError` for a document of another kind."""
        path = self.root / "job.json"
        return from_document(RayJob, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def save_done(self, done: Done) -> None:
        """Write what a driver did."""
        atomic_write(self.root / "done.json", json.dumps(to_document(done), indent=1, sort_keys=True) + "\n")

    def load_done(self) -> Done:
        """What the last driver did."""
        return from_document(Done, json.loads((self.root / "done.json").read_text(encoding="utf-8")))
