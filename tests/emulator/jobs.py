"""Jobs: their routes, the refusals, and a job's life, which the test controls."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from .assets import AssetRoutes
from .models import check
from .routing import Host, route
from .state import Workspace
from .wire import Json, Reply, Request, not_found, user_error

TERMINAL = frozenset({"Completed", "Failed", "Canceled"})
_MUTABLE = ("description", "tags", "displayName", "properties", "isArchived")
_OPERATION = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"


@dataclass
class Job:
    """A job that was submitted: what was asked for, and how far it is."""

    name: str
    body: Json
    """`properties` as they were sent."""
    workspace: Workspace = field(repr=False)
    status: str = "NotStarted"
    error: Json | None = None
    """The service's error of a job that failed."""
    warnings: list[str] = field(default_factory=list)
    script: list[str] = field(default_factory=list)
    """Statuses to come, one at each look that a client takes."""
    past: list[tuple[str, str]] = field(default_factory=list)
    """Every status so far, and since when."""
    metrics: dict[str, list[Json]] = field(default_factory=dict)
    on_cancel: Callable[[], None] | None = None
    """Who is to be told of a request to cancel: the run on this machine, where there is one."""
    system_data: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.system_data = self.workspace.system_data()
        self.past.append((self.status, self.workspace.now()))

    @property
    def artifacts(self) -> str:
        """The prefix of the job's logs and artifacts in the artifact store."""
        return f"ExperimentRun/dcid.{self.name}"

    def advance(self, status: str, *, error: str | None = None) -> None:
        """Move on; `error` is the service's message of a job that fails."""
        with self.workspace.changed:
            if self.status in TERMINAL:
                return
            self.status = status
            self.past.append((status, self.workspace.now()))
            if error:
                self.error = {"error": {"code": "UserError", "message": error, "messageParameters": {}, "details": []}}
            self.workspace.changed.notify_all()

    def fail(self, message: str) -> None:
        """The job's end as Failed, with the service's message."""
        self.advance("Failed", error=message)

    def look(self) -> None:
        """A client looks; a scripted job takes its next step."""
        with self.workspace.changed:
            if self.script:
                self.advance(self.script.pop(0))

    def wait_for(self, *statuses: str, timeout: float = 30) -> str:
        """Block until the job is in one of these statuses, or at its end."""
        wanted = frozenset(statuses) | TERMINAL
        with self.workspace.changed:
            if not self.workspace.changed.wait_for(lambda: self.status in wanted, timeout):
                raise TimeoutError(f"job {self.name} is {self.status} after {timeout} s, not {sorted(wanted)}")
            return self.status

    def write_log(self, path: str, text: str | bytes) -> None:
        """Append to a log of the job, such as `user_logs/std_log.txt`."""
        data = text.encode() if isinstance(text, str) else text
        self.workspace.account.append(self._store(), f"{self.artifacts}/{path}", data)

    def log(self, path: str) -> str:
        """What a log holds now."""
        return self.workspace.account.get(self._store(), f"{self.artifacts}/{path}").decode()

    def log_names(self) -> list[str]:
        """Paths of the logs that exist."""
        names = self.workspace.account.names(self._store(), f"{self.artifacts}/")
        paths = (name[len(self.artifacts) + 1 :] for name in names)
        return [path for path in paths if path.partition("/")[0] in ("user_logs", "system_logs", "logs")]

    def log_urls(self) -> dict[str, str]:
        """Address of each log, with a SAS that lets anyone read it."""
        account, store = self.workspace.account, self._store()
        urls = {}
        for path in self.log_names():
            blob = f"{self.artifacts}/{path}"
            urls[path] = account.url(store, blob, sas=account.sas(store, blob) if self.workspace.signed_logs else "")
        return urls

    def log_metric(self, key: str, value: float, step: int = 0) -> None:
        """Record a metric, as the training script would through MLflow."""
        with self.workspace.changed:
            point = {"key": key, "value": value, "timestamp": 1700000000000 + step, "step": step}
            self.metrics.setdefault(key, []).append(point)

    def output_uri(self, output: str) -> str:
        """Where a named output goes."""
        default = f"azureml://datastores/{next(iter(self.workspace.datastores))}/paths/azureml/${{{{name}}}}/{output}/"
        uri: str = (self.body.get("outputs") or {})[output].get("uri") or default
        values = {"name": self.name, "output_name": output, "default_datastore": next(iter(self.workspace.datastores))}
        return re.sub(r"\$\{\{\s*(\w+)\s*\}\}", lambda match: values[match[1]], uri)

    def _store(self) -> str:
        return self.workspace.datastores["workspaceartifactstore"].container

    def resource(self) -> Json:
        """The job as the service describes it."""
        here = self.workspace
        scope = f"wsid={here.arm_id}&tid={here.tenant_id}"
        studio = f"https://ml.azure.com/runs/{self.name}?{scope}"
        default = {
            "jobOutputType": "uri_folder",
            "mode": "ReadWriteMount",
            "uri": f"azureml://datastores/workspaceartifactstore/{self.artifacts}",
        }
        services = {
            "Tracking": {
                "jobServiceType": "Tracking",
                "endpoint": f"azureml://{here.region}.api.azureml.ms/mlflow/v1.0{here.arm_id}?",
            },
            "Studio": {"jobServiceType": "Studio", "endpoint": studio},
        }
        properties = {
            **self.body,
            "status": self.status,
            "services": {**(self.body.get("services") or {}), **services},
            "outputs": {**(self.body.get("outputs") or {}), "default": default},
            "experimentName": self.body.get("experimentName") or "Default",
            "displayName": self.body.get("displayName") or self.name,
            "isArchived": self.body.get("isArchived") or False,
        }
        return {
            "id": f"{here.arm_id}/jobs/{self.name}",
            "name": self.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": properties,
            "systemData": self.system_data,
        }


@dataclass
class JobRoutes:
    """The jobs of the workspace, and the requests about them."""

    workspace: Workspace
    assets: AssetRoutes
    jobs: dict[str, Job] = field(default_factory=dict)
    page_size: int = 10
    on_submit: Callable[[Job], object] | None = None
    """What happens to each new job; by default it waits for the test to `advance` it."""
    cancel_works: bool = True
    """Whether a request to cancel ends a job that is not really running; without it the test advances it."""

    def named(self, name: str) -> Job:
        """A job by its name."""
        if name not in self.jobs:
            raise not_found(f"Job {name} not found.")
        return self.jobs[name]

    @route("jobs.put", "PUT", Host.ARM, "{WS}/jobs/{name}")
    def put(self, request: Request, name: str) -> Reply:
        """Submit a job; under a name that exists, change what may be changed."""
        body = request.json()
        check("JobBase", body)
        sent = body["properties"]
        if sent.get("jobType") not in ("Command", "Sweep", "Pipeline"):
            raise user_error(f"Job type {sent.get('jobType')} is not emulated.")
        with self.workspace.changed:
            if name in self.jobs:
                _update(self.jobs[name], sent)
                return Reply(200, self.jobs[name].resource())
            self._check(sent)
            job = self.jobs[name] = Job(name, sent, self.workspace)
            resource = job.resource()
        if self.on_submit:
            self.on_submit(job)
        return Reply(201, resource)

    def _check(self, sent: Json) -> None:
        """Refuse what refers to something that is not there."""
        compute = sent.get("computeId")
        if compute:
            name = compute.rpartition("/")[2]
            if compute != f"{self.workspace.arm_id}/computes/{name}" or name not in self.workspace.computes:
                raise user_error(f"Unknown compute target '{name}'.", "BadArgument", "UnknownComputeTarget")
        if sent["jobType"] == "Pipeline":
            for step in sent["jobs"].values():
                self.assets.by_id(step.get("componentId") or step["trial"]["componentId"])
            return
        program = sent.get("trial") or sent
        if program.get("codeId"):
            self.assets.by_id(program["codeId"])
        self._check_environment(program["environmentId"])
        for value in (sent.get("inputs") or {}).values():
            uri = value.get("uri") or ""
            if uri.lower().startswith("/subscriptions/"):
                self.assets.by_id(uri)

    def _check_environment(self, environment: str) -> None:
        found = re.fullmatch(r"azureml://registries/[^/]+/environments/([^/]+)/(versions|labels)/[^/]+", environment)
        if not found:
            self.assets.by_id(environment)
        elif found[1] not in self.workspace.registry_environments:
            raise not_found(f"Environment {found[1]} not found in registry.")

    @route("jobs.get", "GET", Host.ARM, "{WS}/jobs/{name}")
    def get(self, request: Request, name: str) -> Reply:
        """One job."""
        job = self.named(name)
        job.look()
        return Reply(body=job.resource())

    @route("jobs.list", "GET", Host.ARM, "{WS}/jobs")
    def list_jobs(self, request: Request) -> Reply:
        """A page of jobs, newest first."""
        view = request.query.get("listViewType", "ActiveOnly")
        jobs = [job for job in reversed(list(self.jobs.values())) if _in_view(job, view)]
        start = int(request.query.get("$skip") or 0)
        page: Json = {"value": [job.resource() for job in jobs[start : start + self.page_size]]}
        if start + self.page_size < len(jobs):
            version = request.query.get("api-version", "")
            url = f"https://{Host.ARM.value}{self.workspace.arm_id}/jobs"
            page["nextLink"] = f"{url}?api-version={version}&$skip={start + self.page_size}&listViewType={view}"
        return Reply(body=page)

    @route("jobs.cancel", "POST", Host.ARM, "{WS}/jobs/{name}/cancel")
    def cancel(self, request: Request, name: str) -> Reply:
        """Ask for a job's end; the answer points to where it can be awaited."""
        job = self.named(name)
        with self.workspace.changed:
            if job.status in TERMINAL:
                return Reply(200)
            job.advance("CancelRequested")
            job.script = [] if job.on_cancel or not self.cancel_works else ["Canceled"]
        if job.on_cancel:
            job.on_cancel()
        here = self.workspace
        place = _OPERATION.format(subscription=here.subscription_id, location=here.region)
        version = request.query.get("api-version", "")
        url = f"https://{Host.ARM.value}{place}/mfeOperationResults/jc:{here.workspace_id}:{name}:{uuid.uuid4()}?api-version={version}"
        return Reply(202, headers={"Location": url, "Retry-After": "1"})

    @route("jobs.cancelResult", "GET", Host.ARM, _OPERATION + "/mfeOperationResults/{operation}")
    def cancel_result(self, request: Request, subscription: str, location: str, operation: str) -> Reply:
        """Whether a cancel is through."""
        job = self.named(operation.split(":")[2])
        job.look()
        if job.status in TERMINAL:
            return Reply(200)
        return Reply(202, headers={"Location": f"https://{request.host}{request.target}", "Retry-After": "1"})


def _in_view(job: Job, view: str) -> bool:
    return view == "All" or bool(job.body.get("isArchived")) == (view == "ArchivedOnly")


def _update(job: Job, sent: Json) -> None:
    """What a PUT under an existing name may do: the same again, or change what describes the job."""
    before, after = (_plain(properties) for properties in (job.body, sent))
    changed = [key for key in sorted({*before, *after} - {*_MUTABLE}) if before.get(key) != after.get(key)]
    if changed:
        names = ",  ".join(key[0].upper() + key[1:] for key in changed)
        raise user_error(
            "A job with this name already exists. If you are trying to create a new job, use a different name. If you "
            f"are trying to update an existing job, the existing job's {names} cannot be changed. Only description, "
            "tags, displayName, properties, and isArchived can be updated.",
            "Immutable",
            "JobPropertyImmutable",
        )
    job.body.update({key: sent[key] for key in _MUTABLE if sent.get(key) is not None})


def _plain(properties: Json) -> Json:
    """Properties without what says nothing: null, and empty collections."""
    return {key: value for key, value in json.loads(json.dumps(properties)).items() if value not in (None, {}, [])}
