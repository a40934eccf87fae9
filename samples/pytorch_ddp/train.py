"""Recognise handwritten digits with DistributedDataParallel: data parallelism in plain PyTorch.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Every process has the whole model and learns from its own part of the images; DDP averages their gradients in each step.
The 1,797 images are scikit-learn's `load_digits`; they come with the package, so nothing is downloaded.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing. Like real data, this divides evenly by nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a process")
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    device = join_the_world()
    train(args, device)
    # A model that outlives its process group can make the process hang or abort at exit (gloo). Returning from train()
    # is not enough: DDP imports torch._dynamo in there, which leaves train()'s frame in a reference cycle.
    gc.collect()
    dist.destroy_process_group()


def join_the_world() -> torch.device:
    """Connect to the other processes, using what Azure ML sets: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT."""
    if "RANK" not in os.environ:  # python train.py: a single process
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if torch.cuda.is_available():
        # Every process sees all GPUs of its node, so each selects its own.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl")
    else:
        device = torch.device("cpu")
        torch.set_num_threads(1)  # the processes share the cores
        dist.init_process_group("gloo")
    return device


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    learn_set, test_set = digits()
    shard: DistributedSampler[Any] = DistributedSampler(learn_set)  # each process gets its own part of the images
    batches = DataLoader(learn_set, args.batch_size, sampler=shard)
    my_test = Subset(test_set, range(rank, len(test_set), world_size))
    print(f"rank {rank} of {world_size} on {device}: {len(shard)} images in {len(batches)} batches", flush=True)

    torch.manual_seed(0)
    model = DistributedDataParallel(network().to(device), device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer, device) or load(args.resume_from, model, optimizer, device)

    for epoch in range(first, args.epochs):
        shard.set_epoch(epoch)  # reshuffles; without it, every epoch has the same order
        model.train()
        seen = torch.zeros(2, device=device)  # sum of losses, number of images
        start = time.perf_counter()
        for step, (images, labels) in enumerate(batches):
            images, labels = images.to(device), labels.to(device)
            # The sampler repeats a few images so that all processes take the same number of steps; they do not count.
            place = (step * args.batch_size + torch.arange(len(labels), device=device)) * world_size + rank
            counts = place < len(learn_set)
            losses = cross_entropy(model(images), labels, reduction="none") * counts
            # DDP averages over processes; we want the mean over all images of this step.
            in_all = min(args.batch_size * world_size, len(learn_set) - step * args.batch_size * world_size)
            optimizer.zero_grad()
            (losses.sum() * world_size / in_all).backward()
            optimizer.step()
            seen += torch.stack([losses.detach().sum(), counts.sum()])
        dist.all_reduce(seen)
        loss_sum, learnt = seen.tolist()  # waits for the GPU
        report(epoch + 1, loss=loss_sum / learnt, images_per_second=learnt / (time.perf_counter() - start))
        if rank == 0:  # global rank, not local rank: one checkpoint, written once
            save(args.output, model, optimizer, epoch + 1)

    report(args.epochs, test_accuracy=accuracy(model.module, my_test, device))


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([TO_LEARN])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def accuracy(model: nn.Module, my_test: Subset[Any], device: torch.device) -> float:
    """Over the whole test set: every process counts its part, then the counts are added up."""
    model.eval()
    counts = torch.zeros(2, device=device)  # number of correct answers, number of images
    with torch.no_grad():
        for images, labels in DataLoader(my_test, 256):
            right = model(images.to(device)).argmax(1) == labels.to(device)
            counts += torch.tensor([right.sum(), len(labels)], device=device)
    dist.all_reduce(counts)
    return float(counts[0] / counts[1])


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs_done": epochs_done}
    torch.save(state, folder / "checkpoint.part")
    os.replace(folder / "checkpoint.part", folder / "checkpoint.pt")  # never an incomplete checkpoint


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of epochs done."""
    if not folder or not (folder / "checkpoint.pt").exists():
        return 0
    state = torch.load(folder / "checkpoint.pt", map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if dist.get_rank() == 0:
        print(f"resumes after epoch {state['epochs_done']} of {folder}", flush=True)
    return int(state["epochs_done"])


def report(epoch: int, **metrics: float) -> None:
    if dist.get_rank() != 0:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
