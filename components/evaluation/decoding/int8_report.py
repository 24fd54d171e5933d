"""How a checkpoint with int8 weights answers beside the one that it was made of: the report that lies in its folder.

Each question is answered by both, freely; then both are asked for the logits along the first one's answer, so that one early difference
does not count for everything behind it. One network is in memory at a time. Times are processor time of one thread, without drafts.

Shape letters: L tokens of an answer, X ids of the language.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.config.records import Progress
from components.evaluation.decoding.equivalence import Flip, first_flip
from components.evaluation.decoding.replay import machine, readable
from model_core.checkpoint import Checkpoint, load_checkpoint
from model_core.engine.decode import DecodingEngine
from model_core.engine.decode_request import Language, Question
from model_core.engine.resources import EngineOptions
from model_core.network.model import MolmoAct
from model_core.port.of_checkpoint import port_of
from model_core.spec.documents import to_document
from model_core.spec.errors import require
from model_core.spec.types import DecisionRequest, Observation

_SHOWN, _ROWS_AT_ONCE = 20, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Report:
    """What was compared and what came out. source: path and digest of the checkpoint that the int8 one was made of.

    observations: where the questions came from. decisions: how many were asked; answered: by both, inside the language. answers_equal: of
    these, token for token. choices: tokens with more than one allowed id, along the float answers; choices_different: where the best
    allowed id is another. logit_rms: of the float logits around the mean of each token; logit_rms_error, logit_max_error: of their
    differences, over the ids of the language. action_mean_error, action_max_error: by dimension, in its unit. bytes, decision_ms: of the
    weights as stored, and the median decision (both with float32 activations), {"original", "int8"}.
    """

    source: str
    source_digest: str
    contract_id: str
    observations: str
    decisions: int
    answered: int
    answers_equal: int
    flipped: tuple[Flip, ...]
    choices: int
    choices_different: int
    logit_rms: float
    logit_rms_error: float
    logit_max_error: float
    action_mean_error: Mapping[str, float]
    action_max_error: Mapping[str, float]
    bytes: Mapping[str, int]
    decision_ms: Mapping[str, float]
    machine: Mapping[str, Any]

    def text(self) -> str:
        """As it is written."""
        return json.dumps(to_document(self), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What a report says of its two checkpoints and does not measure. See `Int8Report`."""

    source_digest: str
    observations: str
    bytes: Mapping[str, int]
    embodiment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """ids_L, actions_KA: None for an answer outside the language. logits_LX: along the reference's answer."""

    ids_L: NDArray[np.int64] | None
    actions_KA: NDArray[np.float32] | None
    milliseconds: float
    logits_LX: NDArray[np.float32] | None
    groups_L: NDArray[np.int64] | None


def compare_int8(source: Path, copy: Path, observations: Sequence[Observation], facts: ReportFacts, progress: Progress) -> Int8Report:
    """Ask both checkpoints. Raises `SpecError` without observations, `CheckpointError` for a checkpoint that cannot be read."""
    require(len(observations) > 0, "nothing to compare on: give at least one observation")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reference = load_checkpoint(source, embodiment=facts.embodiment)
        contract, language = reference.contract, port_of(reference).language
        expected = _answers(reference, observations, None, progress)
        del reference
        got = _answers(load_checkpoint(copy), observations, [answer.ids_L for answer in expected], progress)
    finally:
        torch.set_num_threads(before)
    both = [index for index in range(len(expected)) if expected[index].ids_L is not None and got[index].ids_L is not None]
    flips = [first_flip(index, "int8", _ids(expected[index]), _ids(got[index])) for index in both]
    flipped = [flip for flip in flips if flip is not None]
    names = [dim.name for dim in contract.embodiment.action.dims]
    errors_A = np.array([np.abs(_actions(expected[i]) - _actions(got[i])) for i in both]).reshape(-1, len(names))
    return Int8Report(
        source=str(source),
        source_digest=facts.source_digest,
        contract_id=contract.contract_id,
        observations=facts.observations,
        decisions=len(observations),
        answered=len(both),
        answers_equal=len(both) - len(flipped),
        flipped=tuple(flipped[:_SHOWN]),
        **_logit_errors(language, expected, got),
        action_mean_error=dict(zip(names, errors_A.mean(axis=0).tolist(), strict=True)) if both else {},
        action_max_error=dict(zip(names, errors_A.max(axis=0).tolist(), strict=True)) if both else {},
        bytes=dict(facts.bytes),
        decision_ms={"original": _median_ms(expected), "int8": _median_ms(got)},
        machine=machine("float32"),
    )


def _answers(
    checkpoint: Checkpoint, observations: Sequence[Observation], along: Sequence[NDArray[np.int64] | None] | None, progress: Progress
) -> list[_Answer]:
    """along: the answers whose logits are asked for; None: its own."""
    port, model = port_of(checkpoint), checkpoint.model.float() if checkpoint.model.lm_head.weight.is_floating_point() else checkpoint.model
    level = checkpoint.contract.reasoning.levels[0]
    engine = DecodingEngine(model, port.language, EngineOptions(constrained=port.constrained))
    engine.warm_up()
    found: list[_Answer] = []
    for index, observation in enumerate(observations):
        question = port.question(DecisionRequest(observation=observation), level)
        began = time.thread_time()
        answer = readable(engine, question)
        spent = (time.thread_time() - began) * 1e3
        ids_L = None if answer is None else answer.ids_L
        forced_L = ids_L if along is None else along[index]
        logits_LX, groups_L = (None, None) if forced_L is None else _logits(model, port.language, question, forced_L)
        actions_KA = None if answer is None else port.actions_of(answer.reasoning.bins_KA)
        found.append(_Answer(ids_L=ids_L, actions_KA=actions_KA, milliseconds=spent, logits_LX=logits_LX, groups_L=groups_L))
        progress.update(index + 1, len(observations), "original" if along is None else "int8")
    return found


@torch.inference_mode()
def _logits(
    model: MolmoAct, language: Language, question: Question, ids_L: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(logits (L, X) over the ids of the language before each token of an answer, group of each token (L,)), by the network's modules."""
    prompt, grammar = language.prompt(question), language.grammar
    features = None
    if prompt.images is not None and prompt.pooled_patches_idx is not None:
        features = model.encode_images(prompt.images, prompt.pooled_patches_idx, prompt.image_masks)
    state, places, groups = language.begin(question), [], []
    for index, token in enumerate(ids_L.tolist()):
        groups.append(grammar.group(state))
        places.append(grammar.place(state, len(prompt.ids_L) + index))
        state = grammar.after(state, token)
    whole = torch.from_numpy(np.concatenate([prompt.ids_L, ids_L[:-1]]))[None]
    places_1L = torch.from_numpy(np.concatenate([prompt.places_L, np.array(places[:-1], np.int64)]))[None]
    hidden_LD = model.trunk(model.embed(whole, features), places_1L)[0, len(prompt.ids_L) - 1 :]
    ids_X = torch.from_numpy(_language_ids(language))
    parts = [model.logits(part)[:, ids_X] for part in hidden_LD.split(_ROWS_AT_ONCE)]
    return torch.cat(parts).numpy(), np.array(groups, np.int64)


def _language_ids(language: Language) -> NDArray[np.int64]:
    return np.unique(np.concatenate(language.grammar.groups))


def _logit_errors(language: Language, expected: Sequence[_Answer], got: Sequence[_Answer]) -> dict[str, Any]:
    ids_X, groups = _language_ids(language), language.grammar.groups
    columns = [np.searchsorted(ids_X, group) for group in groups]
    choices = different = count = 0
    squares = error_squares = largest = 0.0
    for mine, other in zip(expected, got, strict=True):
        if mine.logits_LX is None or other.logits_LX is None or mine.groups_L is None:
            continue
        error_LX = other.logits_LX - mine.logits_LX
        squares += float(np.square(mine.logits_LX - mine.logits_LX.mean(axis=1, keepdims=True), dtype=np.float64).sum())
        error_squares += float(np.square(error_LX, dtype=np.float64).sum())
        largest, count = max(largest, float(np.abs(error_LX).max())), count + error_LX.size
        for place, group in enumerate(mine.groups_L.tolist()):
            if len(columns[group]) > 1:
                choices += 1
                different += int(mine.logits_LX[place, columns[group]].argmax() != other.logits_LX[place, columns[group]].argmax())
    return {
        "choices": choices,
        "choices_different": different,
        "logit_rms": float(np.sqrt(squares / max(1, count))),
        "logit_rms_error": float(np.sqrt(error_squares / max(1, count))),
        "logit_max_error": largest,
    }


def _ids(answer: _Answer) -> NDArray[np.int64]:
    assert answer.ids_L is not None
    return answer.ids_L


def _actions(answer: _Answer) -> NDArray[np.float32]:
    assert answer.actions_KA is not None
    return answer.actions_KA


def _median_ms(answers: Sequence[_Answer]) -> float:
    return float(np.median([answer.milliseconds for answer in answers]))
