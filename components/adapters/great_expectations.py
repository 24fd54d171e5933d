"""Great Expectations at the gate of a data set: rules as plain values in, the rows that break them out.

The only file that knows the library. Its import takes four seconds, so it happens inside the function. Its pages
(Data Docs) load style and scripts from five content networks; here they are made readable without any.

The library passes over what is not there: a range holds for a column without any value and for a table without any row, and an infinite
number counts as present. So no rule stands alone (`_with_their_guards`), and a table without rows is refused.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_core.spec.errors import DatasetError

if TYPE_CHECKING:
    from pandas import DataFrame

ID = "episode_id"
LARGEST = sys.float_info.max  # an open limit: without any, infinity is within the range
NAMING_ROWS: Any = {"result_format": "COMPLETE", "unexpected_index_column_names": [ID]}
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # Data Docs want a run time; a fixed one keeps equal runs equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One expectation on a column of a table. kind: "between" (low, high), "present", "among" (values) or "unique".

    check names the finding; meaning is the sentence that people read.
    """

    table: str
    check: str
    kind: str
    column: str
    meaning: str
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A rule broken by an episode: how often and the first offending value."""

    rule: Rule
    episode_id: str
    count: int
    first: object = field(default=None)


def evaluate_rules(tables: Mapping[str, DataFrame], rules: Sequence[Rule], docs: Path | None) -> list[Breach]:
    """Run one suite a table; returns every (rule, episode) that does not hold and writes Data Docs into `docs`.

    Every table needs the column episode_id, and rows. A value that a rule needs and that is missing or infinite breaks the rule. Raises
    `DatasetError` when a rule could not be computed at all.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    if docs is not None:
        for name in list(context.get_site_names()):
            context.delete_data_docs_site(name)
        context.add_data_docs_site("local", _site(docs))
    breaches: list[Breach] = []
    for name, table in tables.items():
        if table.empty:
            raise DatasetError(f"the table {name!r} has no row, so none of its rules says anything")
        mine = _with_their_guards([r for r in rules if r.table == name], table)
        whole = context.data_sources.add_pandas(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        judge = _judge if docs is None else _judge_for_pages
        breaches += [b for outcome in judge(context, whole, table, mine) for b in _breaches(mine, outcome)]
    if docs is not None:
        context.build_data_docs()
        _make_readable_offline(docs)
    return breaches


def _judge(_: Any, whole: Any, table: DataFrame, rules: Sequence[Rule]) -> Sequence[Any]:
    """The outcomes of the rules that do not hold. Whether a rule holds is asked of all, by which rows it does not of the others: to be
    ready to name rows takes most of the time of a check."""
    batch = whole.get_batch({"dataframe": table})
    found = batch.validate(_suite(whole.name, dict(enumerate(rules))), result_format="BOOLEAN_ONLY").results
    broken = [int(one.expectation_config.meta["number"]) for one in found if not one.success]
    return (
        batch.validate(_suite(whole.name, {number: rules[number] for number in broken}), result_format=NAMING_ROWS).results
        if broken
        else []
    )


def _judge_for_pages(context: Any, whole: Any, table: DataFrame, rules: Sequence[Rule]) -> Sequence[Any]:
    """The outcomes of all rules, kept in the context for its pages."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    name = whole.data_asset.name
    suite = context.suites.add(_suite(name, dict(enumerate(rules))))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=whole, suite=suite))
    checkpoint = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition], result_format=NAMING_ROWS))
    run_id = RunIdentifier(run_name="data set gate", run_time=EPOCH)
    result = checkpoint.run(batch_parameters={"dataframe": table}, run_id=run_id)
    return [outcome for run in result.run_results.values() for outcome in run.results]


def _suite(name: str, rules: Mapping[int, Rule]) -> Any:
    import great_expectations as gx

    return gx.ExpectationSuite(name=name, expectations=[_expectation(number, rule) for number, rule in rules.items()])


def _with_their_guards(rules: Sequence[Rule], table: DataFrame) -> list[Rule]:
    """The rules, and for a column that has a range or a set but need not be present, its presence; for one of numbers, a finite range."""
    made = {(rule.column, rule.kind): rule for rule in reversed(rules)}
    guards: list[Rule] = []
    for rule in made.values():
        if rule.kind in ("between", "among") and (rule.column, "present") not in made:
            guards.append(replace(rule, kind="present"))
        numbers = table[rule.column].dtype.kind == "f"
        if rule.kind == "present" and numbers and (rule.column, "between") not in made:
            guards.append(replace(rule, kind="between"))  # without limits: what is finite
    return [*rules, *guards]


def _expectation(number: int, rule: Rule) -> Any:
    import great_expectations.expectations as library

    gxe: Any = library

    common: dict[str, Any] = {"column": rule.column, "meta": {"number": number}, "description": rule.meaning}
    match rule.kind:
        case "between":
            low, high = (-LARGEST if rule.low is None else rule.low), (LARGEST if rule.high is None else rule.high)
            return gxe.ExpectColumnValuesToBeBetween(min_value=low, max_value=high, **common)
        case "present":
            return gxe.ExpectColumnValuesToNotBeNull(**common)
        case "among":
            return gxe.ExpectColumnValuesToBeInSet(value_set=list(rule.values), **common)
        case "unique":
            return gxe.ExpectColumnValuesToBeUnique(**common)
        case _:
            raise DatasetError(f"unknown kind of rule {rule.kind!r}")


def _breaches(rules: Sequence[Rule], outcome: Any) -> list[Breach]:
    config = outcome.expectation_config
    rule = rules[int(config.meta["number"])]
    if raised := _raised(outcome.exception_info):
        raise DatasetError(f"the check {rule.check!r} on column {rule.column!r} could not be computed: {raised}")
    if outcome.success:
        return []
    rows: dict[str, list[object]] = {}
    for row in outcome.result.get("unexpected_index_list") or []:
        rows.setdefault(str(row[ID]), []).append(row.get(rule.column))
    if not rows:
        raise DatasetError(f"the check {rule.check!r} on column {rule.column!r} does not hold, and names no row that breaks it")
    return [Breach(rule=rule, episode_id=episode, count=len(values), first=values[0]) for episode, values in rows.items()]


def _raised(info: Mapping[str, Any]) -> str:
    """What kept a rule from being computed, "" where nothing did: the library tells it in one document, or in one for each measure."""
    told = [info] if "raised_exception" in info else [one for one in info.values() if isinstance(one, Mapping)]
    return "; ".join(sorted({str(one.get("exception_message", "")) for one in told if one.get("raised_exception")}))


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


# --- pages that need no network ------------------------------------------------------------------------------------

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem 1.5rem 4rem;color:#1c2330}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
td,th{border:1px solid #d7dce4;padding:.35rem .6rem;text-align:left;vertical-align:top}
h1,h2,h3,h4{line-height:1.2}a{color:#1f5fbf}.text-success,.fa-check-circle:before{color:#1a7f37}
.text-danger,.fa-times:before{color:#c62828}
.fa-check-circle:before{content:"ok"}.fa-times:before{content:"fails"}.fa-exclamation-triangle:before{content:"warning"}
.badge{border-radius:.4rem;padding:.1rem .45rem;background:#e6ebf2}
.navbar,footer,.btn,.modal,.carousel,#ge-cta-footer,.ge-walkthrough-modal{display:none!important}
.col-2.p-0,.ge-left-nav,nav{display:none}.popover,.cooltip .top{display:none}ul{padding-left:1.2rem}
""".strip()
_REMOTE_TAGS = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*https?:[^>]*>|<form\b.*?</form>|<iframe\b.*?</iframe>", re.S | re.I
)
_REMOTE_URLS = re.compile(r"""url\(\s*['"]?https?:[^)]*\)|@import[^;]*;""", re.I)
_REMOTE_LINKS = re.compile(r"""<a\b[^>]*href=["']https?:[^>]*>(.*?)</a>""", re.S | re.I)


def _make_readable_offline(folder: Path) -> None:
    """Take every remote address out of the pages, add a small style, and write an index that needs no script."""
    pages = [p for p in sorted(folder.rglob("*.html")) if p.name != "index.html"]
    for page in pages:
        text = _REMOTE_LINKS.sub(r"\1", _REMOTE_TAGS.sub("", _REMOTE_URLS.sub("none", page.read_text(encoding="utf-8"))))
        page.write_text(text.replace("</head>", f"<style>{STYLE}</style></head>", 1), encoding="utf-8")
    shutil.rmtree(folder / "static", ignore_errors=True)  # fonts and animations of the library's own pages
    groups = {"What was found": "validations", "What is expected": "expectations"}
    lists = []
    for title, part in groups.items():
        links = [p.relative_to(folder) for p in pages if p.relative_to(folder).parts[0] == part]
        items = "".join(f'<li><a href="{html.escape(link.as_posix())}">{html.escape(link.stem)}</a></li>' for link in links)
        lists.append(f"<h2>{title}</h2><ul>{items}</ul>")
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data set gate</title><style>{STYLE}</style></head>'
        f"<body><h1>Data set gate</h1>{''.join(lists)}</body></html>",
        encoding="utf-8",
    )
