"""The report of the long forms names every test, how it ended and what it took."""

from tests.soak_report import report

XML = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="3" time="61.2" timestamp="2026-11-29T10:00:00.0">
<testcase classname="tests.integration.test_a" name="test_short" time="1.04"/>
<testcase classname="tests.integration.test_a" name="test_long" time="60.0"><failure message="no">no</failure></testcase>
<testcase classname="tests.integration.test_b" name="test_left_out" time="0"><skipped message="no disk"/></testcase>
</testsuite></testsuites>"""


def test_every_test_is_named_the_longest_first() -> None:
    document = report(XML)
    assert document["ends"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert (document["seconds"], document["date"]) == (61, "2026-11-29")
    assert [(test["test"], test["end"], test["seconds"]) for test in document["tests"]] == [  # type: ignore[attr-defined]
        ("tests.integration.test_a::test_long", "failed", 60.0),
        ("tests.integration.test_a::test_short", "passed", 1.0),
        ("tests.integration.test_b::test_left_out", "skipped", 0.0),
    ]


def test_what_was_run_again_stands_as_it_ended_then() -> None:
    later = XML.replace('<failure message="no">no</failure>', "").replace("test_short", "test_new")
    document = report(XML, later)
    assert document["ends"] == {"passed": 3, "failed": 0, "skipped": 1}
    assert {row["test"].split("::")[1]: row.get("again", False) for row in document["tests"]} == {  # type: ignore[attr-defined]
        "test_long": True,
        "test_new": True,
        "test_left_out": True,
        "test_short": False,
    }
