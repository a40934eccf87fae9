"""What a job may cost: its nodes, their price in the workspace's own list, and the timeout of the job.

It contains no prices of our own: a price comes from the service (`estimatedVMPrices`), as of that day, or is unknown.
Spot nodes cost at most as much as dedicated ones, and evicted ones are billed too; so their price is "up to", never a
discount.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor, log10
from typing import NamedTuple

from azml_dist.check.facts import Compute, Size
from azml_dist.check.parts import Part
from azml_dist.errors import Finding
from azml_dist.words import plural

_LEAST = 60
"""Seconds; a shorter `timeout` is no advice."""
_HOUR = 3600
_SLACK = 1e-9
"""For what floating-point numbers are off."""


class Price(NamedTuple):
    """The maximum cost of a job by list prices; None is unknown or unlimited."""

    currency: str | None
    per_node_hour: float | None
    nodes: int
    ceiling: float | None
    seconds: int | None
    """The `timeout` of the run; None if it has none."""
    spot: bool
    as_of: str
    source: str | None
    times: int = 1
    """How many such runs there are: the trials of a sweep."""
    idle_seconds: int | None = None
    """How long nodes stay after the run and are billed."""

    def __str__(self) -> str:
        """The price in words, with everything that it consists of."""
        runs = f"{plural(self.times, 'trial')} of " if self.times > 1 else ""
        nodes = f"{runs}{plural(self.nodes, 'node')}"
        if self.per_node_hour is None or self.currency is None:
            return f"{nodes}; the price is unknown"
        spot = "up to " if self.spot else ""
        text = f"{nodes} x {spot}{money(self.per_node_hour, self.currency)} an hour"
        if self.ceiling is None or self.seconds is None:
            return f"{text}; without a `timeout` there is no limit; {self.source}, {self.as_of}"
        return (
            f"{text}; at most {spell(self.seconds)}{' each' if self.times > 1 else ''}: "
            f"up to {money(self.ceiling, self.currency)}, {self._extra}; {self.source}, {self.as_of}"
        )

    @property
    def _extra(self) -> str:
        """What is billed besides the run itself."""
        if self.idle_seconds and self.per_node_hour and self.currency:
            idle = self.nodes * self.per_node_hour * self.idle_seconds / _HOUR
            return f"plus preparing, and idle time until scale-down ({money(idle, self.currency)})"
        return "plus preparing, and idle time until scale-down"

    def to_dict(self) -> dict[str, object]:
        """What `--json` prints."""
        shown = {name: getattr(self, name) for name in _SHOWN}
        return shown | {"ceiling": None if self.ceiling is None else cents(self.ceiling)}


_SHOWN = ("currency", "per_node_hour", "nodes", "ceiling", "seconds", "spot", "as_of", "source")


def price_of(part: Part, size: Size | None, compute: Compute | None, *, is_spot: bool, as_of: str, place: str) -> Price:
    """The price of one job of a plan."""
    known = size.price if size else None
    seconds = part.seconds
    ceiling = None
    if known and seconds is not None:
        ceiling = _rate(part.nodes, known.amount) * _node_seconds(part, seconds)
    return Price(
        currency=known.currency if known else None,
        per_node_hour=known.amount if known else None,
        nodes=part.nodes,
        ceiling=ceiling,
        seconds=seconds,
        spot=is_spot,
        as_of=as_of,
        source=f"list price of {place}" if known else None,
        times=part.times,
        idle_seconds=compute.idle_seconds if compute else None,
    )


def _rate(nodes: int, per_hour: float) -> float:
    """The price of the nodes of one run per second."""
    return nodes * per_hour / _HOUR


def _node_seconds(part: Part, seconds: int) -> int:
    """The seconds of all runs together: those of each trial, but at most what the sweep itself allows."""
    each = part.times * seconds
    return each if part.limit is None else min(each, part.at_once * part.limit)


def total(prices: Sequence[Price]) -> Price:
    """The price of several jobs together; unknown if one of them is."""
    if len(prices) == 1:
        return prices[0]
    first = prices[0]
    ceilings = [one.ceiling for one in prices]
    same = {one.currency for one in prices}
    known = [ceiling for ceiling in ceilings if ceiling is not None]
    return Price(
        currency=first.currency if len(same) == 1 else None,
        per_node_hour=None,
        nodes=sum(one.nodes for one in prices),
        ceiling=sum(known) if len(known) == len(prices) and len(same) == 1 else None,
        seconds=None,
        spot=any(one.spot for one in prices),
        as_of=first.as_of,
        source=first.source,
    )


def ceiling_findings(prices: Sequence[Price], most: float) -> Iterator[Finding]:
    """Whether jobs stay below an amount: an error if they may exceed it, a note if only waiting for them ensures it."""
    # Amounts in different currencies have no sum.
    unknown = any(one.per_node_hour is None for one in prices) or len({one.currency for one in prices}) != 1
    if unknown:
        yield Finding(
            "unknown-price",
            "error",
            f"the price of the nodes is unknown, so a limit of {money(most)} cannot be enforced",
            "leave `--max-cost` out, and set a `timeout`, which ends the run whatever it costs",
            "compute",
        )
        return
    currency = prices[0].currency or ""
    each = " in each step" if len(prices) > 1 else ""
    ceiling, fits = total(prices).ceiling, _fitting(prices, most)
    if ceiling is None:
        yield Finding(
            "max-cost-needs-timeout",
            "note",
            f"without a `timeout`, the limit of {money(most, currency)} is enforced only while something waits for the"
            " run, such as `--wait` or `run.wait()`",
            f"a `limits.timeout` of {fits:,} seconds{each} fits that amount and ends the run by itself"
            if fits >= _LEAST
            else "not even a minute of this job fits that amount: use fewer nodes, or a smaller size",
            "timeout",
        )
    elif ceiling > most * (1 + _SLACK):
        may_cost, limit = _apart(ceiling, most, currency)
        yield Finding(
            "above-max-cost",
            "error",
            f"the job may cost {may_cost}, but the limit is {limit}: {_all(prices)}",
            f"a `limits.timeout` of {fits:,} seconds{each} would fit; or use fewer nodes"
            if fits >= _LEAST
            else "not even a minute of this job fits that amount: use fewer nodes, or a smaller size",
            "timeout",
        )


def _all(prices: Sequence[Price]) -> str:
    """What one job costs in full; of several steps, what each may cost, the most expensive first."""
    if len(prices) == 1:
        return str(prices[0])
    priced = sorted(prices, key=lambda one: -(one.ceiling or 0.0))
    steps = [f"{money(one.ceiling or 0.0, one.currency or '')} for {plural(one.nodes, 'node')}" for one in priced]
    return " + ".join(steps[:5]) + (f" and {len(steps) - 5} more steps" if steps[5:] else "")


def _fitting(prices: Sequence[Price], most: float) -> int:
    """The timeout in seconds that fits an amount, the same for each job."""
    rate = sum(one.times * _rate(one.nodes, one.per_node_hour or 0.0) for one in prices)
    return int(most / rate * (1 + _SLACK)) if rate else 0


def money(amount: float, currency: str = "", decimals: int | None = None) -> str:
    """`108.80 $`; for other currencies, their code. An amount is not rounded to nothing: `0.0014 $`."""
    return f"{amount:,.{decimals or _decimals(amount)}f} {'$' if currency == 'USD' else currency}".rstrip()


def _apart(one: float, other: float, currency: str) -> tuple[str, str]:
    """Two different amounts, with as many decimals as it takes to see that."""
    digits = max(_decimals(one), _decimals(other)) if money(one) == money(other) else 0
    while digits and digits < 12 and f"{one:.{digits}f}" == f"{other:.{digits}f}":
        digits += 1
    return money(one, currency, digits or None), money(other, currency, digits or None)


def cents(amount: float) -> float:
    """An amount as `money` shows it."""
    return round(amount, _decimals(amount))


def _decimals(amount: float) -> int:
    """Two, or enough for two digits of a smaller amount."""
    return 2 if not 0 < amount < 0.01 else 1 - floor(log10(amount))


def spell(seconds: int) -> str:
    """`2 h`, `90 min`, `45 s`."""
    if seconds % _HOUR == 0:
        return f"{seconds // _HOUR:,} h"
    return f"{seconds // 60:,} min" if seconds % 60 == 0 else f"{seconds:,} s"
