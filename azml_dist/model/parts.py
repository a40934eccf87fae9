"""The parts of a job: how its processes are started, what it reads and writes, what it runs in.

Facts about fields come from Azure ML's "CLI (v2) command job YAML schema" (reference-yaml-job-command), unless a
docstring names another source.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from azml_dist.model.base import Model, tag_of, wrong
from azml_dist.model.parameter import Parameter
from azml_dist.model.values import (
    AnyCase,
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
    identity_type,
    kind_of,
    one_of,
)
from azml_dist.notation.expressions import is_remote

DataType: TypeAlias = Annotated[
    Literal["uri_file", "uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model"], AnyCase
]
MODEL_TYPES = ("custom_model", "mlflow_model", "triton_model")
"""Those of them that are models."""
_PROCESSES = also("process_count_per_node", "process_count_per_instance")


class PyTorch(Model):
    """Azure ML starts the command `process_count_per_node` times on every node, with `RANK`, `MASTER_ADDR`, … set."""

    type: Annotated[Literal["pytorch"], AnyCase] = Field(default="pytorch", repr=False)
    """The kind of distribution."""
    process_count_per_node: Annotated[CountOrExpression, _PROCESSES] = 1
    """How many processes each node runs; usually its GPU count."""


class Mpi(Model):
    """Azure ML runs the command under `mpirun`: for Horovod, DeepSpeed, mpi4py and everything else that uses MPI."""

    type: Annotated[Literal["mpi"], AnyCase] = Field(default="mpi", repr=False)
    """The kind of distribution."""
    process_count_per_node: Annotated[CountOrExpression | None, _PROCESSES] = None
    """How many processes each node runs; usually its GPU count. Azure ML's default is 1."""


class TensorFlow(Model):
    """Azure ML starts one process per task, with `TF_CONFIG` set: one worker per node, and parameter servers."""

    type: Annotated[Literal["tensorflow"], AnyCase] = Field(default="tensorflow", repr=False)
    """The kind of distribution."""
    worker_count: Count | None = None
    """How many workers; must equal the node count, which is the default."""
    parameter_server_count: NotNegative = 0
    """How many parameter servers; at most one per node ("Manage resources and quotas")."""


class Ray(Model):
    """Azure ML starts a Ray cluster over the nodes and runs the command on its head. A preview feature of Azure ML."""

    type: Annotated[Literal["ray"], AnyCase] = Field(default="ray", repr=False)
    """The kind of distribution."""
    port: Port | None = None
    """The port of the head's Ray process."""
    address: Text | None = None
    """The address of a Ray cluster to join; by default a new one is started."""
    include_dashboard: bool | None = None
    """Whether to start the Ray dashboard."""
    dashboard_port: Port | None = None
    """The port of the dashboard."""
    head_node_additional_args: Text | None = None
    """More arguments for `ray start` on the head."""
    worker_node_additional_args: Text | None = None
    """More arguments for `ray start` on the other nodes."""


class Input(Model):
    """Data that a job reads. A literal value (a number, a string) needs no `Input`."""

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
    """How the data gets to the node; `ro_mount` by default."""
    datastore: Text | None = None
    """The datastore that a local path is uploaded to; by default that of the workspace."""

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
            raise wrong(
                f"{self.path!r} has no version", f"write `azureml:{name}@latest`, or a number: `azureml:{name}:1`"
            )
        return self


class Output(Model):
    """A folder (or file) that a job writes, stored by Azure ML under the name of the output."""

    type: DataType = "uri_folder"
    """What the job writes: a file, a folder, a table or a model."""
    path: Text | None = None
    """Where to write, such as `azureml://datastores/…`; by default a generated path in the default datastore."""
    mode: Annotated[Literal["rw_mount", "mount", "upload", "direct"], AnyCase] | None = None
    """How the data leaves the node; `rw_mount` by default. With several nodes, `upload` does not work."""
    name: AssetName | None = None
    """Registers the output as a data or model asset with this name."""
    version: Version | None = None
    """The version of that asset; by default a new one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.version is not None and self.name is None:
            raise wrong("a `version` needs the `name` of the asset, too")
        return self


class Build(Model):
    """A folder with a Dockerfile from which Azure ML builds an image."""

    path: LocalPath
    """The folder: a local path (uploaded), or a web address."""
    dockerfile_path: Text | None = None
    """The Dockerfile, relative to `path`; `Dockerfile` by default."""


class Environment(Model):
    """What a job runs in: a Docker image, an image and conda packages, or a Docker build."""

    name: AssetName | None = None
    """Only used if the environment is registered: Azure ML names the environments inside jobs itself."""
    version: Version | None = None
    """The version of a registered environment."""
    image: Text | None = None
    """A Docker image, such as `mcr.microsoft.com/azureml/openmpi5.0-cuda12.8-ubuntu24.04`."""
    conda_file: LocalPath | Mapping[str, Any] | None = None
    """A conda environment file, or its contents."""
    build: Build | None = None
    """A Docker build, instead of `image`."""
    os_type: Annotated[Literal["linux", "windows"], AnyCase] | None = None
    """The operating system of the image; `linux` by default."""
    datastore: Text | None = None
    """The datastore that the `build` folder is uploaded to; by default that of the workspace."""
    inference_config: Mapping[str, Any] | None = None
    """Health checks of an endpoint; azure-ai-ml accepts them in a job, where they have no effect."""
    description: Text | None = None
    """Shown in Azure ML studio."""
    tags: Tags = Field(default_factory=dict)
    """Shown in Azure ML studio, where you can search for them."""
    properties: Tags = Field(default_factory=dict)
    """Stored with the environment; they cannot be changed later."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Environment:
        """The environment in an `az ml` environment YAML; paths in it are relative to the folder of the file."""
        from azml_dist.notation.azml import read_environment

        fields, values = read_environment(path)
        return fields.build(cls, values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.image and not self.build:
            raise wrong("an environment needs an `image` or a `build`")
        if self.image and self.build:
            raise wrong("an environment cannot have both an `image` and a `build`")
        if self.conda_file and self.build:
            raise wrong("`conda_file` needs an `image`", "with a `build`, install the packages in the Dockerfile")
        return self


class Queue(Model):
    """The queue of serverless or shared compute in which a job waits."""

    tier: Annotated[
        Annotated[Literal["spot", "basic", "standard", "premium", "null"], AnyCase] | None, also("tier", "job_tier")
    ] = None
    """`spot` nodes cost less, at a varying price, and can be evicted."""
    priority: Annotated[Literal["low", "medium", "high"], AnyCase] | None = None
    """`medium` by default."""


class Identity(Model):
    """The identity with which the run accesses data: managed, your own (`user_identity`), or that of the workspace."""

    type: Annotated[Literal["managed", "user_identity", "aml_token"], BeforeValidator(identity_type)]
    """Which kind of identity."""
    client_id: Text | None = None
    """The client id of a managed identity."""
    object_id: Text | None = None
    """The object id of a managed identity."""
    resource_id: Annotated[Text | None, also("resource_id", "msi_resource_id")] = None
    """The ARM id of a managed identity."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type != "managed" and (self.client_id or self.object_id or self.resource_id):
            raise wrong(f"only a managed identity has ids, not `{self.type}`")
        return self


class _Service(Model):
    nodes: Literal["all"] | None = None
    """`all` starts it on every node; by default it runs on the first one."""
    port: Port | None = None
    """The port on which it listens in the container."""
    properties: Mapping[str, Any] | None = None
    """More settings of the service."""


class JupyterLab(_Service):
    """JupyterLab in the running job ("Debug jobs and monitor training progress", like all services)."""

    type: Annotated[Literal["jupyter_lab"], AnyCase] = Field(default="jupyter_lab", repr=False)
    """The kind of service."""


class VsCode(_Service):
    """The server of Visual Studio Code in the running job."""

    type: Annotated[Literal["vs_code"], AnyCase] = Field(default="vs_code", repr=False)
    """The kind of service."""


class TensorBoard(_Service):
    """TensorBoard for the event files of the running job."""

    type: Annotated[Literal["tensor_board"], AnyCase] = Field(default="tensor_board", repr=False)
    """The kind of service."""
    log_dir: Text | None = None
    """The folder with the event files."""


class Ssh(_Service):
    """SSH into the running job."""

    type: Annotated[Literal["ssh"], AnyCase] = Field(default="ssh", repr=False)
    """The kind of service."""
    ssh_public_keys: Text | None = None
    """The public keys that are allowed to log in."""


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
