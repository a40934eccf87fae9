"""Train a model with its optimizer state and gradients split across all processes: DeepSpeed's ZeRO.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local            (or, under mpirun: --local --mpi)
The same run on Azure ML:          python submit.py --compute gpu-cluster

`init_distributed()` finds its place by itself, with PyTorch's variables and under mpirun: the script is the same.
With plain data parallelism, each process keeps a gradient and Adam's two moments for each weight: three times the
model. ZeRO splits them: stage 1 the moments, stage 2 also the gradients, stage 3 also the weights.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported
    torch.set_num_threads(1)  # the processes share the cores
import deepspeed
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

TO_LEARN = 1409
"""Of the 1,797 images; the rest are for testing. Like real data, this divides evenly by nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a network on scikit-learn's digits, split by ZeRO.")
    parser.add_argument("--stage", type=int, default=2, choices=[0, 1, 2, 3], help="the ZeRO stage; 0 splits nothing")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images per step of a process")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    join_the_world()
    train(args)
    gc.collect()  # a model that outlives its process group can make the process hang or abort at exit (gloo)
    dist.destroy_process_group()


def join_the_world() -> None:
    """Connect to the other processes, using RANK, WORLD_SIZE and MASTER_ADDR, or what mpirun and Azure ML set."""
    if not {"RANK", "OMPI_COMM_WORLD_RANK"} & os.environ.keys():  # python train.py: a single process
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    deepspeed.init_distributed("nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def config(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": args.batch_size,
        "optimizer": {"type": "AdamW", "params": {"lr": args.learning_rate, "torch_adam": True}},
        "zero_optimization": {"stage": args.stage},
        # Halves the memory again, if the GPU supports it.
        "bf16": {"enabled": torch.cuda.is_available()},
    }


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    learn_set, test_set = digits()
    sampler: DistributedSampler[Any] = DistributedSampler(learn_set)
    batches = DataLoader(learn_set, args.batch_size, sampler=sampler)
    engine, *_ = deepspeed.initialize(model=network(), config=config(args))
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(engine, args.output) or load(engine, args.resume_from)
    print(f"rank {dist.get_rank()} of {dist.get_world_size()} on {engine.device}: {memory(engine)}", flush=True)

    for epoch in range(first, args.epochs):
        sampler.set_epoch(epoch)  # without it, every epoch has the same order
        engine.train()
        losses, start = [], time.perf_counter()
        for images, labels in batches:
            loss = cross_entropy(forward(engine, images), labels.to(engine.device))
            engine.backward(loss)  # each process keeps its part of the averaged gradients
            engine.step()  # each process updates its part of the weights, then all gather the whole
            losses.append(loss.detach())
        mean = averaged(torch.stack(losses).mean())
        images_per_second = len(learn_set) / (time.perf_counter() - start)
        report(epoch + 1, loss=mean, images_per_second=images_per_second)
        # All processes call it; each writes its part.
        engine.save_checkpoint(str(args.output), tag="checkpoint", client_state={"epochs_done": epoch + 1})

    report(args.epochs, test_accuracy=accuracy(engine, test_set))


def forward(engine: Any, images: torch.Tensor) -> torch.Tensor:
    dtype = torch.bfloat16 if engine.bfloat16_enabled() else torch.float32
    scores: torch.Tensor = engine(images.to(engine.device, dtype))
    return scores.float()


def memory(engine: Any) -> str:
    """How much of the optimizer's 32-bit copy of the weights this process keeps: all, or its part."""
    weights = sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())
    groups = engine.optimizer.param_groups
    kept = sum(p.numel() for group in groups for p in group["params"])
    return f"optimizer state for {kept:,} of {weights:,} weights"


def averaged(value: torch.Tensor) -> float:
    """The mean over all processes."""
    dist.all_reduce(value)
    return float(value.item() / dist.get_world_size())


def accuracy(engine: Any, test_set: TensorDataset) -> float:
    """Every process tests all images: with stage 3, a forward pass needs all of them anyway."""
    engine.eval()
    images, labels = test_set.tensors
    with torch.no_grad():
        right = forward(engine, images).argmax(1).cpu() == labels
    return float(right.float().mean().item())


def load(engine: Any, folder: Path | None) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of epochs done."""
    if not folder or not (folder / "latest").exists():
        return 0
    _, state = engine.load_checkpoint(str(folder))
    if dist.get_rank() == 0:
        print(f"resumes after epoch {state['epochs_done']} of {folder}", flush=True)
    return int(state["epochs_done"])


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([TO_LEARN])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 512), nn.ReLU()),
        *(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)),
    )


def report(epoch: int, **metrics: float) -> None:
    if dist.get_rank() != 0:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
