"""The console as a Starlette application: the API's endpoints, signing in and out, the OpenAPI document, the built pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from flows.web.http.endpoint import Endpoint
from flows.web.http.guards import Guards
from flows.web.http.openapi import openapi_document
from flows.web.http.operator_log import OperatorLog
from flows.web.http.pages import Pages
from flows.web.http.people import COOKIE, LIFE_S, People
from flows.web.http.routing import refused, route
from flows.web.views.session import SignIn, signed_in
from model_core.access import Denial
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import SpecError

_MOST_SIGN_IN_BYTES = 8192


def create_app(
    endpoints: Sequence[Endpoint], people: People, pages: Pages, *, only_loopback: bool, log: OperatorLog | None = None
) -> Starlette:
    """An application over these endpoints. only_loopback: it is bound to loopback, and requests for other host names are refused."""
    document = openapi_document(endpoints)
    entrance = _Entrance(people, log)

    async def openapi(_: Request) -> Response:
        return JSONResponse(document)

    async def unknown(request: Request) -> Response:
        return refused(404, "UNKNOWN", f"{request.method} {request.url.path[:200]} is no endpoint. Fix: see /api/openapi.json")

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    routes: list[BaseRoute] = [
        Route("/livez", livez),
        Route("/api/openapi.json", openapi),
        Route("/api/session", entrance.enter, methods=["POST"]),
        Route("/api/session", entrance.leave, methods=["DELETE"]),
        *(route(one, people, log) for one in endpoints),
        Route("/api/{rest:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route("/{name:path}", pages.answer),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guards, only_loopback=only_loopback)])


class _Entrance:
    """Signing in and out: the only answers that set a cookie."""

    def __init__(self, people: People, log: OperatorLog | None) -> None:
        self._people, self._log = people, log

    async def enter(self, request: Request) -> Response:
        try:
            given = from_document(SignIn, await _small_json(request), where="body")
            person = self._people.enter(given.token, given.name)
        except SpecError as error:
            return refused(400, "SPEC", str(error))
        if isinstance(person, Denial):
            if self._log is not None:
                await run_in_threadpool(self._log.note_attempt, given.name, _address(request), person.reason)
            return refused(person.status, "AUTH", person.reason)
        if self._log is not None:
            await run_in_threadpool(self._log.note_coming, person, _address(request))
        response = JSONResponse(to_document(signed_in(self._people, person)))
        response.set_cookie(
            COOKIE, person.session, max_age=int(LIFE_S), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    async def leave(self, request: Request) -> Response:
        person = self._people.leave(request.cookies.get(COOKIE, ""))
        if self._log is not None and person is not None:
            await run_in_threadpool(self._log.note_going, person, _address(request))
        response = JSONResponse({})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _address(request: Request) -> str:
    """Where the connection comes from; behind a proxy, the proxy's unless it is trusted to say more."""
    return "" if request.client is None else request.client.host


async def _small_json(request: Request) -> Any:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MOST_SIGN_IN_BYTES:
            raise SpecError(f"body: at most {_MOST_SIGN_IN_BYTES} bytes are read")
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise SpecError(f"body: expected JSON, {error}") from error
