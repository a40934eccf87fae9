"""A small GPT that learns to write like Python's documentation, character by character: data x tensor parallel.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

The processes form a grid. The processes of a row have parts of the same layers and see the same text (tensor parallel).
Rows see different text and average their gradients, and each keeps a shard of the optimizer (data parallel, FSDP2).
Ranks count along rows, so a row with as many processes as a node stays inside it, where its many exchanges are cheap.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy, gelu, scaled_dot_product_attention

TEXT = "\n".join(topics[name] for name in sorted(topics))
"""Python's own documentation, some 450,000 characters. It comes with Python, so nothing is downloaded."""
CHARACTERS = sorted(set(TEXT))
CONTEXT, HEAD_SIZE = 64, 16
"""How many characters the model looks back, and how wide each of its attention heads is."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small GPT on the text of Python's documentation.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32, help="texts per step, over all rows")
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--tensor-parallel", type=int, default=1, help="processes in a row")
    parser.add_argument("--width", type=int, default=64, help="size of the model; each head takes 16")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--report-every", type=int, default=50, help="steps between reports, and checkpoints")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs"), help="folder for checkpoints, shared by all nodes"
    )
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoints")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")
    rows, left = divmod(int(os.environ.get("WORLD_SIZE", "1")), args.tensor_parallel)
    if left or args.batch_size % rows or args.width % (HEAD_SIZE * args.tensor_parallel):
        parser.error("--tensor-parallel must divide the processes, and the heads (--width / 16); rows, --batch-size")

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
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(gelu(self.up(self.norm2(x))))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        # -1: as many heads as this process has
        q, k, v = (part(x).unflatten(-1, (-1, HEAD_SIZE)) for part in (self.query, self.key, self.value))
        x = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.out(x.transpose(1, 2).flatten(-2))


class Gpt(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(len(CHARACTERS), width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(CHARACTERS))

    def forward(self, text: torch.Tensor, following: torch.Tensor | None = None) -> torch.Tensor:
        """The loss if the following characters are given, otherwise the scores of the candidates."""
        x = self.characters(text) + self.places(torch.arange(text.shape[1], device=text.device))
        for block in self.blocks:
            x = block(x)
        scores = self.head(self.norm(x))
        return scores if following is None else cross_entropy(scores.flatten(0, 1), following.flatten())


def parallelize(model: Gpt, grid: DeviceMesh) -> None:
    columns, rows = dict.fromkeys(("query", "key", "value", "up"), ColwiseParallel()), RowwiseParallel()
    for block in model.blocks:
        parallelize_module(block, grid["tensor"], columns | {"out": rows, "down": rows})
        fully_shard(block, mesh=grid["data"])
    fully_shard(model, mesh=grid["data"])


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    rows = world_size // args.tensor_parallel
    grid = init_device_mesh(device.type, (rows, args.tensor_parallel), mesh_dim_names=("data", "tensor"))
    row = grid["data"].get_local_rank()
    print(f"rank {rank} of {world_size} on {device}: row {row} of {rows}", flush=True)

    torch.manual_seed(0)  # the same initial weights in all processes
    model = Gpt(args.width, args.depth).to(device)
    if world_size > 1:
        parallelize(model, grid)
    # foreach: one kernel for many tensors, which must not be split in different ways.
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate, foreach=False)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(args.output, model, optimizer) or load(args.resume_from, model, optimizer)

    learn, test = encode(TEXT).to(device).tensor_split([len(TEXT) * 9 // 10])
    losses, start = [], time.perf_counter()
    for step in range(first + 1, args.steps + 1):
        loss = model(*texts(learn, args.batch_size, step, row, rows))
        optimizer.zero_grad()
        loss.backward()  # gradients are summed along rows and averaged over rows
        optimizer.step()
        losses.append(loss.detach())
        if step % args.report_every == 0 or step == args.steps:
            dist.all_reduce(mean := torch.stack(losses).mean())
            mean_loss = float(mean) / world_size  # waits for the GPU
            done = len(losses) * args.batch_size * CONTEXT
            report(step, loss=mean_loss, characters_per_second=done / (time.perf_counter() - start))
            save(args.output, model, optimizer, step)
            losses, start = [], time.perf_counter()

    with torch.no_grad():
        loss = model(*texts(test, 8 * args.batch_size, 0, row, rows))
        dist.all_reduce(loss)
        report(args.steps, test_loss=float(loss) / world_size)
        written = write(model, "The ", 200, device)
    if rank == 0:
        print(f"it writes: {written}", flush=True)


def encode(text: str) -> torch.Tensor:
    number = {character: i for i, character in enumerate(CHARACTERS)}
    return torch.tensor([number[character] for character in text])


def texts(source: torch.Tensor, count: int, seed: int, row: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """This row's part of the texts, which all processes draw alike, and the character that follows each one in it."""
    starts = torch.randint(len(source) - CONTEXT, (count,), generator=torch.Generator().manual_seed(seed))
    pieces = torch.stack([source[start : start + CONTEXT + 1] for start in starts[row::rows].tolist()])
    return pieces[:, :-1], pieces[:, 1:]


def write(model: nn.Module, text: str, count: int, device: torch.device) -> str:
    """Let the model continue a text. Every process has part of each layer, and draws the same random numbers."""
    luck = torch.Generator().manual_seed(0)
    for _ in range(count):
        scores = model(encode(text[-CONTEXT:])[None].to(device))[0, -1].cpu()
        text += CHARACTERS[int(torch.multinomial((scores / 0.7).softmax(0), 1, generator=luck))]
    return text


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Every process writes its shards; the metadata, which says what is where, comes last."""
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments, "step": step}, checkpoint_id=folder / f"step-{step:06}")


def load(folder: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Resume from the newest complete checkpoint in a folder, if there is one. Return the number of steps done."""
    whole = sorted(folder.glob("step-*/.metadata")) if folder else []
    if not whole:
        return 0
    weights, moments = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": weights, "optimizer": moments, "step": 0}
    dcp.load(state, checkpoint_id=whole[-1].parent)  # works for a grid of any shape
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    if dist.get_rank() == 0:
        print(f"resumes after step {state['step']} of {folder}", flush=True)
    return int(state["step"])


def report(step: int, **metrics: float) -> None:
    if dist.get_rank() != 0:
        return
    print(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=step)


if __name__ == "__main__":
    main()
