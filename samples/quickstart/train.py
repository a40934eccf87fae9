"""Recognise handwritten digits with DistributedDataParallel: plain PyTorch, nothing else.

On a laptop, one process:              python train.py
Here, as 2 nodes x 2 processes:        azml-dist run job.yml
The same run on Azure ML:              azml-dist submit job.yml      (or: az ml job create -f job.yml)

The data is the 1,797 images of scikit-learn's `load_digits`. It comes with the package, so nothing is downloaded.
"""

import argparse
import gc
import os
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a process")
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the trained model")
    args = parser.parse_args()

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
    train_set, test_set = digits()
    sampler: DistributedSampler[Any] = DistributedSampler(train_set)  # each process gets its own part
    batches = DataLoader(train_set, args.batch_size, sampler=sampler)  # the last batch may be smaller, and is kept
    my_test = Subset(test_set, range(rank, len(test_set), world_size))  # no padding, so every image counts once
    print(f"rank {rank} of {world_size} on {device}: learns {len(sampler)} images, tests {len(my_test)}", flush=True)

    torch.manual_seed(0)
    model = DistributedDataParallel(network().to(device), device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    steps = args.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps)

    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)  # reshuffles; without it, every epoch has the same order
        model.train()
        seen = torch.zeros(2, device=device)  # sum of losses, number of images
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # DDP averages the gradients of all processes here
            optimizer.step()
            schedule.step()
            seen += torch.stack([loss.detach() * len(labels), torch.tensor(len(labels), device=device)])
        dist.all_reduce(seen)
        report("loss", float(seen[0] / seen[1]), epoch + 1)

    report("test_accuracy", accuracy(model.module, my_test, device), args.epochs)
    if rank == 0:  # global rank, not local rank: one model, written once
        args.output.mkdir(parents=True, exist_ok=True)
        torch.save(model.module.state_dict(), args.output / "model.pt")
        print(f"model written to {args.output / 'model.pt'}", flush=True)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Four fifths for training, the rest for testing; split the same way in every process."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    learn, test = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
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


def report(name: str, value: float, step: int) -> None:
    if dist.get_rank() != 0:
        return
    print(f"epoch {step}: {name} {value:.4f}", flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metric(name, value, step=step)


if __name__ == "__main__":
    main()
