"""Tasks and their sentences: known, one an episode, the same in meta/ and frames, and saying something."""

from __future__ import annotations

from components.config.data_config import ValidateConfig
from components.data.inspection.checks.verdict import DEFECT, RISK, SET, Fault, Verdict, check, of_episodes
from components.data.inspection.measurements.record import EpisodeMeasurements, SetMeasurements
from components.data.inspection.sentences import plain, shared_sentences, told

_PLACEHOLDERS = frozenset(
    ("task", "none", "null", "todo", "test", "dummy", "default", "n/a", "unknown", "untitled", "do something", "your task")
)


@check(
    "unknown_task",
    severity=DEFECT,
    reason="the frames name a task that the table does not have, so their instruction is another one or none",
    fix="add the task to the table, or correct the frames",
    source="huggingface/lerobot#4401",
)
def unknown_task(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every task_index of a frame stands in the task table, as does every sentence of the episode list."""
    texts = {plain(text) for text in m.sentences.values()}

    def judge(e: EpisodeMeasurements) -> str | None:
        if not m.sentences:
            return None
        if lost := [task for task in e.meaning.tasks if task not in m.sentences]:
            return f"its frames are of task {lost[0]}, the table has {sorted(m.sentences)[:8]}"
        lost_text = [text for text in e.meaning.listed if plain(text) not in texts]
        return f"meta/ lists {lost_text[0]!r}, which the table does not have" if lost_text else ""

    return of_episodes(m, judge, "there is no task table")


@check(
    "task_several",
    severity=DEFECT,
    reason="an episode is one attempt at one instruction",
    fix="cut it into one episode for each task",
    source="macrodata-labs/refiner#187",
)
def task_several(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The frames of an episode are of one task."""

    def judge(e: EpisodeMeasurements) -> str | None:
        said = len({plain(m.sentences.get(task, str(task))) for task in e.meaning.tasks})
        return None if not e.meaning.tasks else f"its frames are of {said} tasks" if said > 1 else ""

    return of_episodes(m, judge, "no column says which task a frame is of")


@check(
    "task_differs",
    severity=DEFECT,
    reason="meta/ and the frames say different tasks, and readers take one or the other",
    fix="correct the list of the episode, or task_index of its frames",
    source="huggingface/lerobot#4519",
)
def task_differs(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """The task that meta/ lists for an episode is that of its frames."""

    def judge(e: EpisodeMeasurements) -> str | None:
        known = [task for task in e.meaning.tasks if task in m.sentences]
        if not known or not e.meaning.listed:
            return None
        listed = {plain(text) for text in e.meaning.listed}
        wrong = [m.sentences[task] for task in known if plain(m.sentences[task]) not in listed]
        return f"its frames say {wrong[0]!r}, meta/ lists {e.meaning.listed[0]!r}" if wrong else ""

    return of_episodes(m, judge, "meta/ lists no task, or the frames name none")


@check(
    "instruction_missing",
    severity=DEFECT,
    reason="a policy cannot learn what was asked",
    fix="write what was asked into the task table",
    source="droid-dataset/droid#3",
)
def instruction_missing(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every episode has an instruction."""
    return of_episodes(m, lambda e: "" if e.meaning.instruction.strip() else "the instruction is empty", "")


@check(
    "instruction_placeholder",
    severity=RISK,
    reason="one word for everything teaches a policy to ignore language",
    fix="write what was asked",
    source="https://huggingface.co/blog/smolvla",
)
def instruction_placeholder(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Instructions say what to do, in readable text."""

    def judge(e: EpisodeMeasurements) -> str | None:
        text = e.meaning.instruction
        if not text.strip():
            return None
        if plain(text) in _PLACEHOLDERS or len(plain(text)) < 3:
            return f"the instruction is {text!r}"
        odd = [c for c in text if c == "�" or not (c.isprintable() or c in "\n\t")]
        return f"the instruction {text!r} holds characters that are no text" if odd or any(mark in text for mark in ("Ã", "â€")) else ""

    return of_episodes(m, judge, "the instruction is empty")


@check(
    "shared_sentence",
    severity=RISK,
    reason="two tasks with one sentence are one to a policy",
    fix="give each task its own sentence",
    source="huggingface/lerobot#4409",
)
def shared_sentence(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """No sentence stands for two tasks."""
    asked = [(f"task_index {number}", text) for number, text in m.sentences.items()]
    shared = shared_sentences(asked)
    faults = tuple(Fault(where=SET, reason=line) for line in told(shared))
    return Verdict(faults=faults, looked_at=len(asked), of=len(asked), unit="tasks", missing="" if asked else "there is no task table")


@check(
    "task_unused",
    severity=RISK,
    reason="a task without an episode is promised and not learned",
    fix="remove it from the table",
    source="unitreerobotics/unitree_lerobot#78",
)
def task_unused(m: SetMeasurements, _: ValidateConfig) -> Verdict:
    """Every task of the table has an episode."""
    used = {task for e in m.episodes for task in e.meaning.tasks}
    if not used:
        return Verdict(of=len(m.sentences), unit="tasks", missing="the frames name no task")
    faults = [
        Fault(where=SET, reason=f"no episode is of task {number} ({text!r})") for number, text in m.sentences.items() if number not in used
    ]
    return Verdict(faults=tuple(faults), looked_at=len(m.sentences), of=len(m.sentences), unit="tasks")
