"""What is checked: each job, where it runs, and how often."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from azml_dist.check.facts import Asset
from azml_dist.errors import Finding
from azml_dist.model.job import JobFields
from azml_dist.model.parts import MODEL_TYPES, Environment, Input
from azml_dist.notation.expressions import OpenCount
from azml_dist.plan.pipeline import PipelinePlan
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.sweep import SweepPlan

AnyPlan: TypeAlias = "LaunchPlan | SweepPlan | PipelinePlan"

_NAMED = re.compile(r"azureml:(?P<name>[\w-]+)(?::(?P<version>[\w.-]+)|@(?P<label>\w+))")
_ARM = re.compile(
    r"(?i)(?:azureml:)?(?P<workspace>/subscriptions/.+/workspaces/[^/]+)"
    r"/(?P<kind>environments|data|models|codes|components)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)"
)
_DATASTORE = re.compile(
    r"(?i)azureml://(?P<workspace>subscriptions/[^/]+/resourcegroups/[^/]+/"
    r"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/[^/]+/)?datastores/(?P<name>[\w-]+)(?:/|$)"
)
_REGISTRY = re.compile(r"(?i)azureml://registries/(?P<registry>[^/]+)/(?P<kind>\w+)/(?P<name>[^/]+)")
_CURATED = "AzureML-"
"""How the names of curated environments start, which the service itself looks up (`CURATED_ENV_PREFIX`)."""


class Part(NamedTuple):
    """One job to check: the job itself, a trial of a sweep, or a step of a pipeline."""

    plan: LaunchPlan
    step: str | None = None
    """In a pipeline: the name of the step."""
    at_once: int = 1
    """How many of them run at the same time."""
    times: int = 1
    """How many of them there are."""
    limit: int | None = None
    """The timeout of all of them together, in seconds, if the sweep sets one."""
    trial_limit: int | None = None
    """The same for each of them."""

    @property
    def job(self) -> JobFields:
        return self.plan.job

    @property
    def compute(self) -> str | None:
        """The name of its compute; None for serverless compute."""
        name = (self.job.compute or "").rstrip("/").rpartition("/")[2]
        return None if name in ("", "serverless") else name

    @property
    def is_here(self) -> bool:
        """Whether azure-ai-ml would run it on this machine."""
        return (self.compute or "").lower() == "local"

    @property
    def nodes(self) -> int:
        """The minimum number of nodes; 1 if only a pipeline knows it."""
        return int(self.job.node_count)

    @property
    def has_open_counts(self) -> bool:
        """Whether only its pipeline knows how many nodes or processes there are."""
        return isinstance(self.job.node_count, OpenCount) or isinstance(self.job.process_count_per_node, OpenCount)

    @property
    def seconds(self) -> int | None:
        """How many seconds each of them may run; None without a timeout."""
        return self.trial_limit or self.job.timeout or self.limit


class Reference(NamedTuple):
    """A reference in a job to something by name."""

    asset: Asset | None
    """None if it is not in this workspace."""
    where: str
    text: str
    """As written in the job."""


def parts_of(plan: AnyPlan) -> list[Part]:
    """Every job of a plan, without steps of other kinds."""
    if isinstance(plan, SweepPlan):
        limits, count = plan.sweep.limits, plan.trial_count
        at_once = min(count, limits.max_concurrent_trials or count)
        return [Part(plan.trial, None, at_once, count, limits.timeout, limits.trial_timeout)]
    if isinstance(plan, PipelinePlan):
        return [Part(found, name) for name, found in plan.plans.items() if found]
    return [Part(plan)]


def placed(plan: AnyPlan, step: str | None, finding: Finding) -> Finding:
    """The finding about a part, with its step and the place of that, if any."""
    if isinstance(plan, PipelinePlan) and step:
        return plan.pipeline.found_in_step(step, finding)
    return finding


def references(plan: AnyPlan, workspace: str) -> Iterator[tuple[str | None, Reference]]:
    """All references by name, each with its step; `workspace` is the ARM id of the current workspace."""
    for part in parts_of(plan):
        for found in _of_a_job(part.job, workspace):
            yield part.step, found
    if isinstance(plan, PipelinePlan):
        for name, step in plan.pipeline.document.data["jobs"].items():
            component = step.get("component") if isinstance(step, dict) else None
            if isinstance(component, str) and component.startswith("azureml:"):
                where = plan.pipeline.document.where(("jobs", name, "component"))
                yield name, _named("components", component, where, workspace)


def _of_a_job(job: JobFields, workspace: str) -> Iterator[Reference]:
    environment = job.environment
    if isinstance(environment, str):
        yield _named("environments", environment, "environment", workspace)
    if isinstance(environment, Environment) and environment.datastore:
        yield Reference(Asset("datastores", environment.datastore), "environment.datastore", environment.datastore)
    if job.code and not job.local_code:
        yield _named("codes", job.code, "code", workspace)
    for name, value in job.inputs.items():
        if isinstance(value, Input):
            yield from _of_an_input(value, f"inputs.{name}", workspace)
    for name, output in job.outputs.items():
        if output.path and (store := _datastore(output.path, f"outputs.{name}", workspace)):
            yield store


def _of_an_input(value: Input, where: str, workspace: str) -> Iterator[Reference]:
    if value.datastore:
        yield Reference(Asset("datastores", value.datastore), where, value.datastore)
    if store := _datastore(value.path, where, workspace):
        yield store
    elif value.path.startswith("azureml:"):
        yield _named("models" if value.type in MODEL_TYPES else "data", value.path, where, workspace)


def _named(kind: str, text: str, where: str, workspace: str) -> Reference:
    if match := _ARM.fullmatch(text):
        here = match["workspace"].lower() == workspace.lower()
        asset = Asset(match["kind"].lower(), match["name"], match["version"])
        return Reference(asset if here else None, where, text)
    named = _NAMED.fullmatch(text if text.startswith("azureml:") else f"azureml:{text}")
    if named is None or _REGISTRY.match(text) or (kind == "environments" and named["name"].startswith(_CURATED)):
        return Reference(None, where, text)
    return Reference(Asset(kind, named["name"], named["version"]), where, text)


def _datastore(path: str, where: str, workspace: str) -> Reference | None:
    match = _DATASTORE.match(path)
    if match is None:
        return None
    elsewhere = match["workspace"] and _names(match["workspace"]) != _names(workspace)
    return Reference(None if elsewhere else Asset("datastores", match["name"]), where, path)


def _names(path: str) -> list[str]:
    """The subscription, group and workspace in a path, in any spelling."""
    parts = path.lower().strip("/").split("/")
    return [parts[parts.index(kind) + 1] for kind in ("subscriptions", "resourcegroups", "workspaces")]
