"""What the library itself passes over (nothing measured, no row, infinity) breaks a rule of ours.

Run: .venv/bin/python -m pytest -n 0 tests/integration/test_great_expectations.py
"""

from __future__ import annotations

import math

import pandas as pd
import pytest

from components.adapters.great_expectations import Rule, evaluate_rules
from model_core.spec.errors import DatasetError

pytestmark = pytest.mark.xdist_group("gx")


def rule(column, kind, **limits):
    return Rule(table="frames", check=f"{column}-{kind}", kind=kind, column=column, meaning=f"{column} is as expected", **limits)


RANGE = rule("light", "between", low=4.0, high=255.0)


def broken(column, rules):
    table = pd.DataFrame({"episode_id": ["a", "a", "b", "c"], rules[0].column: column})
    return {breach.episode_id: (breach.rule.check, breach.count) for breach in evaluate_rules({"frames": table}, rules, None)}


@pytest.mark.parametrize(
    ("column", "rules", "expected"),
    [
        pytest.param([9.0, 9.0, 9.0, 9.0], [RANGE], {}, id="good"),
        pytest.param([9.0, 9.0, 3.0, 9.0], [RANGE], {"b": ("light-between", 1)}, id="out of range"),
        pytest.param([math.nan, math.nan, 9.0, 9.0], [RANGE], {"a": ("light-between", 2)}, id="not measured"),
        pytest.param([math.nan] * 4, [RANGE], {"a": ("light-between", 2)} | dict.fromkeys("bc", ("light-between", 1)), id="never measured"),
        pytest.param([0.0, 0.0, math.inf, -math.inf], [rule("tip", "present")], dict.fromkeys("bc", ("tip-present", 1)), id="infinite"),
        pytest.param([1.0, 1.0, 1.0, math.inf], [rule("p", "between", low=0.0)], {"c": ("p-between", 1)}, id="infinite, open range"),
        pytest.param(["go", "go", None, "go"], [rule("said", "among", values=("go",))], {"b": ("said-among", 1)}, id="no instruction"),
        pytest.param([5, 5, 5, 300], [rule("frames", "between", low=1, high=200)], {"c": ("frames-between", 1)}, id="whole numbers"),
    ],
)
def test_only_what_was_measured_and_is_finite_holds(column, rules, expected):
    assert broken(column, rules) == expected


def test_a_table_without_rows_says_nothing():
    empty = pd.DataFrame({"episode_id": pd.Series([], dtype=str), "light": pd.Series([], dtype=float)})
    with pytest.raises(DatasetError, match="the table 'frames' has no row"):
        evaluate_rules({"frames": empty}, [RANGE], None)


def test_a_rule_that_cannot_be_computed_stops_with_its_column():
    with pytest.raises(DatasetError, match="check 'light-between' on column 'light' could not be computed"):
        broken(["9", "9", "9", "9"], [RANGE])
