"""Rules of licence and origin: whose the data are, what may be done with them, and whether a folder says true things of itself."""

from __future__ import annotations

from itertools import pairwise

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import RISK, SET, UNKNOWN, Fault, Verdict, check, of_facts
from components.data.inspection.measurements.record import SetMeasurements

_LIMITED = ("nc", "noncommercial", "non-commercial", "nd", "noderivatives", "research", "proprietary", "unknown", "other")
_NOT_A_FOLDER = "the episodes do not come from a folder that says it"


@check(
    "licence_unknown",
    severity=UNKNOWN,
    reason="without a licence only its author may use the data",
    fix="ask the author, and state `license` in README.md",
    source="https://choosealicense.com/no-permission",
)
def licence_unknown(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The set states a licence."""
    has = m.origin is not None and bool(m.origin.licence)
    return Verdict(
        looked_at=int(has), of=1, unit="sets", missing="" if has else "neither README.md, meta/info.json nor a LICENSE file states one"
    )


@check(
    "licence_limited",
    severity=RISK,
    reason="what is trained on it may not be sold, or not be changed",
    fix="ask for another licence, or keep the set out of products",
    source="https://creativecommons.org/licenses/by-nc/4.0/",
)
def licence_limited(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The licence allows use without limits to commerce or change."""
    if m.origin is None or not m.origin.licence:
        return Verdict(of=1, unit="sets", missing="no licence is stated")
    words = m.origin.licence.lower().replace("_", "-").replace(" ", "-").split("-")
    limits = [word for word in _LIMITED if word in words]
    faults = (Fault(where=m.origin.licence_place, reason=f"the licence {m.origin.licence!r} limits use ({limits[0]})"),) if limits else ()
    return Verdict(faults=faults, looked_at=1, of=1, unit="sets")


@check(
    "robot_unknown",
    severity=RISK,
    reason="numbers of a robot without a name cannot be joined with others",
    fix="state robot_type in meta/info.json",
    source="FFTAI/fourier-lerobot#3",
)
def robot_unknown(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The set names its robot."""
    if m.origin is None:
        return Verdict(of=1, unit="sets", missing=_NOT_A_FOLDER)
    named = m.origin.robot.strip().lower() not in ("", "unknown", "none", "null")
    faults = () if named else (Fault(where="meta/info.json", reason=f"robot_type is {m.origin.robot!r}"),)
    return Verdict(faults=faults, looked_at=1, of=1, unit="sets")


@check(
    "card_differs",
    severity=RISK,
    reason="the data card describes another version of the set",
    fix="write the data card again",
    source="OpenDriveLab/AgiBot-World#43",
)
def card_differs(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Counts and rate of the data card are those of meta/info.json."""
    if m.origin is None or not m.origin.card_numbers:
        return Verdict(of=1, unit="sets", missing="README.md states neither counts nor a rate")
    numbers = m.origin.card_numbers
    faults = [
        Fault(where="README.md", reason=f"{name} is {card:g}, meta/info.json says {info:g}")
        for name, (card, info) in numbers.items()
        if card != info
    ]
    return Verdict(faults=tuple(faults), looked_at=len(numbers), of=len(numbers), unit="numbers")


@check(
    "recorder_unknown",
    severity=UNKNOWN,
    reason="who recorded an episode decides whether it may be counted and trusted",
    fix="record with provenance, or name the recorder in the data card",
    source="enactic/openarm_dataset#71",
)
def recorder_unknown(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every episode says who or what produced it."""
    known = 0 if m.origin is None else sum(count for name, count in m.origin.producers.items() if name != "unknown")
    return Verdict(looked_at=min(known, len(m.episodes)), of=len(m.episodes), missing="" if known else "no episode says who produced it")


@check(
    "film_notes",
    severity=RISK,
    reason="who publishes the films publishes where and by whom they were taken, which no viewer of pictures shows",
    fix="write the films again without notes (`ffmpeg -i IN -map_metadata -1 -c copy OUT`), and look whether the place may be known",
    source="superseriousbusiness/gotosocial#2577",
)
def film_notes(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No film notes a place or a person beside its pictures."""
    return of_facts(m, "film_notes", "video files")


@check(
    "splits",
    severity=RISK,
    reason="a split that overlaps or reaches past the set is not held out",
    fix="correct `splits` in meta/info.json",
    source="awslabs/awsome-distributed-ai#1174",
)
def splits(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Splits are ranges of the set's episodes that do not overlap."""
    if m.origin is None:
        return Verdict(of=1, unit="sets", missing=_NOT_A_FOLDER)
    ranges = sorted((low, high, name) for name, (low, high) in m.origin.splits.items())
    faults = [Fault(where=SET, reason=reason) for reason in m.origin.bad_splits]
    last = max((episode.number for episode in m.episodes), default=-1) + 1
    faults += [
        Fault(where=SET, reason=f"split {name} is {low}:{high}, the set has {last} episodes")
        for low, high, name in ranges
        if high > last or low >= high
    ]
    for (_low, end, one), (begin, _high, other) in pairwise(ranges):
        if begin < end:
            faults.append(Fault(where=SET, reason=f"splits {one} and {other} share episodes {begin} to {end - 1}"))
    return Verdict(
        faults=tuple(faults), looked_at=len(ranges), of=len(ranges), unit="splits", missing="" if ranges else "no splits are stated"
    )
