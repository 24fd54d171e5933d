"""The stages of a job as Ray calls them: a block of rows in, the same rows out, each with its columns or with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.labelling.engine import LabelJob, LabellingEngine, accounted
from components.data.labelling.in_process import InProcessEngine
from components.data.labelling.on_ray.guards import check_block
from components.data.labelling.on_ray.job import RayJob
from components.data.labelling.on_ray.rows import DATA, ERROR, ROW_ID, packed, shards_of, unpacked
from components.data.labelling.process_pool import ProcessPoolEngine
from model_core.spec.documents import from_document, to_document

Block = Mapping[str, NDArray[Any]]


def decode(block: Block, job: str) -> dict[str, Any]:
    """What the model is given of each row. job: `RayJob` as JSON."""
    stated = from_document(RayJob, json.loads(job))
    check_block(len(block[ROW_ID]), stated.block_rows)
    engine = _decoder(json.dumps(to_document(stated.decoder), sort_keys=True))
    return answered(engine, block, most=stated.block_rows, carried=())


@lru_cache(maxsize=1)
def _decoder(job: str) -> InProcessEngine:
    """Open for as long as this process of Ray lives, so that blocks of one episode decode it once."""
    return InProcessEngine(from_document(LabelJob, json.loads(job)))


class Model:
    """The model's actor. The model itself runs in a process of its own: an image that kills it costs a row, and not the job."""

    def __init__(self, job: str) -> None:
        self._job = from_document(RayJob, json.loads(job))
        self._engine = ProcessPoolEngine(self._job.model, 1, shared_by=self._job.ray.actors)
        self._engine.description()

    def __call__(self, block: Block) -> dict[str, Any]:
        """The answers."""
        check_block(len(block[ROW_ID]), self._job.block_rows)
        return answered(self._engine, block, most=self._job.batch, carried=self._job.carried)


def answered(engine: LabellingEngine, block: Block, *, most: int, carried: tuple[str, ...]) -> dict[str, Any]:
    """`block` after `engine` answered the rows that have no reason yet, at most `most` at a time. carried: columns that stay beside."""
    ids, reasons = [str(one) for one in block[ROW_ID]], [str(one) for one in block[ERROR]]
    rows = [unpacked(bytes(one)) for one in block[DATA]]
    kept = [{name: row.pop(name) for name in carried if name in row} for row in rows]
    place_of = {row_id: place for place, row_id in enumerate(ids)}
    made: list[bytes] = [packed(columns) for columns in kept]
    open_rows = [place for place, reason in enumerate(reasons) if not reason]
    shards = shards_of([ids[place] for place in open_rows], [rows[place] for place in open_rows], most)
    for answer in accounted(engine, shards):
        for number, row_id in enumerate(answer.row_ids):
            place = place_of[row_id]
            made[place] = packed({**kept[place], **{name: column[number] for name, column in answer.columns.items()}})
        for row_id, reason in answer.errors.items():
            reasons[place_of[row_id]] = reason or "no reason was given"
    return {ROW_ID: ids, ERROR: reasons, DATA: np.array(made, dtype=object)}
