"""What we assume Azure ML does where its documentation does not say, so that it can be corrected in one place.

*Documented* means Azure ML's own documentation; *seen* means public logs and samples; the rest is *inferred*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RankDigits:
    """How many digits a rank has in the name of its log: `at_least` so many, or by default those of the largest."""

    at_least: int | None = None

    def __call__(self, world_size: int) -> int:
        return len(str(world_size - 1)) if self.at_least is None else self.at_least


@dataclass(frozen=True)
class Service:
    """What we assume Azure ML does where its documentation does not say."""

    node_log_width: int = 2
    """How many digits the node has in `std_log_node_00_worker.txt`. Seen in the SDK's own test data."""
    rank_log_width: Callable[[int], int] = RankDigits()
    """How many digits the rank has in `std_log_process_0.txt`. Inferred: as many as the largest rank has."""
    process_name: str = "rank_{rank}"
    """`AZUREML_PROCESS_NAME`. Inferred: the number is the rank in the world, not `{local_rank}` or `{node_rank}`."""
    local_world_size: bool = False
    """Whether PyTorch jobs have `LOCAL_WORLD_SIZE`. Inferred: no, as nothing says so, and torchrun does not run."""
    tensorflow_port: int = 2222
    """The port of the first task on a node (documented); a second task gets the next port (seen)."""
    tensorflow_first: str = "ps"
    """Which of two tasks on a node has the first port: `ps` or `worker`. Both have been seen, each in one job."""
    tensorflow_empty_ps: bool = True
    """Whether `TF_CONFIG` of a job without parameter servers has an empty `ps`. Seen: a sample of azureml-examples
    (`tensorflow/mnist-distributed`) removes it, which TensorFlow 2.13 and later need; the documentation shows none."""
    serving_roles: tuple[str, ...] = ("ps",)
    """Roles that serve the others and never finish by themselves: the run ends without waiting for them. Inferred."""
    ray_port: int = 6379
    """The port of Ray's head, if the job sets none. Inferred: it is Ray's own default."""
    logs_inputs: bool = True
    """Whether literal inputs are logged as MLflow parameters before the script starts. Seen (Azure/mlops-v2#93): a
    script that logs one of them with a different value fails."""
    parameters_a_run: int = 200
    """How many MLflow parameters a run may have. Seen (azure-sdk-for-python#35685); that inputs count is inferred."""
    metric_rows_a_batch: int = 250
    """How many values of one metric a request may have (documented); more are refused (seen, mlflow#11462)."""
    final_when_unchanged: float = 600.0
    """Seconds after which `NotResponding` and `Paused` count as the end of a run. For azure-ai-ml they do at once
    (`RunHistoryConstants.TERMINAL_STATUSES`); that a node may respond again, and this time, are inferred."""
    billed: tuple[str, ...] = ("Preparing", "Starting", "Running", "Finalizing", "CancelRequested")
    """Statuses of a run that has nodes, which are billed. Inferred: nodes are billed while they prepare; that none is
    there while a run is `Queued` or `Provisioning` is the other side of it."""
    batch_master_port: int = 6000
    """The port in `AZ_BATCH_MASTER_NODE`. Seen in the log of a job, and documented for Azure Batch, which uses that
    port itself: processes must meet on another one."""
    nccl_socket_ifname: str = "eth0"
    """`NCCL_SOCKET_IFNAME` of MPI jobs. Seen in the log of one job."""
    master_of_one_node: str = "localhost"
    """`AZ_BATCHAI_MPI_MASTER_NODE` of a single-node job without MPI. Seen in hi-ml, which compares with it."""
    task_index_variable: str = "AZUREML_CR_NODE_RANK"
    """`rank` in `AZUREML_CR_DISTRIBUTED_CONFIG`. On Kubernetes it is the name of a variable (seen); which one it is on
    a cluster is inferred."""
    ignored_by_compute: tuple[str, ...] = (
        "AmlCompute/queue_settings.job_tier",
        "AmlCompute/queue_settings.priority",
        "AmlCompute/resources.instance_type",
        "Kubernetes/queue_settings.job_tier",
        "Kubernetes/resources.docker_args",
        "Kubernetes/identity.user_identity",
    )
    """Settings of a job that a kind of compute ignores, by the `computeType` of the API and the name in YAML. Inferred
    from what "CLI (v2) command job YAML schema" says each setting is for."""
    run_dimension: str = "RunId"
    """The dimension of Azure Monitor's figures of a workspace that names the run. Inferred: the documents of Azure ML
    list it, and users have reported that it is missing."""
    unset: tuple[str, ...] = ()
    """Variables that jobs have been seen with, and that a probe of this workspace did not find:
    `PyTorch/several/AZ_BATCH_NODE_LIST`, by distribution and whether a job has one or several nodes."""

    def is_unset(self, distribution: str | None, node_count: int) -> frozenset[str]:
        """The names that a probe did not find in such a job."""
        kind = kind_of_job(distribution, node_count)
        return frozenset(one.removeprefix(kind) for one in self.unset if one.startswith(kind))


def kind_of_job(distribution: str | None, node_count: int) -> str:
    """The jobs for which a probe counts: `PyTorch/several/`."""
    return f"{distribution or 'none'}/{'several' if node_count > 1 else 'one'}/"


SERVICE = Service()
"""What we assume by default."""
