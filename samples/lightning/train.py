"""Recognise handwritten digits with PyTorch Lightning: data parallelism without a line of code for it.

On a laptop, one process:          python train.py
Here, as 2 nodes x 2 processes:    python submit.py --local
The same run on Azure ML:          python submit.py --compute gpu-cluster

Lightning reads its place from what Azure ML sets (RANK, LOCAL_RANK, NODE_RANK, WORLD_SIZE), but also needs `num_nodes`
and `devices`, the numbers of nodes and processes. This script reads them from the same variables, so they always agree.
"""

import argparse
import gc
import os
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch import distributed as dist
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

    nodes, devices = shape_of_the_world()
    trainer = Trainer(
        num_nodes=nodes,
        devices=devices,
        accelerator="gpu" if torch.cuda.device_count() >= devices else "cpu",
        strategy="ddp" if nodes * devices > 1 else "auto",
        max_epochs=args.epochs,
        callbacks=[ModelCheckpoint(args.output, filename="checkpoint", save_on_train_epoch_end=True)],
        logger=False,  # metrics are logged to MLflow below: Lightning's own logger would create a second run
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if trainer.strategy.root_device.type == "cpu":
        torch.set_num_threads(1)  # the processes share the cores
    learn_set, test_set = digits()
    # Lightning adds a DistributedSampler, and calls its set_epoch.
    trainer.fit(
        Digits(args.learning_rate),
        DataLoader(learn_set, args.batch_size, shuffle=True),
        DataLoader(test_set, 256),
        ckpt_path=checkpoint_in(args.output) or checkpoint_in(args.resume_from),
    )


def shape_of_the_world() -> tuple[int, int]:
    """The numbers of nodes and of processes on each."""
    nodes = int(os.environ.get("AZUREML_NODE_COUNT", "1"))
    return nodes, int(os.environ.get("WORLD_SIZE", "1")) // nodes


def checkpoint_in(folder: Path | None) -> Path | None:
    """When Azure ML restarts a job, it finds its own checkpoint; --resume-from continues from another run's."""
    file = folder and folder / "checkpoint.ckpt"
    return file if file and file.exists() else None


class Digits(LightningModule):
    """The network, and one step of training. It does not mention other processes."""

    def __init__(self, learning_rate: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        torch.manual_seed(0)
        self.network = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.learning_rate)

    def on_train_start(self) -> None:
        trainer = self.trainer
        place = f"rank {trainer.global_rank} of {trainer.world_size}, {trainer.local_rank} on node {trainer.node_rank}"
        print(f"{place}, on {self.device}: begins after epoch {trainer.current_epoch}", flush=True)

    def on_train_epoch_start(self) -> None:
        self.start, self.images = time.perf_counter(), 0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.network(images), labels)
        self.images += len(images)
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)  # averaged over all processes
        return loss

    def on_train_epoch_end(self) -> None:
        images_per_second = self.images * self.trainer.world_size / (time.perf_counter() - self.start)
        self.report(loss=float(self.trainer.callback_metrics["loss"]), images_per_second=images_per_second)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        right = (self.network(images).argmax(1) == labels).float().mean()
        self.log("test_accuracy", right, on_epoch=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            metrics = self.trainer.callback_metrics
            self.report(test_accuracy=float(metrics["test_accuracy"]))

    def report(self, **metrics: float) -> None:
        if not self.trainer.is_global_zero:
            return
        epoch = self.trainer.current_epoch + 1
        print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
        if "MLFLOW_TRACKING_URI" in os.environ and find_spec("mlflow"):  # set in every run, but not on a bare laptop
            import mlflow  # not at the top: only rank 0 needs it

            mlflow.log_metrics(metrics, step=epoch)


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Training and test images, split the same way in every process."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    learn, test = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).tensor_split([TO_LEARN])
    return TensorDataset(images[learn], labels[learn]), TensorDataset(images[test], labels[test])


if __name__ == "__main__":
    main()
    # Lightning destroys only NCCL process groups; with a gloo group left over, the process can abort at exit.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
