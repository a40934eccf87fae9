"""Learns y = 3x + 2 in two actors, one on each node: each has half of the data, and gradients are averaged."""

import os

import ray

WORKERS = 2


class Worker:
    def __init__(self, index: int) -> None:
        self.data = [i / 60 for i in range(60)][index::WORKERS]

    def gradient(self, slope: float, offset: float) -> tuple[float, float]:
        errors = [(slope * x + offset - (3 * x + 2), x) for x in self.data]
        return sum(2 * e * x for e, x in errors) / len(errors), sum(2 * e for e, _ in errors) / len(errors)

    def place(self) -> tuple[str, str, str]:
        return ray.util.get_node_ip_address(), os.environ["AZUREML_CR_NODE_RANK"], os.environ["MINE"]


ray.init()
print("nodes", len(ray.nodes()), "of", os.environ["AZUREML_NODE_COUNT"])
group = ray.util.placement_group([{"CPU": 1}] * WORKERS, strategy="STRICT_SPREAD")
actor = ray.remote(num_cpus=1)(Worker).options(placement_group=group)
workers = [actor.remote(index) for index in range(WORKERS)]
print("places", sorted(ray.get([worker.place.remote() for worker in workers])))
slope = offset = 0.0
for _ in range(150):
    gradients = ray.get([worker.gradient.remote(slope, offset) for worker in workers])
    slope -= 0.5 * sum(g[0] for g in gradients) / WORKERS
    offset -= 0.5 * sum(g[1] for g in gradients) / WORKERS
print(f"y = {slope:.2f} x + {offset:.2f}")
