"""What a run has cost so far, by the arithmetic of its ceiling: an estimate, from list prices and seen times."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any, NamedTuple

from azml_dist.azureml.facts import Asked, Reader, Wanted
from azml_dist.azureml.stamps import seconds_of
from azml_dist.check.facts import Compute, HourPrice, Unknown
from azml_dist.check.price import cents, money
from azml_dist.status import RunStatus
from azml_dist.words import duration, plural

_HOUR = 3600


class Rate(NamedTuple):
    """What the nodes of a run cost, as far as that is known."""

    nodes: int
    price: HourPrice | None
    """Of an hour of one node; None where the workspace's list has none, or may not be read."""
    spot: bool
    as_of: str
    place: str

    @property
    def per_second(self) -> float | None:
        return self.nodes * self.price.amount / _HOUR if self.price else None


class Cost(NamedTuple):
    """What a run has cost in so many seconds."""

    rate: Rate
    seconds: int

    @property
    def so_far(self) -> float | None:
        """An estimate; None where the price is unknown."""
        rate = self.rate.per_second
        return None if rate is None else cents(rate * self.seconds)

    def __str__(self) -> str:
        price, nodes = self.rate.price, plural(self.rate.nodes, "node")
        if price is None or self.so_far is None:
            return f"unknown: no price of the {nodes} can be read"
        about, each = ("at most about", "up to ") if self.rate.spot else ("about", "")
        return (
            f"{about} {money(self.so_far, price.currency)} so far, estimated: {nodes} x"
            f" {each}{money(price.amount, price.currency)} an hour, {duration(self.seconds)}, list price of"
            f" {self.rate.place} of {self.rate.as_of}; preparing and idle time come on top"
        )

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        price = self.rate.price
        return {
            "so_far": self.so_far,
            "is_estimate": True,
            "currency": price.currency if price else None,
            "per_node_hour": price.amount if price else None,
            "nodes": self.rate.nodes,
            "seconds": self.seconds,
            "spot": self.rate.spot,
            "as_of": self.rate.as_of,
            "source": f"list price of {self.rate.place}" if price else None,
        }


class Meter:
    """Counts what a run costs while somebody waits for it, and knows when it has come to its ceiling."""

    def __init__(self, rate: Rate, most: float | None = None) -> None:
        self.rate = rate
        self.most = most
        self.has_reached = False
        """Whether the ceiling was reached, and the run cancelled for that."""
        self._since: float | None = None

    @property
    def limit(self) -> str:
        """The ceiling in words."""
        price = self.rate.price
        return money(self.most or 0.0, price.currency if price else "")

    @property
    def has_begun(self) -> bool:
        """Whether the run was seen with nodes."""
        return self._since is not None

    def saw(self, status: RunStatus, billed: Collection[str], started_at: str | None = None) -> None:
        """A look at the run: from the first with nodes on, it counts; from its start, where that was earlier."""
        if status in billed:
            self._since = min(filter(None, (self._since, time.time(), seconds_of(started_at))))

    @property
    def is_over(self) -> bool:
        """Whether the run has cost as much as it may."""
        rate = self.rate.per_second
        if self.most is None or rate is None or self._since is None:
            return False
        return rate * (time.time() - self._since) >= self.most

    def cost(self, started_at: str | None, ended_at: str | None) -> Cost | None:
        """What it has cost until its end, or until now; None where it has not begun."""
        began = [stamp for stamp in (self._since, seconds_of(started_at)) if stamp is not None]
        if not began:
            return None
        return Cost(self.rate, max(0, int((seconds_of(ended_at) or time.time()) - min(began))))


def rate_of(workspace: Asked, compute: str | None, instance_type: str | None, nodes: int) -> Rate:
    """What the nodes of a run cost, read from the workspace; nothing is worth failing for here."""
    reader = Reader(workspace, threading.Event())
    facts = reader.read(Wanted({compute: nodes} if compute else {}, compute is None, prices_only=True))
    found = facts.computes.get(compute or "")
    place: str | Unknown = found.location if isinstance(found, Compute) else facts.region
    size = found.size if isinstance(found, Compute) else instance_type
    sizes = facts.sizes.get(place) if isinstance(place, str) and not isinstance(place, Unknown) else None
    known = sizes.get((size or "").lower()) if sizes and not isinstance(sizes, Unknown) else None
    is_spot = isinstance(found, Compute) and found.is_spot
    return Rate(nodes, known.price if known else None, is_spot, facts.on, place if isinstance(place, str) else "")
