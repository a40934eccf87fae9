"""What a check asks a workspace: at most six requests, one for each thing that the jobs refer to, many at a time.

They only read, each is sent once, and none of them fails a check: what could not be read is reported as such.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from azml_dist.azureml.answers import Answer, BrokenAnswerError
from azml_dist.azureml.arm import pages
from azml_dist.azureml.network import trouble
from azml_dist.azureml.parallel import each
from azml_dist.azureml.stamps import seconds_of
from azml_dist.check.facts import (
    CLUSTER,
    NOT_ASKED,
    Asset,
    Compute,
    Facts,
    Here,
    Holder,
    HourPrice,
    Missing,
    Nodes,
    Size,
    Unknown,
    Usage,
)
from azml_dist.plan.requested import duration_seconds
from azml_dist.vmsizes import vm_size
from azml_dist.words import like

T = TypeVar("T")

_AT_A_TIME = 12
_TIMEOUT = 10.0
"""How many seconds one request may take: advice should be quick."""
_PAGES = 10
_MOST = 100_000
"""Nodes, vCPUs, GPUs: far more than exist."""
_BUDGET = 6
"""How many requests a check of a job may send, besides one for each thing that the job refers to."""
_HOLDERS = 1
"""For how many runs of a busy cluster we ask when they were submitted."""
_LOOKS_LIKE_A_DAY = "%Y-%m-%d"


class Asked(Protocol):
    """The workspace: its ids, and what sends requests to it."""

    @property
    def arm(self) -> Any: ...
    @property
    def subscription_id(self) -> str: ...
    @property
    def name(self) -> str: ...


W = TypeVar("W", bound=Asked)


@dataclass(frozen=True)
class Wanted:
    """What to ask for: computes with the number of nodes needed, the workspace's own region, assets."""

    computes: Mapping[str, int] = field(default_factory=dict)
    region: bool = False
    """Whether a job runs on serverless compute with a size that it sets."""
    assets: Sequence[Asset] = ()
    new: Collection[Asset] = ()
    """The assets that are created if they are missing: no similar names are searched for these."""
    prices_only: bool = False
    """Whether only what the nodes cost is asked."""
    for_a_wait: bool = False
    """Whether only what a submitted run may wait for is asked."""


@dataclass
class Reader(Generic[W]):
    """One reading of a workspace."""

    workspace: W
    stop: threading.Event
    failures: list[Exception] = field(default_factory=list)
    answers: int = 0
    """How many requests the service answered, even if the answer was a clear no."""

    def read(self, wanted: Wanted) -> Facts:
        """Two rounds: what the jobs refer to, then what follows from that."""
        first: dict[Any, Callable[[], Any]] = {("asset", asset): self._asset(asset) for asset in wanted.assets}
        for name in wanted.computes:
            first["compute", name] = self._compute(name)
            if not wanted.prices_only:
                first["nodes", name] = self._nodes(name)
        if wanted.computes and not wanted.prices_only and not wanted.for_a_wait:
            first["computes"] = self._all_computes
        if wanted.region:
            first["region"] = lambda: _place(self._get("").needed("location"))
        found = self._all(first)
        computes = {name: _or_listed(found["compute", name], name, found) for name in wanted.computes}
        held = {name: found.get(("nodes", name), NOT_ASKED) for name in wanted.computes}
        region = found.get("region", NOT_ASKED)
        second = self._second(wanted, computes, held, region)
        missing = [one for one in wanted.assets if isinstance(found["asset", one], Missing) and one not in wanted.new]
        if missing:  # then the job is refused, whoever holds the nodes
            second = {key: ask for key, ask in second.items() if key[0] != "job"}
        spare = max(0, max(1, len(wanted.computes)) * _BUDGET + len(wanted.assets) - len(first) - len(second))
        kinds = list(dict.fromkeys(one.kind for one in missing))
        second |= {("listed", kind): self._listed(kind) for kind in kinds[:spare]}
        if not missing:
            second |= self._of_the_workspace(wanted, computes, region, spare)
        found |= self._all(second)
        places = {key[1] for key in second if key[0] == "sizes"}
        return Facts(
            region=region,
            computes=computes,
            all_computes=found.get("computes", ()),
            holders={name: _with_ages(held[name], found) for name in held},
            sizes={place: found["sizes", place] for place in places},
            usages={place: found.get(("usages", place), NOT_ASKED) for place in places},
            own_limits={place: found.get(("limits", place), NOT_ASKED) for place in places},
            assets={
                asset: _with_names(asset, found["asset", asset], found.get(("listed", asset.kind)))
                for asset in wanted.assets
            },
            on=datetime.now(timezone.utc).strftime(_LOOKS_LIKE_A_DAY),
        )

    def _second(
        self, wanted: Wanted, computes: Mapping[str, Any], held: Mapping[str, Any], region: Any
    ) -> dict[Any, Callable[[], Any]]:
        known = [one for one in computes.values() if isinstance(one, Compute) and one.size]
        places = {one.location for one in known} | ({region} if isinstance(region, str) else set())
        second: dict[Any, Callable[[], Any]] = {}
        for place in places:
            second["sizes", place] = self._sizes(place)
            if not wanted.prices_only:
                second["usages", place] = self._usages(place)
        for one in known:
            holders = held[one.name]
            is_busy = one.nodes is None or one.nodes.idle < wanted.computes.get(one.name, 0)
            if is_busy and not wanted.for_a_wait and not isinstance(holders, Unknown):
                for holder in holders[:_HOLDERS]:
                    second["job", holder.run] = self._job(holder.run)
        return second

    def _of_the_workspace(
        self, wanted: Wanted, computes: Mapping[str, Any], region: Any, spare: int
    ) -> dict[Any, Callable[[], Any]]:
        """The limits that were set for this workspace only, where nodes have to be started and the requests suffice."""
        if wanted.prices_only or wanted.for_a_wait:
            return {}
        known = [one for one in computes.values() if isinstance(one, Compute) and one.size]
        starting = (one for one in known if one.nodes is None or one.nodes.idle < wanted.computes.get(one.name, 0))
        places = list(dict.fromkeys(one.location for one in starting))
        places += [region] if isinstance(region, str) and region not in places else []
        return {("limits", place): self._limits(place) for place in places[:spare]}

    def _all(self, questions: Mapping[Any, Callable[[], Any]]) -> dict[Any, Any]:
        """The answer to each question, or `Unknown`."""
        keys = list(questions)
        answers = each(lambda key: self._tried(questions[key]), keys, at_a_time=_AT_A_TIME, stop=self.stop)
        found = {keys[index]: answer for index, answer in answers}
        return {key: found.get(key, Unknown("it was interrupted")) for key in keys}

    def _tried(self, question: Callable[[], Any]) -> Any:
        try:
            answer = question()
        except Exception as error:
            self.failures.append(error)
            return Unknown(_why(error))
        self.answers += 1
        return answer

    def _get(self, path: str, query: dict[str, str] | None = None, method: str = "GET") -> Answer:
        call = self.workspace.arm.call
        return Answer(call(method, path, query=query, stop=self.stop, attempts=1, timeout=_TIMEOUT))

    def _pages(self, path: str, key: str = "value", method: str = "GET") -> list[Answer]:
        found = pages(lambda query: self._get(path, query, method), _PAGES)
        return [one for page in found for one in page.objects(key, needed=True)]

    def _compute(self, name: str) -> Callable[[], Compute | Missing]:
        def ask() -> Compute | Missing:
            try:
                return compute_of(self._get(f"computes/{quote(name, safe='')}"))
            except Exception as error:
                if says_there_is_none(error, name):
                    return Missing()
                raise

        return ask

    def _all_computes(self) -> list[Compute]:
        """Only the first page: this is just advice."""
        found = []
        for one in self._get("computes").objects("value", needed=True):
            with suppress(BrokenAnswerError):  # one of an unknown kind
                found.append(compute_of(one))
        return found

    def _nodes(self, name: str) -> Callable[[], list[Holder]]:
        def ask() -> list[Holder]:
            nodes = self._pages(f"computes/{quote(name, safe='')}/listNodes", "nodes", "POST")
            runs = Counter(run for node in nodes if (run := node.text("runId")))
            return [Holder(run, count) for run, count in runs.most_common()]

        return ask

    def _job(self, name: str) -> Callable[[], float | None]:
        return lambda: seconds_of(self._get(f"jobs/{quote(name, safe='')}").object("systemData").text("createdAt"))

    def _location(self, place: str) -> str:
        provider = "providers/Microsoft.MachineLearningServices"
        return f"/subscriptions/{self.workspace.subscription_id}/{provider}/locations/{quote(place, safe='')}"

    def _sizes(self, place: str) -> Callable[[], dict[str, Size]]:
        def ask() -> dict[str, Size]:
            sizes = [size_of(one) for one in self._pages(f"{self._location(place)}/vmSizes")]
            return {size.name.lower(): size for size in sizes}

        return ask

    def _usages(self, place: str) -> Callable[[], list[Usage]]:
        return lambda: [
            usage_of(one) for one in self._pages(f"{self._location(place)}/usages") if not _is_of_a_workspace(one)
        ]

    def _limits(self, place: str) -> Callable[[], list[Usage]]:
        """Rows of the families that somebody has limited for this workspace; there may be none."""
        own = f"/workspaces/{self.workspace.name}/".lower()
        return lambda: [
            usage_of(one)
            for one in self._pages(f"{self._location(place)}/quotas")
            if own in f"{one.text('id') or ''}/".lower()
        ]

    def _asset(self, asset: Asset) -> Callable[[], Here | Missing]:
        path = f"{asset.kind}/{asset.name}" + (f"/versions/{asset.version}" if asset.version else "")

        def ask() -> Here | Missing:
            try:
                self._get(path).object("properties", needed=True)
            except Exception as error:
                if says_there_is_none(error, asset.name):
                    return Missing()
                raise
            return Here()

        return ask

    def _listed(self, kind: str) -> Callable[[], dict[str, str | None]]:
        """Everything of a kind that is on the first page, with its latest version: this is just advice."""
        return lambda: {
            one.needed("name"): one.object("properties").text("latestVersion")
            for one in self._get(kind).objects("value", needed=True)
        }


def compute_of(answer: Answer) -> Compute:
    """A compute as the service describes it."""
    outer = answer.object("properties", needed=True)
    inner = outer.object("properties")
    scale = inner.object("scaleSettings")
    errors = [one.object("error").text("message") or one.text("message") for one in outer.objects("provisioningErrors")]
    kind = outer.needed("computeType")
    return Compute(
        name=answer.needed("name"),
        kind=next(
            (known for known in ("AmlCompute", "ComputeInstance", "Kubernetes") if known.lower() == kind.lower()), kind
        ),
        state=outer.text("provisioningState") or "Unknown",
        location=_place(outer.text("computeLocation") or answer.text("location") or ""),
        errors=tuple(filter(None, errors)),
        size=inner.text("vmSize"),
        is_spot=(inner.text("vmPriority") or "").lower() in ("lowpriority", "spot"),
        max_nodes=scale.count("maxNodeCount", _MOST),
        min_nodes=scale.count("minNodeCount", _MOST) or 0,
        idle_seconds=duration_seconds(scale.text("nodeIdleTimeBeforeScaleDown")),
        nodes=_node_counts(inner) if kind.lower() == CLUSTER.lower() else None,
        instance_types={name: _gpus_of(one) for name, one in inner.object("instanceTypes").each_object()},
        default_type=inner.text("defaultInstanceType"),
        vm_state=inner.text("state"),
    )


def _place(region: str) -> str:
    """A region as in addresses: `eastus` for "East US"."""
    return region.replace(" ", "").lower()


def _node_counts(inner: Answer) -> Nodes | None:
    if not inner.has("nodeStateCounts"):
        # A cluster without nodes may omit them.
        return Nodes() if inner.count("currentNodeCount", _MOST) == 0 else None
    counts = inner.object("nodeStateCounts")
    return Nodes(*(counts.count(f"{state}NodeCount", _MOST) or 0 for state in Nodes._fields))


def _gpus_of(instance_type: Answer) -> int | None:
    """GPUs in the limits of a Kubernetes instance type, such as `nvidia.com/gpu: "1"`."""
    limits = instance_type.object("resources").object("limits")
    if not limits.has("cpu") and not limits.has("memory") and not limits.has("nvidia.com/gpu"):
        return None
    text = str(limits.text("nvidia.com/gpu") or "0")
    return int(text) if text.isdigit() else None


def size_of(answer: Answer) -> Size:
    """A VM size from the list of the region."""
    prices = answer.object("estimatedVMPrices")
    amount = None
    for one in prices.objects("values"):
        words = ((one.text("osType") or "").lower(), (one.text("vmTier") or "").lower())
        if words == ("linux", "standard"):
            amount = one.number("retailPrice")
    currency = prices.text("billingCurrency")
    is_hourly = (prices.text("unitOfMeasure") or "").lower() == "onehour"
    known = amount is not None and amount > 0 and currency and is_hourly
    return Size(
        name=known_size.name if (known_size := vm_size(answer.needed("name"))) else answer.needed("name"),
        family=answer.text("family") or "",
        vcpus=answer.count("vCPUs", _MOST) or 0,
        gpus=answer.count("gpus", _MOST) or 0,
        memory_gb=answer.number("memoryGB") if answer.has("memoryGB") else 0.0,
        disk_mb=answer.count("maxResourceVolumeMB", 10**9),
        price=HourPrice(amount, currency) if known and amount and currency else None,
    )


def usage_of(answer: Answer) -> Usage:
    """A row of the quota."""
    name = answer.object("name")
    shown, value = name.text("localizedValue") or "", name.text("value") or ""
    # One of them may be shortened, or only the family.
    row = shown if "family" in shown.lower() or shown.lower().startswith("total") else value or shown
    used = int(answer.number("currentValue")) if answer.has("currentValue") else 0
    return Usage(row, used, int(answer.number("limit")))


def _is_of_a_workspace(answer: Answer) -> bool:
    """Whether a row is about a single workspace or cluster: the list also has those."""
    return "/workspaces/" in f"{answer.text('type') or ''}/".lower()


def says_there_is_none(error: Exception, name: str) -> bool:
    """Whether the service says that nothing has this name, rather than that the workspace is missing."""
    if getattr(error, "status_code", None) != 404:
        return False
    text = str(error)
    is_whole = re.search(
        r"workspaces/[^/']+' under resource group|(?i:resource ?group|subscription) '[^']+' could", text
    )
    return not is_whole and re.search(rf"(?i)(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def _why(error: Exception) -> str:
    """Why something could not be read, with the role that would allow it."""
    status = getattr(error, "status_code", None)
    if status == 403:
        found = re.search(r"action '([^']+)' over scope '([^']+)'", str(error))
        action, scope = (found[1], found[2]) if found else ("", "")
        if not found:
            return "not allowed (403); this can also mean a firewall or a private network of the workspace"
        place = "the subscription" if "/resourceGroups/" not in scope else "the workspace"
        role = "AzureML Data Scientist" if action.lower().endswith("/action") else "Reader"
        return f"not allowed: this requires the role {role} on {place} ({action.partition('/')[2]})"
    if isinstance(error, BrokenAnswerError):
        return f"the answer does not look like one from Azure ML: it {error}"
    if status == 401:
        return "the login was not accepted (401)"
    if status == 429:
        return "too many requests to Azure (429)"
    if status:
        return f"Azure answered {status}"
    return trouble(str(error), "Azure").message


def _with_ages(holders: Sequence[Holder] | Unknown, found: Mapping[Any, Any]) -> Sequence[Holder] | Unknown:
    if isinstance(holders, Unknown):
        return holders
    ages = ((one, found.get(("job", one.run))) for one in holders)
    return [one._replace(submitted=age) if isinstance(age, float) else one for one, age in ages]


def _or_listed(compute: Any, name: str, found: Mapping[Any, Any]) -> Any:
    """A compute that could not be read by itself, taken from the list of all computes."""
    listed = found.get("computes", ())
    if not isinstance(compute, Unknown) or isinstance(listed, Unknown):
        return compute
    return next((one for one in listed if one.name.lower() == name.lower()), compute)


def _with_names(asset: Asset, answer: Any, listed: Any) -> Any:
    """For something missing, its latest version, or else similar names, as far as they are known."""
    if not isinstance(answer, Missing) or not isinstance(listed, dict):
        return answer
    if asset.version and (latest := listed.get(asset.name)):
        return Missing(latest=latest)
    return Missing(tuple(like(asset.name, listed.keys() - {asset.name}, most=3, cutoff=0.5)))


def wanted_of(computes: Iterable[tuple[str, int]], region: bool, assets: Iterable[Asset]) -> Wanted:
    """What some jobs need to know, each once; for a compute, the largest number of nodes that a job needs."""
    most: dict[str, int] = {}
    for name, nodes in computes:
        most[name] = max(nodes, most.get(name, 0))
    return Wanted(most, region, tuple(dict.fromkeys(assets)))
