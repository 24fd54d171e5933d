"""One endpoint of the API as data, and the way of a request through it: role, size, strict body, work, answer.

A refusal is JSON {code, reason}, never a traceback. A browser that another site drives is refused: a request with an Origin other than the
address that it asks, and a body that is not application/json.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from model_core.access import Role, is_foreign_origin
from model_core.spec.documents import from_document, to_document
from model_core.spec.errors import ActwrightError, SpecError, TrackingError, WireError
from serving.fleet.controller.service import Controller, Overloaded
from serving.fleet.controller.store.operator_log import Actor
from serving.gateway.http.auth_middleware import caller_of
from serving.gateway.http.client_request import BodyTooLarge, read_body

logger = logging.getLogger(__name__)
_MOST_BYTES = 256 * 1024
_STATUS = (
    (BodyTooLarge, 413, "TOO_LARGE"),
    (WireError, 401, "SIGNATURE"),
    (Overloaded, 429, "OVERLOAD"),
    (TrackingError, 503, "DATABASE"),
    (SpecError, 409, "REFUSED"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that was admitted. order: its body as the type that the endpoint takes; None where it takes none."""

    controller: Controller
    actor: Actor
    path: Mapping[str, str]
    query: Mapping[str, str]
    order: Any = None

    def number(self, name: str) -> int:
        """A whole number of the path. Raises `SpecError` for something else."""
        text = self.path[name]
        if not text.isdecimal() or len(text) > 9:
            raise SpecError(f"{name}: expected a number, got {text[:40]!r}")
        return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """role: None for one that needs no token. takes, gives: types of body and answer."""

    method: str
    path: str
    role: Role | None
    summary: str
    work: Callable[[Call], Awaitable[Any]]
    takes: type[Any] | None = None
    gives: Any = None

    def route(self, controller: Controller) -> Route:
        """As Starlette serves it."""

        async def serve(request: Request) -> Response:
            try:
                call = await self._call(controller, request)
                return JSONResponse(to_document(await self.work(call)))
            except Refused as refused:
                return refusal(refused.status, refused.code, str(refused))
            except ActwrightError as error:
                return answer_to(error)
            except Exception:
                logger.exception("fleet.request_failed path=%s", self.path)
                return refusal(500, "INTERNAL", "the controller failed; its log has the details")

        return Route(self.path, serve, methods=[self.method])

    async def _call(self, controller: Controller, request: Request) -> Call:
        check_origin(request)
        caller = caller_of(request.scope)
        order = None
        if self.takes is not None:
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                raise Refused(415, "CONTENT_TYPE", "expected a body of the type application/json")
            order = _parsed(self.takes, await read_body(request, _MOST_BYTES))
        actor = Actor(subject=caller.subject, role=caller.role.value)
        return Call(controller=controller, actor=actor, path=request.path_params, query=dict(request.query_params), order=order)


class Refused(ActwrightError):  # noqa: N818
    """A request that is not carried out."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.code = status, code


def check_origin(request: Request) -> None:
    """Raises `Refused` for a request that a browser sends for another site."""
    if is_foreign_origin(request.headers.get("origin"), request.headers.get("host")):
        raise Refused(403, "ORIGIN", "a page of another site may not ask this controller")


def refusal(status: int, code: str, reason: str) -> JSONResponse:
    """{code, reason}."""
    return JSONResponse({"code": code, "reason": reason[:1_000]}, status_code=status)


def answer_to(error: ActwrightError) -> JSONResponse:
    """The refusal that an error means."""
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return refusal(status, code, str(error))
    logger.error("fleet.request_failed", exc_info=error)
    return refusal(500, "INTERNAL", "the controller failed; its log has the details")


def _parsed(kind: type[Any], body: bytes) -> Any:
    try:
        return from_document(kind, json.loads(body) if body else {}, where="body")
    except (ValueError, RecursionError) as error:
        raise Refused(400, "DECODE", str(error)[:600]) from error
