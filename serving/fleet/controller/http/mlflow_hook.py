"""MLflow's webhook: a hint that an alias was moved. The alias is read again, and what it names is put on record as a request.

Deliveries come out of order, twice, or not at all (docs/library_facts.md), so nothing in their body is believed but the model's name, and
the aliases of all models are read every minute besides. The signature is "v1,<base64 HMAC-SHA256 of 'id.timestamp.body'>" of MLflow's own
headers; one that is older than five minutes is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model_core.spec.errors import ActwrightError
from serving.fleet.controller.http.endpoint import Refused, answer_to, refusal
from serving.fleet.controller.service import Controller
from serving.fleet.controller.store.releases import RolloutRequest, request
from serving.gateway.http.client_request import read_body

PATH = "/v1/hooks/mlflow"
_MOST_BYTES, _MOST_READ_BYTES, _OLDEST_S, _TIMEOUT_S = 64 * 1024, 16 * 2**20, 300.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowHook:
    """secret: of the webhook, "" where none was agreed: then nothing is accepted. tracking_url: MLflow's server, "" for none. alias: which
    one asks for rollouts."""

    controller: Controller
    secret: str = ""
    tracking_url: str = ""
    alias: str = "champion"

    async def serve(self, http: Request) -> Response:
        """One delivery. 200 once the alias was read, whatever it names; 503 where MLflow does not answer, so that it delivers again."""
        try:
            body = await read_body(http, _MOST_BYTES)
            self._check(http, body)
            return await self._asked(_model_in(body))
        except Refused as refused:
            return refusal(refused.status, refused.code, str(refused))
        except ActwrightError as error:
            return answer_to(error)

    def _check(self, http: Request, body: bytes) -> None:
        """Raises `Refused` for a delivery that is not signed with the secret, or old."""
        given = http.headers.get("x-mlflow-signature", "")
        delivery, stamp = http.headers.get("x-mlflow-delivery-id", ""), http.headers.get("x-mlflow-timestamp", "")
        scheme, _, encoded = given.partition(",")
        try:
            sent, age_s = base64.b64decode(encoded, validate=True), self.controller.clock() - float(stamp)
        except (binascii.Error, ValueError) as error:
            raise Refused(401, "SIGNATURE", "expected the headers X-MLflow-Signature, -Delivery-Id and -Timestamp") from error
        expected = hmac.new(self.secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
        if not self.secret or scheme != "v1" or not hmac.compare_digest(sent, expected):
            raise Refused(401, "SIGNATURE", "the delivery is not signed with the secret of this controller")
        if not abs(age_s) <= _OLDEST_S:
            raise Refused(401, "SIGNATURE", f"the delivery is {age_s:.0f} s old, at most {_OLDEST_S:.0f} s are accepted")

    async def _asked(self, model: str) -> Response:
        if not self.tracking_url:
            raise Refused(503, "NOT_READY", "no MLflow server was named (--mlflow URL), so the alias cannot be read again")
        version = await asyncio.get_running_loop().run_in_executor(None, read_alias, self.tracking_url, model, self.alias)
        is_new = version is not None and await self._request(model, version)
        return JSONResponse({"model": model, "version": version, "requested": is_new})

    async def look(self) -> None:
        """Put on record what the alias of each model names now. Raises `Refused` where MLflow does not answer."""
        named = await asyncio.get_running_loop().run_in_executor(None, read_aliases, self.tracking_url, self.alias)
        for model, version in named.items():
            await self._request(model, version)

    async def _request(self, model: str, version: str) -> bool:
        asked = RolloutRequest(model=model, version=version, alias=self.alias, asked_at_s=self.controller.clock(), source="mlflow")
        return await self.controller.do(lambda db: request(db, asked))


def _model_in(body: bytes) -> str:
    try:
        data = json.loads(body)["data"]
        return str(data["name"])[:256]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(400, "DECODE", "expected a delivery of MLflow about a registered model's alias") from error


def read_alias(tracking_url: str, model: str, alias: str) -> str | None:
    """The version that an alias names now; None for none. Raises `Refused` where MLflow does not answer."""
    answer = _answer(tracking_url, "registered-models/alias", {"name": model, "alias": alias})
    if answer is None:
        return None
    try:
        return str(answer["model_version"]["version"])
    except (KeyError, TypeError) as error:
        raise _no_answer(tracking_url, error) from error


def read_aliases(tracking_url: str, alias: str, *, page_size: int = 200) -> dict[str, str]:
    """Model -> the version that its alias names now, of all models that have one. Raises `Refused` where MLflow does not answer."""
    named: dict[str, str] = {}
    page: dict[str, str] = {}
    while True:
        answer = _answer(tracking_url, "registered-models/search", {"max_results": str(page_size), **page})
        try:
            for model in answer.get("registered_models", ()):
                named |= {str(model["name"])[:256]: str(one["version"]) for one in model.get("aliases", ()) if one["alias"] == alias}
            page = {"page_token": str(answer["next_page_token"])} if answer.get("next_page_token") else {}
        except (KeyError, TypeError, AttributeError) as error:
            raise _no_answer(tracking_url, error) from error
        if not page:
            return named


def _answer(tracking_url: str, path: str, asked: Mapping[str, str]) -> Any:
    """What MLflow answers to a GET, as JSON; None where it knows no such thing. Raises `Refused` where it does not answer."""
    url = f"{tracking_url.rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(asked)}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
            return json.loads(reply.read(_MOST_READ_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Refused(503, "NOT_READY", f"MLflow at {tracking_url} answered {error.code}") from error
    except (OSError, ValueError) as error:
        raise _no_answer(tracking_url, error) from error


def _no_answer(tracking_url: str, error: Exception) -> Refused:
    return Refused(503, "NOT_READY", f"MLflow at {tracking_url} did not answer: {type(error).__name__}")
