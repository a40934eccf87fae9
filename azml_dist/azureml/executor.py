"""`AzureML`: the executor that submits jobs to an Azure ML workspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from azml_dist.as_job import AnyJob, as_job, is_pipeline
from azml_dist.azureml.runview import announce, announce_check
from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import JobError, SubmitError
from azml_dist.latest import note_started
from azml_dist.plan.dumps import with_dumps
from azml_dist.runs.limits import check_amount

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.azureml.checking import CheckFirst
    from azml_dist.azureml.run import AzureRun
    from azml_dist.check.report import Check
    from azml_dist.job import Job
    from azml_dist.plan.world import Service
    from azml_dist.sweep import Sweep


class AzureML:
    """Runs jobs on Azure ML.

    Args:
        workspace: the workspace; by default the one named by the environment, or by `config.json` in the current folder
            or above it.
        look_for: seconds to look for a job if its submission got no clear answer.
        service: what Azure ML is assumed to do where its documentation does not say.
        check: whether to check jobs against the workspace before submission, as `Workspace.check` does.
        script: whether that check also reads the training script.
    """

    def __init__(
        self,
        workspace: Workspace | None = None,
        *,
        look_for: float = 60.0,
        service: Service | None = None,
        check: bool = True,
        script: bool = True,
    ) -> None:
        check_amount("look_for", look_for, zero=True)
        self.workspace = workspace or Workspace()
        self._look_for = look_for
        self._service = service
        self._check = check
        self._script = script

    def submit(
        self,
        job: Job | Sweep | Command | AzureSweep,
        *,
        check: bool | None = None,
        max_cost: float | None = None,
        max_wait: float | None = None,
        tell: Callable[[Check], None] | None = None,
        watch_hangs: bool = False,
    ) -> AzureRun:
        """Submit the job, and return its run once Azure ML has accepted it.

        The job is checked first, unless `check` is False: a job that is sure to fail is refused before anything is
        uploaded. `tell` gets the other findings; by default they are printed at a terminal and in a notebook.
        With `max_cost`, a job that may cost more, by its nodes, their list price and its `timeout`, is refused too, and
        `run.wait()` cancels the run at that amount. With `max_wait`, it cancels a run that has not started
        so many seconds after its submission.
        With `watch_hangs`, the job gets environment variables with which its ranks leave what they waited for, if NCCL
        times out.

        `job` may also be what azure-ai-ml's `command(...)`, `.sweep(...)` and `load_job(...)` return.

        Raises `JobError` if the job is invalid, and `SubmitError` if Azure refused it or could not be reached. No run
        exists then, unless the error says that this is unknown.
        """
        (result,) = self.submit_all(
            [job], check=check, max_cost=max_cost, max_wait=max_wait, tell=tell, watch_hangs=watch_hangs
        )
        if isinstance(result, SubmitError):
            raise result
        return result

    def submit_all(
        self,
        jobs: Sequence[Job | Sweep | Command | AzureSweep],
        *,
        check: bool | None = None,
        max_cost: float | None = None,
        max_wait: float | None = None,
        tell: Callable[[Check], None] | None = None,
        watch_hangs: bool = False,
    ) -> list[AzureRun | SubmitError]:
        """Submit many jobs, uploading and looking up what they share only once; returns a run or an error for each."""
        from azml_dist.azureml.submission import Submission

        orders = [_not_a_pipeline(as_job(job)) for job in jobs]
        orders = [with_dumps(job) for job in orders] if watch_hangs else orders
        is_checked = self._check if check is None else check
        _check_max_cost(max_cost, is_checked=is_checked)
        check_amount("max_wait", max_wait, hint="give a number of seconds such as 1800")
        gate = self._gate(tell, max_cost) if is_checked else None
        results = Submission(self.workspace, self._look_for, self._service).submit(orders, gate)
        for result, meter in zip(results, gate.meters() if gate else (), strict=False):
            if not isinstance(result, SubmitError):
                result.meter = meter
        for run in (result for result in results if not isinstance(result, SubmitError)):
            note_started(run.name, workspace=self.workspace.ids)
        for result in results:
            if max_wait and not isinstance(result, SubmitError):
                result.start_within(max_wait)
        return results

    def _gate(self, tell: Callable[[Check], None] | None, max_cost: float | None) -> CheckFirst:
        from azml_dist.azureml.checking import CheckFirst

        return CheckFirst(self.workspace, tell or announce_check, max_cost, script=self._script, service=self._service)

    def announce(self, results: Sequence[AzureRun | SubmitError]) -> None:
        """At a terminal or in a notebook, say where the submitted runs are and what to type next."""
        announce(self.workspace, results)


def _not_a_pipeline(job: AnyJob) -> Job | Sweep:
    if is_pipeline(job):
        hint = "`az ml job create -f FILE`, `ml_client.jobs.create_or_update(...)`, or submit one `pipeline.step(NAME)`"
        raise JobError("azml-dist submits jobs and sweeps, not pipelines", hint=hint)
    return job


def _check_max_cost(amount: float | None, *, is_checked: bool) -> None:
    check_amount("max_cost", amount, hint="give an amount such as 100")
    if amount is not None and not is_checked:
        hint = "leave `max_cost` out, or check the job"
        raise JobError("`max_cost` needs the check, which reads the price", hint=hint)
