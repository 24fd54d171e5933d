"""The BentoML service: the gateway's ASGI application around the bundle beside the packed code.

BentoML answers /livez, /readyz and /metrics itself, before any mounted application; the hooks below make them
report the gateway's state. The model is loaded by the gateway's own thread, so the process is alive at once and ready later.
The authentication middleware guards BentoML's own endpoints too.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, cast

import bentoml

from model_core.access import Tokens, check_binding
from serving.gateway.app import create_app
from serving.gateway.http.auth_middleware import AuthMiddleware
from serving.gateway.http.malloc import keep_freed
from serving.gateway.http.uvicorn_options import use_everywhere
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.operations.binding import bound_host
from serving.gateway.operations.environment import read_environment
from serving.gateway.sessions.gateway import Gateway, LoadedModel

logger = logging.getLogger(__name__)

_environment = read_environment(os.environ)  # a process entry point: the one place that reads it


def _load() -> LoadedModel:
    return open_bundle(_environment.bundle or Path(__file__).resolve().parents[2] / "bundle")


logging.getLogger("serving").setLevel(logging.INFO)
use_everywhere()
keep_freed()
tokens = Tokens.from_environment(os.environ)
_host = bound_host(sys.argv, os.environ)
if _host is not None:
    check_binding(_host, tokens)
gateway = Gateway(_load, _environment.limits, instance=_environment.instance, tokens=tokens, ties=_environment.fleet.ties)
app = create_app(gateway, field_maps=_environment.field_maps, kill_list=_environment.fleet.kill_list)


@bentoml.service(name="actwright-policy", workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
@bentoml.asgi_app(app, path="/")
class PolicyService:
    """One packed model. One worker: sessions live in its memory, and inference has its own thread."""

    async def __is_ready__(self) -> bool:
        return gateway.is_ready

    async def __metrics__(self, text: str) -> str:
        return text if "actwright_ready" in text else text + gateway.metrics.text()


PolicyService.add_asgi_middleware(cast(Any, AuthMiddleware), tokens=tokens)  # pyright: ignore[reportAttributeAccessIssue]
