"""Recognise handwritten digits with FSDP2: model, gradients and optimizer sharded across the processes.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Data parallelism for models that do not fit on one GPU: a layer is complete only while it computes. Checkpoints are
sharded too, and any number of processes can read them.
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
import torch.distributed.checkpoint as dcp
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy, gelu
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a residual network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a process")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), help="folder for checkpoints, shared by all nodes"
    )
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoints")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    device = join_the_world()
    train(args, device)
    gc.collect()  # a model that outlives its process group can make the process hang or abort at exit (gloo)
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


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(gelu(self.up(self.norm(x))))


class Network(nn.Module):
    def __init__(self, width: int = 128, depth: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    learn_set, test_set = digits()
    sampler: DistributedSampler[Any] = DistributedSampler(learn_set)  # as in all data parallelism: a part for each
    batches = DataLoader(learn_set, args.batch_size, sampler=sampler)

    torch.manual_seed(0)
    model = Network().to(device)
    whole = sum(parameter.numel() for parameter in model.parameters())
    for block in model.blocks:
        fully_shard(block)  # gathered before the block computes, released after it
    fully_shard(model)  # the layers outside the blocks: embed and head
    kept = sum(parameter.to_local().numel() for parameter in model.parameters())
    print(f"rank {rank} of {world_size} on {device} keeps {kept} of {whole} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)  # given shards: its moments are sharded too

    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer) or load(args.resume_from, model, optimizer)
    if first:
        report(first, **test(model, test_set, device))
    for epoch in range(first, args.epochs):
        sampler.set_epoch(epoch)
        model.train()
        seen = torch.zeros(2, device=device)  # sum of losses, number of images
        start = time.perf_counter()
        for images, labels in batches:
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # averages and scatters gradients: each process gets those of its shards
            optimizer.step()
            seen += torch.stack([loss.detach() * len(labels), torch.tensor(len(labels), device=device)])
        dist.all_reduce(seen)
        losses, learnt = seen.tolist()  # waits for the GPU
        report(epoch + 1, loss=losses / learnt, images_per_second=learnt / (time.perf_counter() - start))
        save(args.output, model, optimizer, epoch + 1)
    report(args.epochs, **test(model, test_set, device))


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([1408])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


def test(model: nn.Module, test_set: TensorDataset, device: torch.device) -> dict[str, float]:
    """Over the whole test set, a part of it in each process."""
    model.eval()
    images, labels = (part[dist.get_rank() :: dist.get_world_size()].to(device) for part in test_set.tensors)
    with torch.no_grad():
        # In one batch: every forward pass gathers the layers, so all processes must make the same number of passes.
        scores = model(images)
    loss, right = cross_entropy(scores, labels, reduction="sum"), (scores.argmax(1) == labels).sum()
    counts = torch.stack([loss, right, torch.tensor(len(labels), device=device)])
    dist.all_reduce(counts)
    return {"test_loss": float(counts[0] / counts[2]), "test_accuracy": float(counts[1] / counts[2])}


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    """Every process writes its shards; the metadata, which says what is where, comes last."""
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments, "epochs_done": epochs_done}
    dcp.save(state, checkpoint_id=folder / f"epoch-{epochs_done:04}")


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Resume from the newest complete checkpoint in a folder, if there is one. Return the number of epochs done."""
    whole = sorted(folder.glob("epoch-*/.metadata")) if folder else []
    if not whole:
        return 0
    weights, moments = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": weights, "optimizer": moments, "epochs_done": 0}
    dcp.load(state, checkpoint_id=whole[-1].parent)  # each process reads only what its own shards need
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
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
