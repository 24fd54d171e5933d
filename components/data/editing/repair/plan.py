"""Which rows and which frames of which film make an episode again. Pure: from what is left to what is kept, and why the rest is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.data.editing.repair.evidence import Evidence, Film
from components.data.lerobot import layout

_WHOLE_FRAME = 0.1  # of a frame: a start in a film that lies further from a whole number names none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """An episode that can be rebuilt. number: its old episode_index. rows_T: rows of the evidence's table, in order of frames.

    films: camera key -> (film, its first frame there).
    """

    number: int
    rows_T: NDArray[np.int64]
    films: Mapping[str, tuple[Film, int]]
    task: str


def plan(evidence: Evidence) -> list[Kept]:
    """Every episode that can be rebuilt, by its old number; what is given up is told in the evidence's account."""
    episode_N, frame_N = (evidence.table[name].to_numpy().astype(np.int64) for name in ("episode_index", "frame_index"))
    kept: list[Kept] = []
    cursors: dict[str, _Cursor] = {key: _Cursor(films) for key, films in evidence.films.items()}
    for number in sorted(set(episode_N.tolist())):
        rows_T, recorded = _run(np.flatnonzero(episode_N == number), frame_N, number, evidence)
        first = int(frame_N[rows_T[0]])
        found = {key: _film(evidence, cursors[key], key, number, recorded) for key in evidence.films}
        task, problem = _task(evidence, rows_T)
        lacks = [key for key, place in found.items() if place is None]
        if lacks or problem:
            why = problem or f"camera {lacks[0].removeprefix(layout.IMAGE_PREFIX)} has no frames of it"
            evidence.account.given_up.append(f"episode {number}: {len(rows_T)} rows, {why}")
            continue
        there = {key: place for key, place in found.items() if place is not None}
        shown = min([film.frames - start - first for film, start in there.values()], default=len(rows_T))
        if shown < len(rows_T):
            if shown < 2:
                evidence.account.given_up.append(f"episode {number}: {len(rows_T)} rows, the films hold {max(shown, 0)} frames of it")
                continue
            evidence.account.given_up.append(f"episode {number}: its last {len(rows_T) - shown} rows, for which the films hold no frames")
            rows_T = rows_T[:shown]
        kept.append(Kept(number=number, rows_T=rows_T, films={k: (f, s + first) for k, (f, s) in there.items()}, task=task))
    return check_order(evidence, kept)


def _run(rows: NDArray[np.int64], frame_N: NDArray[np.int64], number: int, evidence: Evidence) -> tuple[NDArray[np.int64], int]:
    """The longest run of frames without a gap, in order, and how many frames the episode was recorded with."""
    ordered = rows[np.argsort(frame_N[rows], kind="stable")]
    steps = frame_N[ordered]
    if (twice := np.flatnonzero(np.diff(steps) == 0)).size:
        evidence.account.given_up.append(f"episode {number}: {len(twice)} rows that repeat a frame; the first of each is kept")
        ordered = np.delete(ordered, twice + 1)
        steps = frame_N[ordered]
    recorded = int(evidence.entries.get(number, {}).get("length") or steps[-1] + 1)
    breaks = np.flatnonzero(np.diff(steps) != 1) + 1
    runs = np.split(ordered, breaks)
    longest = max(runs, key=len)
    if len(runs) > 1 or steps[0] != 0:
        kept = f"{frame_N[longest[0]]} to {frame_N[longest[-1]]}"
        evidence.account.given_up.append(
            f"episode {number}: rows are missing among its frames {steps[0]} to {steps[-1]}; frames {kept} are kept, "
            f"{len(ordered) - len(longest)} rows before or after them are not"
        )
    return longest, max(recorded, int(steps[-1]) + 1)


class _Cursor:
    """Where the next episode begins in a camera's films, as a recorder writes them: one after the other."""

    def __init__(self, films: tuple[Film, ...]) -> None:
        self.films, self.at, self.frame = films, 0, 0

    def take(self, length: int) -> tuple[Film, int] | None:
        """The place of an episode of this length; None where the films have ended."""
        while self.at < len(self.films) and self.frame >= self.films[self.at].frames:
            self.at, self.frame = self.at + 1, 0
        if self.at >= len(self.films):
            return None
        start, self.frame = self.frame, self.frame + length
        return self.films[self.at], start

    def go_to(self, film: Film, frame: int) -> None:
        """The episode before ended here."""
        self.at, self.frame = self.films.index(film), frame


def _film(evidence: Evidence, cursor: _Cursor, key: str, number: int, recorded: int) -> tuple[Film, int] | None:
    """The film of an episode and its first frame: as meta/episodes says, else behind the episode before."""
    if layout.is_one_file_an_episode(evidence.info):
        return next(((film, 0) for film in cursor.films if film.number[1] == number), None)
    entry: Mapping[str, Any] = evidence.entries.get(number, {})
    place = entry.get(f"videos/{key}/chunk_index"), entry.get(f"videos/{key}/file_index"), entry.get(f"videos/{key}/from_timestamp")
    if None in place:
        return cursor.take(recorded)
    film = next((film for film in cursor.films if film.number == (place[0], place[1])), None)
    start = float(place[2]) * evidence.fps  # pyright: ignore[reportArgumentType]  # None was handled above
    if film is None or abs(start - round(start)) > _WHOLE_FRAME:
        return None
    cursor.go_to(film, round(start) + recorded)
    return film, round(start)


def _task(evidence: Evidence, rows_T: NDArray[np.int64]) -> tuple[str, str]:
    """(sentence, problem) of an episode."""
    if "task_index" not in evidence.table.column_names:
        return "", "no column says its task"
    indices = set(evidence.table["task_index"].take(rows_T).to_pylist())
    sentences = {evidence.tasks.get(index, "") for index in indices}
    if len(sentences) != 1 or not (sentence := sentences.pop()).strip():
        return "", f"its task is not known (task_index {', '.join(map(str, sorted(indices)))})"
    return sentence, ""


def check_order(evidence: Evidence, kept: list[Kept]) -> list[Kept]:
    """Give up the episodes whose frames are only guessed and could be a neighbour's.

    Without their rows in meta/episodes, films are taken to hold the episodes one after the other. That is doubtful where a film in
    the middle does not end with an episode, and behind an episode that has no rows, unless all frames are used up exactly.
    """
    if layout.is_one_file_an_episode(evidence.info):
        return kept
    for key, films in evidence.films.items():
        guessed = [one for one in kept if one.number not in evidence.entries]
        ends = {id(film): max((_end(one, key) for one in kept if one.films[key][0] is film), default=film.frames) for film in films}
        short = [film for film in films[:-1] if ends[id(film)] != film.frames]
        is_exact = not short and all(ends[id(film)] == film.frames for film in films[-1:])
        known = {one.number for one in kept} | evidence.entries.keys()
        gap = next((one.number for one in guessed if any(n not in known for n in range(one.number))), None)
        doubtful = guessed if short else [one for one in guessed if gap is not None and one.number >= gap and not is_exact]
        for one in doubtful:
            evidence.account.given_up.append(
                f"episode {one.number}: {len(one.rows_T)} rows; which frames of {key} are its own cannot be told without its row in "
                "meta/episodes"
            )
        kept = [one for one in kept if one not in doubtful]
        if films and (rest := films[-1].frames - ends[id(films[-1])]) > 0 and not doubtful:
            evidence.account.given_up.append(f"{films[-1].path.name} of {key}: its last {rest} frames, which have no rows")
    if found := [one.number for one in kept if one.number not in evidence.entries and evidence.films]:
        evidence.account.restored.append(
            f"meta/episodes lists {len(evidence.entries)} episodes; {len(found)} more were found from their rows, their frames by their "
            "order in the films"
        )
    return kept


def _end(one: Kept, key: str) -> int:
    return one.films[key][1] + len(one.rows_T)
