"""An arena as one page: picture and table of the ratings, what was shown, every pair, each policy on each task. The page stands alone."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from components.drawing.charts import interval_bar
from components.drawing.rating_chart import RatingRow, rating_chart
from components.evaluation.arena.documents import facts, method, shown, title_of
from components.evaluation.arena.standings import ArenaResult, Standing
from components.evaluation.intervals import percent
from components.report.page import render_template
from model_core.statistics.bradley_terry import MEAN_RATING


def arena_picture(result: ArenaResult) -> str:
    """Ratings with their intervals as SVG text; policies of one group share a shade."""
    rows = [
        RatingRow(label=one.name, value=one.rating, low=one.rating_low, high=one.rating_high, group=one.group) for one in result.standings
    ]
    title = f"Ratings with 95 % intervals, {result.cases} cases of {result.suite}; a shade is a group that was not told apart"
    return rating_chart(rows, title=title, unit="Elo", mark=MEAN_RATING)


def arena_page(result: ArenaResult, command: str) -> str:
    """The page. command: what makes it again. Every value from outside is escaped."""
    return render_template(
        "arena.html",
        {
            "title": title_of(result),
            "subtitle": f"{len(result.tasks)} tasks, {result.cases} cases; {result.version}",
            "picture": Markup(arena_picture(result)),
            "shown": shown(result),
            "rows": [_row(one) for one in result.standings],
            "pairs": [
                {
                    "names": f"{pair.first}, {pair.second}",
                    "cells": (pair.cases, pair.wins, pair.losses, f"{pair.difference:+.3f}", f"{pair.low:+.3f} to {pair.high:+.3f}"),
                    "adjusted": f"{pair.adjusted:.4f}",
                }
                for pair in result.pairs
            ],
            "names": [one.name for one in result.standings],
            "tasks": [{"task": task, "cells": [_of_task(one, task) for one in result.standings]} for task in result.tasks],
            "method": method(result),
            "command": command,
            "facts": list(facts(result)),
        },
    )


def _row(one: Standing) -> dict[str, Any]:
    return {
        "group": one.group,
        "name": one.name,
        "rating": f"{one.rating:.0f}",
        "interval": f"{one.rating_low:.0f} to {one.rating_high:.0f}",
        "solved": f"{one.successes}/{one.trials}",
        "bar": Markup(interval_bar(one.successes, one.trials, one.low, one.high, width=240)),
        "exact": f"{percent(one.low)} to {percent(one.high)}",
        "missing": one.missing,
    }


def _of_task(one: Standing, task: str) -> str:
    successes, trials = one.by_task.get(task, (0, 0))
    return f"{successes}/{trials}" if trials else ""
