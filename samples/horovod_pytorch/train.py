"""Recognise handwritten digits with Horovod: data parallelism in PyTorch, over MPI.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Azure ML starts the processes with its own `mpirun`: no `horovodrun` in the command. Every process has the whole model
and learns from its own part of the images; Horovod's optimizer averages their gradients in each step.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

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

    hvd.init()  # connects the processes that mpirun started; no address, no port
    device = torch.device("cuda", hvd.local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        # Every process sees all GPUs of its node, so each selects its own.
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)  # the processes share the cores
    print(f"rank {hvd.rank()} of {hvd.size()} on {device}, {hvd.local_rank()} on node {hvd.cross_rank()}", flush=True)
    train(args, device)


def train(args: argparse.Namespace, device: torch.device) -> None:
    learn_set, test_set = digits()
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(learn_set, hvd.size(), hvd.rank())
    batches = DataLoader(learn_set, args.batch_size, sampler=sampler)

    torch.manual_seed(0)
    model = network().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer) or load(args.resume_from, model, optimizer)
    # Only rank 0 has read a checkpoint: all others get its state.
    first = int(hvd.broadcast_object(first, root_rank=0))
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    # From here on, `step` waits until the gradients of all processes are averaged.
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    for epoch in range(first, args.epochs):
        sampler.set_epoch(epoch)  # without it, every epoch has the same order
        model.train()
        losses, start = [], time.perf_counter()
        for images, labels in batches:
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # each gradient is sent as soon as it is computed
            optimizer.step()
            losses.append(loss.detach())
        mean = hvd.allreduce(torch.stack(losses).mean(), name="loss")  # the average, by default
        images_per_second = len(learn_set) / (time.perf_counter() - start)
        report(epoch + 1, loss=float(mean), images_per_second=images_per_second)
        if hvd.rank() == 0:  # global rank, not local rank: one checkpoint, written once
            save(args.output, model, optimizer, epoch + 1)

    report(args.epochs, test_accuracy=accuracy(model, test_set, device))


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


def accuracy(model: nn.Module, test_set: TensorDataset, device: torch.device) -> float:
    """Over the whole test set: every process counts its part, then the counts are added up."""
    model.eval()
    images, labels = (part[hvd.rank() :: hvd.size()].to(device) for part in test_set.tensors)
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    counts = hvd.allreduce(torch.tensor([right.sum(), len(labels)], dtype=torch.float32), name="counts", op=hvd.Sum)
    return float(counts[0] / counts[1])


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs_done": epochs_done}
    torch.save(state, folder / "checkpoint.part")
    os.replace(folder / "checkpoint.part", folder / "checkpoint.pt")  # never an incomplete checkpoint


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """On rank 0, resume from the checkpoint in a folder, if there is one. Return the number of epochs done."""
    if hvd.rank() != 0 or not folder or not (folder / "checkpoint.pt").exists():
        return 0
    state = torch.load(folder / "checkpoint.pt", map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"resumes after epoch {state['epochs_done']} of {folder}", flush=True)
    return int(state["epochs_done"])


def report(epoch: int, **metrics: float) -> None:
    if hvd.rank() != 0:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
