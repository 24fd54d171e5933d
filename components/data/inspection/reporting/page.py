"""The report of an inspection as one page that needs no network: style and content in one file, nothing is loaded."""

from __future__ import annotations

import html

from components.data.inspection.checks.verdict import DEFECT, RISK, SOUND, UNKNOWN
from components.data.inspection.reporting.report import InspectionReport, InspectionResult

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem 1.5rem 4rem;color:#1c2330}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
td,th{border:1px solid #d7dce4;padding:.35rem .6rem;text-align:left;vertical-align:top}
h1,h2{line-height:1.2}.defect{color:#b3261e}.risk{color:#8a5a00}.unknown{color:#5b6472}.sound{color:#1a7f37}small{color:#5b6472}
""".strip()
TITLES = {DEFECT: "Defects: set aside", RISK: "Risks: told", UNKNOWN: "Unknown: the evidence is missing", SOUND: "Nothing found"}
MOST = 50  # faults of one rule on the page; the JSON document has all


def report_page(report: InspectionReport) -> str:
    """The page, as HTML."""
    counts = ", ".join(f'<span class="{outcome}">{len(report.of(outcome))} {outcome}</span>' for outcome in TITLES)
    parts = [f"<h1>Inspection of {_text(report.name)}</h1>"]
    parts.append(f"<p>{report.episodes} episodes, {report.frames} frames, {sum(report.cameras.values())} pictures. Rules: {counts}.</p>")
    for outcome, title in TITLES.items():
        if results := report.of(outcome):
            rows = "".join(_row(result) for result in results)
            head = "<tr><th>rule</th><th>evidence</th><th>what was found</th><th>why, and what to do</th></tr>"
            parts.append(f'<h2 class="{outcome}">{title}</h2><table>{head}{rows}</table>')
    best = ", ".join(_text(name) for name in report.ranking[:20])
    parts.append(f"<h2>Smoothest and shortest first</h2><p>{best}</p><p><small>This order only ranks; it sets nothing aside.</small></p>")
    head = f'<head><meta charset="utf-8"><title>Inspection of {_text(report.name)}</title><style>{STYLE}</style></head>'
    return f'<!doctype html><html lang="en">{head}<body>{"".join(parts)}</body></html>\n'


def _row(result: InspectionResult) -> str:
    rule, verdict = result.check, result.verdict
    faults = "".join(f"<li>{_text(fault.where or 'the set')}: {_text(fault.reason)}</li>" for fault in verdict.faults[:MOST])
    more = f"<li>and {len(verdict.faults) - MOST} more</li>" if len(verdict.faults) > MOST else ""
    found = f"<ul>{faults}{more}</ul>" if faults else _text(verdict.missing)
    evidence = f"{verdict.looked_at} of {verdict.of} {verdict.unit}"
    why = f"{_text(rule.reason)}. Fix: {_text(rule.fix)}<br><small>{_text(rule.source)}</small>"
    return f"<tr><td>{rule.id}<br><small>{rule.family}</small></td><td>{evidence}</td><td>{found}</td><td>{why}</td></tr>"


def _text(value: str) -> str:
    return html.escape(str(value))
