"""The OpenAPI document of the controller, made from the table of endpoints and the types that they take and give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_core.spec.fleet.documents import CellReport, DesiredState
from model_core.spec.fleet.kept import json_schemas
from model_core.spec.fleet.kill_list import KillList
from serving.fleet.controller.http.endpoint import Endpoint

_REFERENCES = "#/components/schemas/{name}"
_ABOUT = "Cells report with POST /v1/cells/{cell}/report: a signed `CellReport`, answered by a signed `DesiredState` (docs/fleet.md)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not carried out."""

    code: str
    reason: str


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document, as JSON."""
    types = [kind for one in endpoints for kind in (one.takes, one.gives) if kind is not None]
    types += [Refusal, CellReport, DesiredState, KillList]
    schemas, components = json_schemas(types, _REFERENCES)
    by_type = dict(zip(map(str, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actwright fleet controller", "version": "1", "description": _ABOUT},
        "paths": dict(sorted({**paths, **_signed_paths(by_type)}.items())),
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _signed_paths(schemas: dict[str, Any]) -> dict[str, Any]:
    """The two endpoints whose right is a signature."""
    sealed = {
        "type": "object",
        "description": "a document and the Ed25519 signature of its canonical bytes: model_core/spec/fleet/signatures.py",
        "required": ["body", "key", "kind", "signature"],
        "properties": {"key": {"type": "string"}, "kind": {"type": "string"}, "signature": {"type": "string"}, "form": {"const": 1}},
    }

    def of(kind: type[Any]) -> dict[str, Any]:
        return {"application/json": {"schema": {**sealed, "properties": {**sealed["properties"], "body": schemas[str(kind)]}}}}

    refused = {"description": "refused", "content": {"application/json": {"schema": schemas[str(Refusal)]}}}
    cell = {"name": "cell", "in": "path", "required": True, "schema": {"type": "string"}}
    report = {
        "summary": "A cell reports, and is told what is proposed to it.",
        "parameters": [cell],
        "requestBody": {"required": True, "content": of(CellReport)},
        "responses": {"200": {"description": "on record", "content": of(DesiredState)}, "default": refused},
    }
    hook = {
        "summary": "MLflow says that an alias was moved: it is read again, and a rollout is requested. Signed by HMAC in MLflow's headers.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"description": "the alias was read"}, "default": refused},
    }
    listed = {
        "summary": "What is killed, signed, for policy services to poll.",
        "responses": {"200": {"description": "the list of now", "content": of(KillList)}},
    }
    return {"/v1/cells/{cell}/report": {"post": report}, "/v1/hooks/mlflow": {"post": hook}, "/v1/kill-list": {"get": listed}}


def _operation(one: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    refused = {"description": "refused", "content": {"application/json": {"schema": schemas[str(Refusal)]}}}
    good: dict[str, Any] = {"description": "done"}
    if one.gives is not None:
        good["content"] = {"application/json": {"schema": schemas[str(one.gives)]}}
    told: dict[str, Any] = {"summary": one.summary, "responses": {"200": good, "default": refused}}
    names = re.findall(r"\{(\w+)\}", one.path)
    if names:
        told["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    if one.takes is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas[str(one.takes)]}}}
    if one.role is not None:
        told |= {"security": [{"token": []}], "x-role": one.role.value}
    return told
