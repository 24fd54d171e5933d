"""Settings of Ray that lose rows, stop without an error or open a machine to strangers, each refused before anything starts.

How Ray Data 2.60.0 behaves with them: docs/library_facts.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.data.labelling.on_ray.rows import ROW_ID
from model_core.spec.errors import JobError, require

OTHERS = 2  # CPUs that stages without the model need: one reads, decodes and writes, one skips on a resume what is done


def check_environment(environment: Mapping[str, str], *, has_token: bool) -> None:
    """Token on, telemetry off. has_token: whether there is a file with it in Ray's usual place. Raises `SpecError`.

    Every process of Ray listens on all addresses of the machine, whatever address it is given; who may ask is decided by the token alone.
    """
    mode = environment.get("RAY_AUTH_MODE", "")
    require(mode == "token", "RAY_AUTH_MODE must be 'token': Ray listens on all addresses. Fix: unset it, or set it so", got=repr(mode))
    named = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    require(bool(named) or has_token, "Ray has no token. Fix: set RAY_AUTH_TOKEN_PATH to the file with the cluster's token")
    told = environment.get("RAY_USAGE_STATS_ENABLED", "")
    require(told == "0", "RAY_USAGE_STATS_ENABLED must be '0', or Ray tells its maker what it is used for. Fix: unset it", got=repr(told))


def check_actors(actors: int, cpus: float) -> None:
    """Room beside the model's actors, which take a CPU each; without it Ray Data waits for ever, with no error. Raises `SpecError`."""
    require(
        actors + OTHERS <= cpus,
        f"annotate.ray.actors: {actors} actors and {OTHERS} CPUs for reading and decoding do not fit on the cluster's CPUs. Fix: set it to "
        f"{max(1, int(cpus) - OTHERS)}, or add machines",
        got=f"{cpus:g} CPUs",
    )


def check_context(context: Any, checkpoint: Path) -> None:
    """The settings that a data set was made with; changes after that are ignored by Ray. Raises `SpecError`.

    A block that may fail takes all its rows with it, without a word; a checkpoint that is deleted at the end lets a rerun write rows twice.
    """
    require(context.max_errored_blocks == 0, "max_errored_blocks must be 0: a failed block loses rows", got=context.max_errored_blocks)
    config = context.checkpoint_config
    require(config is not None, "the data set was made before the checkpoint was set, which Ray ignores; set it first")
    require(config.id_column == ROW_ID, f"the checkpoint must count {ROW_ID}", got=config.id_column)
    require(Path(config.checkpoint_path) == checkpoint, f"the checkpoint must lie in {checkpoint}", got=config.checkpoint_path)
    require(not config.delete_checkpoint_on_success, "the checkpoint must be kept: after a run that deleted it, rows are written twice")


def check_block(rows: int, most: int) -> None:
    """The size of a block as a stage gets it. Raises `JobError`: one block of everything saves nothing until the end."""
    if rows > most:
        raise JobError(f"Ray gave a block of {rows} rows, expected at most {most}: nothing would be kept before all of it is done")


def check_answers(asked: Sequence[str], answered: Sequence[str]) -> None:
    """Rows out are rows in, each once. Raises `JobError`."""
    if len(set(answered)) != len(answered):
        seen: set[str] = set()
        twice = next(row for row in answered if row in seen or seen.add(row))
        raise JobError(f"row {twice} was answered twice, of {len(answered)} answers to {len(asked)} rows. Fix: delete the job's folder")
    if lost := set(asked).difference(answered):
        raise JobError(f"{len(lost)} of {len(asked)} rows have no answer, the first {min(lost)}. Fix: run again; what was answered is kept")
    if strange := set(answered).difference(asked):
        raise JobError(f"row {min(strange)} was answered and not asked. Fix: delete the job's folder, then run again")
