"""The tracking server of a run, as a script: MLflow's REST API on the loopback interface, only for this run.

As on Azure ML, the ranks of a job log to a server, which alone writes the store. Requests that every training script
sends are answered here, from `store.py`, with the standard library. Anything else is answered by MLflow's own file
store, on the same files; MLflow is imported, from the Python of the job, only when that is needed. The server ends with
the run's supervisor, which holds the other end of its stdin.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if __name__ == "__main__":
    # Import this package by its path: the job's Python need not have it, and must not get the packages next to it.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from azml_dist.local.tracking import store
from azml_dist.local.tracking.store import Refused

if __name__ == "__main__":
    del sys.path[0]

if TYPE_CHECKING:
    from azml_dist.local.tracking.api import Api

API = "/api/2.0/mlflow/"
_BODY_LIMIT = 1 << 26

Json = dict[str, Any]


class Tracker:
    """Answers requests about the runs in the store of a root, one at a time."""

    def __init__(self, config: Json) -> None:
        self._run = Path(config["run"])
        self._root = self._run.parents[3]
        self._service: Json = config["service"]
        self._lock = threading.Lock()
        self._api: Api | None = None

    def answer(self, method: str, path: str, query: dict[str, list[str]], sent: Json) -> Json:
        """The answer of MLflow's own server; raises `Refused`."""
        known = {
            ("GET", API + "runs/get"): self._get,
            ("POST", API + "runs/update"): self._update,
            ("POST", API + "runs/log-metric"): self._log_metric,
            ("POST", API + "runs/log-parameter"): self._log_parameter,
            ("POST", API + "runs/log-batch"): self._log_batch,
            ("POST", API + "runs/set-tag"): self._set_tag,
        }
        asked = {**{key: values[0] for key, values in query.items()}, **sent}
        with self._lock:
            try:
                if handle := known.get((method, path)):
                    with store.locked(self._root):
                        found = handle(asked)
                    if found is not None:
                        return found
                return self._by_mlflow(method, path, query, sent)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise Refused(f"a name cannot also be a prefix of other names: {error}") from error
            except OSError as error:  # MLflow does not retry after 507
                raise Refused(f"the MLflow store cannot be written: {error}", "INTERNAL_ERROR", 507) from error

    def _get(self, asked: Json) -> Json | None:
        run = self._found(asked)
        if run != self._run or any((run / name).exists() for name in ("inputs", "outputs")):
            return None  # created by MLflow, or a run with data sets and models
        return {"run": {"info": store.info(run), "data": store.data(run)}}

    def _update(self, asked: Json) -> Json | None:
        """Only the service sets the final status of a job's own run: azureml-mlflow (1.62) does not send it."""
        run = self._found(asked)
        if run != self._run:
            return None
        if asked.get("run_name"):
            store.rename(run, str(asked["run_name"]))
        return {"run_info": store.info(run)}

    def _log_metric(self, asked: Json) -> Json | None:
        if _of_a_model(asked):
            return None
        store.log_metrics(self._found(asked), [asked])
        return {}

    def _log_parameter(self, asked: Json) -> Json:
        run = self._found(asked)
        store.write_parameters(run, store.check_parameters(run, [asked], self._service["parameters"]))
        return {}

    def _log_batch(self, asked: Json) -> Json | None:
        run, metrics = self._found(asked), _entities(asked, "metrics")
        if any(map(_of_a_model, metrics)):
            return None
        self._check_rows(metrics)
        new = store.check_parameters(run, _entities(asked, "params"), self._service["parameters"])
        store.set_tags(run, _entities(asked, "tags"))
        store.write_parameters(run, new)
        store.log_metrics(run, metrics)
        return {}

    def _set_tag(self, asked: Json) -> Json:
        store.set_tags(self._found(asked), [asked])
        return {}

    def _check_rows(self, metrics: list[Json]) -> None:
        limit, keys = self._service["metric_rows"], [str(metric.get("key")) for metric in metrics]
        for key in set(keys):
            if (count := keys.count(key)) > limit:
                raise Refused(  # in the service's own words (observed)
                    "A field of the entity is over the size limit. FieldName=MetricV2Dto.Value/Count, "
                    f"Limit={limit}, Size={count}."
                )

    def _found(self, asked: Json) -> Path:
        run_id = asked.get("run_id") or asked.get("run_uuid")
        return self._run if run_id == self._run.name else store.find_run(self._root, run_id)

    def _by_mlflow(self, method: str, path: str, query: dict[str, list[str]], sent: Json) -> Json:
        if self._api is None:
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            try:
                from azml_dist.local.tracking.api import Api
            except ImportError as error:
                raise Refused(
                    f"{sys.executable}, which serves this run's MLflow store, cannot import MLflow: {error}",
                    "NOT_IMPLEMENTED",
                    501,
                ) from error
            self._api = Api(self._root, self._run)
        with store.locked(self._root):
            return self._api.answer(method, path, query, sent)


def _of_a_model(metric: Json) -> bool:
    """Whether it also belongs to a model or a data set, which MLflow's store records."""
    return any(metric.get(key) for key in ("model_id", "dataset_name", "dataset_digest"))


def _entities(asked: Json, kind: str) -> list[Json]:
    found = asked.get(kind) or []
    if not isinstance(found, list) or not all(isinstance(entity, dict) for entity in found):
        raise Refused(f"'{kind}' is not a list of them")
    return found


class _Handler(BaseHTTPRequestHandler):
    """A connection, with its own thread."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    tracker: Tracker
    token: str

    def _answer(self) -> None:
        try:
            status, reply = 200, self._reply()
        except Refused as refused:
            status, reply = refused.status, {"error_code": refused.code, "message": str(refused)}
        except Exception as error:
            status, reply = 500, {"error_code": "INTERNAL_ERROR", "message": f"{type(error).__name__}: {error}"}
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (http.server's names)

    def _reply(self) -> Json:
        length = self.headers.get("Content-Length") or "0"
        if not re.fullmatch(r"\d{1,9}", length) or int(length) > _BODY_LIMIT or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise Refused("the request is too long, or of unknown length", status=413)
        body = self.rfile.read(int(length))
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
            raise Refused("this server accepts requests only from the processes of its run", "UNAUTHENTICATED", 401)
        try:
            sent = json.loads(body or b"{}")
        except ValueError as error:
            raise Refused(f"the request is not JSON: {error}") from error
        if not isinstance(sent, dict):
            raise Refused("the request is not a JSON object")
        url = urlsplit(self.path)
        return self.tracker.answer(self.command, url.path, parse_qs(url.query), sent)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


def main(listeners: list[int]) -> None:
    """Serve on sockets that already listen, until stdin is closed; its first line is the configuration."""
    import socket

    config = json.loads(sys.stdin.buffer.readline())
    _Handler.tracker, _Handler.token = Tracker(config), config["token"]
    for fd in listeners:
        server = ThreadingHTTPServer(("", 0), _Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = socket.socket(fileno=fd)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main([int(fd) for fd in sys.argv[1:]])
