"""A policy on a suite as one page: what was reached with its interval, what others published, what differs, and how to repeat it.

The page stands alone, as the report of a run does: style and charts are inside it, nothing is fetched. Equal results give equal pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from components.drawing.charts import interval_bar
from components.evaluation.intervals import percent
from components.evaluation.suites.results import TIER_MEAN, UNSEEN, ScoreRow, SuiteResult, check_same_suite
from components.report.page import render_template

_ALL = "all"


def reproduction_page(results: Sequence[SuiteResult], command: str) -> str:
    """The page of one policy, or of several on the same trials. command: what runs it again.

    Every value from outside is escaped. Raises `SpecError` for results of different trials.
    """
    check_same_suite(results)
    return render_template("suite.html", _values(results, command))


def _values(results: Sequence[SuiteResult], command: str) -> dict[str, Any]:
    first = results[0]
    columns = _columns(first)
    return {
        "title": f"{first.suite}, {len(results)} policies" if len(results) > 1 else f"{first.suite}, policy {first.policy[:12]}",
        "subtitle": f"{len(first.tasks)} tasks, initial states {first.states[0]} to {first.states[1]} of each; {first.version}",
        "tiles": _tiles(first) if len(results) == 1 else [],
        "lack": first.lack,
        "columns": [column or _ALL for column in columns],
        "ours": [{"name": one.policy[:12], "cells": [_ours(one, column) for column in columns]} for one in results],
        "published": [
            {"name": one.model, "cells": [_number(one.scores, column) for column in columns], "source": one.source}
            for one in first.published
        ],
        "differs": list(dict.fromkeys(one.differs for one in first.published)),
        "results": [_result(one) for one in results],
        "command": command,
        "facts": _facts(results),
    }


def _columns(result: SuiteResult) -> list[str]:
    """The tiers that published tables have, in their order; "" stands for the whole suite."""
    return list(dict.fromkeys([tier for one in result.published for tier in one.scores] or [""]))


def _tiles(result: SuiteResult) -> list[dict[str, str]]:
    whole = result.whole
    interval = f"solved, exact 95 % interval {percent(whole.low)} to {percent(whole.high)}"
    tiles = [
        {"value": percent(whole.rate), "meaning": interval},
        {"value": f"{whole.successes}/{whole.trials}", "meaning": f"trials, {whole.void} void"},
        {"value": percent(result.task_mean), "meaning": "mean of the tasks"},
        {"value": f"{whole.progress:.2f}", "meaning": "mean progress (1 is a success)"},
    ]
    if result.tier_mean is not None:
        tiles.insert(3, {"value": percent(result.tier_mean), "meaning": f"mean of {len(result.tiers)} tiers, as published tables have it"})
    return tiles


def _ours(result: SuiteResult, column: str) -> str:
    share = result.of_tier(column)
    if share is None:
        return ""
    row = result.whole if not column else next((tier for tier in result.tiers if tier.name == column), None)
    return f"{100 * share:.1f}" + (f" ({100 * row.low:.0f} to {100 * row.high:.0f})" if row is not None and column != TIER_MEAN else "")


def _number(scores: Mapping[str, float], column: str) -> str:
    return f"{scores[column]:g}" if column in scores else ""


def _result(result: SuiteResult) -> dict[str, Any]:
    rows = (*result.tasks, *result.tiers, result.whole)
    return {
        "title": f"Policy {result.policy[:12]}",
        "success_rule": result.success_rule,
        "progress_rule": result.progress_rule,
        "rows": [_row(row) for row in rows],
    }


def _row(row: ScoreRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "successes": row.successes,
        "trials": row.trials,
        "bar": Markup(interval_bar(row.successes, row.trials, row.low, row.high)),
        "low": percent(row.low),
        "high": percent(row.high),
        "progress": f"{row.progress:.2f}",
        "void": row.void,
    }


def _facts(results: Sequence[SuiteResult]) -> list[tuple[str, str]]:
    first = results[0]
    rules = {name: value for name, value in sorted(first.rules.items()) if name not in UNSEEN}
    policies = [("policy", f"checkpoint {one.policy}, contract {one.contract}") for one in results]
    return [*policies, ("suite", f"{first.suite}, {first.version}"), *((name, str(value)) for name, value in rules.items())]
