"""Measure how fast ResNet-50 trains: images per second with DistributedDataParallel, on synthetic images.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster
Several worlds, table and plot:    python scaling.py --local     (or: --compute gpu-cluster --worlds 1x1 1x8 2x8 4x8)

The images are created once and stay on the device, so only computing and exchanging gradients is measured. To see what
your storage adds, replace them with your own data. On a CPU, images and batches are small.
"""

import argparse
import gc
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure images per second of ResNet-50, over all processes.")
    parser.add_argument("--batch-size", type=int, default=0, help="images per process; 0: 64 on a GPU, 4 on a CPU")
    parser.add_argument(
        "--image-size", type=int, default=0, help="side of an image in pixels; 0: 224 on a GPU, 32 on a CPU"
    )
    parser.add_argument("--steps", type=int, default=0, help="steps to measure; 0: 50 on a GPU, 4 on a CPU")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16", help="on a GPU")
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--checkpoint-every", type=int, default=0, help="measured steps; 0: only after the last one")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for result.json and checkpoint.pt")
    parser.add_argument("--resume-from", type=Path, help="folder with an earlier run's checkpoint")
    args = parser.parse_args()
    if args.resume_from and not args.resume_from.is_dir():
        parser.error(f"--resume-from: there is no folder {args.resume_from}")

    device = join_the_world()
    measure(args, device)
    # A model that outlives its process group can make the process hang or abort at exit (gloo). Returning from
    # measure() is not enough: DDP imports torch._dynamo in there, which leaves its frame in a reference cycle.
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


def measure(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size, gpu = dist.get_rank(), dist.get_world_size(), device.type == "cuda"
    batch_size = args.batch_size or (64 if gpu else 4)
    image_size = args.image_size or (224 if gpu else 32)
    steps = args.steps or (50 if gpu else 4)
    warm_up = 10 if gpu else 1  # steps that choose kernels, create buffers and connect: not measured
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = resnet50().to(device, memory_format=torch.channels_last)
    count = sum(parameter.numel() for parameter in network.parameters())
    work = f"{batch_size} images of {image_size} x {image_size}, {count:,} parameters"
    print(f"rank {rank} of {world_size} on {name(device)}: {work}", flush=True)
    optimizer = torch.optim.SGD(network.parameters(), args.learning_rate, momentum=0.9)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    before = load(args.output, network, optimizer, device) or load(args.resume_from, network, optimizer, device)
    model = DistributedDataParallel(network, device_ids=[device.index] if gpu else None)
    torch.manual_seed(1 + rank)  # different images in each process
    images = torch.randn(batch_size, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch_size,), device=device)
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=gpu and args.precision == "bfloat16")

    losses, seconds, start = [], 0.0, 0.0
    for step in range(1 - warm_up, steps + 1):
        if step == 1:
            start = now(device)
        with autocast:
            loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step == steps or (step > 0 and args.checkpoint_every and step % args.checkpoint_every == 0):
            seconds += now(device) - start
            if rank == 0:  # global rank, not local rank: one checkpoint, written once
                save(args.output, network, optimizer, before + warm_up + step)
            start = now(device)  # the clock was stopped while the others waited for this
    slowest = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)  # all are as fast as the slowest process
    images_per_second = world_size * batch_size * steps / float(slowest)
    found = torch.stack([losses[0], losses[-1]])
    dist.all_reduce(found)
    if rank == 0:
        report(
            args.output,
            {
                "images_per_second": images_per_second,
                "images_per_second_and_process": images_per_second / world_size,
                "first_loss": float(found[0]) / world_size,
                "last_loss": float(found[1]) / world_size,  # it memorises its few images
            },
            world_size=world_size,
            device=name(device),
            batch_size=batch_size,
            image_size=image_size,
            steps=steps,
        )


def now(device: torch.device) -> float:
    """The time at which all processes have finished their work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    dist.barrier()
    return time.perf_counter()


def name(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "CPU"


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        outside = 4 * width
        self.conv1, self.norm1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        # The stride is in the 3 x 3 convolution: "v1.5", the usual benchmark today.
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.short = nn.Sequential()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu(self.norm1(self.conv1(x)))
        y = relu(self.norm2(self.conv2(y)))
        return relu(self.norm3(self.conv3(y)) + self.short(x))


def resnet50(classes: int = 1000) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(depth):
            layers.append(Bottleneck(inside, width, stride if i == 0 else 1))
            inside = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def save(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, steps_done: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "steps_done": steps_done}
    torch.save(state, folder / "checkpoint.part")
    os.replace(folder / "checkpoint.part", folder / "checkpoint.pt")  # never an incomplete checkpoint


def load(folder: Path | None, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of steps done."""
    if not folder or not (folder / "checkpoint.pt").exists():
        return 0
    state = torch.load(folder / "checkpoint.pt", map_location=device)
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if dist.get_rank() == 0:
        print(f"resumes after step {state['steps_done']} of {folder}", flush=True)
    return int(state["steps_done"])


def report(folder: Path, metrics: dict[str, float], **setting: object) -> None:
    """Called by global rank 0: print, write result.json, log to MLflow."""
    print(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({**setting, **metrics}, indent=1))
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics)


if __name__ == "__main__":
    main()
