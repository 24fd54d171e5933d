"""Other projects' protocols over the same gateway, so that their public clients drive it unmodified.

    WS   / and /openpi   openpi: metadata first, then one msgpack map in, one chunk out
    GET  /act            health; POST /act: json_numpy, in MolmoAct2's form (a chunk) or OpenVLA's (one action)
    WS   /vla-eval       vla-eval: HELLO, EPISODE_START, OBSERVATION -> ACTION, one action an observation, EPISODE_END

Each file only translates: sessions, deadlines, admission and refusals are the gateway's. The meaning of a client's field is
data (`fields.FieldMap`); an observation that does not fit the contract is refused, never adjusted.
"""

from __future__ import annotations

from pathlib import Path

from starlette.routing import BaseRoute

from serving.gateway.dialects import act, openpi, vla_eval
from serving.gateway.dialects.backend import Backend
from serving.gateway.dialects.fields import FieldMap, read_field_maps
from serving.gateway.sessions.gateway import Gateway

DEADLINE_S = 20.0  # their clients wait 30 s or for ever, and send no deadline


def dialect_routes(gateway: Gateway, *, maps: Path | None = None, deadline_s: float = DEADLINE_S) -> list[BaseRoute]:
    """Routes of every dialect. maps: a JSON file of field maps, by dialect.

    Raises SpecError for a file that is none.
    """
    found = {} if maps is None else read_field_maps(maps)
    backend = Backend(gateway, deadline_s=deadline_s)
    return [
        *openpi.routes(backend, found.get("openpi", FieldMap())),
        *act.routes(backend, found.get("act", FieldMap())),
        *vla_eval.routes(backend, found.get("vla-eval", FieldMap())),
    ]
