"""The verdict for people and for continuous integration: Markdown, and JUnit XML with a test case for each criterion."""

from __future__ import annotations

from xml.etree import ElementTree

from components.config.judging.verdict import GateVerdict

_MARKS = {"holds": "✓", "fails": "✗", "open": "?", "not enough": "?", "invalid": "!"}
_TITLES = {
    "promote": "Promoted",
    "reject": "Rejected",
    "not enough": "Held: not enough evidence",
    "invalid": "Held: nothing can be compared",
}


def title_of(verdict: GateVerdict) -> str:
    """The outcome in words."""
    return _TITLES[verdict.decided]


def verdict_markdown(verdict: GateVerdict) -> str:
    """The outcome, every criterion, and what could be expected before."""
    lines = [f"- {_MARKS.get(check.stands, '?')} **{check.name}**: {check.reason}" for check in verdict.checks]
    plan = ["", "## Expected before the comparison", "", *(f"- {line}" for line in verdict.plan)] if verdict.plan else []
    proof = (
        ["", f"Evidence: study {verdict.study}; `actwright study verify --head {verdict.head[:16]}` proves it."] if verdict.study else []
    )
    return "\n".join([f"# {title_of(verdict)}", "", *(lines or [f"- {reason}" for reason in verdict.reasons]), *plan, *proof])


def verdict_junit(verdict: GateVerdict) -> str:
    """JUnit XML: a criterion that fails is a failure, one that is not decided is skipped, one that cannot be judged is an error."""
    states = [check.stands for check in verdict.checks]
    counts = {"failures": ("fails",), "skipped": ("open", "not enough"), "errors": ("invalid",)}
    suite = ElementTree.Element("testsuite", name=f"gate: {verdict.decided}", tests=str(len(states)))
    for name, of in counts.items():
        suite.set(name, str(sum(state in of for state in states)))
    tags = {"fails": "failure", "open": "skipped", "not enough": "skipped", "invalid": "error"}
    for check in verdict.checks:
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=check.name)
        if tag := tags.get(check.stands):
            ElementTree.SubElement(case, tag, message=check.reason)
        else:
            ElementTree.SubElement(case, "system-out").text = check.reason
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
