"""What the platform tells every process besides its rank: its node, the other nodes, folders, the compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from azml_dist.plan.folders import UPLOADED
from azml_dist.vmsizes import vm_size

if TYPE_CHECKING:
    from azml_dist.plan.world import PlacedJob


def of_the_cluster(at: PlacedJob) -> dict[str, str]:
    """What all nodes know about each other, whatever the distribution: the variables that public scripts rely on.

    Documented for the multi-instance tasks of Azure Batch, which clusters are built on: `AZ_BATCH_MASTER_NODE`,
    `AZ_BATCH_HOST_LIST`, `AZ_BATCH_NODE_LIST`, `AZ_BATCH_IS_CURRENT_NODE_MASTER`, each for several nodes. Jobs have
    been seen with these and with the others.
    """
    place, node_count = at.place, at.world.node_count
    first, addresses = place.address(0), place.all_addresses(node_count)
    config = {"rank": at.service.task_index_variable, "host_list": addresses}
    env = {"AZ_BATCHAI_JOB_MASTER_NODE_IP": first, "AZUREML_CR_DISTRIBUTED_CONFIG": one_line(config)}
    if node_count == 1:
        is_mpi = at.world.distribution == "Mpi"
        return env | {"AZ_BATCHAI_MPI_MASTER_NODE": first if is_mpi else at.service.master_of_one_node}
    return env | {
        "AZ_BATCHAI_MPI_MASTER_NODE": first,
        "AZ_BATCH_MASTER_NODE": f"{first}:{place.batch_master_port or at.service.batch_master_port}",
        "AZ_BATCH_HOST_LIST": ",".join(addresses),
        "AZ_BATCH_NODE_LIST": ";".join(addresses),
    }


def node_variables(at: PlacedJob, node: int) -> dict[str, str]:
    """What every process knows about its node. All of it is seen."""
    place, working_dir = at.place, at.place.working_dir(node)
    env = {
        "AZUREML_CR_NODE_RANK": str(node),
        "AZ_BATCHAI_NODE_IP": place.address(node),
        "AZUREML_CR_COMPUTE_CONTEXT": one_line(_compute_context(at, node)),
        "AZUREML_CR_EXECUTION_WORKING_DIR_PATH": working_dir,
        "AZUREML_CR_DATA_CAPABILITY_PATH": place.capability(node),
        **{f"AZUREML_CR_HT_CAP_{name.replace('-', '_')}_PATH": f"{working_dir}/{name}" for name in UPLOADED},
    }
    if at.world.node_count > 1:
        is_first = str(node == 0).lower()
        env |= {"AZ_BATCH_IS_CURRENT_NODE_MASTER": is_first, "AZ_BATCHAI_IS_CURRENT_NODE_MASTER": is_first}
    return env


def _compute_context(at: PlacedJob, node: int) -> dict[str, Any]:
    """`AZUREML_CR_COMPUTE_CONTEXT`, with the keys seen in a job on Kubernetes."""
    job, size = at.job, vm_size(at.job.instance_type or "")
    gpu_count = at.place.gpu_count if at.place.gpu_count is not None else size and size.gpu_count
    return {
        "cluster_name": job.compute.removeprefix("azureml:") if job.compute else None,
        "node_id": f"node-{node}",
        "vm_id": None,
        "run_attempt_count": at.place.attempt,
        "gpu_count": "<GPUs of a node>" if gpu_count is None else gpu_count,
        "vm_size": job.instance_type,
        "vm_priority": None,
    }


def one_line(value: object) -> str:
    """JSON without spaces, as the service writes it into variables."""
    return json.dumps(value, separators=(",", ":"))
