"""Run history: details with log addresses, outputs, service instances, tags, and metrics as MLflow asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from azml_dist.emulator.jobs import TERMINAL, Job, JobRoutes
from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.state import Workspace
from azml_dist.emulator.tracking import artifact_uri, log_parameter, set_tag
from azml_dist.emulator.wire import Json, Reply, Request, not_found
from azml_dist.emulator.world import literals

_HISTORY = "/history/v1.0{WS}"
_MLFLOW = "/mlflow/{version}{WS}/api/2.0/mlflow"
_TYPES = {
    "uri_folder": "UriFolder",
    "uri_file": "UriFile",
    "mltable": "MLTable",
    "custom_model": "CustomModel",
    "mlflow_model": "MLFlowModel",
    "triton_model": "TritonModel",
}
"""Types of outputs in run history's words, by those of jobs (azure-sdk-for-python#48941; of models: its code)."""


_RUN_TYPES = {"Sweep": "azureml.sweep", "Pipeline": "azureml.PipelineRun"}
_WAITS = ("NotStarted", "Queued", "Provisioning", "Preparing", "Starting")


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
        details["createdTimeUtc"] = job.past[0][1]
        details["warnings"] = [{"message": message} for message in job.warnings]
        return Reply(body={**details, "status": job.status, "error": job.error, "outputs": _outputs(job)})

    @route("runs.get", "GET", Host.API, _HISTORY + "/runs/{run}")
    def get(self, request: Request, run: str) -> Reply:
        """A run."""
        job = self._run(run)
        job.look()
        return Reply(body=_run(job))

    @route("runs.children", "GET", Host.API, _HISTORY + "/runs/{run}/children")
    def children(self, request: Request, run: str) -> Reply:
        """A page of the trials of a sweep, or of the steps of a pipeline."""
        self._run(run)
        found = [job for job in list(self.jobs.jobs.values()) if job.parent == run]
        size = min(int(request.query.get("$top") or self.jobs.page_size), self.jobs.page_size)
        end = int(request.query.get("$continuationtoken") or 0) + size
        page: Json = {"value": [_run(job) for job in found[end - size : end]]}
        if end < len(found):
            link = f"https://{request.host}{request.path}?%24continuationtoken={end}&%24top={size}"
            page |= {"continuationToken": str(end), "nextLink": link}
        return Reply(body=page)

    @route("runs.data", "POST", Host.API, _HISTORY + "/rundata")
    def data(self, request: Request) -> Reply:
        """A run with what it was asked to do."""
        return Reply(body=_data(self._run(request.json()["runId"])))

    @route("runs.dataOfMany", "POST", Host.API, _HISTORY + "/batchrundata")
    def data_of_many(self, request: Request) -> Reply:
        """The same of several runs, each under the key of its request."""
        asked = {key: one["runId"] for key, one in request.json()["requests"].items()}
        found = {key: _data(self.jobs.jobs[run]) for key, run in asked.items() if run in self.jobs.jobs}
        unknown = {
            key: not_found(f"Run {run} was not found.").reply().body for key, run in asked.items() if key not in found
        }
        return Reply(body={"successfulResults": found, "failedResults": unknown})

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
        """Interactive services on a node, while the job runs. Their addresses are made up."""
        job = self._run(run)
        services = (job.body.get("services") or {}) if job.status == "Running" else {}
        region = self.workspace.region
        instances = {
            name: {
                "type": service["jobServiceType"],
                "port": service.get("port"),
                "status": "Running",
                "endpoint": f"https://{job.name}-{name}-<nodeIndex>.{region}.instances.azureml.ms",
                "properties": service.get("properties") or {},
            }
            for name, service in services.items()
        }
        return Reply(body={"instances": instances})

    @route("monitor.metrics", "GET", Host.ARM, "{WS}/providers/Microsoft.Insights/metrics")
    def monitor(self, request: Request) -> Reply:
        """Figures of the nodes of a run, with the dimensions that the filter names.

        Inferred: Azure Monitor's documents show such answers, but none about runs.
        """
        wanted = dict(re.findall(r"(\w+) eq '([^']*)'", request.query.get("$filter", "")))
        run, begin = wanted.get("RunId", ""), datetime.fromisoformat(request.query["timespan"].split("/")[0][:19])
        value = []
        for metric in request.query["metricnames"].split(","):
            series = []
            for place, figures in self.workspace.figures.get(run, {}).items():
                node, _, device = place.partition("/")
                of = {"runid": run, "instanceid": node, **({"deviceid": device} if device else {})}
                if metric in figures and bool(device) == ("DeviceId" in wanted):
                    stamps = [(begin + timedelta(minutes=minute)).isoformat() + "Z" for minute in range(10)]
                    data = [{"timeStamp": stamp, "average": figures[metric]} for stamp in stamps]
                    names = [{"name": {"value": name}, "value": one} for name, one in of.items()]
                    series.append({"metadatavalues": names, "data": data})
            value.append({"name": {"value": metric}, "unit": "Percent", "timeseries": series, "errorCode": "Success"})
        return Reply(body={"interval": request.query["interval"], "namespace": "", "value": value})

    @route("data.resolve", "POST", Host.API, "/data/v1.0{WS}/dataversion/batchGetResolvedUris")
    def resolve(self, request: Request) -> Reply:
        """Addresses of data assets that jobs made."""
        found = {}
        for asset in request.json()["values"]:
            named = re.search(r"/output--(.+)--(\w+)/versions/1$", asset)
            if named is None:
                raise not_found(f"Data asset {asset} was not found.")
            job, output = self._run(named[1]), named[2]
            kind = _TYPES[job.body["outputs"][output]["jobOutputType"]]
            found[asset] = {"uri": job.output_uri(output), "type": kind}
        return Reply(body={"values": found})

    @route("metrics.run", "GET", Host.API, _MLFLOW + "/runs/get")
    def mlflow_run(self, request: Request, version: str) -> Reply:
        """A run as MLflow sees it, with the last value of each metric."""
        job = self._run(request.query.get("run_id", ""))
        metrics = [points[-1] for points in job.metrics.values()]
        tags = [{"key": key, "value": value} for key, value in (job.body.get("tags") or {}).items()]
        info = {"run_id": job.name, "run_uuid": job.name, "run_name": job.name, "status": _mlflow_status(job)}
        values = literals(job.body) if job.workspace.runtime.logs_parameters and _has_begun(job) else {}
        params = [{"key": key, "value": value} for key, value in {**values, **job.params}.items()]
        info["artifact_uri"] = artifact_uri(self.workspace.entry, job.name)
        return Reply(body={"run": {"info": info, "data": {"metrics": metrics, "params": params, "tags": tags}}})

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
        for one in sent.get("params", []):
            log_parameter(self._run(sent["run_id"]), one["key"], str(one["value"]))
        for one in sent.get("tags", []):
            set_tag(self._run(sent["run_id"]), one["key"], str(one["value"]))
        return Reply(body={})

    def _run(self, run: str) -> Job:
        if run not in self.jobs.jobs:
            raise not_found(f"Run {run} was not found.")
        return self.jobs.jobs[run]


def _data(job: Job) -> Json:
    return {"runMetadata": _run(job), "runDefinition": {}, "jobSpecification": None}


def _run(job: Job) -> Json:
    shared = {key: job.body.get(key) for key in ("displayName", "description", "tags", "properties")}
    return {
        **shared,
        "runId": job.name,
        "rootRunId": job.parent or job.name,
        "parentRunId": job.parent,
        "status": job.status,
        "error": job.error,
        "target": _target(job),
        "hidden": bool(job.body.get("isArchived")),
        "dataContainerId": f"dcid.{job.name}",
        "runType": _RUN_TYPES.get(job.body.get("jobType", ""), "azureml.commandjob"),
        "outputs": _outputs(job),
        "queueingInfo": job.queueing if job.status in _WAITS else None,
        "createdUtc": job.past[0][1],
        **_times(job),
    }


def _outputs(job: Job) -> Json:
    """The data assets of the named outputs, once the job is done."""
    if job.status != "Completed":
        return {}
    region, workspace = job.workspace.region, job.workspace.workspace_id
    asset = f"azureml://locations/{region}/workspaces/{workspace}/data/output--{job.name}--"
    return {
        name: {"assetId": f"{asset}{name}/versions/1", "type": _TYPES[output["jobOutputType"]]}
        for name, output in (job.body.get("outputs") or {}).items()
    }


def _times(job: Job) -> Json:
    since = dict(reversed(job.past))
    end = next((since[status] for status in TERMINAL if status in since), None)
    return {"startTimeUtc": since.get("Running"), "endTimeUtc": end}


def _target(job: Job) -> str:
    return str(job.body.get("computeId") or "serverless").rpartition("/")[2]


def _has_begun(job: Job) -> bool:
    return any(status == "Running" for status, _ in job.past)


def _mlflow_status(job: Job) -> str:
    return {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}.get(job.status, "RUNNING")
