"""Whether the quota has room: reads its rows, and computes what a job needs of each.

Two rows decide, one for the family of the size and one for the region, and the smaller one counts. They count the
vCPUs of existing nodes, whatever these do: a cluster with zero nodes uses none (seen in a workspace, August 2026). A
limit of -1 means no limit in that row, and says nothing about the other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from azml_dist.check.facts import Size, Usage
from azml_dist.check.report import Row
from azml_dist.errors import Finding
from azml_dist.words import plural

ASK = "request more: Azure ML studio, Quota, Request quota"


def rows(usages: Sequence[Usage], size: Size, *, is_spot: bool, new_nodes: int) -> list[Row]:
    """The rows that apply to nodes of a size, and what this many new nodes need of each."""
    needs = size.vcpus * new_nodes
    found = (_family(usages, size, is_spot), _total(usages, is_spot))
    return [Row(usage.row, usage.used, usage.limit, needs) for usage in found if usage]


def missing_rows(found: Sequence[Row], size: Size) -> Iterator[str]:
    """What cannot be judged because the quota has no such row."""
    keys = [_key(row.row) for row in found]
    if not any("family" in key for key in keys):
        yield f"it has no row for the family {size.family}"
    if not any(key.startswith("total") for key in keys):
        yield "it has no row for the whole region"


def findings(found: Sequence[Row], size: Size, nodes: int, where: str, *, there: int) -> Iterator[Finding]:
    """What the rows say about a job with this many nodes: at most one finding, the worst.

    A limit below what the job needs is an error only if not enough nodes exist already, whoever uses them.
    """
    least = size.vcpus * nodes
    too_small = [row for row in found if there < nodes and 0 <= row.limit < least]
    if too_small:
        row = min(too_small, key=lambda row: row.limit)
        needs = f"{plural(nodes, 'node')} of {size.name} {'needs' if nodes == 1 else 'need'} {least:,}"
        yield Finding(
            "no-quota",
            "error",
            f"the quota `{row.row}` is {plural(row.limit, 'vCPU')}, but {needs}: the run would never start",
            f"{ASK}; or use fewer nodes or another size",
            where,
        )
        return
    short = [row for row in found if row.is_short]
    if short:
        row = min(short, key=lambda row: row.limit - row.used)
        free = max(0, row.limit - row.used)
        yield Finding(
            "short-quota",
            "warning",
            f"`{row.row}`: {row.used:,} of {row.limit:,} vCPUs are in use, {free:,} are free, but the new nodes need"
            f" {row.needs:,}: the run waits until others release some",
            f"`az ml compute list-usage` shows the quota; {ASK}",
            where,
        )


def own_findings(limits: Sequence[Usage], size: Size, nodes: int, where: str, *, is_spot: bool) -> Iterator[Finding]:
    """What a limit that was set for this workspace only says, if there is one for the family of the size.

    Documented ("Manage and request quotas": workspace-level quotas); how the service refuses, has not been seen.
    """
    own, needs = _family(limits, size, is_spot), size.vcpus * nodes
    if own and 0 <= own.limit < needs:
        needing = f"{plural(nodes, 'node')} of {size.name} {'needs' if nodes == 1 else 'need'} {needs:,}"
        yield Finding(
            "workspace-quota",
            "warning",
            f"the limit of this workspace for `{own.row}` is {plural(own.limit, 'vCPU')}, but {needing}: the run "
            "probably never starts",
            "raise it: Azure ML studio, Quota, Configure quotas of the workspace; or use fewer nodes or another size",
            where,
        )


def _family(usages: Sequence[Usage], size: Size, is_spot: bool) -> Usage | None:
    """The family in the name of a row, which has spaces there but not in the list of sizes."""
    family = _key(size.family).removesuffix("family").removeprefix("standard")
    for usage in usages:
        before, found, _ = _key(usage.row).partition("family")
        if found and before.removeprefix("standard") == family and _is_spot(usage) == is_spot:
            return usage
    return None


def _total(usages: Sequence[Usage], is_spot: bool) -> Usage | None:
    totals = (usage for usage in usages if re.search(r"^total.*regional.*cpu", _key(usage.row)))
    return next((usage for usage in totals if _is_spot(usage) == is_spot), None)


def _is_spot(usage: Usage) -> bool:
    return re.search("lowpriority|spot", _key(usage.row)) is not None


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
