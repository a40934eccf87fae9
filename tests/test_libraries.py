"""Libraries that look for their world in the environment find the planned one, and train in it."""

from __future__ import annotations

from pathlib import Path

from needs import needs
from running import lines_of, run_here

from azml_dist import Job, PyTorch

SCRIPTS = Path(__file__).parent / "scripts" / "libraries"
RANKS = [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]
"""Rank, local rank and node of 2 nodes x 2 processes."""


def said(library: str, command: str, **variables: str) -> list[str]:
    """What the library says in each of 2 x 2 processes, in order of rank."""
    job = Job(
        command=command,
        code=str(SCRIPTS),
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        environment_variables={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables},
    )
    run = run_here(job, timeout=300)
    assert run.status == "Completed", "\n".join(lines_of(run)[-40:])
    return sorted(line.partition("] ")[2] for line in lines_of(run) if f"] {library}: " in line)


@needs("lightning", "torch")
def test_pytorch_lightning_trains_in_the_world_of_the_job() -> None:
    assert said("lightning", "python lit.py") == [
        f"lightning: rank {rank} of 4, local {local} on node {node}, y = 3.0 x + 2.0" for rank, local, node in RANKS
    ]


@needs("accelerate", "torch")
def test_hugging_face_accelerate_trains_in_the_world_of_the_job() -> None:
    assert said("accelerate", "python accelerated.py", ACCELERATE_USE_CPU="true") == [
        f"accelerate: rank {rank} of 4, local {local} on node {node}, with [0, 1, 2, 3], y = 3.0 x + 2.0"
        for rank, local, node in RANKS
    ]


@needs("deepspeed", "torch")
def test_deepspeed_with_its_optimizer_split_among_the_ranks(torch_extensions: str) -> None:
    assert said("deepspeed", "python zero.py --stage 2", TORCH_EXTENSIONS_DIR=torch_extensions) == [
        f"deepspeed: rank {rank} of 4, local {local}, ZeRO 2, y = 3.0 x + 2.0" for rank, local, _ in RANKS
    ]
