"""Recognise handwritten digits, and watch it in TensorBoard.

On a laptop, one process:          python train.py
Here, as 2 processes:              python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Rank 0 writes losses, the histogram of a layer's weights and the images that were not recognised; each rank writes the
loss of its own part of the data, into a folder of its own, so that TensorBoard shows them as curves of one plot.
"""

import argparse
import gc
import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

TO_LEARN = 1408


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on scikit-learn's handwritten digits.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--board", type=Path, default=Path("outputs/board"), help="folder for TensorBoard's files")
    args = parser.parse_args()
    if "RANK" not in os.environ:  # python train.py: a single process
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    train(args, device)
    gc.collect()  # the model must be gone before its process group
    dist.destroy_process_group()


def train(args: argparse.Namespace, device: torch.device) -> None:
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.data / 16, dtype=torch.float32, device=device)
    labels = torch.tensor(data.target, device=device)
    learn = torch.randperm(len(images))
    mine, test = learn[:TO_LEARN][rank::world_size].to(device), learn[TO_LEARN:].to(device)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), args.learning_rate)
    # A folder for each rank: two processes must not write into one file.
    writer = SummaryWriter(str(args.board / f"rank_{rank}"), flush_secs=5)
    for epoch in range(args.epochs):
        for batch in mine.split(64):
            optimizer.zero_grad()
            loss = cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        writer.add_scalar("loss", loss.item(), epoch)
        if rank == 0:
            report(writer, net, images[test], labels[test], epoch)
    writer.close()


def report(writer: SummaryWriter, net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epoch: int) -> None:
    with torch.no_grad():
        guesses = net(images).argmax(1)
    accuracy = (guesses == labels).float().mean().item()
    writer.add_scalar("test_accuracy", accuracy, epoch)
    writer.add_histogram("first layer", net.get_parameter("0.weight"), epoch)
    wrong = images[guesses != labels][:16]
    if len(wrong):
        writer.add_images("not recognised", wrong.reshape(-1, 1, 8, 8), epoch)
    print(f"epoch {epoch + 1}: test_accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
