"""Recognise handwritten digits with Hugging Face Accelerate: your own training loop, made parallel by `prepare`.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

No `accelerate launch` and no `accelerate config`: Azure ML starts every process, and Accelerate reads its place from
RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

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

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.device.type == "cpu":
        torch.set_num_threads(1)  # the processes share the cores
    train(accelerator, args)
    # A model that outlives its process group can make the process hang or abort at exit (gloo).
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()


def train(accelerator: Accelerator, args: argparse.Namespace) -> None:
    set_seed(0)
    learn_set, test_set = digits()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    # `prepare` wraps the model in DDP, moves everything to this process's device, and gives it its part of each batch.
    model, optimizer, learn, test = accelerator.prepare(
        model, optimizer, DataLoader(learn_set, args.batch_size, shuffle=True), DataLoader(test_set, 256)
    )
    place = f"rank {accelerator.process_index} of {accelerator.num_processes} on {accelerator.device}"
    print(f"{place}: {len(learn)} batches", flush=True)
    # When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's.
    first = load(accelerator, args.output) or load(accelerator, args.resume_from)

    for epoch in range(first, args.epochs):
        learn.set_epoch(epoch)  # without it, a resumed run would repeat the order of the first epoch
        model.train()
        losses, start = [], time.perf_counter()
        for images, labels in learn:
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)  # instead of loss.backward(): mixed precision and other features hook in here
            optimizer.step()
            losses.append(loss.detach())
        mean: Any = accelerator.reduce(torch.stack(losses).mean(), "mean")  # over all processes
        images_per_second = len(learn_set) / (time.perf_counter() - start)
        report(accelerator, epoch + 1, loss=float(mean), images_per_second=images_per_second)
        save(accelerator, args.output, epoch + 1)

    report(accelerator, args.epochs, test_accuracy=accuracy(accelerator, model, test))


def accuracy(accelerator: Accelerator, model: nn.Module, test: DataLoader[Any]) -> float:
    """Over the whole test set. `gather_for_metrics` drops images that were repeated to even out the last batches."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in test:
            found, wanted = accelerator.gather_for_metrics((model(images).argmax(1), labels))
            right, total = right + int((found == wanted).sum()), total + len(wanted)
    return right / total


def save(accelerator: Accelerator, folder: Path, epochs_done: int) -> None:
    """Model, optimizer and random state. All processes call it; rank 0 writes the model and the optimizer."""
    accelerator.save_state(str(folder / "state"))
    if accelerator.is_main_process:  # global rank 0, not local rank 0
        (folder / "epochs_done.part").write_text(str(epochs_done))
        os.replace(folder / "epochs_done.part", folder / "epochs_done")


def load(accelerator: Accelerator, folder: Path | None) -> int:
    """Resume from the checkpoint in a folder, if there is one. Return the number of epochs done."""
    if not folder or not (folder / "epochs_done").exists():
        return 0
    accelerator.load_state(str(folder / "state"))
    epochs_done = int((folder / "epochs_done").read_text())
    accelerator.print(f"resumes after epoch {epochs_done} of {folder}")
    return epochs_done


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


def report(accelerator: Accelerator, epoch: int, **metrics: float) -> None:
    if not accelerator.is_main_process:
        return
    print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
        import mlflow  # not at the top: only rank 0 needs it

        mlflow.log_metrics(metrics, step=epoch)


if __name__ == "__main__":
    main()
