"""PyTorch Lightning: learns y = 3x + 2, and says where it thinks it is."""

import gc
import os
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset


class Line(lightning.LightningModule):  # type: ignore[misc]  # mypy does not follow it
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return torch.nn.functional.mse_loss(self.line(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def main() -> None:
    torch.manual_seed(0)
    model, x = Line(), torch.rand(256, 1)
    node_count = int(os.environ["AZUREML_NODE_COUNT"])
    trainer = lightning.Trainer(
        accelerator="cpu",
        num_nodes=node_count,
        devices=int(os.environ["WORLD_SIZE"]) // node_count,
        strategy="ddp",
        max_steps=400,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, 3 * x + 2), batch_size=16))
    weight, bias = (float(p.detach()) for p in model.parameters())
    place = (
        f"rank {trainer.global_rank} of {trainer.world_size}, local {trainer.local_rank} on node {trainer.node_rank}"
    )
    print(f"lightning: {place}, y = {weight:.1f} x + {bias:.1f}")


main()
# Lightning leaves a gloo group in place, which now and then aborts the process at its very end.
gc.collect()
dist.destroy_process_group()
