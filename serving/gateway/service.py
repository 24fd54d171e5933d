"""The BentoML service: our ASGI application around the bundle that lies beside the packed code.

BentoML answers /livez, /readyz and /metrics itself, before any mounted application; its hooks below make those three
mean what they must. The model is loaded by the gateway's own thread, so the process is alive at once and ready later.
The doorkeeper stands in front of BentoML's own endpoints too.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, cast

import bentoml

from serving.gateway.app import create_app
from serving.gateway.http.auth_middleware import Doorkeeper
from serving.gateway.http.malloc import keep_freed
from serving.gateway.http.uvicorn_options import use_everywhere
from serving.gateway.inference.bundle import open_bundle
from serving.gateway.operations.limits import Limits
from serving.gateway.operations.tokens import Tokens, bound_host, check_binding
from serving.gateway.sessions.gateway import Gateway, LoadedModel

logger = logging.getLogger(__name__)

# A process entry point: these are its whole environment, beside the tokens' (`serving.gateway.operations.tokens`). BUNDLE serves a
# bundle that lies elsewhere; INSTANCE is repeated in /v1/status, so that whoever started this process knows that it is this
# one who answers on its port; LIMITS is JSON, as `serving.gateway.operations.limits` reads it; DIALECTS names a file of field maps
# (`serving.gateway.dialects.fields`).
BUNDLE_VARIABLE = "ACTWRIGHT_BUNDLE"
INSTANCE_VARIABLE = "ACTWRIGHT_INSTANCE"
LIMITS_VARIABLE = "ACTWRIGHT_LIMITS"
DIALECTS_VARIABLE = "ACTWRIGHT_DIALECTS"


def _load() -> LoadedModel:
    beside = Path(__file__).resolve().parents[2] / "bundle"
    return open_bundle(Path(os.environ.get(BUNDLE_VARIABLE) or beside))


logging.getLogger("serving").setLevel(logging.INFO)
use_everywhere()
keep_freed()
tokens = Tokens.from_environment(os.environ)
_host = bound_host(sys.argv, os.environ)
if _host is not None:
    check_binding(_host, tokens)
limits = Limits.from_text(os.environ.get(LIMITS_VARIABLE, ""))
gateway = Gateway(_load, limits, instance=os.environ.get(INSTANCE_VARIABLE, ""), tokens=tokens)
app = create_app(gateway, field_maps=Path(os.environ[DIALECTS_VARIABLE]) if os.environ.get(DIALECTS_VARIABLE) else None)


@bentoml.service(name="actwright-policy", workers=1, traffic={"timeout": 60, "max_concurrency": 1024})
@bentoml.asgi_app(app, path="/")
class PolicyService:
    """One packed model. One worker: sessions live in its memory, and inference has its own thread."""

    async def __is_ready__(self) -> bool:
        return gateway.is_ready

    async def __metrics__(self, text: str) -> str:
        return text if "actwright_ready" in text else text + gateway.metrics.text()


PolicyService.add_asgi_middleware(cast(Any, Doorkeeper), tokens=tokens)
