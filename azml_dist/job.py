"""What a person writes: a `Job`. `az ml` YAML and Azure's own names are another spelling of the same.

Facts about fields are those of Azure ML's "CLI (v2) command job YAML schema" (reference-yaml-job-command), unless a
docstring names another source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator
from typing_extensions import Self

from azml_dist.errors import JobError, Problem
from azml_dist.model import Model
from azml_dist.parameter import Parameter
from azml_dist.parts import AnyDistribution, AnyEnvironment, AnyService, InputOrValue
from azml_dist.parts import Build as Build
from azml_dist.parts import Environment as Environment
from azml_dist.parts import Identity as Identity
from azml_dist.parts import Input as Input
from azml_dist.parts import JupyterLab as JupyterLab
from azml_dist.parts import Mpi as Mpi
from azml_dist.parts import Output as Output
from azml_dist.parts import PyTorch as PyTorch
from azml_dist.parts import Queue as Queue
from azml_dist.parts import Ray as Ray
from azml_dist.parts import Ssh as Ssh
from azml_dist.parts import TensorBoard as TensorBoard
from azml_dist.parts import TensorFlow as TensorFlow
from azml_dist.parts import VsCode as VsCode
from azml_dist.values import (
    CodePath,
    ComponentCommand,
    Compute,
    Count,
    CountOrExpression,
    ExperimentName,
    JobName,
    PortName,
    ShmSize,
    Tags,
    Text,
    VariableName,
    VariableValue,
    Words,
    also,
    frozen,
    is_remote,
)

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, CommandJob
    from azure.ai.ml.entities import Sweep as AzureSweep

    from azml_dist.plan import LaunchPlan


_OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_INPUT = re.compile(r"\$\{\{\s*inputs\.(\w+)\s*\}\}")

OPEN_INPUT = "<input {name}>"
"""Stands for the value of an input that is still to be given."""


class Job(Model):
    """One command, run once in each of `node_count` x `process_count_per_node` processes."""

    command: Words
    """Run by `bash -c`, or a list, each element one argument. `${{inputs.x}}` and `${{outputs.y}}` are replaced."""
    code: CodePath | None = None
    """The folder that every node gets a copy of, to start the command in; an empty one where it is not given."""
    inputs: Annotated[Mapping[PortName, InputOrValue], frozen] = Field(default_factory=dict, validate_default=True)
    """Literal values, and data as `Input(path=…)`; a component's have a `Parameter` until they are given."""
    outputs: Annotated[Mapping[PortName, Output], frozen] = Field(default_factory=dict, validate_default=True)
    """What the job writes and Azure ML keeps, by name."""
    environment: AnyEnvironment | None = None
    """`azureml:NAME@latest`, `azureml:NAME:VERSION`, `azureml://registries/…`, or an `Environment`; Azure needs one."""
    compute: Compute | None = None
    """The name of a compute cluster; serverless compute where it is not given."""
    instance_type: Text | None = None
    """The VM size of serverless compute, or the instance type of a Kubernetes cluster."""
    node_count: Annotated[CountOrExpression, also("node_count", "instance_count")] = 1
    """How many machines."""
    distribution: AnyDistribution | None = None
    """How Azure ML starts the processes: `PyTorch`, `Mpi`, `TensorFlow` or `Ray`; one process where it is not given."""
    environment_variables: Annotated[Mapping[VariableName, VariableValue | None], frozen] = Field(
        default_factory=dict, validate_default=True
    )
    """Set in every process. `None` (YAML: null) takes the value of your own environment, never printed."""
    shm_size: ShmSize | None = None
    """Shared memory of the container, as `16g`; Azure ML takes `2g` where it is not given."""
    docker_args: Words | None = None
    """Further arguments of `docker run`, as one text or as a list."""
    timeout: Count | None = None
    """Seconds after which the run is cancelled."""
    max_node_count: Annotated[Count | None, also("max_node_count", "max_instance_count")] = None
    """The most nodes that an elastic job may get; a preview feature of Azure ML."""
    locations: tuple[Text, ...] | None = None
    """Regions that the job may run in."""
    resource_properties: Annotated[Mapping[str, Any], frozen] | None = None
    """Further settings of the compute, which Azure ML takes as they are."""
    queue: Queue | None = None
    """Which queue the job waits in, and how urgently."""
    identity: Identity | None = None
    """Whose rights the run has towards data."""
    services: Annotated[Mapping[str, AnyService], frozen] = Field(default_factory=dict, validate_default=True)
    """Ways into the running job, by a name of your choice."""
    name: JobName | None = None
    """Unique in the workspace; generated where it is not given."""
    display_name: Text | None = None
    """Shown in Azure ML studio."""
    experiment_name: ExperimentName | None = None
    """Groups runs in Azure ML studio."""
    description: Text | None = None
    """Shown in Azure ML studio."""
    tags: Tags = Field(default_factory=dict, validate_default=True)
    """Shown in Azure ML studio, and searched for there."""
    properties: Tags = Field(default_factory=dict, validate_default=True)
    """Kept with the run; they cannot be changed later."""
    parent_job_name: JobName | None = None
    """The job that this one is shown under."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Job:
        """The job in an `az ml` YAML, whose paths are relative to its folder, or in `path/to/file.py:NAME`."""
        from azml_dist.jobfile import load_job

        return load_job(path)

    @classmethod
    def from_command(cls, command: Command | CommandJob) -> Job:
        """The job that azure-ai-ml's own `command(...)` means; what a job has no place for is refused by name."""
        from azml_dist.azureml.from_command import from_command

        return from_command(command)

    def dump(self, path: str | PathLike[str]) -> None:
        """Write the job as the YAML of `az ml job create -f`; paths near the file are seen from its folder."""
        from azml_dist.dump import dump_job

        dump_job(self, path)

    def plan(self) -> LaunchPlan:
        """What this job means: offline, without credentials. `print` it."""
        from azml_dist.plan import plan_job

        return plan_job(self)

    def to_command(self) -> Command:
        """azure-ai-ml's own `Command`, from which sweeps and pipelines are made; it is not submitted.

        Variables marked `None` have their values in it: do not print it.
        """
        from azml_dist.azureml.command import to_command

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
        """azure-ai-ml's own sweep over this job's literal inputs: to be submitted by its client, or for a pipeline.

        Arguments are those of azure-ai-ml's `Command.sweep`, and its classes are taken as ours are. Unlike there, the
        trials keep the job's nodes and shared memory. `azml_dist.Sweep` runs here too.
        """
        from azml_dist.sweep import Sweep

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
        return Sweep(job=self, **fields).to_azure()

    def with_set(self, *settings: str) -> Job:
        """A variant by the texts of `--set FIELD=VALUE`; fields have YAML's names or ours, values are read as YAML."""
        from azml_dist.settings import with_settings

        return with_settings(self, settings)

    @property
    def process_count_per_node(self) -> int:
        """How many processes each node runs; 1 where the distribution does not say."""
        return getattr(self.distribution, "process_count_per_node", None) or 1

    @property
    def shell_command(self) -> str:
        """The command as one text for the shell, its expressions not yet replaced."""
        if isinstance(self.command, str):
            return self.command
        # Every element with an expression is put in single quotes, which protect whatever replaces it.
        return " ".join(map(quote, self.command))

    @property
    def code_folder(self) -> str | None:
        """The code folder on this machine; None where there is none, or the code is an asset in Azure."""
        return self.code if self.code and not is_remote(self.code) else None

    @property
    def sent_command(self) -> str:
        """The command as it goes to Azure ML: a component's without the `$[[ ]]` that its pipeline would resolve."""
        command = self.shell_command
        return self.without_optional_parts(command) if isinstance(self.command, ComponentCommand) else command

    def without_optional_parts(self, command: str) -> str:
        """The command with each `$[[ ... ]]` replaced by its content, or by nothing if an input in it has no value."""
        return _OPTIONAL.sub(lambda part: part[1] if all(map(self._has, _INPUT.findall(part[1]))) else "", command)

    @property
    def open_inputs(self) -> list[str]:
        """The inputs that need a value before a run."""
        return [name for name, value in self.inputs.items() if isinstance(value, Parameter) and value.is_open]

    def is_left_out(self, name: str) -> bool:
        """Whether an input is optional, and has no value."""
        value = self.inputs[name]
        return isinstance(value, Parameter) and value.default is None and value.optional

    def is_data(self, name: str) -> bool:
        """Whether an input is data, not a literal value."""
        value = self.inputs[name]
        return isinstance(value, Input) or (isinstance(value, Parameter) and value.is_data)

    def literal(self, name: str) -> str:
        """The text that replaces a literal input in the command, as azure-ai-ml sends it: `True`, `1e-05`."""
        value = self.inputs[name]
        if not isinstance(value, Parameter):
            return str(value)
        return OPEN_INPUT.format(name=name) if value.default is None else value.default_text

    def data_type(self, name: str) -> str:
        """The type of a data input, as `uri_folder`."""
        return self._data(name).type

    def data_uri(self, name: str) -> str:
        """The path of a data input, as it was given."""
        return self._data(name).path

    def local_path(self, name: str) -> str | None:
        """The path of a data input that is on this machine; None where it is elsewhere."""
        data = self.inputs[name]
        return data.path if isinstance(data, Input) and data.is_local else None

    def _has(self, name: str) -> bool:
        return name in self.inputs and not self.is_left_out(name)

    def _data(self, name: str) -> Input:
        data = self.inputs[name]
        if not isinstance(data, Input):
            raise JobError(f"`{name}` is a literal value, not data", where=f"inputs.{name}")
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        from azml_dist.rules import problems_of

        if problems := tuple(problems_of(self)):
            raise JobError.of(problems)
        return self


def check_files(job: Job) -> list[Problem]:
    """What is wrong with the files on this machine that a job names: its code folder, its local inputs, its build."""
    from azml_dist.rules import file_problems

    return list(file_problems(job))
