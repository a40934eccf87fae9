"""`AzureML`: the executor that submits jobs to an Azure ML workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from azml_dist.azureml.workspace import Workspace
from azml_dist.errors import SubmitError

if TYPE_CHECKING:
    from azml_dist.azureml.run import AzureRun
    from azml_dist.job import Job
    from azml_dist.sweep import Sweep


class AzureML:
    """Runs jobs on Azure ML.

    Args:
        workspace: where; the one of the environment, or of `config.json` here or above, if not given.
    """

    def __init__(self, workspace: Workspace | None = None) -> None:
        self.workspace = workspace or Workspace()

    def submit(self, job: Job | Sweep) -> AzureRun:
        """Submit the job, and return its run once Azure ML has it.

        Raises `JobError` for a job that cannot mean anything, `SubmitError` where Azure refused it or could not be
        reached; there is no run then.
        """
        (result,) = self.submit_all([job])
        if isinstance(result, SubmitError):
            raise result
        return result

    def submit_all(self, jobs: Sequence[Job | Sweep]) -> list[AzureRun | SubmitError]:
        """Submit many jobs: what they share is uploaded and looked up once. A run or an error for each, in order."""
        from azml_dist.azureml.submission import Submission

        return Submission(self.workspace).submit(jobs)

    def announce(self, results: Sequence[AzureRun | SubmitError]) -> None:
        """Tell who has just submitted, at a terminal or in a notebook, where the runs are and what to type next."""
        from azml_dist.azureml.runview import announce

        announce(self.workspace, results)
