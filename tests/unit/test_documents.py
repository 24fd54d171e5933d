"""Documents: written as ever, read strictly, and refused with the field, what was expected and what was got."""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.spec.contract import canonical_json, digest_of
from model_core.spec.documents import NEUTRAL, from_document, identity_document, to_document
from model_core.spec.errors import SpecError, require


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    steps: int = 10
    rate: float = 0.5
    betas: tuple[float, float] = (0.9, 0.95)
    zero_stage: Literal[0, 1, 2] = 1

    def __post_init__(self) -> None:
        require(self.steps > 0, "steps must be positive", got=self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    train: Train = Train()
    more: Mapping[str, Train] = field(default_factory=dict)
    parts: tuple[Train, ...] = ()
    color: Color = Color.RED
    where: Path = Path("a/b")
    limit: int | float | None = None
    free: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    workers: int = field(default=2, metadata=NEUTRAL)


FULL = Plan(
    name="é",
    train=Train(rate=1e-7),
    more={"b": Train(steps=1), "a": Train(zero_stage=2)},
    parts=(Train(), Train(betas=(0.0, 1.0))),
    color=Color.BLUE,
    where=Path("x/y.json"),
    limit=3,
    free={"deep": [1, {"k": None}]},
    tags=frozenset({"z", "a"}),
)


def test_what_is_written_is_what_has_always_been_written() -> None:
    # digests name recipes, steps and bundles that exist: they were computed with the reader before this one
    assert digest_of(to_document(FULL)) == "87521f1dcad977fdd6d4bef86f0b4fe4cae01b2d41e219b69d9743a82c10a786"
    assert digest_of(identity_document(FULL)) == "fc7dfdb5561cf8d71799b3df0e818c9f4526aadef409010a6db4c68331fbfbd8"
    assert canonical_json(to_document(Plan(name="x", limit=0.5))) == (
        '{"color":"red","free":{},"limit":0.5,"more":{},"name":"x","parts":[],"tags":[],'
        '"train":{"betas":[0.9,0.95],"rate":0.5,"steps":10,"zero_stage":1},"where":"a/b","workers":2}'
    )


def test_a_document_read_back_equals_what_was_written() -> None:
    again = from_document(Plan, json.loads(json.dumps(to_document(FULL))))
    assert again == FULL
    assert to_document(again) == to_document(FULL)
    assert type(again.limit) is int


def test_a_whole_number_in_a_field_of_floats_is_read_as_a_float_and_a_value_of_the_type_is_taken_as_it_is() -> None:
    plan = from_document(Plan, {"name": "x", "train": Train(steps=3), "parts": [{"rate": 2}], "color": Color.BLUE})
    assert plan.train.steps == 3
    assert (type(plan.parts[0].rate), plan.color) == (float, Color.BLUE)


@dataclass(frozen=True)
class Arrays:
    values_A: NDArray[np.float32]
    any_A: np.ndarray | None = None


def test_arrays_travel_as_lists_with_the_dtype_of_their_field() -> None:
    document = json.loads(json.dumps(to_document(Arrays(np.array([[1, 2.5]], np.float32), np.arange(2)))))
    assert document == {"values_A": [[1.0, 2.5]], "any_A": [0, 1]}
    again = from_document(Arrays, document)
    assert (again.values_A.dtype, again.values_A.shape) == (np.float32, (1, 2))
    with pytest.raises(SpecError, match=r"^Arrays.values_A: expected a list, got 'no'$"):
        from_document(Arrays, {"values_A": "no"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "y"}, "plan.nmae: unknown; did you mean name?"),
        ({"train": {"stepz": 1}}, "plan.train.stepz: unknown; did you mean steps?"),
        ({"train": {"qqqqqq": 1}}, "plan.train.qqqqqq: unknown; expected one of steps, rate, betas, zero_stage"),
        ({"more": {"a": {"stepz": 1}}}, "plan.more.a.stepz: unknown; did you mean steps?"),
        ({"parts": [{}, {"stepz": 1}]}, "plan.parts[1].stepz: unknown; did you mean steps?"),
        ({"train": {"steps": 2.0}}, "plan.train.steps: expected int, got 2.0"),
        ({"train": {"steps": "2"}}, "plan.train.steps: expected int, got '2'"),
        ({"train": {"steps": True}}, "plan.train.steps: expected int, got True"),
        ({"train": {"rate": "0.5"}}, "plan.train.rate: expected float, got '0.5'"),
        ({"train": {"rate": None}}, "plan.train.rate: expected float, got None"),
        ({"train": {"betas": [0.9]}}, "plan.train.betas: expected 2 values, got [0.9]"),
        ({"train": {"betas": [0.9, "x"]}}, "plan.train.betas[1]: expected float, got 'x'"),
        ({"train": {"zero_stage": 4}}, "plan.train.zero_stage: expected one of 0, 1, 2, got 4"),
        ({"train": {"steps": 0}}, "plan.train: steps must be positive, got 0"),
        ({"train": 3}, "plan.train: expected the fields of Train, got 3"),
        ({"more": {"a": {"steps": "x"}}}, "plan.more.a.steps: expected int, got 'x'"),
        ({"more": [1]}, "plan.more: expected a mapping, got [1]"),
        ({"parts": "no"}, "plan.parts: expected a list, got 'no'"),
        ({"color": "green"}, "plan.color: expected one of 'red', 'blue', got 'green'"),
        ({"where": 3}, "plan.where: expected Path, got 3"),
        ({"limit": "x"}, "plan.limit: expected int or float or null, got 'x'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_document_names_the_place_the_expected_and_the_given(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_document(Plan, {"name": "x", **change}, where="plan")
    assert str(caught.value) == message


def test_a_missing_field_and_a_document_that_is_none_are_named() -> None:
    with pytest.raises(SpecError, match=r"^plan: field 'name' is missing$"):
        from_document(Plan, {}, where="plan")
    with pytest.raises(SpecError, match=r"^Plan: expected the fields of Plan, got \[1\]$"):
        from_document(Plan, [1])


def test_a_value_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(SpecError, match="cannot write complex as JSON"):
        to_document({"a": 1j})
