"""What the reports settle of the assumptions in `Service`: each is confirmed, corrected, or still open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.probed import NOT_PROBED, PROBED, assumed, told
from azml_dist.plan.service import kind_of_job
from azml_dist.probe.compare import Rank, missing_everywhere
from azml_dist.probe.jobs import Kind

T = TypeVar("T")

_CONTRACT = re.compile(r"(MASTER_(ADDR|PORT)|WORLD_SIZE|(NODE_|LOCAL_)?RANK|TF_CONFIG|RAY_ADDRESS|OMPI_COMM_WORLD_\w+)")
"""Variables without which such a job means nothing: if they are missing, something else is wrong."""
_OF_DATA = re.compile(r"(AZUREML_PARAMETER_|AZURE_ML_(INPUT|OUTPUT)_|AZUREML_DATAREFERENCE_)\w+")


@dataclass(frozen=True)
class Observed:
    """One job of a probe: its plan, and the processes that reported."""

    kind: Kind
    plan: LaunchPlan
    ranks: Sequence[Rank]
    logs: Sequence[str]
    is_completed: bool
    parameters: Mapping[str, str] | None = None
    """The run's MLflow parameters; None if they cannot be read."""

    @property
    def nodes(self) -> int:
        return self.plan.world.node_count

    @property
    def missing(self) -> list[int]:
        """The ranks that did not report."""
        return sorted(set(range(len(self.plan.processes))) - {one.rank for one in self.ranks})

    def values(self, name: str) -> list[tuple[Rank, str]]:
        return [(one, one.report.env[name]) for one in self.ranks if name in one.report.env]


class Settled(NamedTuple):
    """What became of an assumption."""

    name: str
    state: Literal["confirmed", "corrected", "open"]
    seen: Any = None
    """As `service.json` has it; of no use if it is open."""
    why: str = ""
    """Why it is open, or what it rests on."""

    @property
    def is_known(self) -> bool:
        return self.state != "open"

    def __str__(self) -> str:
        if self.state == "corrected":
            return f"{self.name} is {told(self.seen)}, not {told(assumed(self.name))}"
        return f"{self.name}: {self.why}" if self.why else self.name


def settle(jobs: Sequence[Observed]) -> list[Settled]:
    """Every assumption about the service, in the order of `Service`."""
    by_name = {name: judge(jobs) for name, judge in _JUDGES.items()}
    return [by_name[name] for name in PROBED] + [Settled(name, "open", why=_NOT_LOOKED_AT[name]) for name in NOT_PROBED]


def _known(name: str, seen: Any, why: str = "") -> Settled:
    return Settled(name, "confirmed" if seen == assumed(name) else "corrected", seen, why)


def _open(name: str, why: str) -> Settled:
    return Settled(name, "open", why=why)


def _needs(kind: Kind) -> str:
    return f"needs `--distribution {kind}`"


def _one(name: str, found: Iterable[T], without: str) -> Settled:
    """A fact on which all that saw it agree."""
    values = list(dict.fromkeys(found))
    if len(values) > 1:
        return _open(name, f"the processes do not agree: {', '.join(map(str, values[:4]))}")
    return _known(name, values[0]) if values else _open(name, without)


def _of(jobs: Sequence[Observed], *kinds: Kind) -> list[Observed]:
    return [job for job in jobs if job.kind in kinds and job.ranks]


def _process_name(jobs: Sequence[Observed]) -> Settled:
    name, own = "process_name", [job for job in _of(jobs, "pytorch", "mpi") if len(job.plan.processes) > 1]
    seen = [(job.plan.processes[one.rank], value) for job in own for one, value in job.values("AZUREML_PROCESS_NAME")]
    if not seen:
        return _open(name, "no process has AZUREML_PROCESS_NAME" if own else _needs("pytorch"))
    for template in _templates(seen[0][1]):
        if all(_named(template, process) == value for process, value in seen):
            return _known(name, template)
    examples = ", ".join(f"{value} in rank {process.rank}" for process, value in seen[:4])
    return _open(name, f"no rule is seen in {examples}")


def _templates(text: str) -> Iterator[str]:
    yield from ("rank_{rank}", "rank_{local_rank}", "rank_{node_rank}")
    plain = re.sub(r"[^\w.-]", "", text)
    if found := re.fullmatch(r"(.*?)\d+(\D*)", plain):
        yield from (f"{found[1]}{{{what}}}{found[2]}" for what in ("rank", "local_rank", "node_rank"))
    yield plain


def _named(template: str, process: Any) -> str:
    return template.format(rank=process.rank, local_rank=process.local_rank, node_rank=process.node_rank)


def _rank_digits(jobs: Sequence[Observed]) -> Settled:
    name = "rank_log_width"
    seen = [
        (one.rank, found[1], len(job.plan.processes))
        for job in _of(jobs, "pytorch", "mpi")
        for one in job.ranks
        if (found := re.search(r"std_log_process_(\d+)\.txt$", one.report.log))
    ]
    if not seen:
        return _open(
            name, "no log has the name std_log_process_N.txt" if _of(jobs, "pytorch", "mpi") else _needs("pytorch")
        )
    fitting = [
        least
        for least in (None, 1, 2, 3, 4, 5)
        if all(text == f"{rank:0{len(str(size - 1)) if least is None else least}}" for rank, text, size in seen)
    ]
    if not fitting:
        return _open(name, f"no rule is seen in std_log_process_{seen[0][1]}.txt of rank {seen[0][0]}")
    others = [f"always {least} or more" for least in fitting[1:] if least is not None]
    fits = f"it could also be {' or '.join(others)} digits: jobs of other sizes would tell" if others else ""
    return _known(name, fitting[0], fits)


def _node_digits(jobs: Sequence[Observed]) -> Settled:
    own = _of(jobs, "tensorflow")
    names = [re.search(r"std_log_node_(\d+)_\w+\.txt$", one.report.log) for job in own for one in job.ranks]
    without = "no log has the name std_log_node_NN_worker.txt" if own else _needs("tensorflow")
    return _one("node_log_width", (len(found[1]) for found in names if found), without)


def _local_world_size(jobs: Sequence[Observed]) -> Settled:
    own = _of(jobs, "pytorch")
    if not own:
        return _open("local_world_size", _needs("pytorch"))
    return _one("local_world_size", ("LOCAL_WORLD_SIZE" in one.report.env for job in own for one in job.ranks), "")


def _variable(
    name: str,
    variable: str,
    read: Callable[[str], Any],
    jobs: Sequence[Observed],
    without: str,
) -> Settled:
    """A fact that is read out of a variable, the same in all processes of these jobs."""
    if not jobs:
        return _open(name, without)
    found = []
    for value in (value for job in jobs for _, value in job.values(variable)):
        if (seen := read(value)) is None:
            return _open(name, f"{variable} is not understood")
        found.append(seen)
    return _one(name, found, f"no process has {variable}")


def _port(text: str) -> int | None:
    port = text.rpartition(":")[2]
    return int(port) if port.isdigit() and 0 < int(port) < 65536 else None


def _batch_port(jobs: Sequence[Observed]) -> Settled:
    own = [job for job in _of(jobs, "pytorch", "mpi", "tensorflow") if job.nodes > 1]
    return _variable("batch_master_port", "AZ_BATCH_MASTER_NODE", _port, own, "needs several nodes: `--nodes 2`")


def _word(text: str) -> str | None:
    return text if re.fullmatch(r"[\w.:^=,@-]{1,100}", text) else None


def _interface(jobs: Sequence[Observed]) -> Settled:
    return _variable("nccl_socket_ifname", "NCCL_SOCKET_IFNAME", _word, _of(jobs, "mpi"), _needs("mpi"))


def _master_of_one_node(jobs: Sequence[Observed]) -> Settled:
    own = [job for job in _of(jobs, "pytorch", "none") if job.nodes == 1]
    name = "master_of_one_node"
    found = _variable(name, "AZ_BATCHAI_MPI_MASTER_NODE", _word, own, _needs("none"))
    if found.is_known and re.fullmatch(r"[\d.]+|[0-9a-f:]+", str(found.seen)) and found.seen != "127.0.0.1":
        return _open(name, "it is the address of the node, which differs from run to run")
    return found


def _task_index(jobs: Sequence[Observed]) -> Settled:
    def rank(text: str) -> str | None:
        try:
            found = json.loads(text)["rank"]
        except (ValueError, LookupError, TypeError):
            return None
        return found if isinstance(found, str) and re.fullmatch(r"\w{1,100}", found) else None

    return _variable("task_index_variable", "AZUREML_CR_DISTRIBUTED_CONFIG", rank, [*jobs], "no process reported")


def _ray_port(jobs: Sequence[Observed]) -> Settled:
    return _variable("ray_port", "RAY_ADDRESS", _port, _of(jobs, "ray"), _needs("ray"))


def _clusters(jobs: Sequence[Observed], servers: bool) -> list[Mapping[str, Sequence[str]]]:
    """The clusters in `TF_CONFIG`, of jobs with parameter servers or without."""
    found = []
    for job in _of(jobs, "tensorflow"):
        distribution: Any = job.plan.job.distribution
        if bool(distribution.parameter_server_count) == servers:
            found += [cluster for _, value in job.values("TF_CONFIG") if (cluster := _cluster(value)) is not None]
    return found


def _cluster(text: str) -> Mapping[str, Sequence[str]] | None:
    try:
        found = json.loads(text)["cluster"]
        return {role: [str(one) for one in tasks] for role, tasks in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _ports(cluster: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The port of each role on node 0."""
    found = {role: _port(tasks[0]) for role, tasks in cluster.items() if tasks}
    return {role: port for role, port in found.items() if port is not None}


def _tensorflow_port(jobs: Sequence[Observed]) -> Settled:
    ports = [_ports(cluster) for servers in (True, False) for cluster in _clusters(jobs, servers)]
    return _one("tensorflow_port", (min(found.values()) for found in ports if found), _needs("tensorflow"))


def _tensorflow_first(jobs: Sequence[Observed]) -> Settled:
    ports = [_ports(cluster) for cluster in _clusters(jobs, servers=True)]
    both = [found for found in ports if {"ps", "worker"} <= found.keys() and found["ps"] != found["worker"]]
    firsts = ("ps" if found["ps"] < found["worker"] else "worker" for found in both)
    return _one("tensorflow_first", firsts, _needs("tensorflow"))


def _tensorflow_empty_ps(jobs: Sequence[Observed]) -> Settled:
    found = ("ps" in cluster for cluster in _clusters(jobs, servers=False))
    return _one("tensorflow_empty_ps", found, _needs("tensorflow"))


def _serving_roles(jobs: Sequence[Observed]) -> Settled:
    """A parameter server that ended by itself, long after the workers, was waited for."""
    name = "serving_roles"
    own = [job for job in _of(jobs, "tensorflow") if job.plan.processes[-1].role == "ps"]
    if not own:
        return _open(name, _needs("tensorflow"))
    said = [one.report for job in own for one in job.ranks if job.plan.processes[one.rank].role == "ps"]
    if not said or not all(job.is_completed for job in own):
        return _open(name, "the job with a parameter server did not complete")
    if not any(report.about("served") for report in said):
        return _known(name, ["ps"])
    last = max(_number(one.report.about("process").get("time")) for job in own for one in job.ranks)
    stayed = min(_number(report.about("served").get("time")) - last for report in said if report.about("served"))
    needed = _number(said[0].about("served").get("seconds")) / 2
    return _known(name, []) if stayed >= needed else _open(name, "the workers started too late to tell")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _logs_inputs(jobs: Sequence[Observed]) -> Settled:
    name, known = "logs_inputs", [job for job in jobs if job.parameters is not None and job.ranks]
    if not known:
        return _open(name, "the MLflow parameters of the run could not be read")
    return _one(name, ("probe" in (job.parameters or {}) for job in known), "")


def _unset(jobs: Sequence[Observed]) -> Settled:
    """Variables of the platform that no process of a complete job has."""
    whole = [job for job in jobs if job.ranks and not job.missing]
    if not whole:
        return _open("unset", "no job reported from all of its processes")
    found = [
        kind_of_job(job.plan.world.distribution, job.nodes) + variable
        for job in whole
        for variable in missing_everywhere(job.plan, job.ranks)
        if not _CONTRACT.fullmatch(variable) and not _OF_DATA.fullmatch(variable)
    ]
    return _known("unset", sorted(set(found)))


_JUDGES: Mapping[str, Callable[[Sequence[Observed]], Settled]] = {
    "node_log_width": _node_digits,
    "rank_log_width": _rank_digits,
    "process_name": _process_name,
    "local_world_size": _local_world_size,
    "tensorflow_port": _tensorflow_port,
    "tensorflow_first": _tensorflow_first,
    "tensorflow_empty_ps": _tensorflow_empty_ps,
    "serving_roles": _serving_roles,
    "ray_port": _ray_port,
    "logs_inputs": _logs_inputs,
    "batch_master_port": _batch_port,
    "nccl_socket_ifname": _interface,
    "master_of_one_node": _master_of_one_node,
    "task_index_variable": _task_index,
    "unset": _unset,
}
_NOT_LOOKED_AT: Mapping[str, str] = {
    "parameters_a_run": "a probe does not fill up its run's parameters",
    "metric_rows_a_batch": "a probe sends no metrics",
    "final_when_unchanged": "only a node that stops responding would show it",
    "billed": "only the bill shows it",
    "run_dimension": "Azure Monitor shows it, not a job",
    "ignored_by_compute": "a probe uses one cluster, and sets none of them",
}
