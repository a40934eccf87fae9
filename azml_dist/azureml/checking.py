"""Checks jobs against the workspace: what to ask, and what follows from the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from azml_dist.azureml.content import registered_as
from azml_dist.azureml.cost import Meter, Rate
from azml_dist.azureml.errors import Place, translated
from azml_dist.azureml.facts import Reader, Wanted, wanted_of
from azml_dist.check.facts import Asset, Facts, HourPrice
from azml_dist.check.judge import judge
from azml_dist.check.parts import AnyPlan, parts_of, references
from azml_dist.check.price import Price
from azml_dist.check.report import Check
from azml_dist.errors import Finding, NotFound, Problem, SubmitError
from azml_dist.model.parts import Environment
from azml_dist.plan.service import Service


class Checked(Place, Protocol):
    """What a check asks a workspace."""

    @property
    def arm_id(self) -> str: ...
    @property
    def name(self) -> str: ...


def check(workspace: Checked, plan: AnyPlan) -> Check:
    """Checks a job against the workspace. Raises `SubmitError` if nothing could be read."""
    with translated("check the job", workspace):
        _ = workspace.client
        workspace.arm.log_in()
        reader = Reader(workspace, threading.Event())
        facts = _read(reader, [plan])
        if reader.failures and not reader.answers:
            raise reader.failures[0]
    return judge(plan, facts, workspace.arm_id)


def check_all(
    workspace: Checked,
    plans: Sequence[AnyPlan],
    stop: threading.Event,
    max_cost: float | None = None,
    service: Service | None = None,
) -> list[Check]:
    """The same for many jobs together; never raises an error."""
    facts = _read(Reader(workspace, stop), plans)
    return [judge(plan, facts, workspace.arm_id, max_cost, service) for plan in plans]


def _read(reader: Reader[Checked], plans: Sequence[AnyPlan]) -> Facts:
    written_out = dict(_written_out(plans))
    wanted, new = _wanted(reader.workspace, plans), set(written_out.values())
    wanted = replace(wanted, assets=[*wanted.assets, *new], new=new)
    return replace(reader.read(wanted), written_out=written_out)


def _written_out(plans: Sequence[AnyPlan]) -> Iterator[tuple[str, Asset]]:
    """Environments for which an image is built unless the workspace already has them."""
    found = {repr(part.job.environment): part.job.environment for plan in plans for part in parts_of(plan)}
    for key, environment in found.items():
        if isinstance(environment, Environment) and (environment.build or environment.conda_file):
            with suppress(Exception):  # the submission will refuse a missing file
                if names := registered_as(environment):
                    yield key, Asset("environments", *names)


def _wanted(workspace: Checked, plans: Sequence[AnyPlan]) -> Wanted:
    parts = [part for plan in plans for part in parts_of(plan)]
    found = [reference for plan in plans for _, reference in references(plan, workspace.arm_id)]
    return wanted_of(
        [(part.compute, part.nodes) for part in parts if part.compute and not part.is_here],
        any(part.compute is None and part.job.instance_type for part in parts),
        [reference.asset for reference in found if reference.asset],
    )


class CheckFirst:
    """The check before a submission: refuses what is sure to fail, and reports the rest."""

    def __init__(
        self,
        workspace: Checked,
        tell: Callable[[Check], None] | None = None,
        max_cost: float | None = None,
        *,
        script: bool = True,
        service: Service | None = None,
    ) -> None:
        self._script = script
        self._service = service
        self._workspace = workspace
        self._tell = tell
        self._max_cost = max_cost
        self._checks: list[Check] = []

    def __call__(self, plans: Sequence[AnyPlan], stop: threading.Event) -> list[SubmitError | None]:
        plans = plans if self._script else [plan.without_script() for plan in plans]
        checks = self._checks = check_all(self._workspace, plans, stop, self._max_cost, self._service)
        told: set[Finding] = set()
        for one in checks:
            new = [finding for finding in one.findings if finding not in told]
            told.update(new)
            if self._tell and new and not one.is_refused:
                self._tell(replace(one, findings=new))
        return [refusal(one) if one.is_refused else None for one in checks]

    def meters(self) -> list[Meter | None]:
        """For each job what its run costs; None for sweeps, whose trials nobody here counts."""
        return [_meter(one.parts[0].price, self._max_cost) for one in self._checks]


def _meter(price: Price, max_cost: float | None) -> Meter | None:
    if price.times > 1 or price.per_node_hour is None or price.currency is None:
        return None
    place = (price.source or "").removeprefix("list price of ")
    rate = Rate(price.nodes, HourPrice(price.per_node_hour, price.currency), price.spot, price.as_of, place)
    return Meter(rate, max_cost)


def refusal(check: Check) -> SubmitError:
    """The errors of a check as an exception; `NotFound` if all of them are about missing things."""
    errors = [finding for finding in check.findings if finding.level == "error"]
    kind = NotFound if all(finding.code.startswith("no-such-") for finding in errors) else SubmitError
    error = kind(errors[0].message)
    error.problems = tuple(Problem(finding.message, finding.hint, finding.where) for finding in errors)
    return error
