"""The contract document: canonical, hashed, readable for ever, and every field checked."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.simulation.metaworld import embodiment
from model_core.spec.contract import (
    CameraSpec,
    DimSpec,
    GoldenProbe,
    PolicyContract,
    ReasoningSpec,
    VectorSpec,
    canonical_json,
    digest_of,
    embodiment_from_json,
)
from model_core.spec.errors import ActwrightError, ContractError
from tests.fakes import make_contract, make_embodiment

# What a checkpoint of version 1 has beside it, and the id that its weights are sealed with.
OLD = {
    "chunk_length": 8, "dataset_version": "d", "execute_horizon": 4, "max_instruction_chars": 200, "protocol": 1, "words": ["push"],
    "embodiment": {
        "action": {"dims": [{"frame": "world", "high": 1.0, "low": -1.0, "name": "dx", "unit": "1"}], "mode": "delta"},
        "cameras": [{"height": 80, "max_age_ms": 500.0, "name": "front", "width": 80}],
        "control_hz": 20.0, "gripper_dim": "dx", "gripper_open": -1.0, "hold": [0.0], "name": "arm",
        "proprio": {"dims": [{"frame": "world", "high": 1.0, "low": -1.0, "name": "x", "unit": "m"}], "mode": ""},
    },
    "reasoning": {
        "codebook_digest": "", "depth_codes": 128, "depth_grid": [10, 10], "spelling": "compact", "steering": True,
        "trace_camera": "front", "trace_points": 5, "trace_range": 255,
    },
    "stats": {"count": 3, "mask": [True], "q01": [-1.0], "q99": [1.0]},
}  # fmt: skip


def test_a_document_of_version_1_reads_and_keeps_its_id() -> None:
    contract = PolicyContract.from_json(OLD)
    assert contract.to_json() == OLD
    assert contract.contract_id == digest_of(OLD)[:16] == contract.policy_id
    assert contract.reasoning.levels == ("full", "reuse-depth", "trace+action", "action")
    assert (contract.max_prefix_rows, contract.embodiment.action.modes) == (7, ("delta",))


def test_a_whole_number_stays_as_it_was_written_and_so_does_the_id() -> None:
    text = canonical_json(OLD).replace("1.0", "1").replace("500.0", "500").replace("20.0", "20")
    contract = PolicyContract.from_json(json.loads(text))
    assert canonical_json(contract.to_json()) == text
    assert contract.contract_id == "ae993370b658b174"


def full_contract() -> PolicyContract:
    """Every field of version 2 holds something else than its default."""
    body = make_embodiment()
    camera = CameraSpec(
        name="front", width=16, height=16, role="front", color="bgr", resize="cell", encodings=("raw", "jpeg"), intrinsics_tolerance=0.05
    )
    dims = tuple(replace(d, mode="absolute", soft_low=-0.5, soft_high=0.5, source="encoder") for d in body.action.dims)
    body = replace(
        body,
        cameras=(camera,),
        action=VectorSpec(dims=dims, mode="delta"),
        gripper_range=(1.0, -1.0),
        gripper_threshold=0.0,
        rotation="axis-angle",
    )
    probe = GoldenProbe(name="00", observation_digest="ab", action_low_A=(-1.0,) * 4, action_high_A=(1.0,) * 4)
    return replace(
        make_contract(body),
        reasoning=ReasoningSpec(trace_camera="front", levels=("full", "action"), kind="parallel"),
        templates=("push the {thing}",),
        hz_tolerance=0.5,
        max_prefix_rows=3,
        golden_probes=(probe,),
    )


def test_every_new_field_travels() -> None:
    contract = full_contract()
    document = json.loads(json.dumps(contract.to_json()))
    assert PolicyContract.from_json(document) == contract
    assert canonical_json(PolicyContract.from_json(document).to_json()) == canonical_json(document)
    assert embodiment_from_json(document["embodiment"]) == contract.embodiment
    assert document["stats_digest"] == contract.stats_digest
    assert contract.policy_id == replace(contract, golden_probes=()).contract_id != contract.contract_id


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_id_does_not_depend_on_the_order_of_keys(random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    contract = full_contract()
    assert PolicyContract.from_json(shuffled(contract.to_json())).contract_id == contract.contract_id


def paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every leaf of a document."""
    if isinstance(document, dict):
        return [found for key, value in document.items() for found in paths(value, (*path, key))]
    if isinstance(document, list):
        return [found for i, value in enumerate(document) for found in paths(value, (*path, i))]
    return [path]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return copy


def test_no_leaf_can_be_changed_without_changing_the_id() -> None:
    contract = full_contract()
    document = contract.to_json()
    for path in paths(document):
        leaf = document
        for key in path:
            leaf = leaf[key]
        if leaf is None or isinstance(leaf, bool):
            other: Any = not leaf if isinstance(leaf, bool) else 0.0
        else:
            other = leaf + "x" if isinstance(leaf, str) else leaf - 0.125 if isinstance(leaf, float) else leaf - 1
        try:
            again = PolicyContract.from_json(changed(document, path, other))
        except ActwrightError:
            continue  # a value that no field allows, or statistics that no longer have their digest
        assert again.contract_id != contract.contract_id, path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol": 3}, "version"),
        ({"novelty": 1}, "novelty"),
        ({"stats_digest": "0" * 64}, "stats_digest"),
        ({"chunk_length": 2}, "execute_horizon"),
        ({"reasoning": {"levels": ["everything"]}}, "levels"),
        ({"reasoning": {"kind": "magic"}}, "kind"),
        ({"golden_probes": [{"name": "a", "observation_digest": "", "action_low_A": [1.0], "action_high_A": [2.0]}]}, "probes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_is_wrong_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ContractError, match=named):
        PolicyContract.from_json({**make_contract().to_json(), **change})


def test_statistics_that_were_edited_by_hand_are_noticed() -> None:
    document = make_contract().to_json()
    document["stats"]["q99"][0] = 0.5
    with pytest.raises(ContractError, match="stats_digest"):
        PolicyContract.from_json(document)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DimSpec(name="x", unit="m", low=0.0, high=float("inf")),
        lambda: DimSpec(name="x", unit="m", low=0.0, high=1.0, mode="sideways"),
        lambda: DimSpec(name="x", unit="m", low=0.0, high=1.0, soft_low=-1.0),
        lambda: DimSpec(name="x", unit="m", low=0.0, high=1.0, soft_low=0.7, soft_high=0.6),
        lambda: CameraSpec(name="c", width=0, height=1),
        lambda: CameraSpec(name="c", width=1, height=1, color="grey"),
        lambda: CameraSpec(name="c", width=1, height=1, encodings=("gif",)),
        lambda: replace(make_embodiment(), cameras=(CameraSpec(name="c", width=1, height=1),) * 2),
        lambda: replace(make_embodiment(), control_hz=0.0),
        lambda: GoldenProbe(name="a", observation_digest="", action_low_A=(2.0,), action_high_A=(1.0,)),
    ],
)
def test_specs_check_themselves(build: Any) -> None:
    with pytest.raises(ActwrightError):
        build()


def test_instructions_are_checked_by_length_and_template() -> None:
    contract = replace(make_contract(), templates=("push the {thing}", "stop"))
    assert contract.refused_instruction("Push the red button") == ""
    assert contract.refused_instruction("stop") == ""
    assert "push the" in contract.refused_instruction("pull the button")
    assert "none of the 2" in contract.refused_instruction("push the ")
    assert "300 characters" in contract.refused_instruction("x" * 300)


def test_the_default_body_says_what_its_numbers_are_and_travels_through_a_data_set() -> None:
    body = embodiment()
    assert all(d.source for d in body.proprio.dims)
    assert (body.gripper_range, body.gripper_open, body.action.modes[0]) == ((1.0, -1.0), -1.0, "delta")
    written = json.loads(json.dumps(asdict(body)))  # as `components.data.lerobot.writer` puts it into meta/actwright.json
    assert embodiment_from_json(written) == body
