"""Data parallelism by hand: softmax regression on digits, with gradients summed by MPI's allreduce.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Every process computes the gradient of its own part of the images; one `Allreduce` adds them up, and all take the same
step. Horovod and DistributedDataParallel do the same under the hood. At the end, the script times the allreduce itself.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Array = NDArray[np.float64]

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing. Like real data, this divides evenly by nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a softmax regression on scikit-learn's handwritten digits.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1.0)
    parser.add_argument("--megabytes", type=float, nargs="*", default=[0.1, 1.0, 4.0], help="allreduces to measure")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    world = MPI.COMM_WORLD  # importing MPI connected this process; mpirun gave it its rank
    weights = train(world, args)
    report(world, args.steps, test_accuracy=accuracy(world, weights))
    for megabytes in args.megabytes if world.size > 1 else []:
        measure(world, megabytes)


def train(world: MPI.Intracomm, args: argparse.Namespace) -> Array:
    images, labels = part_of(world, learn=True)
    # The processes of a node can use its shared memory: MPI calls that a shared communicator.
    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    place = f"rank {world.rank} of {world.size}, {local.rank} of {local.size} on its node"
    print(f"{place}: {len(images)} images", flush=True)

    weights = np.zeros((images.shape[1], 10))
    first = load(world, args.output, weights) or load(world, args.resume_from, weights)
    start = time.perf_counter()
    for step in range(first + 1, args.steps + 1):
        mine, total = np.empty(weights.size + 2), np.empty(weights.size + 2)
        # Loss and count travel with the gradient: one message of 5 kB, not three.
        mine[:-2], mine[-2] = gradient_and_loss(weights, images, labels)
        mine[-1] = len(images)
        world.Allreduce(mine, total, MPI.SUM)
        # Divided by the number of all images, so that parts of unequal size are weighted correctly.
        weights -= args.learning_rate * (total[:-2] / total[-1]).reshape(weights.shape)
        if step % 50 == 0 or step == args.steps:
            seconds = time.perf_counter() - start
            images_per_second = (step - first) * total[-1] / seconds
            report(world, step, loss=float(total[-2] / total[-1]), images_per_second=float(images_per_second))
            save(world, args.output, weights, step)
    return weights


def part_of(world: MPI.Intracomm, *, learn: bool) -> tuple[Array, NDArray[np.int64]]:
    """This process's share of the images: every `size`-th one, starting with `rank`."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))  # the same in every process: parts must not overlap
    chosen = (order[:TO_LEARN] if learn else order[TO_LEARN:])[world.rank :: world.size]
    with_bias = np.hstack([data.data[chosen] / 16, np.ones((len(chosen), 1))])
    return with_bias, data.target[chosen]


def gradient_and_loss(weights: Array, images: Array, labels: NDArray[np.int64]) -> tuple[Array, float]:
    """Summed over the images, not averaged, because the sums of parts can be added up."""
    scores = images @ weights
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    right = np.arange(len(labels)), labels
    loss = -float(np.log(likelihood[right]).sum())
    likelihood[right] -= 1
    return (images.T @ likelihood).ravel(), loss


def accuracy(world: MPI.Intracomm, weights: Array) -> float:
    """Over the whole test set: every process counts its part, then the counts are added up."""
    images, labels = part_of(world, learn=False)
    mine = np.array([(np.argmax(images @ weights, axis=1) == labels).sum(), len(labels)], dtype=float)
    total = np.empty_like(mine)
    world.Allreduce(mine, total, MPI.SUM)
    return float(total[0] / total[1])


def measure(world: MPI.Intracomm, megabytes: float, repeats: int = 5) -> None:
    """How fast an allreduce of that size is. Bus bandwidth, as in NCCL's tests, does not depend on the world size."""
    mine = np.full(int(megabytes * 1e6) // 8, world.rank, dtype=float)
    total = np.empty_like(mine)
    world.Allreduce(mine, total, MPI.SUM)  # the first one also connects the processes
    assert total[0] == world.size * (world.size - 1) / 2
    world.Barrier()
    start = time.perf_counter()
    for _ in range(repeats):
        world.Allreduce(mine, total, MPI.SUM)
    seconds = world.allreduce(time.perf_counter() - start, MPI.MAX) / repeats
    bandwidth = mine.nbytes / seconds * 2 * (world.size - 1) / world.size
    if world.rank == 0:
        print(f"allreduce of {megabytes:g} MB: {seconds * 1e3:.2f} ms, {bandwidth / 1e9:.2f} GB/s", flush=True)


def save(world: MPI.Intracomm, folder: Path, weights: Array, step: int) -> None:
    if world.rank == 0:  # global rank, not local rank: one checkpoint, written once
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "checkpoint.part.npz", weights=weights, step=step)
        os.replace(folder / "checkpoint.part.npz", folder / "checkpoint.npz")  # never an incomplete checkpoint


def load(world: MPI.Intracomm, folder: Path | None, weights: Array) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of steps done."""
    step = 0
    if world.rank == 0 and folder and (folder / "checkpoint.npz").exists():
        with np.load(folder / "checkpoint.npz") as state:
            weights[:], step = state["weights"], int(state["step"])
        print(f"resumes after step {step} of {folder}", flush=True)
    # Only rank 0 reads, and sends the result to the others: they may not see the same file system.
    world.Bcast(weights, root=0)
    return int(world.bcast(step, root=0))


def report(world: MPI.Intracomm, step: int, **metrics: float) -> None:
    if world.rank != 0:
        return
    print(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=step)


if __name__ == "__main__":
    main()
