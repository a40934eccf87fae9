"""The result of a check: findings, what was not checked, the compute, the quota, the price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from azml_dist.check.facts import Compute, NotChecked, Size
from azml_dist.check.price import Price, total
from azml_dist.errors import Finding, any_error, counted, said_once
from azml_dist.show import Block, Facts, Page, Shown, Table, Told, told
from azml_dist.words import plural

_ADVICE = ("starts-at-once-elsewhere", "max-cost-needs-timeout")
"""Notes that suggest an alternative."""


class Row(NamedTuple):
    """A row of the quota, and what a job needs of it in addition to the existing nodes."""

    row: str
    used: int
    limit: int
    """-1 means no limit."""
    needs: int

    @property
    def is_short(self) -> bool:
        """Whether the job must wait until others release quota."""
        return self.limit >= 0 and 0 < self.needs > self.limit - self.used


class Wait(NamedTuple):
    """Why a job will wait."""

    reason: str
    source: str = "seen"
    """`service`: in the service's words; `seen`: from what the workspace shows."""


class Checked(NamedTuple):
    """One job and its compute."""

    step: str | None
    compute: Compute | None
    size: Size | None
    nodes: int
    price: Price
    quota: Sequence[Row] = ()
    wait: Wait | None = None


@dataclass(frozen=True)
class Check(Shown):
    """The check of a job, sweep or pipeline against a workspace: `print` it. Checking sends and changes nothing."""

    name: str | None
    parts: Sequence[Checked]
    findings: Sequence[Finding]
    not_checked: Sequence[NotChecked]

    @property
    def is_refused(self) -> bool:
        """Whether it is sure to be refused, never to start, or to fail."""
        return any_error(self.findings)

    def lines(self) -> Iterator[str]:
        """What to show at a submission: errors and warnings with their hints, but no notes."""
        for finding in self.findings:
            if finding.level != "note" or finding.code in _ADVICE:
                yield f"{finding.level}: {finding}"
                if finding.hint:
                    yield f"hint: {finding.hint}"

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist check --json` prints."""
        found = {
            "findings": [finding.to_dict() for finding in self.findings],
            "not_checked": [one._asdict() for one in self.not_checked],
        }
        if len(self.parts) == 1:
            return found | _of_a_part(self.parts[0])
        empty: dict[str, Any] = {"compute": None, "quota": [], "price": self._price(), "wait": None}
        return found | empty | {"steps": [{"name": part.step} | _of_a_part(part) for part in self.parts]}

    def _price(self) -> dict[str, object] | None:
        return total([part.price for part in self.parts]).to_dict() if self.parts else None

    def _page(self) -> Page:
        blocks: list[Block] = []
        for part in self.parts:
            blocks += _blocks(part)
        blocks += told(self.findings)
        blocks += [Told([("not checked", f"{one.what}: {one.why}")]) for one in self.not_checked]
        return Page([counted(list(said_once(self.findings))) or "no problem found"], blocks, self.name)

    def __repr__(self) -> str:
        return f"<Check: {counted(list(said_once(self.findings))) or 'nothing found'}>"


def _of_a_part(part: Checked) -> dict[str, Any]:
    return {
        "compute": _compute(part),
        "quota": [row._asdict() for row in part.quota],
        "price": part.price.to_dict(),
        "wait": part.wait._asdict() if part.wait else None,
    }


def _compute(part: Checked) -> dict[str, Any] | None:
    compute, size = part.compute, part.size
    if compute is None and size is None:
        return None
    nodes = compute.nodes if compute else None
    return {
        "name": compute.name if compute else None,
        "size": (compute and compute.size) or (size and size.name),
        "nodes_max": compute.max_nodes if compute else None,
        "idle": nodes.idle if nodes else None,
        "busy": nodes.allocated - nodes.idle if nodes else None,
        "state": compute.state if compute else None,
    }


def _blocks(part: Checked) -> Iterator[Block]:
    yield Facts(list(_facts(part)))
    if part.quota:
        rows = [(r.row, f"{r.used:,}", "none" if r.limit < 0 else f"{r.limit:,}", f"{r.needs:,}") for r in part.quota]
        yield Table(("quota, vCPUs", "used", "limit", "needed"), rows)


def _facts(part: Checked) -> Iterator[tuple[str, str]]:
    compute, size = part.compute, part.size
    if part.step:
        yield "step", part.step
    if compute:
        known = size.name if size else compute.size or compute.kind
        yield "compute", ", ".join(filter(None, (compute.name, known, _kind(compute))))
        if compute.nodes and compute.max_nodes is not None:
            yield "nodes", f"{part.nodes} wanted; {compute.nodes.idle} idle of at most {compute.max_nodes}"
    elif size:
        yield "compute", f"serverless, {size.name}"
    if size:
        gpus = plural(size.gpus, "GPU") if size.gpus else "no GPU"
        yield "each node", f"{gpus}, {plural(size.vcpus, 'vCPU')}, {size.memory_gb:,.0f} GB of memory"
    yield "price", str(part.price)
    if part.wait:
        yield "wait", part.wait.reason


def _kind(compute: Compute) -> str:
    return "spot" if compute.is_spot else ""
