"""A second person's labels: one frame after the other, without the label that it has, and how far both agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.data.episodes.frames import FrameName
from components.data.episodes.place import Place
from components.data.second_labels.agreement import agreement, read_points
from components.data.second_labels.opinion import AskedFrame, Opinion
from flows.pipeline.episodes.library import Draw, EpisodeLibrary
from flows.web.http.endpoint import Call, Endpoint, not_found
from flows.web.views.episodes.table import find
from model_core.access import Role
from model_core.spec.documents import Number
from model_core.spec.errors import DatasetError

_TOOL = "console"
_LABELS = "annotate"  # the data stage whose labels are judged


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAsk:
    """Which set is labelled, and how many of its frames."""

    place: str
    count: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTask:
    """The next frame for the caller. done: how many of `total` the caller answered; then episode is "" where all are."""

    episode: str
    camera: str
    frame: int
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAnswer:
    """What the caller says of a frame. point: (x, y) as shares of width and height, 0..1; None: not in the image, or abstained."""

    place: str
    episode: str
    camera: str
    frame: int
    point: tuple[Number, Number] | None
    abstained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsDone:
    """added: 0 where the same answer was there."""

    added: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAgreement:
    """How often the second labels contradict the first. estimate, low, high: shares; None where `why` says that it is not measured."""

    estimate: float | None
    low: float | None
    high: float | None
    frames: int
    abstained: int
    people: int
    pairs: int
    contradict: int
    why: str


def labelling_endpoints(library: EpisodeLibrary) -> Sequence[Endpoint]:
    """The next frame, the answer, the agreement."""

    def task(call: Call) -> LabelTask:
        place = _place(library, call.query.place)
        asked = library.asked_frames(place, Draw(count=max(1, min(call.query.count, 10_000))))
        answered = {one.asked for one in library.opinions(place).opinions if one.author == call.person.name}
        left = [one for one in asked if one not in answered]
        done = len(asked) - len(left)
        following = left[0] if left else AskedFrame(episode="", camera="", frame=0)
        return LabelTask(episode=following.episode, camera=following.camera, frame=following.frame, done=done, total=len(asked))

    def answer(call: Call) -> LabelsDone:
        given: LabelAnswer = call.body
        episode = find(library, given.place, given.episode)
        pixels_HW3 = library.frames.pixels(episode, FrameName(camera=given.camera, number=given.frame))
        height, width = pixels_HW3.shape[:2]
        point = None if given.point is None else (given.point[0] * width - 0.5, given.point[1] * height - 0.5)
        asked = AskedFrame(episode=given.episode, camera=given.camera, frame=given.frame)
        opinion = Opinion(asked=asked, point=point, size=(width, height), author=call.person.name, tool=_TOOL, abstained=given.abstained)
        return LabelsDone(added=library.opinions(episode.place).add([opinion]))

    return (
        Endpoint(
            method="GET", path="/api/label", does="The next frame that the caller labels", role=Role.OPERATE, answer=LabelTask,
            handle=task, query=LabelAsk,
        ),
        Endpoint(
            method="POST", path="/api/label", does="What the caller says of a frame", role=Role.OPERATE, answer=LabelsDone,
            handle=answer, body=LabelAnswer,
        ),
        Endpoint(
            method="GET", path="/api/label/agreement", does="How often second labels contradict the first", role=Role.OBSERVE,
            answer=LabelAgreement, handle=lambda call: _agreement(library, call), query=LabelAsk,
        ),
    )  # fmt: skip


def _agreement(library: EpisodeLibrary, call: Call) -> LabelAgreement:
    place = _place(library, call.query.place)
    try:
        first = read_points(library.settings.data.resolve() / _LABELS)
    except DatasetError as error:
        return LabelAgreement(estimate=None, low=None, high=None, frames=0, abstained=0, people=0, pairs=0, contradict=0, why=str(error))
    told = agreement(first, library.opinions(place).opinions)
    interval, between = told.get("interval_95"), told.get("between_people", {})
    return LabelAgreement(
        estimate=told["estimate"] if interval else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
        frames=told.get("compared_frames", 0),
        abstained=told["abstained"],
        people=told["people"],
        pairs=between.get("pairs", 0),
        contradict=between.get("contradict", 0),
        why=told.get("why", ""),
    )


def _place(library: EpisodeLibrary, key: str) -> Place:
    found = [place for place, _, _ in library.index.places() if place.key == key]
    if not found:
        raise not_found(f"place {key[:20]!r}", "choose one of the table")
    return found[0]
