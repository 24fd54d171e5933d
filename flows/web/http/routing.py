"""From endpoints to routes: who is asking, what was sent, the answer or a refusal. A client gets codes and sentences, never a traceback."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from flows.web.http.endpoint import Call, Content, Endpoint, Events, Person, Refused
from flows.web.http.operator_log import OperatorLog
from flows.web.http.people import COOKIE, People
from model_core.access import Denial, Role
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import ActwrightError, NotReady, SpecError, TrackingError

logger = logging.getLogger(__name__)

_STATUS_OF: Mapping[type[ActwrightError], tuple[int, str]] = {
    SpecError: (400, "SPEC"),
    NotReady: (404, "NOT_READY"),
    TrackingError: (502, "TRACKING"),
    ActwrightError: (409, "REFUSED"),
}


def route(endpoint: Endpoint, people: People, log: OperatorLog | None = None) -> Route:
    """The route that answers this endpoint. log: is told of every order, also of those that are refused."""

    async def answer(request: Request) -> Response:
        def admitted() -> Person | Denial:
            return people.who(request.cookies.get(COOKIE), request.headers.get("authorization"), endpoint.role)

        person = admitted()
        if isinstance(person, Denial):
            await run_in_threadpool(note_denial, person, request)
            return refused(person.status, "AUTH", person.reason)
        try:
            body = None if endpoint.body is None else await _body(request, endpoint)
            query = None if endpoint.query is None else _query(request, endpoint.query)
            call = Call(person=person, path=dict(request.path_params), query=query, body=body)
            return _response(await run_in_threadpool(_answer, endpoint, call, log), lambda: not isinstance(admitted(), Denial))
        except Refused as error:
            return refused(error.status, "REFUSED", str(error))
        except ClientDisconnect:
            return Response(status_code=499)
        except ActwrightError as error:
            status, code = next(found for kind, found in _STATUS_OF.items() if isinstance(error, kind))
            return refused(status, code, str(error))
        except Exception:
            logger.exception("console.failed method=%s path=%s", endpoint.method, endpoint.path)
            return refused(500, "INTERNAL", "our fault; the console's log has the details")

    def note_denial(denial: Denial, request: Request) -> None:
        """An order that a person's role does not allow is told, too; who is not known is no person."""
        known = people.who(request.cookies.get(COOKIE), request.headers.get("authorization"), Role.OBSERVE)
        if log is not None and endpoint.is_order and isinstance(known, Person):
            log.note(endpoint, Call(person=known, path=dict(request.path_params)), refused=denial.reason)

    return Route(endpoint.path, answer, methods=[endpoint.method])


def _answer(endpoint: Endpoint, call: Call, log: OperatorLog | None) -> object:
    if log is None or not endpoint.is_order or not endpoint.is_news(call):
        return endpoint.handle(call)
    try:
        answer = endpoint.handle(call)
    except ActwrightError as error:
        log.note(endpoint, call, refused=str(error))
        raise
    except Exception:
        log.note(endpoint, call, refused="a fault of the console: it may have been done in part; the console's log has the details")
        raise
    log.note(endpoint, call, answer=answer)
    return answer


def refused(status: int, code: str, reason: str) -> Response:
    """A refusal as every endpoint gives it."""
    return _json({"code": code, "reason": reason[:1000]}, status)


async def _body(request: Request, endpoint: Endpoint) -> Any:
    assert endpoint.body is not None
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":  # a form of another site cannot send this type without being asked first
        raise Refused(f"Content-Type: expected application/json, got {kind[:60]!r}", 415)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > endpoint.most_body_bytes:
            raise Refused(f"body: at most {endpoint.most_body_bytes} bytes are read. Fix: send less at a time", 413)
    try:
        document = msgspec.json.decode(bytes(data)) if data else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise SpecError(f"body: expected JSON, {error}") from error
    return from_document(endpoint.body, document, where="body")


def _query(request: Request, kind: type) -> Any:
    """A flat dataclass from the query; numbers and true/false are written as text there."""
    given = dict(request.query_params)
    unknown = sorted(set(given) - {one.name for one in dataclasses.fields(kind)})
    if unknown:
        raise SpecError(f"query: {', '.join(unknown)[:100]} is not known here")
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SpecError(f"query: {error}") from error


def _response(answer: object, is_admitted: Callable[[], bool]) -> Response:
    if isinstance(answer, Content):
        headers = {"etag": f'"{answer.etag}"', "cache-control": "private, max-age=31536000, immutable"} if answer.etag else {}
        return Response(answer.data, media_type=answer.media_type, headers=headers)
    if isinstance(answer, Events):
        return StreamingResponse(_lines(answer.stream(), is_admitted), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
    return _json(answer, 200)


async def _lines(stream: AsyncIterator[object], is_admitted: Callable[[], bool]) -> AsyncIterator[bytes]:
    """is_admitted: asked before each event, for a stream would outlive the token or the session that opened it."""
    async for document in stream:
        if not is_admitted():
            return
        yield b": \n\n" if document is None else b"data: " + _encoded(document) + b"\n\n"


def _json(document: object, status: int) -> Response:
    return Response(_encoded(document), status_code=status, media_type="application/json")


def _encoded(document: object) -> bytes:
    """As `to_document` writes it; msgspec reads dataclasses itself, fifty times faster for a table of 200 rows."""
    return msgspec.json.encode(document, enc_hook=to_document)
