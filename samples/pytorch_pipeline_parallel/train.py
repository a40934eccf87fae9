"""Recognise handwritten digits with pipeline parallelism: each process has some of the layers.

On a laptop, one process:          python train.py
Here, as 2 nodes x 1 process:      python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

A batch is split into microbatches, which pass through the stages one after another, so that all stages are busy.
Stages exchange only activations and their gradients. The losses are those of a single process.
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
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn.functional import cross_entropy, gelu
from torch.utils.data import DataLoader, TensorDataset

BLOCKS = 4
BY_NAME = StateDictOptions(flatten_optimizer_state_dict=True)
"""A checkpoint stores everything by parameter name, whatever the stage, so any number of stages can read it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a residual network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step")
    parser.add_argument(
        "--microbatches", type=int, default=4, help="parts of each batch; at least the number of stages"
    )
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), help="folder for checkpoints, shared by all nodes"
    )
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoints")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")
    stages = int(os.environ.get("WORLD_SIZE", "1"))
    if stages > BLOCKS:
        parser.error(f"{stages} processes: too many for {BLOCKS} blocks, since each stage needs at least one")
    if args.microbatches < stages or args.batch_size % args.microbatches:
        parser.error(f"--microbatches {args.microbatches}: at least {stages}, and a divisor of --batch-size")

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
    """The whole network, or the layers of one stage, with their names in the whole network."""

    def __init__(self, width: int = 128, depth: int = BLOCKS) -> None:
        super().__init__()
        self.embed: nn.Module | None = nn.Linear(64, width)
        self.head: nn.Module | None = nn.Linear(width, 10)
        self.blocks = nn.ModuleDict({str(i): Block(width) for i in range(depth)})

    def keep(self, stage: int, stages: int) -> None:
        stage_of = {name: i * stages // len(self.blocks) for i, name in enumerate(self.blocks)}
        self.blocks = nn.ModuleDict({name: b for name, b in self.blocks.items() if stage_of[name] == stage})
        self.embed = self.embed if stage == 0 else None
        self.head = self.head if stage == stages - 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x) if self.embed else x
        for block in self.blocks.values():
            x = block(x)
        return self.head(x) if self.head else x


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    learn_set, test_set = digits()
    # Every process has the same batches: the first stage uses the images, the last one the labels. All have one size,
    # for which the stages set up their exchange.
    order = torch.Generator().manual_seed(0)
    batches = DataLoader(learn_set, args.batch_size, shuffle=True, generator=order, drop_last=True)

    torch.manual_seed(0)  # and the same initial weights
    model = Network().to(device)
    model.keep(rank, world_size)
    print(f"rank {rank} of {world_size} on {device} has blocks {', '.join(model.blocks)}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    stage = PipelineStage(model, rank, world_size, device)
    pipeline = Schedule1F1B(stage, args.microbatches, loss_fn=cross_entropy)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer) or load(args.resume_from, model, optimizer)

    for epoch in range(args.epochs):
        if epoch < first:
            list(batches)  # draws the order of that epoch, so that the next one is as it would have been
            continue
        seen = torch.zeros(2, device=device)  # sum of losses, number of images: only the last stage knows them
        start = time.perf_counter()
        for images, labels in batches:
            optimizer.zero_grad()
            losses: list[torch.Tensor] = []
            inputs = [images.to(device)] if stage.is_first else []
            if stage.is_last:
                pipeline.step(*inputs, target=labels.to(device), losses=losses)
                seen += torch.stack([torch.stack(losses).detach().mean() * len(labels), seen.new_tensor(len(labels))])
            else:
                pipeline.step(*inputs)
            optimizer.step()
        dist.broadcast(seen, src=world_size - 1)
        loss_sum, learnt = seen.tolist()  # waits for the GPU
        report(epoch + 1, loss=loss_sum / learnt, images_per_second=learnt / (time.perf_counter() - start))
        save(args.output, model, optimizer, epoch + 1)
    report(args.epochs, test_accuracy=accuracy(pipeline, stage, test_set, args.batch_size, device))


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training images, and 384 test images, which make whole batches; split the same way in every process."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([1413])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


def accuracy(pipeline: Any, stage: Any, test_set: TensorDataset, batch_size: int, device: torch.device) -> float:
    right = torch.zeros((), device=device)
    batches = DataLoader(test_set, batch_size, drop_last=True)
    for images, labels in batches:
        inputs = [images.to(device)] if stage.is_first else []
        if stage.is_last:
            labels = labels.to(device)
            right += (pipeline.eval(*inputs, target=labels).argmax(1) == labels).sum()
        else:
            pipeline.eval(*inputs)
    dist.broadcast(right, src=dist.get_world_size() - 1)
    return float(right) / (len(batches) * batch_size)


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    """Every process writes its layers; the metadata, which says what is where, comes last."""
    weights, moments = get_state_dict(model, optimizer, options=BY_NAME)
    state = {"model": weights, "optimizer": moments, "epochs_done": epochs_done}
    dcp.save(state, checkpoint_id=folder / f"epoch-{epochs_done:04}")


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Resume from the newest complete checkpoint in a folder, if there is one. Return the number of epochs done."""
    whole = sorted(folder.glob("epoch-*/.metadata")) if folder else []
    if not whole:
        return 0
    weights, moments = get_state_dict(model, optimizer, options=BY_NAME)
    state: dict[str, Any] = {"model": weights, "optimizer": moments, "epochs_done": 0}
    dcp.load(state, checkpoint_id=whole[-1].parent)
    weights, moments = state["model"], state["optimizer"]
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=BY_NAME)
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
