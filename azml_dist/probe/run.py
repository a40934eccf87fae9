"""Sends the jobs of a probe, waits for them, reads what they printed, and keeps what they settle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from azml_dist.azureml.executor import AzureML
from azml_dist.azureml.metrics import parameters_of
from azml_dist.azureml.run import AzureRun
from azml_dist.azureml.workspace import Workspace
from azml_dist.check.price import money
from azml_dist.check.report import Check
from azml_dist.errors import DistError, JobError, RunFailed, SubmitError
from azml_dist.plan.plan import LaunchPlan
from azml_dist.plan.probed import Probed, Seen, UnusableError, keep, key_of, read_all, service_file
from azml_dist.plan.service import SERVICE, kind_of_job
from azml_dist.plan.world import Place
from azml_dist.probe.compare import Rank
from azml_dist.probe.facts import Observed, Settled, settle
from azml_dist.probe.jobs import ENVIRONMENT, KINDS, SECONDS, Effort, Kind, Sent, jobs_of
from azml_dist.probe.reports import rank_of, read
from azml_dist.probe.result import ProbeResult, RunOf
from azml_dist.words import plural

_OF_THE_JOB = ("little-shared-memory", "more-processes-than-gpus", "idle-gpus", "spot-without-resume", "ray-preview")
_WIDEST = 64
"""Nodes of a probe: enough to see what there is to see."""


def probe(
    cluster: str,
    *,
    nodes: int = 2,
    distributions: Sequence[Kind] = ("pytorch",),
    environment: str = ENVIRONMENT,
    max_cost: float | None = None,
    max_wait: float | None = 1800.0,
    workspace: Workspace | None = None,
    effort: Effort | None = None,
    tell: Callable[[str], None] | None = None,
    tell_check: Callable[[Check], None] | None = None,
    tell_start: Callable[[str], None] | None = None,
) -> ProbeResult:
    """Find out what the workspace really does and what the nodes of a cluster have, by small jobs of five minutes.

    A job is sent for each distribution (for `tensorflow`, two), and checked first; none of them may cost more than its
    share of `max_cost`. One that has not started `max_wait` seconds after its submission is cancelled. What the jobs
    settle is kept in `~/.azml_dist/service.json`, and plans and local runs of this workspace go by it from then on.
    `tell_check` gets what a check says about a job, `tell_start` what was sent and may cost, `tell` each change of a
    run while it is awaited.

    A job that fails is reported in the result, with whatever its processes still said. Raises `JobError` for arguments
    that make no sense, and `SubmitError` if a job is refused; then none of them is left.
    """
    _refuse_nonsense(nodes, distributions)
    place = workspace or Workspace()
    with tempfile.TemporaryDirectory(prefix="azml-dist-probe-") as temp:
        folder = Path(temp)
        jobs = jobs_of(distributions, cluster, nodes, environment, folder, effort or Effort())
        started = _submitted(place, jobs, max_cost, max_wait, tell_check)
        if tell_start:
            tell_start(_start(started))
        done = []
        with _cancelled_together(started):
            for index, (sent, run) in enumerate(zip(jobs, started, strict=True)):
                trouble = _awaited(run, tell)
                done.append(_read(place, sent, run, folder / f"run{index}", trouble))
    facts = settle([run.observed for run in done])
    ids = [place.subscription_id, place.resource_group, place.name, cluster.removeprefix("azureml:")]
    result = ProbeResult(cluster.removeprefix("azureml:"), nodes, time.strftime("%Y-%m-%d"), done, facts, ids)
    return _kept(place, result, [run.observed for run in done])


def _refuse_nonsense(nodes: int, distributions: Sequence[str]) -> None:
    if not 1 <= nodes <= _WIDEST:
        raise JobError(f"a probe takes 1 to {_WIDEST} nodes, not {nodes}", hint="`--nodes 2` sees all that differs")
    if unknown := [one for one in distributions if one not in KINDS] or ([] if distributions else ["nothing"]):
        raise JobError(f"a probe knows no distribution {unknown[0]}", hint=f"one of {', '.join(KINDS)}")


def _submitted(
    place: Workspace,
    jobs: Sequence[Sent],
    max_cost: float | None,
    max_wait: float | None,
    tell_check: Callable[[Check], None] | None,
) -> list[AzureRun]:
    """All runs; if one job is refused, the others are cancelled."""
    # All jobs have the same price and the same timeout: each gets its share by its nodes.
    nodes = sum(sent.job.node_count for sent in jobs)
    started: list[AzureRun] = []
    executor = AzureML(place, script=False)
    with _cancelled_together(started):
        for sent in jobs:
            most = None if max_cost is None else max_cost * sent.job.node_count / nodes
            run = executor.submit(sent.job, max_cost=most, max_wait=max_wait, tell=_told(tell_check))
            started.append(run)
    return started


def _told(tell: Callable[[Check], None] | None) -> Callable[[Check], None]:
    """What a check says about the cluster, without what it says about the job, which nobody can change."""

    def about_the_cluster(check: Check) -> None:
        if tell:
            tell(replace(check, findings=[one for one in check.findings if one.code not in _OF_THE_JOB]))

    return about_the_cluster


@contextmanager
def _cancelled_together(runs: Sequence[AzureRun]) -> Iterator[None]:
    """Nobody would read what the others find out."""
    try:
        yield
    except BaseException:
        for run in runs:
            with suppress(SubmitError):
                run.cancel(reason="cancelled because its probe did not finish")
        raise


def _start(runs: Sequence[AzureRun]) -> str:
    """What was sent, and what it may cost."""
    rates = [run.meter.rate for run in runs if run.meter]
    price = rates[0].price if rates else None
    most = sum(rate.per_second or 0.0 for rate in rates) * SECONDS
    cost = f"up to {money(most, price.currency)}, plus preparing and idle time" if price else "their price is unknown"
    names = ", ".join(run.name for run in runs)
    return f"{plural(len(runs), 'job')} of at most {SECONDS // 60} min, {cost}: {names}"


def _awaited(run: AzureRun, tell: Callable[[str], None] | None) -> str | None:
    """Wait for the end of a run; returns why it failed."""
    try:
        run.wait(tell=tell)
    except RunFailed as failed:
        return failed.problems[0].message
    return None


def _read(place: Workspace, sent: Sent, run: AzureRun, folder: Path, trouble: str | None) -> RunOf:
    plan = _plan(place, sent, run)
    try:
        status = str(run.status)
        run.fetch(folder)
        reports, logs = read(folder)
    except SubmitError as error:
        said = f"its logs could not be read: {error.problems[0].message}"
        seen = Observed(sent.kind, plan, (), (), is_completed=False)
        return RunOf(sent.kind, run.name, "Unknown", seen, f"{trouble}; {said}" if trouble else said)
    tasks = plan.processes.tasks if sent.kind == "tensorflow" else ()
    ranks = {rank: Rank(rank, one) for one in reports if (rank := rank_of(one.env, tasks)) is not None}
    ordered = [ranks[rank] for rank in sorted(ranks) if rank < len(plan.processes)]
    parameters = _parameters(place, run) if ordered else None
    seen = Observed(sent.kind, plan, ordered, logs, status == "Completed", parameters)
    return RunOf(sent.kind, run.name, status, seen, trouble)


def _plan(place: Workspace, sent: Sent, run: AzureRun) -> LaunchPlan:
    """What we assume about the run, with what is known of it."""
    known = Place(
        run_id=run.name, subscription=place.subscription_id, resource_group=place.resource_group, workspace=place.name
    )
    # The local path of the data is not where the run finds it.
    inputs = {name: f"<path of input {name}>" for name in sent.job.inputs if sent.job.is_data(name)}
    return replace(sent.job.plan(), service=SERVICE).at(replace(known, inputs=inputs))


def _parameters(place: Workspace, run: AzureRun) -> Mapping[str, str] | None:
    try:
        return parameters_of(place, run.name)
    except SubmitError:
        return None


def _kept(place: Workspace, result: ProbeResult, jobs: Sequence[Observed]) -> ProbeResult:
    """Write down the facts that are settled, beside those that an earlier probe settled."""
    known = {one.name: one for one in result.facts if one.is_known}
    if not known:
        return replace(result, not_kept="nothing was found out")
    ids = {"subscription_id": place.subscription_id, "resource_group": place.resource_group, "name": place.name}
    key = key_of(ids)
    try:
        before = read_all(service_file()).get(key)
        facts = dict(before.facts) if before else {}
        facts |= {name: Seen(_merged(one, facts.get(name), jobs), result.on) for name, one in known.items()}
        return replace(result, kept=str(keep(key, Probed(place.name, facts))))
    except UnusableError as error:
        return replace(result, not_kept=f"the result is not kept: {error}; remove the file and probe again")
    except (OSError, DistError) as error:
        return replace(result, not_kept=f"the result is not kept: {error}")


def _merged(one: Settled, before: Seen | None, jobs: Sequence[Observed]) -> object:
    """Of variables that are not set, those of other jobs than the ones of this probe remain."""
    if one.name != "unset" or before is None:
        return one.seen
    new = {kind_of_job(job.plan.world.distribution, job.nodes) for job in jobs if job.ranks and not job.missing}
    return sorted({*one.seen, *(name for name in before.value if not name.startswith(tuple(new)))})
