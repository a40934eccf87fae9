"""Train on nodes that may be evicted: a run that is killed half-way resumes where it stopped.

On a laptop, one process:          python train.py                              (press Ctrl-C, then run it again)
Here, as 2 nodes x 1 process:      python submit.py --local --preempt-after 7
The same run on Azure ML:          python submit.py --compute gpu-cluster       (one with spot nodes)

Spot nodes cost less, and disappear without a signal that the script could catch. So it writes an atomic checkpoint
every few steps, and looks for one when it starts. The rest of the script needs no changes.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step, over all processes")
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps; the most that an eviction can lose")
    parser.add_argument("--checkpoints", type=Path, default=Path("outputs"), help="a folder that outlives the node")
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
    (images, labels), (test_images, test_labels) = digits(device)
    torch.manual_seed(0)
    model = DistributedDataParallel(network().to(device), device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    first = load(args.checkpoints, model, optimizer, device)
    print(f"rank {rank} of {world_size} on {device} begins after step {first}", flush=True)

    losses, start = torch.zeros((), device=device), time.perf_counter()
    for step in range(first + 1, args.steps + 1):
        # All randomness depends only on the step, so a resumed run continues as if it had never stopped.
        chosen = torch.randint(len(labels), (args.batch_size,), generator=torch.Generator().manual_seed(step))
        mine = chosen[rank::world_size].to(device)
        loss = cross_entropy(model(images[mine]), labels[mine])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += loss.detach()
        if step % args.checkpoint_every == 0:
            dist.all_reduce(losses)
            loss_mean = float(losses) / args.checkpoint_every / world_size  # waits for the GPU
            speed = args.checkpoint_every * args.batch_size / (time.perf_counter() - start)
            if rank == 0:  # global rank, not local rank
                save(args.checkpoints, model, optimizer, step)
            report(step, loss=loss_mean, images_per_second=speed)
            losses, start = torch.zeros((), device=device), time.perf_counter()

    model.eval()
    with torch.no_grad():
        right = (model.module(test_images).argmax(1) == test_labels).float().mean()
    report(args.steps, test_accuracy=float(right))


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write each checkpoint to a new file, renamed when it is complete; the previous one is kept as a backup."""
    folder.mkdir(parents=True, exist_ok=True)
    older = sorted(folder.glob("step-*.pt"))
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, folder / "checkpoint.part")
    os.replace(folder / "checkpoint.part", folder / f"step-{step:06}.pt")
    for file in older[:-1]:
        file.unlink()


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Resume from the newest checkpoint, if there is one. Return the number of steps done."""
    # Rank 0 chooses for all: the mounts of two nodes may not show the same files at the same time.
    newest = [max(folder.glob("step-*.pt"), default=None)] if dist.get_rank() == 0 else [None]
    dist.broadcast_object_list(newest)
    if newest[0] is None:
        return 0
    state = torch.load(newest[0], map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def digits(device: torch.device) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32, device=device).unsqueeze(1) / 16
    labels = torch.tensor(data.target, device=device)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([1437])
    return (images[learn], labels[learn]), (images[test], labels[test])


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def report(step: int, **metrics: float) -> None:
    if dist.get_rank() != 0:
        return
    print(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=step)


if __name__ == "__main__":
    main()
