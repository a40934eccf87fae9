"""Horovod trains here under the platform's mpirun, as on Azure ML; `horovodrun` has no part in it."""

from __future__ import annotations

from pathlib import Path

from needs import needs
from running import lines_of, log_of, run_here

from azml_dist import Job, Mpi

pytestmark = needs("mpirun", "torch")

TRAIN = """
import horovod.torch as hvd
import torch

hvd.init()
torch.set_num_threads(1)
torch.manual_seed(hvd.rank())
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
losses = []
for step in range(60):
    x = torch.randn(16, 4)
    loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
everyones = hvd.allgather(model.weight.detach())
print("place", hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank())
print("in sync", bool((everyones == everyones[0]).all()))
print("learned", losses[-1] < losses[0] / 10)
"""


def test_horovod_trains_over_two_nodes(horovod: Path) -> None:
    job = Job(
        command=["python", "-c", TRAIN],
        node_count=2,
        distribution=Mpi(process_count_per_node=2),
        environment_variables={"PYTHONPATH": str(horovod)},
    )

    run = run_here(job, timeout=180)

    assert run.status == "Completed", lines_of(run)
    for rank, place in enumerate(["0 4 0 2 0", "1 4 1 2 0", "2 4 0 2 1", "3 4 1 2 1"]):
        assert log_of(run, rank).splitlines()[-3:] == [f"place {place}", "in sync True", "learned True"]


def test_horovod_that_is_missing_is_named_with_what_builds_it() -> None:
    run = run_here(Job(command=["python", "-c", "import horovod.torch"], distribution=Mpi(process_count_per_node=1)))

    assert "install_horovod.sh" in (run.state().hint or "")
