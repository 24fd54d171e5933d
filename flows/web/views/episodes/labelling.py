"""A second person's labels: one frame after the other, without the label that it has, and how far both agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.data.episodes.frames import FrameName
from components.data.episodes.place import Place
from components.data.second_labels.agreement import agreement, read_points, read_traces, trace_agreement
from components.data.second_labels.opinion import AskedFrame, Opinion, What
from flows.pipeline.episodes.annotations import Annotations
from flows.pipeline.episodes.library import Draw, EpisodeLibrary
from flows.web.http.endpoint import Call, Endpoint, not_found
from flows.web.views.episodes.table import find
from model_core.access import Role
from model_core.spec.documents import Number
from model_core.spec.errors import DatasetError

_TOOL = "console"
Share = tuple[Number, Number]  # (x, y) as shares of width and height, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAsk:
    """Which set is labelled, what of it, and how many of its frames."""

    place: str
    what: What = "point"
    count: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTask:
    """The next frame for the caller. frames: of its episode, which a trace goes to the end of. done: how many of `total` the caller
    answered; then episode is "" where all are."""

    episode: str
    camera: str
    frame: int
    frames: int
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAnswer:
    """What the caller says of a frame. point: as shares of width and height; None: not in the image, or abstained. trace: likewise 1 to 5
    points, where `what` is a trace."""

    place: str
    episode: str
    camera: str
    frame: int
    point: Share | None
    abstained: bool = False
    what: What = "point"
    trace: tuple[Share, ...] = ()


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
    wrong: str
    why: str


def labelling_endpoints(library: EpisodeLibrary, annotations: Annotations) -> Sequence[Endpoint]:
    """The next frame, the answer, the agreement."""

    def task(call: Call) -> LabelTask:
        ask: LabelAsk = call.query
        place = _place(library, ask.place)
        asked = library.asked_frames(place, Draw(count=max(1, min(ask.count, 10_000))))
        said = library.opinions(place).opinions
        answered = {one.asked for one in said if one.author == call.person.name and one.what == ask.what}
        left = [one for one in asked if one not in answered]
        following = left[0] if left else AskedFrame(episode="", camera="", frame=0)
        frames = library.frames.cameras(find(library, place.key, following.episode))[following.camera] if left else 0
        return LabelTask(
            episode=following.episode,
            camera=following.camera,
            frame=following.frame,
            frames=frames,
            done=len(asked) - len(left),
            total=len(asked),
        )

    return (
        Endpoint(
            method="GET", path="/api/label", does="The next frame that the caller labels", role=Role.OPERATE, answer=LabelTask,
            handle=task, query=LabelAsk,
        ),
        Endpoint(
            method="POST", path="/api/label", does="What the caller says of a frame", role=Role.OPERATE, answer=LabelsDone,
            handle=lambda call: _answered(library, call), body=LabelAnswer,
        ),
        Endpoint(
            method="GET", path="/api/label/agreement", does="How often second labels contradict the first", role=Role.OBSERVE,
            answer=LabelAgreement, handle=lambda call: _agreement(library, annotations, call), query=LabelAsk,
        ),
    )  # fmt: skip


def _answered(library: EpisodeLibrary, call: Call) -> LabelsDone:
    given: LabelAnswer = call.body
    episode = find(library, given.place, given.episode)
    pixels_HW3 = library.frames.pixels(episode, FrameName(camera=given.camera, number=given.frame))
    height, width = pixels_HW3.shape[:2]

    def pixel(share: Share) -> Share:
        return share[0] * width - 0.5, share[1] * height - 0.5

    opinion = Opinion(
        asked=AskedFrame(episode=given.episode, camera=given.camera, frame=given.frame),
        point=None if given.point is None else pixel(given.point),
        size=(width, height),
        author=call.person.name,
        tool=_TOOL,
        abstained=given.abstained,
        what=given.what,
        trace=tuple(pixel(one) for one in given.trace),
    )
    return LabelsDone(added=library.opinions(episode.place).add([opinion]))


def _agreement(library: EpisodeLibrary, annotations: Annotations, call: Call) -> LabelAgreement:
    ask: LabelAsk = call.query
    place = _place(library, ask.place)
    opinions = [one for one in library.opinions(place).opinions if one.what == ask.what]
    episodes = {one.asked.episode for one in opinions}
    try:
        labels = annotations.of(place)
        if ask.what == "trace":
            told = trace_agreement(read_traces(labels, episodes), opinions)
        else:
            told = agreement(read_points(labels, episodes), opinions)
    except DatasetError as error:
        return _told({"abstained": 0, "people": 0, "estimate": None, "why": str(error)})
    return _told(told)


def _told(told: dict[str, Any]) -> LabelAgreement:
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
        wrong=told.get("wrong", ""),
        why=told.get("why", ""),
    )


def _place(library: EpisodeLibrary, key: str) -> Place:
    found = [place for place, _, _ in library.index.places() if place.key == key]
    if not found:
        raise not_found(f"place {key[:20]!r}", "choose one of the table")
    return found[0]
