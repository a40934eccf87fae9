"""MPI jobs here: real mpirun, of whichever Open MPI there is."""

from __future__ import annotations

from typing import Any

from running import lines_of, log_of, run_here

from azml_dist import Job, Mpi


def mpi(command: str | list[str], nodes: int = 1, processes: int = 1, **fields: Any) -> Job:
    return Job(command=command, node_count=nodes, distribution=Mpi(process_count_per_node=processes), **fields)


ALLREDUCE = """
from mpi4py import MPI
world = MPI.COMM_WORLD
node = world.Split_type(MPI.COMM_TYPE_SHARED)
print(world.rank, world.size, world.allreduce(world.rank + 1), node.rank, node.size)
"""


def test_collectives_of_mpi4py_are_right_over_two_nodes() -> None:
    run = run_here(mpi(["python", "-c", ALLREDUCE], 2, 2))

    assert run.status == "Completed", lines_of(run)
    assert [log_of(run, rank).strip() for rank in range(4)] == ["0 4 10 0 2", "1 4 10 1 2", "2 4 10 0 2", "3 4 10 1 2"]
