"""The OpenAPI document of the API, made of the endpoints; the pages' TypeScript types are made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec

from flows.web.http.endpoint import Content, Endpoint, Events

_NAME = re.compile(r"\{(\w+)(?::\w+)?\}")


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1 of these endpoints."""
    kinds: set[type] = {kind for one in endpoints for kind in (one.query, one.body, one.event, one.answer) if _is_document(kind)}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    schemas, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    by_kind = dict(zip(ordered, schemas, strict=True))
    given = {kind.__name__ for one in endpoints for kind in (one.query, one.body) if kind is not None}
    for name in components.keys() - given:  # an answer has every field, also those with a default
        components[name]["required"] = list(components[name].get("properties", {}))
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(_NAME.sub(r"{\1}", one.path), {})[one.method.lower()] = _operation(one, by_kind, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Actwright console", "version": "1"},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(components.items())), "Refusal": _REFUSAL},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "actwright-console"},
            },
        },
    }


_REFUSAL: Mapping[str, Any] = {
    "type": "object",
    "required": ["code", "reason"],
    "properties": {"code": {"type": "string"}, "reason": {"type": "string"}},
}


def _operation(one: Endpoint, by_kind: Mapping[type, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [_parameter("path", name, {"type": "string"}, required=True) for name in _NAME.findall(one.path)]
    if one.query is not None:
        parameters += [_parameter("query", name, schema) for name, schema in components[one.query.__name__]["properties"].items()]
    told: dict[str, Any] = {
        "summary": one.does,
        "x-role": str(one.role),
        "security": [{"token": []}, {"session": []}],
        "responses": {"200": {"description": "done", "content": _content(one, by_kind)}, "default": _REFUSED},
    }
    if parameters:
        told["parameters"] = parameters
    if one.body is not None:
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[one.body]}}}
    return told


_REFUSED: Mapping[str, Any] = {
    "description": "refused",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
}


def _content(one: Endpoint, by_kind: Mapping[type, Any]) -> dict[str, Any]:
    if one.answer is Content:
        return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    if one.answer is Events:
        assert one.event is not None
        return {"text/event-stream": {"schema": by_kind[one.event]}}
    return {"application/json": {"schema": by_kind[one.answer]}}


def _parameter(where: str, name: str, schema: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema}


def _is_document(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and kind not in (Content, Events)
