"""Why a submitted run has not started, from what the workspace shows of its compute and quota."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from azml_dist.check.computes import nodes_in_use
from azml_dist.check.facts import CLUSTER, Compute, Holder, Unknown
from azml_dist.check.report import Row
from azml_dist.words import plural


class Waits(NamedTuple):
    """A run that waits, and what is known about its compute."""

    run: str
    nodes: int
    """How many it wants."""
    compute: Compute
    holders: Sequence[Holder] | Unknown
    quota: Sequence[Row] = ()
    """What the nodes that do not exist yet need."""

    def reason(self, now: float) -> str | None:
        """In a few words: `wants 2 nodes; gpu-cluster has 4, 0 idle: 3 used by run calm_fox (3 h 10 min), 1 leaving`.

        None if nothing is known, and if the run already has its nodes.
        """
        compute = self.compute
        if compute.state not in ("Succeeded", "Unknown"):
            why = f": {compute.errors[0][:300]}" if compute.errors else ""
            return f"compute {compute.name} is {compute.state}{why}"
        if compute.kind != CLUSTER or compute.nodes is None or self._has_its_nodes:
            return None
        return "; ".join([f"wants {plural(self.nodes, 'node')}", self._cluster(now), *self._more()])

    @property
    def _has_its_nodes(self) -> bool:
        own = [] if isinstance(self.holders, Unknown) else [one for one in self.holders if one.run == self.run]
        return sum(one.nodes for one in own) >= self.nodes

    @property
    def _others(self) -> Sequence[Holder] | Unknown:
        return self.holders if isinstance(self.holders, Unknown) else [h for h in self.holders if h.run != self.run]

    def _cluster(self, now: float) -> str:
        compute, nodes = self.compute, self.compute.nodes
        assert nodes
        most = compute.max_nodes
        has = f"{nodes.allocated}" if most in (None, nodes.allocated) else f"{nodes.allocated} of at most {most}"
        who = nodes_in_use(compute, self._others, now)
        return f"{compute.name} has {has}, {nodes.idle} idle{': ' if who else ''}{', '.join(who)}"

    def _more(self) -> Iterator[str]:
        """Why its other nodes do not start, where the cluster could have more."""
        compute, nodes = self.compute, self.compute.nodes
        if nodes is None or compute.max_nodes is None:
            return
        if self.nodes > compute.max_nodes:
            yield f"it can never have more than {compute.max_nodes}"
        elif self.new_nodes and compute.max_nodes > nodes.allocated:
            yield from self._starts()

    def _starts(self) -> Iterator[str]:
        short = [row for row in self.quota if row.is_short]
        if short:
            row = min(short, key=lambda row: row.limit - row.used)
            left = max(0, row.limit - row.used)
            yield f"the quota `{row.row}` has {left:,} of {row.limit:,} vCPUs left, new nodes need {row.needs:,}"
        elif (self.compute.free or 0) >= self.nodes:
            yield f"{plural(self.new_nodes, 'node')} must start first"

    @property
    def new_nodes(self) -> int:
        """How many nodes must be started for it."""
        idle = self.compute.nodes.idle if self.compute.nodes else 0
        return max(0, self.nodes - idle)
