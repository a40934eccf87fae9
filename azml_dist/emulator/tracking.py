"""What scripts log with MLflow besides metrics: parameters, tags, and files."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass

from azml_dist.emulator.jobs import Job, JobRoutes
from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.wire import Json, Refusal, Reply, Request, not_found

_MLFLOW = "/mlflow/{version}{WS}/api/2.0/mlflow"
_FILES = "/emulator/artifacts/{run}"


def artifact_uri(entry: str, run: str) -> str:
    """Where MLflow puts the files of a run. On Azure ML it is `azureml://`, for `azureml-mlflow`."""
    return entry + _FILES.format(run=run)


@dataclass
class TrackingRoutes:
    """The part of MLflow's REST API that concerns one run."""

    jobs: JobRoutes

    @route("metrics.parameter", "POST", Host.API, _MLFLOW + "/runs/log-parameter")
    def parameter(self, request: Request, version: str) -> Reply:
        """A parameter, which cannot change once it is logged."""
        sent = request.json()
        log_parameter(self._run(sent.get("run_id", "")), sent["key"], str(sent["value"]))
        return Reply(body={})

    @route("metrics.tag", "POST", Host.API, _MLFLOW + "/runs/set-tag")
    def tag(self, request: Request, version: str) -> Reply:
        """A tag of the run."""
        sent = request.json()
        set_tag(self._run(sent.get("run_id", "")), sent["key"], str(sent["value"]))
        return Reply(body={})

    @route("artifacts.put", "PUT", Host.SELF, _FILES + "/{file_path}")
    def put(self, request: Request, run: str, file_path: str) -> Reply:
        """A file that a script logs: one of the job's artifacts."""
        job = self._run(run)
        with request.opened() as body:
            job.workspace.account.put(job.store, f"{job.artifacts}/{file_path}", body.read())
        return Reply(200, body={})

    @route("artifacts.get", "GET", Host.SELF, _FILES + "/{file_path}")
    def get(self, request: Request, run: str, file_path: str) -> Reply:
        """A file that a script has logged."""
        job = self._run(run)
        name = f"{job.artifacts}/{file_path}"
        if not job.workspace.account.exists(job.store, name):
            raise not_found(f"Artifact {file_path} of run {run} was not found.")
        kind = mimetypes.guess_type(file_path)[0] or "application/octet-stream"
        return Reply(200, job.workspace.account.get(job.store, name), {"Content-Type": kind})

    @route("artifacts.list", "GET", Host.SELF, _FILES)
    def list_files(self, request: Request, run: str) -> Reply:
        """What is in a folder of the artifacts."""
        job, folder = self._run(run), request.query.get("path", "").strip("/")
        inside = f"{job.artifacts}/{folder}/" if folder else f"{job.artifacts}/"
        entries: dict[str, Json] = {}
        for name in job.workspace.account.names(job.store, inside):
            first, found, _ = name[len(inside) :].partition("/")
            entries[first] = {"path": first, "is_dir": bool(found)}
        return Reply(body={"files": list(entries.values())})

    def _run(self, run: str) -> Job:
        if run not in self.jobs.jobs:
            raise not_found(f"Run {run} was not found.")
        return self.jobs.jobs[run]


def log_parameter(job: Job, key: str, value: str) -> None:
    """Record a parameter."""
    with job.workspace.changed:
        if job.params.setdefault(key, value) != value:
            message = f"Changing param values is not allowed. Param with key='{key}' was already logged."
            raise Refusal(400, "INVALID_PARAMETER_VALUE", message)


def set_tag(job: Job, key: str, value: str) -> None:
    """Set a tag of a job."""
    with job.workspace.changed:
        job.body["tags"] = {**(job.body.get("tags") or {}), key: value}
