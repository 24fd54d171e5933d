"""The controller's HTTP service, as a Starlette application.

POST /v1/cells/{cell}/report   a signed report, answered by a signed desired state; the signature is the right to report
POST /v1/hooks/mlflow          MLflow's webhook; its HMAC is the right to hint
GET  /v1/...                   role observe; POST /v1/...: operate or admin (`http.reads`, `http.orders`)
GET  /openapi.json /metrics    role observe
GET  /v1/kill-list             the signed list of kills that policy services poll; open, for its signature is what counts
GET  /livez /readyz            open
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from model_core.access import Role, Tokens
from model_core.spec.errors import ActwrightError, TrackingError
from model_core.spec.fleet.signatures import MOST_BYTES, sealed
from serving.fleet.controller.http.endpoint import Endpoint, answer_to
from serving.fleet.controller.http.mlflow_hook import PATH, MlflowHook
from serving.fleet.controller.http.openapi import openapi_document
from serving.fleet.controller.http.orders import order_endpoints
from serving.fleet.controller.http.ran import ran_endpoints
from serving.fleet.controller.http.reads import cells_by_state, open_gauges, read_endpoints
from serving.fleet.controller.http.requests import request_endpoints
from serving.fleet.controller.metrics import CONTENT_TYPE
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.kill_list import next_kill_list
from serving.fleet.controller.store.kills import kills
from serving.gateway.http.auth_middleware import AuthMiddleware
from serving.gateway.http.client_request import read_body

logger = logging.getLogger(__name__)
KILL_LIST, _SAME_LIST_S = "/v1/kill-list", 0.5
_OFFERS_S, _ALIASES_S = 30.0, 60.0
_OPEN = frozenset({"/livez", "/readyz", KILL_LIST})


def create_app(controller: Controller, tokens: Tokens | None, *, look_every_s: float = 1.0, hook: MlflowHook | None = None) -> Starlette:
    """An application over `controller`, which it closes with itself. look_every_s: 0 for a controller that somebody else makes look. hook:
    None where no webhook is accepted."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        turns = [_look(controller, look_every_s), _read_offers(controller), _read_aliases(hooked)] if look_every_s else []
        tasks = [asyncio.ensure_future(turn) for turn in turns]
        yield
        for task in tasks:
            task.cancel()
        controller.close()

    endpoints, hooked = all_endpoints(), hook or MlflowHook(controller=controller)
    served = _Served(controller)
    routes = [
        Route("/v1/cells/{cell}/report", served.report, methods=["POST"]),
        *(one.route(controller) for one in endpoints),
        Route(KILL_LIST, served.kill_list),
        Route("/openapi.json", served.openapi),
        Route("/metrics", served.metrics),
        Route("/livez", served.livez),
        Route("/readyz", served.readyz),
        Route(PATH, hooked.serve, methods=["POST"]),
    ]
    roles = {(one.method, one.path.partition("{")[0], one.path.rpartition("}")[2]): one.role for one in endpoints}
    needed = _RoleTable(roles)
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(AuthMiddleware, tokens=tokens, needed=needed)])


def all_endpoints() -> list[Endpoint]:
    """The whole table, but for the report."""
    return [*read_endpoints(), *ran_endpoints(), *order_endpoints(), *request_endpoints()]


class _RoleTable:
    """The role of a request, from its method and path alone; what no endpoint has needs admin."""

    def __init__(self, roles: dict[tuple[str, str, str], Role | None]) -> None:
        self._roles = roles

    def __call__(self, scope: MutableMapping[str, Any], path: str) -> Role | None:
        if path in _OPEN or (path.startswith("/v1/cells/") and path.endswith("/report")) or path == PATH:
            return None
        method = str(scope.get("method", ""))
        found = [role for (verb, begins, ends), role in self._roles.items() if verb == method and _fits(path, begins, ends)]
        if found:
            return max((role for role in found if role), key=list(Role).index, default=None)
        return Role.OBSERVE if method in {"GET", "HEAD", "OPTIONS"} else Role.ADMIN


def _fits(path: str, begins: str, ends: str) -> bool:
    return path == begins if begins == ends else path.startswith(begins) and path.endswith(ends)


class _Served:
    """The endpoints that are not of the table."""

    def __init__(self, controller: Controller) -> None:
        self._controller, self._told = controller, {"instance": controller.instance}
        self._list, self._listed_at = b"", float("-inf")

    async def report(self, request: Request) -> Response:
        """One report, one answer."""
        begun, metrics = time.perf_counter(), self._controller.metrics
        try:
            answer = await self._controller.report(request.path_params["cell"], await read_body(request, MOST_BYTES))
        except ActwrightError as error:
            refused = answer_to(error)
            metrics.reports.labels(str(refused.status_code)).inc()
            return refused
        except ClientDisconnect:
            return Response(status_code=499)
        metrics.reports.labels("200").inc()
        metrics.report_seconds.observe(time.perf_counter() - begun)
        return Response(answer, media_type="application/json")

    async def kill_list(self, _: Request) -> Response:
        """The list of now, signed; the same one for half a second."""
        if time.monotonic() - self._listed_at > _SAME_LIST_S:
            listed = await self._controller.do(lambda db: next_kill_list(db, self._controller.clock()))
            self._list, self._listed_at = sealed(listed, self._controller.key), time.monotonic()
        return Response(self._list, media_type="application/json")

    async def openapi(self, _: Request) -> Response:
        """The document that docs/fleet_api.json holds too."""
        return JSONResponse(openapi_document(all_endpoints()))

    async def metrics(self, _: Request) -> Response:
        """The registry, after the gauges were read from the tables."""
        metrics = self._controller.metrics
        found = await self._controller.do(
            lambda db: (cells_by_state(db, self._controller), len(kills(db, in_force=True)), open_gauges(db, self._controller))
        )
        metrics.set_gauges(*found)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    async def livez(self, _: Request) -> Response:
        """Whether the process answers."""
        return PlainTextResponse("alive\n")

    async def readyz(self, _: Request) -> Response:
        """Whether the database answers too."""
        try:
            await self._controller.do(lambda db: kills(db, in_force=True))
        except TrackingError:
            return JSONResponse({**self._told, "state": "waiting", "reason": "the database does not answer"}, status_code=503)
        return JSONResponse({**self._told, "state": "ready", "reason": ""})


async def _read_offers(controller: Controller) -> None:
    while controller.offers is not None:
        try:
            await controller.read_offers()
        except Exception:
            controller.metrics.failures.labels("offers").inc()
            logger.exception("fleet.offers_failed")
        await asyncio.sleep(_OFFERS_S)


async def _read_aliases(hook: MlflowHook) -> None:
    while hook.tracking_url:
        try:
            await hook.look()
        except Exception:
            hook.controller.metrics.failures.labels("aliases").inc()
            logger.exception("fleet.aliases_failed")
        await asyncio.sleep(_ALIASES_S)


async def _look(controller: Controller, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await controller.look()
        except Exception:  # the next look may find the database again
            controller.metrics.failures.labels("look").inc()
            logger.exception("fleet.look_failed")
