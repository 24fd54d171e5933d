"""Tasks and the sentences they are asked for with. Two tasks with one sentence are one to a policy, which only reads the sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def plain(sentence: str) -> str:
    """The sentence without what does not change its meaning: case, spaces and the full stop at the end."""
    return " ".join(sentence.casefold().split()).rstrip(" .")


def is_unnamed(task: str, sentence: str) -> bool:
    """Whether the task has no name of its own: a plain data set only has its sentence."""
    return plain(task) == plain(sentence)


def shared_sentences(asked: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """sentence -> its tasks, for the sentences that stand for more than one. asked: (task, sentence) pairs, in any number.

    A task without a name joins the named ones of its sentence; of tasks without a name, two spellings are two.
    """
    tasks: dict[str, set[str]] = {}
    for task, sentence in asked:
        tasks.setdefault(plain(sentence), set()).add(task)
    found: dict[str, list[str]] = {}
    for sentence, all_of_it in sorted(tasks.items()):
        named = {task for task in all_of_it if not is_unnamed(task, sentence)}
        if len(named) > 1 or len(all_of_it - named) > 1:
            found[sentence] = sorted(all_of_it)
    return found


def told(shared: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for a person about each."""
    return [
        f"{len(tasks)} tasks are asked for with one sentence, {sentence!r}: {', '.join(map(repr, tasks))}. "
        "A policy cannot tell them apart; give each its own sentence, or record them as one task"
        for sentence, tasks in shared.items()
    ]
