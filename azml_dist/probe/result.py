"""The result of a probe, for people, and as JSON that can be shared: no secrets, and hashes in place of ids."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from azml_dist.plan.probed import PROBED, assumed
from azml_dist.probe.compare import Difference, differences, more
from azml_dist.probe.facts import Observed, Settled
from azml_dist.probe.jobs import Kind
from azml_dist.show import Block, Facts, Page, Shown, Table, Told
from azml_dist.version import __version__
from azml_dist.words import plural, size_text

_IDS = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b(?!127\.)\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9a-f]{24,}\b", re.IGNORECASE
)
"""What identifies something wherever it is: GUIDs, addresses of machines, long hexadecimal numbers."""
_SHORTEST = 3
"""Characters of an id that is replaced wherever it is."""


class RunOf(NamedTuple):
    """One job of the probe, and how it ended."""

    kind: Kind
    name: str
    status: str
    observed: Observed
    trouble: str | None = None
    """Why it failed, or why its logs could not be read."""


@dataclass(frozen=True)
class ProbeResult(Shown):
    """What a probe found out: `print` it; `to_dict()` is for sharing."""

    cluster: str
    nodes: int
    on: str
    runs: Sequence[RunOf]
    facts: Sequence[Settled]
    ids: Sequence[str] = field(repr=False)
    """What `to_dict` hides: the names of the workspace, its group, the cluster, and so on."""
    kept: str | None = None
    """The file that the facts are kept in."""
    not_kept: str | None = None
    """Why they are not kept, if they should have been."""

    @property
    def is_complete(self) -> bool:
        """Whether every job completed, and every process reported."""
        return all(run.status == "Completed" and not run.observed.missing for run in self.runs)

    def facts_that_are(self, state: str) -> list[Settled]:
        return [one for one in self.facts if one.state == state]

    def to_dict(self) -> dict[str, Any]:
        """What `azml-dist probe --json` prints."""
        found = {
            "azml_dist": __version__,
            "cluster": self.cluster,
            "nodes": self.nodes,
            "on": self.on,
            "complete": self.is_complete,
            "runs": [_run_dict(run) for run in self.runs],
            "facts": [
                {
                    "name": one.name,
                    "state": one.state,
                    "assumed": _plain(assumed(one.name)),
                    "seen": one.seen if one.is_known else None,
                    "why": one.why or None,
                }
                for one in self.facts
            ],
            "machines": [
                _machine(rank.report.said) for run in self.runs for rank in run.observed.ranks if _is_head(rank)
            ],
            "all_reduce": self._reduced(),
            "clock": self._clock(),
            "kept": self.kept is not None,
        }
        hidden: dict[str, Any] = Hasher([*self.ids, *_hosts(self.runs)]).hide(found)
        return hidden

    def _reduced(self) -> list[dict[str, Any]]:
        return [dict(said) for run in self.runs for rank in run.observed.ranks if (said := rank.report.about("reduce"))]

    def _clock(self) -> list[dict[str, Any]]:
        """How far the clock of each node is ahead of that of node 0, in seconds, and how exactly that is known."""
        return [
            {"node": run.observed.plan.processes[rank.rank].node_rank, **said}
            for run in self.runs
            for rank in run.observed.ranks
            if (said := rank.report.about("clock"))
        ]

    def _page(self) -> Page:
        status = "complete" if self.is_complete else "not complete"
        blocks: list[Block] = [
            Table(("run", "distribution", "status", "processes", "logs"), [_row(run) for run in self.runs]),
            Facts([("as assumed", ", ".join(one.name for one in self.facts_that_are("confirmed")))]),
            Told([("corrected", str(one)) for one in self.facts_that_are("corrected")]),
            Told([("not known", text) for text in _open(self.facts_that_are("open"))]),
            Told([("differs", _told(one)) for run in self.runs for one in _differences(run) if one.seen is not None]),
            Facts(_also(self.runs)),
            _machines(self.runs),
            Facts([*_bandwidth(self._reduced()), *_skew(self._clock())]),
            Told([("error", f"{run.name}: {run.trouble}" if run.trouble else None) for run in self.runs]),
            Told([("warning", text) for text in _troubles(self.runs)]),
            Told([("warning", self.not_kept)]),
        ]
        kept = f"plans and local runs of this workspace now go by it: {self.kept}" if self.kept else None
        blocks.append(Told([("note", kept)]))
        return Page([status, plural(self.nodes, "node")], blocks, f"probe of {self.cluster}")


class Hasher:
    """Replaces ids by hashes: the same id by the same hash within one result, and by another one in the next."""

    def __init__(self, ids: Iterable[str]) -> None:
        known = sorted({one for one in ids if len(one) >= _SHORTEST}, key=len, reverse=True)
        parts = [rf"(?<![\w]){re.escape(one)}(?![\w])" for one in known]
        self._pattern = re.compile("|".join([*parts, _IDS.pattern]), re.IGNORECASE)
        self._salt = secrets.token_bytes(16)

    def hide(self, value: Any) -> Any:
        """The value, of JSON, without ids."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: self._hash(match[0]), value)
        if isinstance(value, Mapping):
            return {self.hide(name): self.hide(inner) for name, inner in value.items()}
        return [self.hide(inner) for inner in value] if isinstance(value, list | tuple) else value

    def _hash(self, text: str) -> str:
        return f"#{hashlib.sha256(self._salt + text.lower().encode()).hexdigest()[:8]}"


def _run_dict(run: RunOf) -> dict[str, Any]:
    seen = run.observed
    return {
        "name": run.name,
        "distribution": run.kind,
        "status": run.status,
        "error": run.trouble,
        "processes": len(seen.plan.processes),
        "missing_ranks": seen.missing,
        "logs": list(seen.logs),
        "differences": [one._asdict() for one in _differences(run)],
        "more": more(seen.plan, seen.ranks),
        "seen": _beyond(seen),
    }


def _differences(run: RunOf) -> list[Difference]:
    return differences(run.observed.plan, run.observed.ranks)


def _beyond(seen: Observed) -> dict[str, Any]:
    """What no field of `Service` is about."""
    processes = [one.report.about("process") for one in seen.ranks]
    ports = sorted({value for _, value in seen.values("MASTER_PORT")})
    return {
        "shell": sorted({str(one.get("shell")) for one in processes}),
        "python": sorted({str(one.get("python")) for one in processes}),
        "root": all(bool(one.get("root")) for one in processes) if processes else None,
        "hosts": len({str(one.get("host")) for one in processes}),
        "working_directories": len({(str(one.get("host")), str(one.get("cwd"))) for one in processes}),
        "master_port": ports,
        "master_port_was_free": any(one.report.about("clock") for one in seen.ranks) if ports else None,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)


def _is_head(rank: Any) -> bool:
    return bool(rank.report.about("node"))


def _machine(said: Mapping[str, Any]) -> dict[str, Any]:
    """What a node has, without the paths of its disks."""
    node = dict(said["node"])
    node["disk"] = list(node["disk"].values()) if isinstance(node.get("disk"), dict) else None
    return node


def _hosts(runs: Sequence[RunOf]) -> list[str]:
    said = [rank.report.about("process") for run in runs for rank in run.observed.ranks]
    return [*{str(one.get("host")) for one in said}, *(run.name for run in runs)]


def _row(run: RunOf) -> tuple[str, ...]:
    count, gone = len(run.observed.plan.processes), run.observed.missing
    processes = f"{count - len(gone)} of {count} reported" if gone else str(count)
    return run.name, run.kind, run.status, processes, _logs(run.observed.logs)


def _logs(logs: Sequence[str]) -> str:
    names = [name for name in logs if name.startswith("user_logs/")]
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1].rpartition('/')[2]}"


def _told(one: Difference) -> str:
    some = f"{plural(len(one.ranks), 'rank')}, e.g. {one.ranks[0]}" if len(one.ranks) > 1 else f"rank {one.ranks[0]}"
    return f"{one.variable} is {one.seen}, planned is {one.planned} ({some})"


def _open(facts: Sequence[Settled]) -> list[str]:
    """What a probe could have settled, together where the reason is the same."""
    names: dict[str, list[str]] = {}
    for one in facts:
        if one.name in PROBED:
            names.setdefault(one.why, []).append(one.name)
    return [f"{', '.join(several)}: {why}" for why, several in names.items()]


def _also(runs: Sequence[RunOf]) -> list[tuple[str, str]]:
    found = {name: value for run in runs for name, value in more(run.observed.plan, run.observed.ranks).items()}
    return [("also set", ", ".join(f"{name}={value}" if value else name for name, value in found.items()))]


def _machines(runs: Sequence[RunOf]) -> Table:
    heads = [rank for run in runs[:1] for rank in run.observed.ranks if _is_head(rank)]
    rows: list[tuple[str, ...]] = []
    for rank in heads:
        said = rank.report.about("node")
        gpus, disk, mount = said.get("gpus") or [], said.get("disk_rate") or {}, said.get("mount_rate") or {}
        first = gpus[0] if gpus else {}
        rows.append(
            (
                str(len(rows)),
                f"{len(gpus)} x {first.get('name')}, driver {first.get('driver')}" if gpus else "none",
                str(said.get("cpus")),
                _size(said.get("memory")),
                _size(said.get("shm")),
                _speed(disk.get("write")),
                _speed(disk.get("read")),
                _speed(mount.get("read")),
                str(said.get("torch") or "none"),
            )
        )
    return Table(("node", "GPUs", "vCPUs", "memory", "shm", "disk writes", "reads", "mount reads", "torch"), rows)


def _size(value: Any) -> str:
    return size_text(int(value)) if isinstance(value, int | float) else "unknown"


def _speed(value: Any) -> str:
    return f"{value / 1e6:,.0f} MB/s" if isinstance(value, int | float) else "not measured"


def _bandwidth(said: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for one in said:
        nccl = f" {one['nccl']}" if one.get("nccl") else ""
        for what in ("in_node", "between_nodes"):
            if what in one and (one.get("node") == 0):
                rate, backend = one[what], f"{one.get('backend')}{nccl}"
                where = {"in_node": "in a node", "between_nodes": "between nodes"}[what]
                found.append(
                    (f"all-reduce {where}", f"{_speed(rate['bus'])}, {rate['processes']} processes, {backend}")
                )
        if one.get("why"):
            found.append(("all-reduce", f"not measured: {one['why']}"))
    return list(dict.fromkeys(found))


def _skew(clock: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    others = [one for one in clock if one["node"]]
    if not others:
        return []
    worst = max(others, key=lambda one: abs(one["ahead"]))
    exact = median(one["accuracy"] for one in others)
    text = f"node {worst['node']} is {worst['ahead'] * 1e3:+.2f} ms from node 0 (within {exact * 1e3:.2f} ms)"
    return [("clocks", text)]


def _troubles(runs: Sequence[RunOf]) -> list[str]:
    said = [(run, rank, rank.report.about("trouble")) for run in runs for rank in run.observed.ranks]
    found = [
        f"{run.name}, rank {rank.rank}: {trouble.get('what')} {trouble.get('error') or ''}".strip()
        for run, rank, trouble in said
        if trouble
    ]
    gone = [(run, run.observed.missing) for run in runs if run.observed.missing]
    return found + [
        f"{run.name}: {plural(len(ranks), 'rank')} did not report, the first is {ranks[0]}" for run, ranks in gone
    ]
