"""Compares a plan with the facts of a workspace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from azml_dist.check import quota
from azml_dist.check.assets import asset_findings, download_findings, image_findings
from azml_dist.check.computes import compute_findings, elsewhere, fit_findings, nodes_findings
from azml_dist.check.facts import CLUSTER, INSTANCE, NOT_ASKED, Compute, Facts, Nodes, NotChecked, Size, Unknown
from azml_dist.check.parts import AnyPlan, Part, parts_of, placed, references
from azml_dist.check.price import ceiling_findings, price_of
from azml_dist.check.report import Check, Checked, Row, Wait
from azml_dist.errors import Finding, Level
from azml_dist.plan.service import Service

Said = Finding | NotChecked


def judge(
    plan: AnyPlan, facts: Facts, workspace: str, max_cost: float | None = None, service: Service | None = None
) -> Check:
    """What the facts say about a plan; `workspace` is the ARM id of their workspace. `service` replaces what the plan
    assumes about Azure ML."""
    said: list[Said] = list(plan.findings)
    parts = []
    for planned in parts_of(plan):
        part = planned._replace(plan=replace(planned.plan, service=service)) if service else planned
        checked, found = _part(part, facts)
        parts.append(checked)
        found += image_findings(part.job.environment, facts)
        found += download_findings(part, checked.size)
        said += (placed(plan, part.step, one) if isinstance(one, Finding) else one for one in found)
    for step, reference in references(plan, workspace):
        said += (
            placed(plan, step, one) if isinstance(one, Finding) else one
            for one in asset_findings(reference, facts.assets)
        )
    if max_cost is not None:
        said += ceiling_findings([part.price for part in parts], max_cost)
    findings = [one for one in said if isinstance(one, Finding)]
    not_checked = [one for one in said if isinstance(one, NotChecked)]
    return Check(_name(plan), parts, _worst_first(findings), list(dict.fromkeys(not_checked)))


def _name(plan: AnyPlan) -> str | None:
    job = next((part.job for part in parts_of(plan)), None)
    return (job.display_name or job.name) if job else None


def _worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once for each step: one from the plan is replaced if the workspace says more."""
    levels = get_args(Level)
    worst: dict[tuple[str, str | None, str | None], Finding] = {}
    for one in findings:
        key = (one.code, one.where, one.step)
        before = worst.get(key)
        if before is None or levels.index(one.level) <= levels.index(before.level):
            worst[key] = one
    return sorted(worst.values(), key=lambda one: levels.index(one.level))


def _part(part: Part, facts: Facts) -> tuple[Checked, list[Said]]:
    if part.compute is None:
        return _serverless(part, facts)
    if part.is_here:
        why = "the compute `local` is this machine; `azml-dist run` runs the job there"
        return _checked(part, facts, None, None), [NotChecked("the compute", why)]
    found = facts.computes.get(part.compute, NOT_ASKED)
    said: list[Said] = list(compute_findings(part, found, facts))
    if not isinstance(found, Compute) or found.kind not in (CLUSTER, INSTANCE):
        return _checked(part, facts, found if isinstance(found, Compute) else None, None), said
    has_nodes = found.nodes is not None and found.nodes.idle >= part.nodes
    size, about_size = _size(found.size, found.location, facts, "compute", has_nodes=has_nodes)
    checked = _checked(part, facts, found, size)
    if _is_wrong(said):
        advice = elsewhere(part, found, size, facts)
        return checked, [*said, advice] if advice else said
    said += about_size
    if size:
        said += fit_findings(part, size, found)
    if found.kind == INSTANCE:
        return checked, said
    nodes = found.nodes or Nodes()
    rows, about_quota = _quota(part, size, found.location, facts, "compute", is_spot=found.is_spot, nodes=nodes)
    holders = facts.holders.get(found.name, NOT_ASKED)
    # Nodes with a size that is not offered never start.
    about_nodes = [] if _is_wrong(about_size) else list(nodes_findings(part, found, holders))
    waits = _once(about_nodes, about_quota)
    if isinstance(holders, Unknown) and "waits-for-nodes" in _codes(waits):
        said.append(NotChecked(f"which runs use the nodes of `{found.name}`", holders.why))
    advice = elsewhere(part, found, size, facts) if _codes(waits) & {*_SLOW} else None
    said += [*waits, advice] if advice else waits
    return checked._replace(quota=rows, wait=_wait(waits)), said


def _checked(part: Part, facts: Facts, compute: Compute | None, size: Size | None) -> Checked:
    queue = part.job.queue
    is_spot = compute.is_spot if compute else bool(queue and queue.tier == "spot")
    place = compute.location if compute else str(facts.region)
    price = price_of(part, size, compute, is_spot=is_spot, as_of=facts.on, place=place)
    return Checked(part.step, compute, size, part.nodes, price)


def _once(about_nodes: list[Said], about_quota: list[Said]) -> list[Said]:
    """Drops contradictions: nodes without quota do not start; a run that waits for a full cluster needs no quota."""
    if "waits-for-nodes" in _codes(about_nodes):
        about_quota = [one for one in about_quota if not (isinstance(one, Finding) and one.code == "short-quota")]
    if _codes(about_quota) & {"no-quota", "workspace-quota", "short-quota"}:
        about_nodes = [one for one in about_nodes if not isinstance(one, Finding)]
    return [*about_nodes, *about_quota]


def _codes(said: Iterable[Said]) -> set[str]:
    return {one.code for one in said if isinstance(one, Finding)}


def _is_wrong(said: Iterable[Said]) -> bool:
    return any(isinstance(one, Finding) and one.level == "error" for one in said)


def _serverless(part: Part, facts: Facts) -> tuple[Checked, list[Said]]:
    region, name = facts.region, part.job.instance_type
    if name is None:
        why = "the job sets no `instance_type`, so Azure ML chooses one"
        return _checked(part, facts, None, None), [NotChecked("size, quota and price of serverless compute", why)]
    if isinstance(region, Unknown):
        follows = NotChecked("size, quota and price of serverless compute", "the region of the workspace is unknown")
        return _checked(part, facts, None, None), [NotChecked("the region of the workspace", region.why), follows]
    size, said = _size(name, region, facts, "instance_type", has_nodes=False)
    checked = _checked(part, facts, None, size)
    if size:
        said += fit_findings(part, size, None)
    rows, about_quota = _quota(part, size, region, facts, "instance_type", is_spot=checked.price.spot, nodes=Nodes())
    return checked._replace(quota=rows, wait=_wait(about_quota)), [*said, *about_quota]


def _size(
    name: str | None, location: str, facts: Facts, where: str, *, has_nodes: bool
) -> tuple[Size | None, list[Said]]:
    """What the region's list says about a size. A missing size is not an error if enough nodes already exist."""
    sizes = facts.sizes.get(location, NOT_ASKED)
    if isinstance(sizes, Unknown):
        return None, [NotChecked(f"the VM sizes of {location}", sizes.why)]
    if size := sizes.get((name or "").lower()):
        return size, []
    if not sizes or name is None:
        return None, [NotChecked(f"the size {name}", f"the list of the sizes of {location} is empty")]
    return None, [
        Finding(
            "size-not-offered",
            "warning" if has_nodes else "error",
            f"{location} does not offer the size {name}",
            "`az ml compute list-sizes` lists the sizes; retired ones are not in it",
            where,
        )
    ]


def _quota(
    part: Part, size: Size | None, location: str, facts: Facts, where: str, *, is_spot: bool, nodes: Nodes
) -> tuple[list[Row], list[Said]]:
    usages = facts.usages.get(location, NOT_ASKED)
    if size is None and not _is_unread(facts, location):
        return [], []  # a size that is not offered, or has no name, needs no quota
    if isinstance(usages, Unknown):
        return [], [NotChecked(f"the quota in {location}", usages.why)]
    if size is None:
        why = "quota counts vCPUs, and without the VM sizes it is unknown how many a node has"
        return [], [NotChecked(f"the quota in {location}", why)]
    new = max(0, part.nodes - nodes.idle)
    rows = quota.rows(usages, size, is_spot=is_spot, new_nodes=new)
    said: list[Said] = [NotChecked(f"the quota in {location}", why) for why in quota.missing_rows(rows, size)]
    own = facts.own_limits.get(location, NOT_ASKED)
    if isinstance(own, Unknown):
        why = _NOT_NEEDED if own == NOT_ASKED else own.why
        said += [NotChecked("the limits that were set for this workspace only", why)] if new else []
    elif nodes.allocated < part.nodes:
        said += quota.own_findings(own, size, part.nodes, where, is_spot=is_spot)
    return rows, [*said, *quota.findings(rows, size, part.nodes, where, there=nodes.allocated)]


def _is_unread(facts: Facts, location: str) -> bool:
    """Whether the sizes of a region are not known, or none of them."""
    sizes = facts.sizes.get(location, NOT_ASKED)
    return isinstance(sizes, Unknown) or not sizes


_NOT_NEEDED = "a check sends few requests, and others mattered more"
_SLOW = ("no-quota", "workspace-quota", "short-quota", "waits-for-nodes", "starts-nodes")
"""What makes a run wait, the most important first."""


def _wait(said: Iterable[Said]) -> Wait | None:
    slow = [one for one in said if isinstance(one, Finding) and one.code in _SLOW]
    return Wait(min(slow, key=lambda one: _SLOW.index(one.code)).message) if slow else None
