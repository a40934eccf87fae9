"""DeepSpeed, ZeRO: finds its world by itself, and learns y = 3x + 2 with what it has split among the ranks."""

import argparse
import os

import deepspeed
import torch

parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int)  # DeepSpeed's own launcher passes it
parser.add_argument("--stage", type=int, default=2)
args = parser.parse_args()

deepspeed.init_distributed(dist_backend="gloo")
rank, world_size = deepspeed.comm.get_rank(), deepspeed.comm.get_world_size()
torch.manual_seed(0)
engine, *_ = deepspeed.initialize(
    model=torch.nn.Linear(1, 1),
    config={
        "train_micro_batch_size_per_gpu": 16,
        "optimizer": {"type": "Adam", "params": {"lr": 0.1, "torch_adam": True}},
        "zero_optimization": {"stage": args.stage},
    },
)
torch.manual_seed(rank)
for _ in range(400):
    x = torch.rand(16, 1)
    engine.backward(torch.nn.functional.mse_loss(engine(x), 3 * x + 2))
    engine.step()
weight, bias = (float(p.detach()) for p in engine.module.parameters())
# In one piece, as several ranks may share what they write to.
said = (
    f"deepspeed: rank {rank} of {world_size}, local {os.environ['LOCAL_RANK']}, ZeRO {engine.zero_optimization_stage()}"
)
print(f"{said}, y = {weight:.1f} x + {bias:.1f}\n", end="", flush=True)
deepspeed.comm.destroy_process_group()
