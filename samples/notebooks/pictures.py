"""The pictures of these notebooks: processes on nodes, and what was measured. Plain matplotlib, easy to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

if TYPE_CHECKING:
    from azml_dist import LaunchPlan

INK, NODE, PROCESS, FAILED = "#1f2328", "#eef2f7", "#9ec5f0", "#f2a1a1"
plt.rcParams.update(
    {"figure.facecolor": "white", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
)


def world(plan: LaunchPlan, say: Mapping[int, str] | None = None, failed: int | None = None) -> None:
    """Draw each node of a plan as a box with its processes, ordered by rank; `say` has a word for each rank."""
    nodes, processes = plan.world.node_count, plan.world.process_count_per_node
    _, axes = plt.subplots(figsize=(2.6 * nodes + 0.2, 0.78 * processes + 0.6))
    for node in range(nodes):
        axes.add_patch(box(node, -processes - 0.1, 0.92, processes + 0.75, NODE))
        axes.text(node + 0.46, 0.32, f"node {node}", ha="center", va="center", weight="bold", color=INK)
    for process in plan.processes:
        x, y = process.node_rank, -process.local_rank - 1
        axes.add_patch(box(x + 0.06, y + 0.05, 0.8, 0.8, FAILED if process.rank == failed else PROCESS))
        word = f"rank {process.rank}" + (f"\n{say[process.rank]}" if say and process.rank in say else "")
        axes.text(x + 0.46, y + 0.45, word, ha="center", va="center", color=INK)
    axes.set_xlim(-0.05, nodes)
    axes.set_ylim(-processes - 0.2, 0.75)
    axes.axis("off")
    plt.show()


def box(x: float, y: float, width: float, height: float, colour: str) -> Any:
    style = "round,pad=0,rounding_size=0.06"
    return FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=colour, edgecolor=INK, linewidth=0.8)


def curves(histories: Mapping[str, Sequence[float]], name: str = "loss") -> None:
    """Draw each history of a metric as a line over the epochs. The first of two is wide, to show below the second."""
    _, axes = plt.subplots(figsize=(6, 3))
    for place, (label, values) in enumerate(histories.items()):
        width = 5.0 if (place, len(histories)) == (0, 2) else 1.5
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=width + 2, linewidth=width, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(histories) > 1:
        axes.legend(frameon=False)
    plt.show()


def values(found: Mapping[float, float], name: str, over: str) -> None:
    """Draw a metric over the value of a hyperparameter, on a logarithmic scale."""
    _, axes = plt.subplots(figsize=(6, 3))
    axes.plot(list(found), list(found.values()), marker="o", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xlabel(over)
    axes.set_ylabel(name)
    plt.show()
