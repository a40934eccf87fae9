"""Whether the compute of a job exists, is large enough, and is free."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

from azml_dist.check.facts import (
    CLUSTER,
    INSTANCE,
    KUBERNETES,
    Compute,
    Facts,
    Holder,
    Missing,
    NotChecked,
    Size,
    Unknown,
)
from azml_dist.check.nccl import Nccl, looks_of, nccl_of
from azml_dist.check.parts import Part
from azml_dist.check.price import money
from azml_dist.errors import Finding
from azml_dist.plan.findings import size_findings
from azml_dist.vmsizes import VmSize, vm_size
from azml_dist.words import did_you_mean, duration, like, plural

_RESUMES = re.compile(r"(?i:resum|checkpoint|ckpt|restore|load_state)")
"""What a script or command says that goes on from where an earlier attempt stopped."""
_CHANGING = ("Creating", "Updating")


def compute_findings(part: Part, compute: Compute | Missing | Unknown, facts: Facts) -> Iterator[Finding | NotChecked]:
    """Everything about the compute itself: whether it exists, works, and accepts such a job."""
    name = part.compute
    if isinstance(compute, Unknown):
        yield NotChecked(f"compute `{name}`", compute.why)
        return
    if isinstance(compute, Missing):
        yield _missing(part, facts)
        return
    yield from _state(compute)
    if compute.kind == CLUSTER:
        yield from _cluster(part, compute)
    elif compute.kind == INSTANCE:
        yield from _instance(part, compute)
    elif compute.kind == KUBERNETES:
        yield from _kubernetes(part, compute)
    else:
        yield NotChecked(
            f"compute `{name}`", f"it is an attached {compute.kind}; the workspace shows only that it exists"
        )
    yield from _ignored(part, compute)


def _missing(part: Part, facts: Facts) -> Finding:
    known = [] if isinstance(facts.all_computes, Unknown) else list(facts.all_computes)
    near = like(part.compute, [one.name for one in known], most=3, cutoff=0.5)
    fitting = [one.name for one in known if one.kind == CLUSTER and (one.max_nodes or 0) >= part.nodes]
    room = f"There is room for {plural(part.nodes, 'node')} on {', '.join(fitting[:8])}" if fitting else None
    hint = " ".join(filter(None, (did_you_mean(near), room))) or "`az ml compute list` shows the existing computes"
    return Finding("no-such-compute", "error", f"the workspace has no compute `{part.compute}`", hint, "compute")


def _state(compute: Compute) -> Iterator[Finding]:
    if compute.state in ("Failed", "Canceled", "Deleting"):
        why = f": {compute.errors[0][:300]}" if compute.errors else ""
        yield Finding(
            "compute-failed",
            "error",
            f"compute `{compute.name}` is {compute.state}{why}",
            f"create it again, or use another one; `az ml compute show -n {compute.name}` shows its errors",
            "compute",
        )
    elif compute.state in _CHANGING:
        yield Finding(
            "compute-changing",
            "warning",
            f"compute `{compute.name}` is {compute.state}: the run waits until that has finished",
            None,
            "compute",
        )


def _cluster(part: Part, compute: Compute) -> Iterator[Finding | NotChecked]:
    most = compute.max_nodes
    if most is not None and part.nodes > most:
        room = f"set `resources.instance_count` to {most} or less, or raise" if most else "raise"
        yield Finding(
            "too-many-nodes",
            "error",
            f"the job needs {plural(part.nodes, 'node')}, but `{compute.name}` has at most {most:,}",
            f"{room} the maximum of the cluster: `az ml compute update -n {compute.name} --max-instances {part.nodes}`",
            "node_count",
        )
    if compute.is_spot and not _resumes(part):
        yield Finding(
            "spot-without-resume",
            "warning",
            f"`{compute.name}` has spot nodes, which Azure may evict: the run then restarts, but nothing in the command"
            " or the script reads a checkpoint",
            "save checkpoints to an output and load the last one at the start, as in samples/spot_resume",
            "compute",
        )


def _resumes(part: Part) -> bool:
    texts = [part.job.shell_command, *part.job.inputs]
    return any(map(_RESUMES.search, texts)) or any(look.program.uses(_RESUMES.pattern) for look in looks_of(part.plan))


def _instance(part: Part, compute: Compute) -> Iterator[Finding | NotChecked]:
    if part.nodes > 1:
        yield Finding(
            "too-many-nodes",
            "error",
            f"the job needs {part.nodes} nodes, but `{compute.name}` is a compute instance, which is one machine",
            "use a compute cluster, or set `resources.instance_count` to 1",
            "node_count",
        )
    if compute.vm_state and compute.vm_state != "Running":
        yield Finding(
            "compute-stopped",
            "warning",
            f"the compute instance `{compute.name}` is {compute.vm_state}",
            f"`az ml compute start -n {compute.name}`",
            "compute",
        )
    yield NotChecked(f"whether `{compute.name}` is free", "a compute instance does not show what runs on it")


def _kubernetes(part: Part, compute: Compute) -> Iterator[Finding | NotChecked]:
    name = part.job.instance_type or compute.default_type
    types = compute.instance_types
    if part.job.instance_type and types and part.job.instance_type not in types:
        near = did_you_mean(like(name, types, most=3, cutoff=0.5)) or f"there are: {', '.join(list(types)[:8])}"
        message = f"the Kubernetes cluster `{compute.name}` has no instance type `{name}`"
        yield Finding("no-such-instance-type", "error", message, near, "instance_type")
    elif name and (gpus := types.get(name)) is not None:
        yield from _processes(part, f"`{compute.name}`: {name}", gpus, "instance_type")
    yield NotChecked(
        f"nodes, quota and price of `{compute.name}`",
        "Azure ML does not show them for a Kubernetes cluster",
    )


def _ignored(part: Part, compute: Compute) -> Iterator[Finding]:
    """What a kind of compute ignores, as far as `Service` has it."""
    for field in _given(part):
        if f"{compute.kind}/{field}" in part.plan.service.ignored_by_compute:
            kind = {CLUSTER: "a compute cluster", INSTANCE: "a compute instance"}.get(compute.kind, compute.kind)
            yield Finding(
                "ignored-by-compute",
                "warning",
                f"{kind} ignores `{field.removesuffix('.user_identity')}` (inferred): {_WHY.get(field, _WHY_NOT)}",
                "leave it out, or use another compute",
                _FIELDS[field],
            )


def _given(part: Part) -> list[str]:
    """The settings of the job that some kinds of compute ignore, under their names in YAML."""
    job, queue = part.job, part.job.queue
    found = {
        "queue_settings.job_tier": queue is not None and bool(queue.tier),
        "queue_settings.priority": queue is not None and bool(queue.priority),
        "resources.instance_type": job.instance_type is not None,
        "resources.docker_args": job.docker_args is not None,
        "resources.shm_size": job.shm_size is not None,
        "identity.user_identity": job.identity is not None and job.identity.type == "user_identity",
    }
    return [field for field, is_given in found.items() if is_given]


_WHY = {
    "queue_settings.job_tier": "it chooses the tier of serverless compute",
    "queue_settings.priority": "it chooses the priority on serverless compute and Kubernetes",
    "resources.instance_type": "it is for serverless compute and Kubernetes; a cluster uses its own size",
    "resources.docker_args": "there is no `docker run` on Kubernetes",
    "identity.user_identity": "user identity is for compute clusters and serverless compute",
}
_WHY_NOT = "it is for other kinds of compute"
_FIELDS = {
    "queue_settings.job_tier": "queue",
    "queue_settings.priority": "queue",
    "resources.instance_type": "instance_type",
    "resources.docker_args": "docker_args",
    "resources.shm_size": "shm_size",
    "identity.user_identity": "identity",
}
"""The fields of a job, by their names in YAML."""


def nodes_findings(part: Part, compute: Compute, holders: Sequence[Holder] | Unknown) -> Iterator[Finding | NotChecked]:
    """Whether nodes are free now, and which runs use the others."""
    if compute.kind != CLUSTER or compute.max_nodes is None or part.nodes > compute.max_nodes:
        return
    nodes, free = compute.nodes, compute.free
    if nodes is None or free is None:
        yield NotChecked(f"nodes of `{compute.name}`", "the service does not say how many are idle")
        return
    if nodes.idle >= part.nodes:
        return
    seen = f"{plural(part.nodes, 'node')} wanted, {nodes.idle} idle"
    if free < part.nodes:
        yield Finding(
            "waits-for-nodes",
            "warning",
            f"the run must wait: {seen} of at most {compute.max_nodes}{_who(nodes_in_use(compute, holders))}",
            None,
            "compute",
        )
    else:
        new = part.nodes - nodes.idle
        yield Finding(
            "starts-nodes",
            "warning",
            f"`{compute.name}` must start {plural(new, 'node')} first, which takes minutes: {seen}",
            f"`az ml compute update -n {compute.name} --min-instances {part.nodes}` keeps them running, and billed",
            "compute",
        )


def nodes_in_use(compute: Compute, holders: Sequence[Holder] | Unknown, now: float | None = None) -> list[str]:
    """Who uses the nodes of a cluster, in a few words each: `3 used by run calm_fox (submitted 3 h ago)`."""
    found = [] if isinstance(holders, Unknown) else sorted(holders, key=lambda one: -one.nodes)
    said = [f"{one.nodes} used by run {one.run}{_age(one, now or time.time())}" for one in found[:3]]
    nodes = compute.nodes
    if nodes is None:
        return said
    if found[3:]:
        said.append(f"{sum(one.nodes for one in found[3:])} by {len(found) - 3} other runs")
    if not found and nodes.running:
        said.append(f"{nodes.running} used by other runs")
    said += [f"{nodes.preparing} preparing"] if nodes.preparing else []
    said += [f"{nodes.leaving} leaving"] if nodes.leaving else []
    said += [f"{nodes.unusable} unusable"] if nodes.unusable else []
    return said


def _age(holder: Holder, now: float) -> str:
    if holder.started is not None:
        return f" ({duration(now - holder.started)})"
    if holder.submitted is None:
        return ""
    minutes = max(0, int(now - holder.submitted) // 60)
    return f" (submitted {minutes} min ago)" if minutes < 120 else f" (submitted {minutes // 60} h ago)"


def _who(said: Sequence[str]) -> str:
    return f": {', '.join(said)}" if said else ""


def fit_findings(part: Part, size: Size, compute: Compute | None) -> Iterator[Finding]:
    """Whether the processes of a node fit its GPUs, and other findings about the size."""
    where = "compute" if compute else "instance_type"
    name = compute.name if compute else None
    if part.has_open_counts:
        return
    if size.gpus == 0:
        is_said = any(finding.code == "nccl-without-gpu" for finding in part.plan.findings)
        if not is_said and nccl_of(part.plan) is Nccl.ALWAYS:
            yield Finding(
                "nccl-without-gpu",
                "error",
                f"the job uses NCCL, but {size.name} has no GPU",
                "use a size with GPUs, or the backend `gloo`",
                where,
            )
        return
    for finding in size_findings(part.job, as_vm_size(size), name):
        if finding.code == "more-processes-than-gpus":
            yield from _processes(part, _place(size, name), size.gpus, "distribution")
        else:
            yield finding


def _place(size: Size, compute: str | None) -> str:
    return f"`{compute}`: {size.name}" if compute else size.name


def _processes(part: Part, place: str, gpus: int, where: str) -> Iterator[Finding]:
    """More processes than GPUs: NCCL refuses two ranks on one GPU ("Duplicate GPU detected"); others share it."""
    processes = part.job.process_count_per_node
    if part.has_open_counts or processes <= gpus or type(part.job.distribution).__name__ not in ("PyTorch", "Mpi"):
        return
    nccl = nccl_of(part.plan)
    fails = nccl is Nccl.ALWAYS or (nccl is Nccl.ON_GPUS and gpus > 0)
    has = f"has {plural(gpus, 'GPU')}" if gpus else "has no GPU"
    if not gpus and not fails:
        return
    yield Finding(
        "more-processes-than-gpus",
        "error" if fails else "warning",
        f"{plural(part.nodes, 'node')} x {processes} processes do not fit on {place} {has}"
        + (", and NCCL needs one for each process" if fails else ""),
        f"set `distribution.process_count_per_node` to {max(gpus, 1)}, or use a size with more GPUs",
        where,
    )


def as_vm_size(size: Size) -> VmSize:
    """The size from our own table, with the figures of the workspace if they differ."""
    known = vm_size(size.name)
    if known is None:
        # "r" is InfiniBand ("Distributed GPU training guide"); its bandwidth is not needed.
        has_infiniband = re.match(r"(?i)standard_[a-z]+\d+[a-z]*r", size.name) is not None
        return VmSize(
            size.name,
            size.family,
            "",
            Fraction(size.gpus),
            0,
            size.vcpus,
            int(size.memory_gb),
            int(has_infiniband),
            "",
            "current",
            None,
            "",
            "",
        )
    # A fraction of a GPU counts as one in the list of sizes.
    return known._replace(gpus=Fraction(size.gpus)) if known.gpu_count != size.gpus else known


def elsewhere(part: Part, compute: Compute, size: Size | None, facts: Facts) -> Finding | None:
    """Another cluster of the workspace that would start such a job at once, and costs at most twice as much."""
    if isinstance(facts.all_computes, Unknown) or part.has_open_counts:
        return None
    found: list[tuple[float, Compute]] = []
    for one in facts.all_computes:
        if one.name == compute.name or one.kind != CLUSTER or one.state != "Succeeded" or one.is_spot:
            continue
        idle, other = one.nodes.idle if one.nodes else 0, _size_of(one, facts)
        if idle >= part.nodes and size and other and _is_enough(other, size) and _is_alike(other, size):
            found.append((other.price.amount if other.price else 0.0, one))
    if not found:
        return None
    one = min(found, key=lambda priced: priced[0])[1]
    idle = one.nodes.idle if one.nodes else 0
    return Finding(
        "starts-at-once-elsewhere",
        "note",
        f"it would start at once on `{one.name}`, which has {plural(idle, 'idle node')} of {one.size}"
        f"{_other_price(_size_of(one, facts), size)}",
        f"`--set compute={one.name}`" if part.step is None else f"set `compute` of the step to `azureml:{one.name}`",
        "compute",
    )


def _is_alike(other: Size, size: Size) -> bool:
    """Whether nobody minds the difference in price; without prices, both have GPUs or none."""
    if other.price and size.price and other.price.currency == size.price.currency:
        return other.price.amount <= 2 * size.price.amount
    return bool(other.gpus) == bool(size.gpus)


def _other_price(other: Size | None, size: Size | None) -> str:
    if not (other and size and other.price and size.price) or other.price == size.price:
        return ""
    return f" (a node costs {money(*other.price)} an hour, not {money(*size.price)})"


def _size_of(compute: Compute, facts: Facts) -> Size | None:
    sizes = facts.sizes.get(compute.location)
    return None if sizes is None or isinstance(sizes, Unknown) else sizes.get((compute.size or "").lower())


def _is_enough(other: Size, size: Size) -> bool:
    return other.gpus >= size.gpus and other.memory_gb >= size.memory_gb
