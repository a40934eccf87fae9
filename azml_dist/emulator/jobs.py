"""Jobs: their routes, the refusals, and a job's life, which the test controls."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from azml_dist.emulator.assets import AssetRoutes
from azml_dist.emulator.models import check
from azml_dist.emulator.routing import Host, route
from azml_dist.emulator.spelling import described
from azml_dist.emulator.state import Workspace
from azml_dist.emulator.wire import Json, Refusal, Reply, Request, not_found, user_error

TERMINAL = frozenset({"Completed", "Failed", "Canceled"})
_LOGS = ("user_logs", "system_logs", "azureml-logs", "logs")
_MUTABLE = ("description", "tags", "displayName", "properties", "isArchived")
_OPERATION = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"


@dataclass
class Job:
    """A submitted job: what was requested, and its progress."""

    name: str
    body: Json
    """`properties` as they were sent."""
    workspace: Workspace = field(repr=False)
    status: str = "NotStarted"
    error: Json | None = None
    """The service's error of a job that failed."""
    warnings: list[str] = field(default_factory=list)
    script: list[str] = field(default_factory=list)
    """Scripted statuses, one for each lookup by a client."""
    past: list[tuple[str, str]] = field(default_factory=list)
    """Every status so far, and since when."""
    queueing: Json | None = None
    """`queueingInfo` of a job that has not started: what the service says about its wait."""
    metrics: dict[str, list[Json]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    on_cancel: Callable[[], None] | None = None
    """Called for a request to cancel: the run on this machine, if there is one."""
    on_completed: Callable[[Job], None] | None = None
    """Called when the job has completed: its outputs become assets."""
    system_data: Json = field(default_factory=dict)
    parent: str | None = None
    """The sweep or pipeline that it is a part of."""

    def __post_init__(self) -> None:
        self.system_data = self.workspace.system_data()
        self.past.append((self.status, self.workspace.now()))

    @property
    def artifacts(self) -> str:
        """The prefix of the job's logs and artifacts in the artifact store."""
        return f"ExperimentRun/dcid.{self.name}"

    def advance(
        self, status: str, *, error: str | None = None, code: str = "UserError", inner: tuple[str, ...] = ()
    ) -> None:
        """Move on; `error` is the service's message of a job that fails, with the codes of its inner errors."""
        with self.workspace.changed:
            if self.status in TERMINAL:
                return
            self.status = status
            self.past.append((status, self.workspace.now()))
            if error:
                told: Json = {"code": code, "message": error, "messageParameters": {}, "details": []}
                self.error = {"error": {**told, **_inner_error(inner)}}
            if status == "Completed" and self.on_completed:
                self.on_completed(self)
            self.workspace.changed.notify_all()
        if self.workspace.on_change:
            self.workspace.on_change()

    def fail(self, message: str, code: str = "UserError", *inner: str) -> None:
        """The job's end as Failed, with the service's message and codes, the outermost first."""
        self.advance("Failed", error=message, code=code, inner=inner)

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

    def wait(self, timeout: float = 60) -> str:
        """Block until the job has ended; its status."""
        return self.wait_for(timeout=timeout)

    def write_log(self, path: str, text: str | bytes) -> None:
        """Append to a log of the job, such as `user_logs/std_log.txt`."""
        data = text.encode() if isinstance(text, str) else text
        self.workspace.account.append(self.store, f"{self.artifacts}/{path}", data)

    def log(self, path: str) -> str:
        """The current contents of a log."""
        return self.workspace.account.get(self.store, f"{self.artifacts}/{path}").decode()

    def log_names(self) -> list[str]:
        """Paths of the logs that exist."""
        names = self.workspace.account.names(self.store, f"{self.artifacts}/")
        paths = (name[len(self.artifacts) + 1 :] for name in names)
        return [path for path in paths if path.partition("/")[0] in _LOGS]

    def log_urls(self) -> dict[str, str]:
        """Address of each log, with a SAS that lets anyone read it."""
        account, store = self.workspace.account, self.store
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

    @property
    def store(self) -> str:
        """The container of the logs and artifacts."""
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
        outputs = {**(self.body.get("outputs") or {}), "default": default}
        sent = {**self.body, "status": self.status, "outputs": outputs}
        properties = {
            **described(sent, other_case=here.other_case),
            "services": {**(self.body.get("services") or {}), **services},
            "experimentName": self.body.get("experimentName") or "Default",
            "displayName": self.body.get("displayName") or self.name,
            "isArchived": self.body.get("isArchived") or False,
            **({"parentJobName": self.parent} if self.parent else {}),
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
    unseen: dict[str, int] = field(default_factory=dict)
    """Jobs that are still being created: how many lookups find nothing yet."""

    def work_on(self, request: Request, looks: int) -> None:
        """Take that many looks for making the job of a request."""
        self.unseen.setdefault(request.path.rpartition("/")[2], looks)

    def named(self, name: str) -> Job:
        """A job by its name."""
        if self.unseen.get(name) or name not in self.jobs:
            raise not_found(f"Job {name} not found.")
        return self.jobs[name]

    def register(self, job: Job) -> None:
        """Make data and models of the outputs that have a name as an asset."""
        for name, output in (job.body.get("outputs") or {}).items():
            if asset := output.get("assetName"):
                kind, uri = str(output["jobOutputType"]), job.output_uri(name)
                self.assets.add_output(asset, output.get("assetVersion"), kind, uri)

    @route("jobs.put", "PUT", Host.ARM, "{WS}/jobs/{name}")
    def put(self, request: Request, name: str) -> Reply:
        """Submit a job; under a name that exists, change what may be changed."""
        body = request.json()
        kind = (body.get("properties") or {}).get("jobType")
        if kind in ("AutoML", "Spark", "Labeling", "FineTuning", "Distillation"):
            raise Refusal(501, "NotEmulated", f"The emulator does not play jobs of type {kind}.")
        check("JobBase", body)
        sent = body["properties"]
        with self.workspace.changed:
            if name in self.jobs:
                _update(self.jobs[name], sent)
                return Reply(200, self.jobs[name].resource())
            self._check(sent)
            job = self.jobs[name] = Job(name, sent, self.workspace, on_completed=self.register)
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
                self.component(step)
            return
        program = sent.get("trial") or sent
        if program.get("codeId"):
            self.assets.by_id(program["codeId"])
        self._check_environment(program["environmentId"])
        for value in (sent.get("inputs") or {}).values():
            uri = value.get("uri") or ""
            if uri.lower().startswith("/subscriptions/"):
                self.assets.by_id(uri)

    def component(self, step: Json) -> Json:
        """The component of a step, as it was registered."""
        found = step.get("componentId") or (step.get("trial") or {}).get("componentId") or step.get("component")
        if not isinstance(found, str):
            raise Refusal(501, "NotEmulated", f"The emulator does not play steps of type {step.get('type')}.")
        spec: Json = self.assets.by_id(found.removeprefix("azureml:"))["properties"]["componentSpec"]
        return spec

    def adopt(self, name: str, body: Json, parent: Job) -> Job:
        """A job that the service itself makes, as a part of another."""
        with self.workspace.changed:
            self._check(body)
            child = self.jobs[name] = Job(name, body, self.workspace, parent=parent.name)
            return child

    def _check_environment(self, environment: str) -> None:
        if environment.startswith("azureml:AzureML-"):  # a curated one, whose short name the service itself expands
            environment = f"azureml://registries/azureml/environments/{environment[8:].partition('@')[0]}/versions/1"
        found = re.fullmatch(r"azureml://registries/[^/]+/environments/([^/]+)/(versions|labels)/[^/]+", environment)
        if not found:
            self.assets.by_id(environment)
        elif not {"*", found[1]} & self.workspace.registry_environments:
            raise not_found(f"Environment {found[1]} not found in registry.")

    @route("jobs.get", "GET", Host.ARM, "{WS}/jobs/{name}")
    def get(self, request: Request, name: str) -> Reply:
        """One job."""
        if self.unseen.get(name):
            self.unseen[name] -= 1
            raise not_found(f"Job {name} not found.")
        job = self.named(name)
        job.look()
        return Reply(body=job.resource())

    @route("jobs.list", "GET", Host.ARM, "{WS}/jobs")
    def list_jobs(self, request: Request) -> Reply:
        """A page of jobs, newest first; with `jobType`, those of a kind."""
        view, kind = request.query.get("listViewType", "ActiveOnly"), request.query.get("jobType")
        jobs = [job for job in reversed(list(self.jobs.values())) if not job.parent and _in_view(job, view)]
        jobs = [job for job in jobs if kind in (None, job.body["jobType"])]
        start = int(request.query.get("$skip") or 0)
        page: Json = {"value": [job.resource() for job in jobs[start : start + self.page_size]]}
        if start + self.page_size < len(jobs):
            version = request.query.get("api-version", "")
            url = f"https://{Host.ARM.value}{self.workspace.arm_id}/jobs"
            of_kind = f"&jobType={kind}" if kind else ""
            page["nextLink"] = (
                f"{url}?api-version={version}&$skip={start + self.page_size}&listViewType={view}{of_kind}"
            )
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
        """Whether a cancellation is complete."""
        job = self.named(operation.split(":")[2])
        job.look()
        if job.status in TERMINAL:
            return Reply(200)
        return Reply(202, headers={"Location": f"https://{request.host}{request.target}", "Retry-After": "1"})


def _inner_error(codes: tuple[str, ...]) -> Json:
    return {"innerError": {"code": codes[0], **_inner_error(codes[1:])}} if codes else {}


def _in_view(job: Job, view: str) -> bool:
    return view == "All" or bool(job.body.get("isArchived")) == (view == "ArchivedOnly")


def _update(job: Job, sent: Json) -> None:
    """What a PUT under an existing name may do: repeat the job, or change its description."""
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
