"""What is there twice: columns, episodes, nearly equal episodes, and sessions on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.measurements.rows.meaning import STEP
from components.data.inspection.sentences import plain
from components.data.lerobot import layout

FEWEST = 5  # points of a path, `STEP` rows apart, that may be compared with another's
_VITAL = frozenset((layout.STATE, layout.ACTION, layout.TCP))


@check(
    "column_aliasing",
    severity=DEFECT,
    reason="one column was written in place of another, so what it should hold is lost",
    fix="export again with each column from its own source",
    source="huggingface/lerobot#4402",
)
def column_aliasing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """State, action and tool position are three things."""
    faults = [Fault(where=SET, reason=f"{a} and {b} are equal in every frame") for a, b in m.copies if {a, b} <= _VITAL]
    return Verdict(faults=tuple(faults), looked_at=m.compared_columns, of=m.compared_columns, unit="columns")


@check(
    "column_copies",
    severity=RISK,
    reason="two names for one content: one of the two contents is lost",
    fix="export again with each column from its own source",
    source="huggingface/lerobot#4402",
)
def column_copies(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No other column equals another in every row; what was executed may equal what was commanded, and flags of the end each other."""
    found = [(a, b) for a, b in m.copies if not {a, b} <= _VITAL and {a, b} != {layout.ACTION, layout.EXECUTED}]
    found = [(a, b) for a, b in found if not (a.startswith("next.") and b.startswith("next."))]
    faults = [Fault(where=SET, reason=f"{a} and {b} are equal in every frame") for a, b in found]
    return Verdict(faults=tuple(faults), looked_at=m.compared_columns, of=m.compared_columns, unit="columns")


@check(
    "duplicate",
    severity=DEFECT,
    reason="counting one recording twice inflates the data, and leaks it over a split",
    fix="remove one of the two",
    source="starVLA/VLAct#4",
)
def duplicate(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No two episodes hold the same pictures, state and actions."""
    seen: dict[tuple[str, ...], EpisodeMeasurements] = {}
    faults: list[Fault] = []
    for e in m.episodes:
        key = (e.meaning.state_digest, e.meaning.action_digest, *(camera.digest for _, camera in sorted(e.cameras.items())))
        first = seen.setdefault(key, e)
        if first is not e:
            differs = plain(first.meaning.instruction) != plain(e.meaning.instruction)
            also = f", under another instruction ({first.meaning.instruction!r})" if differs else ""
            faults.append(Fault(where=e.episode_id, reason=f"it holds what {first.episode_id} holds{also}"))
    return Verdict(faults=tuple(faults), looked_at=len(m.episodes), of=len(m.episodes))


@check(
    "near_duplicate",
    severity=RISK,
    reason="a copy that was recoded or shifted counts twice, and leaks over a split",
    fix="remove one of the two",
    source="starVLA/VLAct#4",
)
def near_duplicate(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No two episodes take nearly the same path."""
    known = [e for e in m.episodes if len(e.meaning.path_16D) and e.frames >= 16 and e.meaning.length_of_path > 0]
    widths = {e.meaning.path_16D.shape for e in known}
    if len(known) < 2 or len(widths) != 1:
        return Verdict(of=len(m.episodes), missing="there are less than two episodes with a path")
    paths = np.stack([e.meaning.path_16D for e in known])
    span = np.maximum(np.ptp(paths, axis=(0, 1)), 1e-9)
    table = (paths / span).reshape(len(known), -1)
    faults: list[Fault] = []
    for a, b in sorted(_near_pairs(table, cfg.inspection.near)):
        one, other = known[a], known[b]
        is_equal = one.meaning.state_digest == other.meaning.state_digest and one.meaning.action_digest == other.meaning.action_digest
        if not is_equal or not _same_pictures(one, other):
            faults.append(
                Fault(where=other.episode_id, reason=f"it takes the path of {one.episode_id} within {cfg.inspection.near:.1%} of the range")
            )
    return Verdict(faults=tuple(faults), looked_at=len(known), of=len(m.episodes))


@check(
    "part_of_another",
    severity=RISK,
    reason="a demonstration that was exported twice, once after cutting, counts twice, and leaks over a split",
    fix="remove the shorter one",
    source="droid-dataset/droid#66",
)
def part_of_another(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No episode is the first or the last part of a longer one."""
    known = [e for e in m.episodes if len(e.meaning.tail_SD) >= FEWEST and e.meaning.tail_SD.size and e.meaning.length_of_path > 0]
    missing = f"there are less than two episodes with a path of {FEWEST * STEP} frames"
    if len(known) < 2 or len({e.meaning.tail_SD.shape[1] for e in known}) != 1:
        return Verdict(of=len(m.episodes), missing=missing)
    span_D = np.maximum(np.ptp(np.concatenate([e.meaning.path_16D for e in known]), axis=0), 1e-9)
    faults: dict[str, Fault] = {}
    for cut, end in (("beginning", -1), ("end", 0)):
        paths = [(e.meaning.tail_SD if end else e.meaning.head_SD) / span_D for e in known]
        for a, b in sorted(_near_pairs(np.stack([path[end] for path in paths]), cfg.inspection.near)):
            short, long = sorted((a, b), key=lambda n: known[n].frames)
            is_whole = len(paths[short]) * STEP >= 0.8 * known[short].frames
            if known[short].frames < known[long].frames and is_whole and _is_part(paths[short], paths[long], end, cfg.inspection.near):
                name, reason = known[short].episode_id, f"it takes the path of {known[long].episode_id}, of which the {cut} is cut off"
                faults.setdefault(name, Fault(where=name, reason=reason))
    return Verdict(
        faults=tuple(faults.values()), looked_at=len(known), of=len(m.episodes), missing=missing if len(known) < len(m.episodes) else ""
    )


def _is_part(short_SD: NDArray[np.float64], long_SD: NDArray[np.float64], end: int, limit: float) -> bool:
    """Whether a path that moves is the end (-1) or the beginning (0) of another one."""
    points = min(len(short_SD), len(long_SD))
    part, whole = (path[-points:] if end else path[:points] for path in (short_SD, long_SD))
    return float(np.ptp(part, axis=0).max()) > 0.1 and float(np.abs(part - whole).max()) <= limit


def _near_pairs(table_ND: NDArray[np.float64], limit: float) -> Iterator[tuple[int, int]]:
    """Pairs of rows of which no number differs by more than `limit`; sorted by one column, so only neighbours in it are compared."""
    column = int(np.argmax(table_ND.std(axis=0)))
    order = np.argsort(table_ND[:, column], kind="stable")
    sorted_N = table_ND[order, column]
    for place, row in enumerate(order):
        end = int(np.searchsorted(sorted_N, sorted_N[place] + limit, "right"))
        others = order[place + 1 : end]
        near = np.abs(table_ND[others] - table_ND[row]).max(axis=1, initial=0.0) <= limit
        yield from ((min(int(row), int(other)), max(int(row), int(other))) for other in others[near])


def _same_pictures(one: EpisodeMeasurements, other: EpisodeMeasurements) -> bool:
    return [c.digest for _, c in sorted(one.cameras.items())] == [c.digest for _, c in sorted(other.cameras.items())]


@check(
    "split_leaks",
    severity=RISK,
    reason="held-out episodes of a session that was trained on do not measure anything new",
    fix="split by session",
    source="jashshah999/lerobot-doctor#6",
)
def split_leaks(m: SetMeasurements, cfg: ValidateConfig) -> Verdict:
    """No recording session, and no copy of an episode, lies on both sides of a split."""
    ranges = {} if m.origin is None else m.origin.splits
    if len(ranges) < 2:
        return Verdict(of=len(m.episodes), missing="the set states no two splits")
    side = {e.number: name for e in m.episodes for name, (low, high) in ranges.items() if low <= e.number < high}
    sides: dict[str, Counter[str]] = {}
    for e in m.episodes:
        for key in (e.meaning.session, f"state {e.meaning.state_digest}"):
            if key and e.number in side:
                sides.setdefault(key, Counter())[side[e.number]] += 1
    faults = [
        Fault(where=SET, reason=f"{key if not key.startswith('state ') else 'one recording'} lies in the splits {', '.join(sorted(found))}")
        for key, found in sorted(sides.items())
        if len(found) > 1
    ]
    known = sum(bool(e.meaning.session) for e in m.episodes)
    missing = "" if known else "episodes do not name their session; only equal ones were compared"
    return Verdict(faults=tuple(faults), looked_at=len(side), of=len(m.episodes), missing=missing)
