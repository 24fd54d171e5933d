"""An episode as training samples: each kept frame with its images, its state and the actions that follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import FreezeConfig
from components.data.labels import EpisodeLabels
from components.data.sources.interface import EpisodeSource
from model_core.spec.contract import EmbodimentSpec
from model_core.spec.errors import DatasetError
from model_core.spec.execution.holding import hold_action


def windows(
    actions_TA: NDArray[np.float32], steps_N: NDArray[np.int64], length: int, body: EmbodimentSpec
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """For each step t the actions t .. t+length-1 as (N, length, A), and which of them lie past the end of the episode (N, length).

    Past the end stands what holds the body where it is: no movement where an action is a change, the last value where it is a place.
    To repeat the last action instead would record movements that no demonstrator made.
    """
    index_NK = steps_N[:, None] + np.arange(length)
    is_padded_NK = index_NK >= len(actions_TA)
    actions_NKA = actions_TA[np.minimum(index_NK, len(actions_TA) - 1)]
    return np.where(is_padded_NK[..., None], hold_action(body, actions_TA[-1]), actions_NKA).astype(np.float32), is_padded_NK


def samples_of(
    cfg: FreezeConfig,
    source: EpisodeSource,
    index: int,
    labels: EpisodeLabels | None,
    places: Mapping[str, int],
    *,
    has_interventions: bool,
) -> dict[str, NDArray[Any]]:
    """The samples of one episode. places: where its instruction, its task and itself stand in the manifest.

    has_interventions: whether some episode of the set says where a person acted; then every sample gets a flag, and those of an episode
    that does not say it are False. Raises `DatasetError` for labels of another episode.
    """
    episode = source.episode(index, depth=False)
    if labels is not None and len(labels) != len(episode):
        raise DatasetError(f"episode {episode.episode_id} has {len(episode)} frames but labels for {len(labels)}; annotate it again")
    steps_N = np.arange(0, len(episode), cfg.frame_stride)
    body = source.embodiment
    actions_NKA, is_padded_NK = windows(episode.actions_TA, steps_N, cfg.chunk_length, body)
    flags_T = np.zeros(len(episode), bool) if episode.intervention_T is None else episode.intervention_T
    return {
        "images_NVHW3": np.stack([episode.images[camera.name][steps_N] for camera in body.cameras], axis=1),
        "proprio_NP": episode.proprio_TP[steps_N].astype(np.float32),
        "actions_NKA": actions_NKA,
        "executed_NKA": windows(episode.executed_TA, steps_N, cfg.chunk_length, body)[0],
        "is_padded_NK": is_padded_NK,
        **({"intervention_N": flags_T[steps_N].astype(bool)} if has_interventions else {}),
        **({} if labels is None else labels.samples(steps_N)),
        "frame_idx_N": steps_N.astype(np.int64),
        **{f"{name}_idx_N": np.full(len(steps_N), place, np.int64) for name, place in places.items()},
    }
