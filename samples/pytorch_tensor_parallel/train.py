"""Recognise handwritten digits with tensor parallelism: every layer is split into parts that compute side by side.

On a laptop, one process:             python train.py
Here, as 1 node x 2 processes:        python submit.py --local
The same run on Azure ML:             python submit.py --compute gpu-cluster

All processes see the same images. In each block, the first layer is split by columns and the second by rows, so that
the two need only one exchange between the processes. The losses are those of a single process.
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
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy, gelu
from torch.utils.data import DataLoader, TensorDataset

WIDTH = 128
WHOLE = StateDictOptions(full_state_dict=True)
"""Checkpoints hold whole tensors, so any number of processes can read them, and any plain model."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a residual network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64, help="images per step, the same in every process")
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the checkpoint")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if 4 * WIDTH % processes:
        parser.error(f"{processes} processes: the number must divide the {4 * WIDTH} columns of a layer")

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
    def __init__(self, width: int = WIDTH, depth: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def cut(model: Network, mesh: DeviceMesh) -> None:
    """Give each process its part of the two layers of every block; the rest of the model is small and not split."""
    for block in model.blocks:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    learn_set, test_set = digits()
    order = torch.Generator().manual_seed(0)  # unlike data parallelism, every process has the same batches
    batches = DataLoader(learn_set, args.batch_size, shuffle=True, generator=order)

    torch.manual_seed(0)  # and the same initial weights
    model = Network().to(device)
    whole = sum(parameter.numel() for parameter in model.parameters())
    if world_size > 1:
        cut(model, init_device_mesh(device.type, (world_size,), mesh_dim_names=("tensor",)))
    kept = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters())
    print(f"rank {rank} of {world_size} on {device} keeps {kept} of {whole} parameters", flush=True)
    # foreach: one kernel for many tensors, which must not mix whole tensors and parts.
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, foreach=False)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer) or load(args.resume_from, model, optimizer)

    for epoch in range(args.epochs):
        if epoch < first:
            list(batches)  # draws the order of that epoch, so that the next one is as it would have been
            continue
        model.train()
        losses = torch.zeros((), device=device)
        start = time.perf_counter()
        for images, labels in batches:
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += loss.detach() * len(labels)
        loss_sum = float(losses)  # waits for the GPU; the same in all processes
        seconds = time.perf_counter() - start
        report(epoch + 1, loss=loss_sum / len(learn_set), images_per_second=len(learn_set) / seconds)
        save(args.output, model, optimizer, epoch + 1)
    report(args.epochs, **test(model, test_set, device))


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images, labels = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([1408])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


def test(model: nn.Module, test_set: TensorDataset, device: torch.device) -> dict[str, float]:
    model.eval()
    images, labels = (part.to(device) for part in test_set.tensors)
    with torch.no_grad():
        scores = model(images)  # all processes take part: each has a part of the layers
    right = (scores.argmax(1) == labels).sum()
    return {"test_loss": float(cross_entropy(scores, labels)), "test_accuracy": float(right / len(labels))}


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)  # all processes contribute their parts
    if dist.get_rank() != 0:  # global rank, not local rank: one checkpoint, written once
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": weights, "optimizer": moments, "epochs_done": epochs_done}
    torch.save(state, folder / "checkpoint.part")
    os.replace(folder / "checkpoint.part", folder / "checkpoint.pt")  # never an incomplete checkpoint


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of epochs done."""
    if not folder or not (folder / "checkpoint.pt").exists():
        return 0
    state = torch.load(folder / "checkpoint.pt", map_location="cpu")
    weights, moments = state["model"], state["optimizer"]
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=WHOLE)
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
