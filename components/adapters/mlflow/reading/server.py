"""MLflow's server, asked by its REST API (version 2.0, https://mlflow.org/docs/latest/rest-api.html)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from components.adapters.http import NoAnswerError, Reply, request
from components.adapters.mlflow.reading.points import curve_of
from components.adapters.mlflow.reading.records import RUN_TAG, Curve, ModelRow, RunRow, VersionRow
from model_core.spec.errors import TrackingError

_A_PAGE = 1000  # runs, MLflow's default; it takes 50,000 at most
_A_HISTORY = 25_000  # points of a curve, the most that MLflow gives at once


class ServerReader:
    """Reads the server at `url`. See `TrackingReader`. authorization: the value of that header, "" for none."""

    def __init__(self, url: str, experiment: str, *, authorization: str = "", timeout_s: float = 10.0) -> None:
        self._url, self._experiment, self._timeout_s = url.rstrip("/"), experiment, timeout_s
        self._headers = {"Authorization": authorization} if authorization else {}

    def runs(self, *, tags: Mapping[str, str], limit: int) -> list[RunRow]:
        """The newest runs that carry all of `tags`."""
        asked = " and ".join(f"tags.`{key}` = {_quoted(value)}" for key, value in tags.items())
        return self._search(asked, limit)

    def run(self, digits: str) -> list[RunRow]:
        """The runs whose id begins with `digits`."""
        ours = self._search(f"tags.`{RUN_TAG}` LIKE {_quoted(digits + '%')}", _A_PAGE)
        theirs = self._search(f"attributes.run_id LIKE {_quoted(digits + '%')}", _A_PAGE)
        return ours + [run for run in theirs if run not in ours]

    def curves(self, run: RunRow, names: Sequence[str], *, most: int) -> list[Curve]:
        """These curves of a run, a question and more for each."""
        made = []
        for name in (name for name in names if name in run.metrics):
            asked = {"run_id": run.server_id, "metric_key": name, "max_results": _A_HISTORY}
            points = [
                (int(point.get("step", 0)), float(point["value"]), int(point["timestamp"]))
                for page in self._pages("GET", "metrics/get-history", asked)
                for point in page.get("metrics", ())
            ]
            made.append(curve_of(name, [(step, value) for step, value, _ in sorted(points, key=lambda point: point[2])], most))
        return made

    def model(self, name: str) -> ModelRow | None:
        """The registered model."""
        answer = self._ask("GET", "registered-models/get", {"name": name}, absent="RESOURCE_DOES_NOT_EXIST")
        if answer is None:
            return None
        found = answer["registered_model"]
        aliases = {row["alias"]: int(row["version"]) for row in found.get("aliases", ())}
        return ModelRow(name=name, tags=_pairs(found.get("tags", ())), aliases=aliases)

    def versions(self, name: str = "") -> Sequence[VersionRow]:
        """Every version."""
        asked: dict[str, Any] = {"max_results": _A_PAGE} | ({"filter": f"name = {_quoted(name)}"} if name else {})
        found = [
            VersionRow(name=row["name"], version=int(row["version"]), tags=_pairs(row.get("tags", ())))
            for page in self._pages("GET", "model-versions/search", asked)
            for row in page.get("model_versions", ())
        ]
        return sorted(found, key=lambda row: (row.name, row.version))

    def _search(self, asked: str, limit: int) -> list[RunRow]:
        name = {"experiment_name": self._experiment}
        experiment = self._ask("GET", "experiments/get-by-name", name, absent="RESOURCE_DOES_NOT_EXIST")
        if experiment is None:
            return []
        wanted = {
            "experiment_ids": [experiment["experiment"]["experiment_id"]],
            "filter": asked,
            "max_results": min(limit, _A_PAGE),
            "order_by": ["attributes.start_time DESC"],
        }
        found: list[RunRow] = []
        for page in self._pages("POST", "runs/search", wanted):
            found += [_run_row(row) for row in page.get("runs", ())]
            if len(found) >= limit:
                break
        return found[:limit]

    def _pages(self, method: str, path: str, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            page = self._ask(method, path, {**asked, **({"page_token": token} if token else {})}) or {}
            yield page
            token = page.get("next_page_token", "")
            if not token:
                return

    def _ask(self, method: str, path: str, asked: Mapping[str, Any], *, absent: str = "") -> dict[str, Any] | None:
        """MLflow's answer; None where it says the error code `absent`."""
        where = f"{self._url}/api/2.0/mlflow/{path}"
        try:
            if method == "GET":
                answer = request("GET", f"{where}?{urlencode(asked)}", timeout_s=self._timeout_s, headers=self._headers)
            else:
                headers = {**self._headers, "Content-Type": "application/json"}
                answer = request("POST", where, timeout_s=self._timeout_s, headers=headers, body=json.dumps(asked).encode())
            told = answer.json()
        except (NoAnswerError, ValueError) as error:
            raise TrackingError(
                f"MLflow at {self._url} does not answer as MLflow does ({type(error).__name__}: {error}); start it (`actwright up`) or "
                "correct ACTWRIGHT_MLFLOW_URI"
            ) from error
        if answer.ok:
            return told
        if absent and told.get("error_code") == absent:
            return None
        raise TrackingError(f"MLflow at {self._url} refuses {path}: {_reason(answer, told)}")


def _reason(answer: Reply, told: Mapping[str, Any]) -> str:
    return f"{answer.status} {told.get('error_code', '')} {told.get('message', '')}".strip()


def _quoted(value: str) -> str:
    """A string of MLflow's filters, which know no way to write a quotation mark of the kind that encloses it."""
    if "'" not in value:
        return f"'{value}'"
    if '"' in value:
        raise TrackingError(f"MLflow's filters cannot hold both kinds of quotation marks, got {value!r}. Fix: name it by its digits")
    return f'"{value}"'


def _pairs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {row["key"]: row["value"] for row in rows}


def _run_row(row: Mapping[str, Any]) -> RunRow:
    info, data = row["info"], row.get("data", {})
    return RunRow(
        server_id=info["run_id"],
        name=info.get("run_name", ""),
        status=info["status"].lower(),
        started_ms=int(info.get("start_time", 0)),
        ended_ms=int(info["end_time"]) if info.get("end_time") else None,
        tags=_pairs(data.get("tags", ())),
        params=_pairs(data.get("params", ())),
        metrics=_pairs(data.get("metrics", ())),
    )
