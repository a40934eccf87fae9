"""Hugging Face Accelerate: learns y = 3x + 2, and says where it thinks it is."""

import os

import torch
from accelerate import Accelerator


def main(accelerator: Accelerator) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=0.1))
    torch.manual_seed(accelerator.process_index)
    for _ in range(400):
        x = torch.rand(16, 1)
        accelerator.backward(torch.nn.functional.mse_loss(model(x), 3 * x + 2))
        optimizer.step()
        optimizer.zero_grad()
    weight, bias = (float(p.detach()) for p in model.parameters())
    place = f"rank {accelerator.process_index} of {accelerator.num_processes}, local {accelerator.local_process_index}"
    ranks = accelerator.gather(torch.tensor([accelerator.process_index])).tolist()
    print(
        f"accelerate: {place} on node {os.environ['NODE_RANK']}, with {ranks}, y = {weight:.1f} x + {bias:.1f}\n",
        end="",
        flush=True,
    )


accelerator = Accelerator()
main(accelerator)
accelerator.free_memory()  # a model that outlives the process group now and then aborts the process at its very end
accelerator.end_training()
