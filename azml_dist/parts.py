"""The parts of a job: how its processes are started, what it reads and writes, what it runs in.

Facts about fields are those of Azure ML's "CLI (v2) command job YAML schema" (reference-yaml-job-command), unless a
docstring names another source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.model import Model, tag_of, wrong
from azml_dist.parameter import Parameter
from azml_dist.values import (
    AssetName,
    Count,
    CountOrExpression,
    LocalPath,
    NotNegative,
    Port,
    Reference,
    Tags,
    Text,
    Value,
    Version,
    also,
    any_case,
    identity_type,
    is_remote,
    kind_of,
    one_of,
)

_DATA_REFERENCE = re.compile(r"azureml:(//|/subscriptions/|[^/:@]+[:@][^:@]+$)")

AnyCase = BeforeValidator(any_case)
DataType: TypeAlias = Annotated[
    Literal["uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"], AnyCase
]
_PROCESSES = also("process_count_per_node", "process_count_per_instance")


class PyTorch(Model):
    """Azure ML starts the command `process_count_per_node` times on every node, with `RANK`, `MASTER_ADDR`, … set."""

    type: Annotated[Literal["pytorch"], AnyCase] = Field(default="pytorch", repr=False)
    """The kind of distribution."""
    process_count_per_node: Annotated[CountOrExpression, _PROCESSES] = 1
    """How many processes each node runs; usually its GPU count."""


class Mpi(Model):
    """Azure ML runs the command under `mpirun`: for Horovod, DeepSpeed, mpi4py and others that know MPI."""

    type: Annotated[Literal["mpi"], AnyCase] = Field(default="mpi", repr=False)
    """The kind of distribution."""
    process_count_per_node: Annotated[CountOrExpression | None, _PROCESSES] = None
    """How many processes each node runs; usually its GPU count. Azure ML takes 1 where it is not given."""


class TensorFlow(Model):
    """Azure ML starts a process for each task, with `TF_CONFIG` set: one worker on each node, and parameter servers."""

    type: Annotated[Literal["tensorflow"], AnyCase] = Field(default="tensorflow", repr=False)
    """The kind of distribution."""
    worker_count: Count | None = None
    """How many workers; must be the node count, which it is where it is not given."""
    parameter_server_count: NotNegative = 0
    """How many parameter servers; at most one on each node ("Manage resources and quotas")."""


class Ray(Model):
    """Azure ML starts a Ray cluster over the nodes and runs the command on its head. A preview feature of Azure ML."""

    type: Annotated[Literal["ray"], AnyCase] = Field(default="ray", repr=False)
    """The kind of distribution."""
    port: Port | None = None
    """The port of the head's Ray process."""
    address: Text | None = None
    """The address of a Ray cluster to join; a new one is started where it is not given."""
    include_dashboard: bool | None = None
    """Whether to start the Ray dashboard."""
    dashboard_port: Port | None = None
    """The port of the dashboard."""
    head_node_additional_args: Text | None = None
    """Further arguments of `ray start` on the head."""
    worker_node_additional_args: Text | None = None
    """Further arguments of `ray start` on the other nodes."""


class Input(Model):
    """Data that a job reads. A literal (a number, a text) needs no `Input`."""

    type: DataType = "uri_folder"
    """What the path is: a file, a folder, a table or a model."""
    path: LocalPath
    """A local path, `azureml:NAME:VERSION`, `azureml:NAME@latest`, `azureml://datastores/…` or a web address."""
    mode: (
        Annotated[
            Literal["ro_mount", "rw_mount", "mount", "download", "direct", "eval_mount", "eval_download"], AnyCase
        ]
        | None
    ) = None
    """How the data gets to the node; `ro_mount` where it is not given."""
    datastore: Text | None = None
    """The datastore that a local path is uploaded to; the workspace's own where it is not given."""

    @property
    def is_local(self) -> bool:
        """Whether the path is on this machine."""
        return not is_remote(self.path)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.path.startswith("azureml:") and not re.match(
            r"azureml:(//|/subscriptions/|[^/:@]+[:@][^:@]+$)", self.path
        ):
            name = self.path.split(":")[1]
            raise wrong(f"{self.path!r} has no version", f"`azureml:{name}@latest`, or a number: `azureml:{name}:1`")
        return self


class Output(Model):
    """A folder (or file) that a job writes, kept by Azure ML under the output's name."""

    type: DataType = "uri_folder"
    """What is written: a file, a folder, a table or a model."""
    path: Text | None = None
    """Where to write, as `azureml://datastores/…`; a generated place in the default datastore where it is not given."""
    mode: Annotated[Literal["rw_mount", "mount", "upload", "direct"], AnyCase] | None = None
    """How the data leaves the node; `rw_mount` where it is not given. With several nodes, `upload` does not work."""
    name: AssetName | None = None
    """Registers what was written as a data or model asset of this name."""
    version: Version | None = None
    """The version of that asset; a new one where it is not given."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.version is not None and self.name is None:
            raise wrong("a `version` needs the `name` of the asset that it is a version of")
        return self


class Build(Model):
    """A folder with a Dockerfile, which Azure ML builds an image from."""

    path: LocalPath
    """The folder: a local path (uploaded), or a web address."""
    dockerfile_path: Text | None = None
    """The Dockerfile, relative to `path`; `Dockerfile` where it is not given."""


class Environment(Model):
    """What a job runs in: a Docker image, an image and conda packages, or a Docker build."""

    name: AssetName | None = None
    """Only of use when the environment is registered: Azure ML names those inside a job itself."""
    version: Version | None = None
    """The version of a registered environment."""
    image: Text | None = None
    """A Docker image, as `mcr.microsoft.com/azureml/openmpi5.0-cuda12.8-ubuntu24.04`."""
    conda_file: LocalPath | Mapping[str, Any] | None = None
    """A conda environment file, or what stands in one."""
    build: Build | None = None
    """A Docker build, in place of `image`."""
    os_type: Annotated[Literal["linux", "windows"], AnyCase] | None = None
    """The system in the image; `linux` where it is not given."""
    datastore: Text | None = None
    """The datastore that the `build` folder is uploaded to; the workspace's own where it is not given."""
    inference_config: Mapping[str, Any] | None = None
    """How an endpoint asks it whether it lives; of no use to a job, which azure-ai-ml accepts it in."""
    description: Text | None = None
    """Shown in Azure ML studio."""
    tags: Tags = Field(default_factory=dict)
    """Shown in Azure ML studio, and searched for there."""
    properties: Tags = Field(default_factory=dict)
    """Kept with the environment; they cannot be changed later."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Environment:
        """The environment in an `az ml` environment YAML; its paths are relative to the file's folder."""
        from azml_dist.yamlfields import load_environment

        return load_environment(path)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.image and not self.build:
            raise wrong("an environment needs an `image` or a `build`")
        if self.image and self.build:
            raise wrong("an environment has an `image` or a `build`, not both")
        if self.conda_file and self.build:
            raise wrong("`conda_file` goes with an `image`", "install the packages in the Dockerfile of the `build`")
        return self


class Queue(Model):
    """Which queue of serverless or shared compute a job waits in."""

    tier: Annotated[
        Annotated[Literal["spot", "basic", "standard", "premium", "null"], AnyCase] | None, also("tier", "job_tier")
    ] = None
    """`spot` is cheap and may be interrupted."""
    priority: Annotated[Literal["low", "medium", "high"], AnyCase] | None = None
    """`medium` where it is not given."""


class Identity(Model):
    """Whose rights the run has towards data: a managed identity's, yours (`user_identity`), or the workspace's."""

    type: Annotated[Literal["managed", "user_identity", "aml_token"], BeforeValidator(identity_type)]
    """Whose identity."""
    client_id: Text | None = None
    """The client id of a managed identity."""
    object_id: Text | None = None
    """The object id of a managed identity."""
    resource_id: Annotated[Text | None, also("resource_id", "msi_resource_id")] = None
    """The ARM id of a managed identity."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type != "managed" and (self.client_id or self.object_id or self.resource_id):
            raise wrong(f"ids belong to a managed identity, not to `{self.type}`")
        return self


class _Service(Model):
    nodes: Literal["all"] | None = None
    """`all` starts it on every node; it runs on the first one otherwise."""
    port: Port | None = None
    """The port that it listens on in the container."""
    properties: Mapping[str, Any] | None = None
    """Further settings of the service."""


class JupyterLab(_Service):
    """JupyterLab in the running job ("Debug jobs and monitor training progress", as all services)."""

    type: Annotated[Literal["jupyter_lab"], AnyCase] = Field(default="jupyter_lab", repr=False)
    """The kind of service."""


class VsCode(_Service):
    """Visual Studio Code's server in the running job."""

    type: Annotated[Literal["vs_code"], AnyCase] = Field(default="vs_code", repr=False)
    """The kind of service."""


class TensorBoard(_Service):
    """TensorBoard over what the running job writes."""

    type: Annotated[Literal["tensor_board"], AnyCase] = Field(default="tensor_board", repr=False)
    """The kind of service."""
    log_dir: Text | None = None
    """The folder with the event files."""


class Ssh(_Service):
    """SSH into the running job."""

    type: Annotated[Literal["ssh"], AnyCase] = Field(default="ssh", repr=False)
    """The kind of service."""
    ssh_public_keys: Text | None = None
    """The public keys that may log in."""


DISTRIBUTIONS: dict[str, type[Model]] = {"pytorch": PyTorch, "mpi": Mpi, "tensorflow": TensorFlow, "ray": Ray}
SERVICES: dict[str, type[Model]] = {
    "jupyter_lab": JupyterLab,
    "vs_code": VsCode,
    "tensor_board": TensorBoard,
    "ssh": Ssh,
}

AnyDistribution: TypeAlias = Annotated[
    Annotated[PyTorch, Tag(tag_of(PyTorch))]
    | Annotated[Mpi, Tag(tag_of(Mpi))]
    | Annotated[TensorFlow, Tag(tag_of(TensorFlow))]
    | Annotated[Ray, Tag(tag_of(Ray))],
    Discriminator(kind_of(DISTRIBUTIONS)),
    BeforeValidator(one_of(DISTRIBUTIONS, "distribution")),
]
AnyService: TypeAlias = Annotated[
    Annotated[JupyterLab, Tag(tag_of(JupyterLab))]
    | Annotated[VsCode, Tag(tag_of(VsCode))]
    | Annotated[TensorBoard, Tag(tag_of(TensorBoard))]
    | Annotated[Ssh, Tag(tag_of(Ssh))],
    Discriminator(kind_of(SERVICES)),
    BeforeValidator(one_of(SERVICES, "service")),
]


def _kind_of_input(value: Any) -> str:
    if isinstance(value, Parameter):
        return "<Parameter>"
    return "<Input>" if isinstance(value, Mapping | Input) else "<value>"


InputOrValue: TypeAlias = Annotated[
    Annotated[Input, Tag(tag_of(Input))]
    | Annotated[Parameter, Tag(tag_of(Parameter))]
    | Annotated[Value, Tag("<value>")],
    Discriminator(_kind_of_input),
]
AnyEnvironment: TypeAlias = Annotated[
    Annotated[Environment, Tag(tag_of(Environment))] | Annotated[Reference, Tag("<reference>")],
    Discriminator(lambda value: "<Environment>" if isinstance(value, Mapping | Environment) else "<reference>"),
]
