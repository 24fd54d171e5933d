"""One episode: what it is, what people stated of it, and its frames, depth and signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.data.episodes.frames import FORMS, FrameName
from components.data.episodes.signals import packed
from flows.pipeline.episodes.library import EpisodeLibrary
from flows.web.http.endpoint import Call, Content, Endpoint
from flows.web.views.episodes.stated import StatedRow, stated_rows
from flows.web.views.episodes.table import EpisodeLine, find, line_of
from model_core.access import Role
from model_core.spec.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeName:
    """Which episode."""

    place: str
    episode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAsk:
    """Which frame. form: jpeg, webp or png. state: changes when the episode did, so that a browser keeps no old frame."""

    place: str
    episode: str
    camera: str
    number: int
    form: str = "jpeg"
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRow:
    """A camera of an episode. frames: how many it has."""

    name: str
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePage:
    """One episode. recorded_length: frames that are there; first, end: those that are kept. findings: "severity rule" of the inspection.

    state: for the addresses of its frames. path: of its set or file. revisions: oldest first.
    """

    line: EpisodeLine
    recorded_length: int
    first: int
    end: int
    note: str
    path: str
    state: str
    cameras: tuple[CameraRow, ...]
    findings: tuple[str, ...]
    revisions: tuple[StatedRow, ...]


def player_endpoints(library: EpisodeLibrary) -> Sequence[Endpoint]:
    """One episode and its parts."""

    def frame(call: Call) -> Content:
        asked: FrameAsk = call.query
        if asked.form not in FORMS:
            raise SpecError(f"query: form is one of {', '.join(FORMS)}, got {asked.form[:20]!r}")
        one = find(library, asked.place, asked.episode)
        data = library.frames.image(one, FrameName(camera=asked.camera, number=asked.number), asked.form)
        return Content(data=data, media_type=f"image/{asked.form}", etag=_etag(asked))

    def depth(call: Call) -> Content:
        asked: FrameAsk = call.query
        one = find(library, asked.place, asked.episode)
        data = library.frames.depth(one, FrameName(camera=asked.camera, number=asked.number))
        return Content(data=data, media_type="image/png", etag=_etag(asked))

    def signals(call: Call) -> Content:
        one = find(library, call.query.place, call.query.episode)
        return Content(data=packed(library.frames.signals(one)), media_type="application/octet-stream")

    return (
        Endpoint(
            method="GET", path="/api/episode", does="One episode with its cameras and what people stated of it", role=Role.OBSERVE,
            answer=EpisodePage, handle=lambda call: _page(library, call), query=EpisodeName,
        ),
        Endpoint(
            method="GET", path="/api/episode/frame", does="One frame of one camera", role=Role.OBSERVE, answer=Content, handle=frame,
            query=FrameAsk,
        ),
        Endpoint(
            method="GET", path="/api/episode/depth", does="The depth of one frame, in colour", role=Role.OBSERVE, answer=Content,
            handle=depth, query=FrameAsk,
        ),
        Endpoint(
            method="GET", path="/api/episode/signals", does="Numbers, traces and marks of one episode, packed", role=Role.OBSERVE,
            answer=Content, handle=signals, query=EpisodeName,
        ),
    )  # fmt: skip


def _page(library: EpisodeLibrary, call: Call) -> EpisodePage:
    one = find(library, call.query.place, call.query.episode)
    book = library.book(one.place)
    stated = book.revised.get(one.row.episode_id)
    first, end = (stated.trim if stated is not None and stated.trim else None) or (0, one.row.length)
    counts = library.frames.cameras(one)
    return EpisodePage(
        line=line_of(one),
        recorded_length=one.row.length,
        first=first,
        end=end,
        note="" if stated is None else stated.note,
        path=str(one.place.path / one.row.file),
        state=one.state[:12] or str(one.row.length),
        cameras=tuple(CameraRow(name=name, frames=count) for name, count in counts.items()),
        findings=one.findings or (),
        revisions=stated_rows(book, one.row.episode_id),
    )


def _etag(asked: FrameAsk) -> str:
    """ "" where the address does not name the state of the episode: then no browser keeps the frame."""
    return f"{asked.state}-{asked.number}" if asked.state.isalnum() else ""
