"""Show what each process sees: which one it is, where the others are, what it can read and write. Trains nothing.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local [--distribution mpi|tensorflow|ray|single]
The same run on Azure ML:          python submit.py --compute gpu-cluster

It needs only the standard library, so it runs in any image. Submit it to a new cluster first: it takes seconds, and
shows whether the processes, their variables and their files are what your script expects.
"""

import argparse
import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TELLING = ("AZUREML_", "AZURE_ML_", "AZ_BATCH", "MLFLOW_", "NCCL_", "OMPI_COMM_WORLD_", "RAY_", "TF_")
EXACT = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES")
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--greeting", default="Hello")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for one file per process")
    args = parser.parse_args()

    seen = what_is_seen(os.environ)
    print(f"{args.greeting} from {seen['name']} of {seen['of']} on node {seen['node']} ({seen['distribution']})")
    print(f"  finds the others by {seen['found_by']}")
    print(f"  host {socket.gethostname()}, Python {platform.python_version()}, {os.cpu_count()} cores, {gpus()}")
    print(f"  in {os.getcwd()}: {', '.join(sorted(os.listdir()))}", flush=True)

    # All nodes write to the same place: without the rank in its name, each file would overwrite the last.
    args.output.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in sorted(os.environ.items()) if is_telling(name)}
    file = args.output / f"{seen['name'].replace(' ', '-')}.json"
    file.with_suffix(".part").write_text(json.dumps({**seen, "environment": environment}, indent=1))
    file.with_suffix(".part").replace(file)  # never an incomplete file
    if "TF_CONFIG" in os.environ:
        wait_for_parameter_servers(args.output)


def what_is_seen(env: Mapping[str, str]) -> dict[str, Any]:
    """Which process this is, according to the variables of each distribution."""
    if "TF_CONFIG" in env:  # TensorFlow: tasks instead of ranks
        config = json.loads(env["TF_CONFIG"])
        task, cluster = config["task"], config["cluster"]
        return {
            "distribution": "TensorFlow",
            "name": f"{task['type']} {task['index']}",
            "of": f"{len(cluster[task['type']])}",
            "node": env.get("AZUREML_CR_NODE_RANK"),
            "found_by": f"TF_CONFIG: {json.dumps(cluster)}",
        }
    if "OMPI_COMM_WORLD_RANK" in env:  # MPI: Open MPI's variables; OMPI_COMM_WORLD_NODE_RANK is not the node
        rank, local_size = int(env["OMPI_COMM_WORLD_RANK"]), int(env["OMPI_COMM_WORLD_LOCAL_SIZE"])
        return {
            "distribution": "MPI",
            "name": f"rank {rank}",
            "of": env["OMPI_COMM_WORLD_SIZE"],
            "node": f"{rank // local_size}",
            "found_by": f"mpirun; its first node is {env.get('AZ_BATCH_MASTER_NODE', 'this one')}",
        }
    if "RANK" in env:  # PyTorch
        return {
            "distribution": "PyTorch",
            "name": f"rank {env['RANK']}",
            "of": env["WORLD_SIZE"],
            "node": env["NODE_RANK"],
            "found_by": f"MASTER_ADDR and MASTER_PORT: {env['MASTER_ADDR']}:{env['MASTER_PORT']}",
        }
    name, found_by = "rank 0", "nothing: it is the only one"
    if "RAY_ADDRESS" in env:  # Ray: the command runs only on the head, its tasks on all nodes
        found_by = f"RAY_ADDRESS: {env['RAY_ADDRESS']}"
    kind = "Ray" if "RAY_ADDRESS" in env else "no distribution"
    return {"distribution": kind, "name": name, "of": "1", "node": "0", "found_by": found_by}


def wait_for_parameter_servers(folder: Path, seconds: float = 60) -> None:
    """The run ends with its last worker and then stops parameter servers, even one that has not printed anything."""
    servers = json.loads(os.environ["TF_CONFIG"])["cluster"].get("ps", [])
    missing = {f"ps-{index}.json" for index in range(len(servers))}
    deadline = time.monotonic() + seconds
    while missing := missing - set(os.listdir(folder)):
        if time.monotonic() > deadline:
            print(f"  has waited {seconds:g} s for {', '.join(sorted(missing))} in {folder}: is it one folder for all?")
            return
        time.sleep(0.1)


def gpus() -> str:
    """How many GPUs this process sees: on Azure ML all of its node; it uses the one with its local rank."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return f"{found} GPUs" if visible is None else f"{found} GPUs, of which {visible or 'none'} may be used"


def is_telling(name: str) -> bool:
    is_secret = any(word in name.upper() for word in SECRET)
    return not is_secret and (name in EXACT or name.startswith(TELLING))


if __name__ == "__main__":
    main()
