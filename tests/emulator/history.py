"""Run history: details with log addresses, outputs, service instances, tags, and metrics as MLflow asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .jobs import TERMINAL, Job, JobRoutes
from .routing import Host, route
from .state import Workspace
from .wire import Json, Reply, Request, not_found

_HISTORY = "/history/v1.0{WS}"
_MLFLOW = "/mlflow/{version}{WS}/api/2.0/mlflow"


@dataclass
class HistoryRoutes:
    """The region's own API, about runs."""

    workspace: Workspace
    jobs: JobRoutes

    @route("runs.details", "GET", Host.API, _HISTORY + "/runs/{run}/details")
    def details(self, request: Request, run: str) -> Reply:
        """Status, error and log files of a run."""
        job = self._run(run)
        job.look()
        details = {"runId": run, "target": _target(job), "logFiles": job.log_urls(), **_times(job)}
        details["warnings"] = [{"message": message} for message in job.warnings]
        return Reply(body={**details, "status": job.status, "error": job.error, "outputs": _outputs(job)})

    @route("runs.get", "GET", Host.API, _HISTORY + "/runs/{run}")
    def get(self, request: Request, run: str) -> Reply:
        """A run."""
        job = self._run(run)
        job.look()
        return Reply(body=_run(job))

    @route("runs.data", "POST", Host.API, _HISTORY + "/rundata")
    def data(self, request: Request) -> Reply:
        """A run with what it was asked to do."""
        return Reply(
            body={
                "runMetadata": _run(self._run(request.json()["runId"])),
                "runDefinition": {},
                "jobSpecification": None,
            }
        )

    @route("runs.patch", "PATCH", Host.API, _HISTORY + "/experiments/{experiment}/runs/{run}")
    def patch(self, request: Request, experiment: str, run: str) -> Reply:
        """Change what describes a run."""
        job, sent = self._run(run), request.json()
        with self.workspace.changed:
            for key in ("displayName", "description"):
                if sent.get(key) is not None:
                    job.body[key] = sent[key]
            for key in ("tags", "properties"):
                job.body[key] = {**(job.body.get(key) or {}), **(sent.get(key) or {})}
            if sent.get("hidden") is not None:
                job.body["isArchived"] = sent["hidden"]
        return Reply(body=_run(job))

    @route("runs.services", "GET", Host.API, _HISTORY + "/runs/{run}/serviceinstances/{node}")
    def services(self, request: Request, run: str, node: str) -> Reply:
        """Interactive services on a node: none."""
        self._run(run)
        return Reply(body={"instances": {}})

    @route("data.resolve", "POST", Host.API, "/data/v1.0{WS}/dataversion/batchGetResolvedUris")
    def resolve(self, request: Request) -> Reply:
        """Addresses of data assets that jobs made."""
        found = {}
        for asset in request.json()["values"]:
            named = re.search(r"/output--(.+)--(\w+)/versions/1$", asset)
            if named is None:
                raise not_found(f"Data asset {asset} was not found.")
            found[asset] = {"uri": self._run(named[1]).output_uri(named[2]), "type": "UriFolder"}
        return Reply(body={"values": found})

    @route("metrics.run", "GET", Host.API, _MLFLOW + "/runs/get")
    def mlflow_run(self, request: Request, version: str) -> Reply:
        """A run as MLflow sees it, with the last value of each metric."""
        job = self._run(request.query.get("run_id", ""))
        metrics = [points[-1] for points in job.metrics.values()]
        tags = [{"key": key, "value": value} for key, value in (job.body.get("tags") or {}).items()]
        info = {"run_id": job.name, "run_uuid": job.name, "run_name": job.name, "status": _mlflow_status(job)}
        return Reply(body={"run": {"info": info, "data": {"metrics": metrics, "params": [], "tags": tags}}})

    @route("metrics.history", "GET", Host.API, _MLFLOW + "/metrics/get-history")
    def mlflow_history(self, request: Request, version: str) -> Reply:
        """All values of one metric."""
        points = self._run(request.query.get("run_id", "")).metrics.get(request.query.get("metric_key", ""), [])
        return Reply(body={"metrics": points})

    @route("metrics.update", "POST", Host.API, _MLFLOW + "/runs/update")
    def mlflow_update(self, request: Request, version: str) -> Reply:
        """A training script says that its run begins, or ends; the run's status is the service's own."""
        job = self._run(request.json()["run_id"])
        return Reply(body={"run_info": {"run_id": job.name, "run_uuid": job.name, "status": _mlflow_status(job)}})

    @route("metrics.log", "POST", Host.API, _MLFLOW + "/runs/log-metric")
    def mlflow_log(self, request: Request, version: str) -> Reply:
        """A metric, from a training script."""
        sent = request.json()
        self._run(sent["run_id"]).log_metric(sent["key"], float(sent["value"]), int(sent.get("step", 0)))
        return Reply(body={})

    @route("metrics.batch", "POST", Host.API, _MLFLOW + "/runs/log-batch")
    def mlflow_log_batch(self, request: Request, version: str) -> Reply:
        """Several metrics at a time, from a training script."""
        sent = request.json()
        for point in sent.get("metrics", []):
            self._run(sent["run_id"]).log_metric(point["key"], float(point["value"]), int(point.get("step", 0)))
        return Reply(body={})

    def _run(self, run: str) -> Job:
        if run not in self.jobs.jobs:
            raise not_found(f"Run {run} was not found.")
        return self.jobs.jobs[run]


def _run(job: Job) -> Json:
    shared = {key: job.body.get(key) for key in ("displayName", "description", "tags", "properties")}
    return {
        **shared,
        "runId": job.name,
        "rootRunId": job.name,
        "status": job.status,
        "error": job.error,
        "target": _target(job),
        "hidden": bool(job.body.get("isArchived")),
        "dataContainerId": f"dcid.{job.name}",
        "runType": "azureml.commandjob",
        "outputs": _outputs(job),
        **_times(job),
    }


def _outputs(job: Job) -> Json:
    """The data assets of the named outputs, once the job is done."""
    if job.status != "Completed":
        return {}
    region, workspace = job.workspace.region, job.workspace.workspace_id
    asset = f"azureml://locations/{region}/workspaces/{workspace}/data/output--{job.name}--"
    return {
        name: {"assetId": f"{asset}{name}/versions/1", "type": output["jobOutputType"]}
        for name, output in (job.body.get("outputs") or {}).items()
    }


def _times(job: Job) -> Json:
    since = dict(reversed(job.past))
    end = next((since[status] for status in TERMINAL if status in since), None)
    return {"createdTimeUtc": job.past[0][1], "startTimeUtc": since.get("Running"), "endTimeUtc": end}


def _target(job: Job) -> str:
    return str(job.body.get("computeId") or "serverless").rpartition("/")[2]


def _mlflow_status(job: Job) -> str:
    return {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}.get(job.status, "RUNNING")
