"""F35: every endpoint without credentials, and every endpoint by a method that must change nothing.

The endpoints are read from the application itself, so one that is added later is tested too.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from starlette.routing import Route

from serving.gateway.sessions.gateway import Gateway
from tests.faults.asgi import call
from tests.faults.fuzz import ADMIN, WATCHER, _tokens, act_seeds, admin_seeds, application
from tests.faults.mutate import mutants
from tests.faults.verdicts import covers

OPEN = {"/livez", "/readyz"}
READING, WRITING = ("GET", "HEAD", "OPTIONS"), ("POST", "PUT", "PATCH", "DELETE")
SEED = 11


def paths(app: Any) -> list[str]:
    return sorted({route.path for route in app.routes if isinstance(route, Route)})


def state(gateway: Gateway) -> str:
    service = gateway.service_state
    return json.dumps([service.state, service.draining, service.kills.document(), sorted(gateway.sessions), gateway.is_ready])


async def ready(gateway: Gateway) -> str:
    while not gateway.is_ready:
        await asyncio.sleep(0.01)
    return state(gateway)


@covers("F35", I8="every HTTP endpoint, by every method, with mutated bodies: 401 without a known token, and nothing changes")
def test_nothing_is_open_without_credentials(record_property: pytest.RecordProperty) -> None:
    async def scene() -> None:
        app, gateway = application(_tokens())
        bodies = mutants([*admin_seeds(), *act_seeds()], SEED, text=True, head=0)
        wrong: tuple[list[tuple[bytes, bytes]], ...] = (
            [],
            [(b"authorization", b"Bearer wrong")],
            [(b"authorization", b"Basic YWRtaW46YWRtaW4=")],
            [(b"authorization", f"Bearer {ADMIN}".encode()), (b"authorization", f"Bearer {ADMIN}".encode())],  # two headers: neither counts
        )
        count = 0
        async with app.router.lifespan_context(app):
            before = await ready(gateway)
            for path in [*paths(app), "/v1/admin/", "/v1/admin/none", "/v1/admin/kill/", "//v1/admin/kill"]:
                for method in (*READING, *WRITING):
                    for headers in wrong:
                        status, _ = await call(app, method, path, bodies.next(), headers)
                        assert status == 401 or path in OPEN, (method, path, status)
                        count += 1
            assert state(gateway) == before
        record_property("requests", count)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:3000", "", 200),
        ("localhost:3000", "http://localhost:3000", 200),
        ("0.0.0.0:3000", "", 200),
        ("rebound.example:3000", "", 403),
        ("[", "", 403),
        ("127.0.0.1:3000", "http://rebound.example", 403),
        ("127.0.0.1:3000", "http://127.0.0.1:8080", 403),
        ("127.0.0.1:3000", "null", 403),
    ],
)
@covers("F35", I8="a page of another site in a browser of this machine orders nothing of a service without tokens")
def test_a_page_of_another_site_orders_nothing(host: str, origin: str, status: int) -> None:
    async def scene() -> None:
        app, gateway = application(None)
        headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
        async with app.router.lifespan_context(app):
            await ready(gateway)
            assert (await call(app, "POST", "/v1/admin/drain", b"{}", headers))[0] == status
            assert bool(gateway.service_state.draining) == (status == 200)

    asyncio.run(scene())


@covers("F35", I8="GET, HEAD and OPTIONS change nothing, whoever sends them; an order by GET is 405; a reader's POST is 403")
def test_reading_changes_nothing() -> None:
    async def scene() -> None:
        app, gateway = application(_tokens())
        admin, reader = ([(b"authorization", f"Bearer {token}".encode())] for token in (ADMIN, WATCHER))
        async with app.router.lifespan_context(app):
            before = await ready(gateway)
            for path in paths(app):
                for method in READING:
                    status, _ = await call(app, method, path, b'{"reason": "by a link"}', admin)
                    assert status < 500, (method, path)
                    assert status == 405 or "/admin/" not in path
                    assert state(gateway) == before, (method, path)
                if "/admin/" in path:
                    assert (await call(app, "POST", path, random.Random(SEED).randbytes(64), reader))[0] == 403

    asyncio.run(scene())
