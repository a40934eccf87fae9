"""`Job`: what you write, and what you can do with it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, model_validator
from typing_extensions import Self

from azml_dist.errors import JobError
from azml_dist.model.job import JobFields
from azml_dist.model.parts import Build as Build
from azml_dist.model.parts import Environment as Environment
from azml_dist.model.parts import Identity as Identity
from azml_dist.model.parts import Input as Input
from azml_dist.model.parts import JupyterLab as JupyterLab
from azml_dist.model.parts import Mpi as Mpi
from azml_dist.model.parts import Output as Output
from azml_dist.model.parts import PyTorch as PyTorch
from azml_dist.model.parts import Queue as Queue
from azml_dist.model.parts import Ray as Ray
from azml_dist.model.parts import Ssh as Ssh
from azml_dist.model.parts import TensorBoard as TensorBoard
from azml_dist.model.parts import TensorFlow as TensorFlow
from azml_dist.model.parts import VsCode as VsCode

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, CommandJob
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.plan.plan import LaunchPlan
    from azml_dist.runs.run import Run


class Job(JobFields):
    """One command, run once in each of `node_count` x `process_count_per_node` processes.

    ::

        job = Job(
            command="python train.py --epochs ${{inputs.epochs}}",
            code="src",
            inputs={"epochs": 3},
            node_count=2,
            distribution=PyTorch(process_count_per_node=4),
            environment="azureml:my-environment@latest",
            compute="gpu-cluster",
        )
        print(job.plan())
    """

    model_config = ConfigDict(defer_build=False)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Job:
        """The job in an `az ml` YAML file, with paths relative to its folder, or in `path/to/file.py:NAME`."""
        from azml_dist.files import pyfile
        from azml_dist.files.jobfile import load_job

        if named := pyfile.python_name(fspath(path)):
            found = pyfile.load_python_object(
                *named, is_job=lambda one: type(one).__name__ in ("Job", "Command", "CommandJob")
            )
            return (found if isinstance(found, Job) else cls.from_command(found)).read_from(fspath(path))
        return load_job(cls, path)

    @classmethod
    def from_command(cls, command: Command | CommandJob) -> Job:
        """The job that azure-ai-ml's `command(...)` stands for; raises `JobError` for what a job cannot express."""
        from azml_dist.sdk.from_command import from_command

        return from_command(cls, command)

    @classmethod
    def from_run(cls, run: Run) -> Job:
        """The job of a run, here or in the workspace: `azml_dist.run("NAME")` finds one. It has no name of its own.

        Its code is that of the run: `submit` sends it again, and `submit(run, on="local")` runs it here. Raises
        `JobError` for runs that are no single command, and `SubmitError` if the workspace cannot be asked.
        """
        job = run.job()
        return job if isinstance(job, cls) else cls(**{name: getattr(job, name) for name in job.model_fields_set})

    def dump(self, path: str | PathLike[str]) -> None:
        """Write the job as YAML for `az ml job create -f`; paths near the file are relative to its folder."""
        from azml_dist.files.dump import dump_job

        dump_job(self, path)

    def plan(self) -> LaunchPlan:
        """What this job means: offline, without credentials. `print` it."""
        from azml_dist.plan.plan import plan_job

        return plan_job(self)

    def to_command(self) -> Command:
        """azure-ai-ml's own `Command`, from which you can make sweeps and pipelines; it is not submitted.

        It contains the values of variables that the job sets to `None`: do not print it.
        """
        from azml_dist.sdk.command import to_command

        return to_command(self)

    def sweep(
        self,
        *,
        primary_metric: str,
        goal: str,
        search_space: Mapping[str, Any],
        sampling_algorithm: Any = "random",
        max_total_trials: int | None = None,
        max_concurrent_trials: int | None = None,
        timeout: int | None = None,
        trial_timeout: int | None = None,
        early_termination_policy: Any = None,
    ) -> AzureSweep:
        """azure-ai-ml's own sweep over the literal inputs of this job, for its client to submit or for a pipeline.

        The arguments are those of azure-ai-ml's `Command.sweep`; its classes and ours are both accepted. Unlike there,
        the trials keep the nodes and shared memory of the job. `azml_dist.Sweep` also runs locally.
        """
        from azml_dist.model.sweep import SweepFields
        from azml_dist.sdk.sweep import to_azure

        limits = {
            "max_total_trials": max_total_trials,
            "max_concurrent_trials": max_concurrent_trials,
            "timeout": timeout,
            "trial_timeout": trial_timeout,
        }
        fields: dict[str, Any] = {
            "search_space": search_space,
            "objective": {"primary_metric": primary_metric, "goal": goal},
            "sampling_algorithm": sampling_algorithm,
            "limits": {name: value for name, value in limits.items() if value is not None},
            "early_termination": early_termination_policy,
        }
        return to_azure(SweepFields(job=self, **fields))

    def with_set(self, *settings: str) -> Job:
        """A changed copy, with the syntax of `--set FIELD=VALUE`: YAML's field names or ours, and YAML values."""
        from azml_dist.files.settings import with_settings

        return with_settings(self, settings)

    @model_validator(mode="after")
    def _check(self) -> Self:
        from azml_dist.plan.rules import problems_of

        if problems := tuple(problems_of(self)):
            raise JobError.of(problems)
        return self
