"""Measure several numbers of nodes and processes, and show how well they scale: a table and a plot.

Here:           python scaling.py --local
On Azure ML:    python scaling.py --compute gpu-cluster --worlds 1x1 1x8 2x8 4x8

A world is NODESxPROCESSES. A local run measures them one after another; on Azure ML all are submitted at once.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from azml_dist import DistError, Job, PyTorch, Run, SubmitError, submit


class Row(NamedTuple):
    world_size: int
    images_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--local", action="store_true", help="run them on this machine")
    where.add_argument("--compute", metavar="CLUSTER", help="run them on this cluster of your Azure ML workspace")
    parser.add_argument("--worlds", nargs="+", type=world, default=[(1, 1), (1, 2), (2, 2)], metavar="NxP")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for scaling.md and scaling.png")
    args = parser.parse_args()
    if not find_spec("matplotlib"):
        parser.error("the plot needs matplotlib: pip install matplotlib")

    job = Job.load(Path(__file__).with_name("job.yml"))
    jobs = [job.with_(node_count=n, distribution=PyTorch(process_count_per_node=p)) for n, p in args.worlds]
    if args.local:
        found = [measured(submit(one, on="local"), one) for one in jobs]
    else:
        runs = submit([one.with_(compute=args.compute) for one in jobs])
        found = [measured(run, one) for run, one in zip(runs, jobs, strict=True)]
    rows = sorted(found)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "scaling.md").write_text(table(rows), encoding="utf-8")
    plot(rows, args.output / "scaling.png")
    print(table(rows), end="")
    print(f"plot: {args.output / 'scaling.png'}", file=sys.stderr)


def world(text: str) -> tuple[int, int]:
    nodes, _, processes = text.partition("x")
    if not (nodes.isdigit() and processes.isdigit()):
        raise argparse.ArgumentTypeError(f"`{text}` is no world: write nodes x processes, as 2x8")
    return int(nodes), int(processes)


def measured(run: Run | SubmitError, job: Job) -> Row:
    """Wait for a run, and read what it logged."""
    if isinstance(run, SubmitError):
        raise run
    world_size = job.plan().world.world_size
    print(f"run {run.name}: {job.plan().world}", file=sys.stderr)
    run.wait()
    return Row(world_size, run.metrics()["images_per_second"])


def efficiency(row: Row, first: Row) -> float:
    """The throughput of a process in this world, as a fraction of its throughput in the smallest one."""
    return (row.images_per_second / row.world_size) / (first.images_per_second / first.world_size)


def table(rows: list[Row]) -> str:
    lines = ["| processes | images/s | images/s and process | scaling efficiency |", "|---|---|---|---|"]
    for row in rows:
        each = row.images_per_second / row.world_size
        lines.append(
            f"| {row.world_size} | {row.images_per_second:,.4g} | {each:,.4g} | {efficiency(row, rows[0]):.0%} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], file: Path) -> None:
    from matplotlib.figure import Figure

    sizes = [row.world_size for row in rows]
    ideal = [rows[0].images_per_second / rows[0].world_size * size for size in sizes]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, ideal, "--", color="0.6", label="ideal: each process as fast as alone")
    axes.plot(sizes, [row.images_per_second for row in rows], "o-", color="#0f6cbd", label="measured")
    for row in rows:
        axes.annotate(
            f"{efficiency(row, rows[0]):.0%}",
            (row.world_size, row.images_per_second),
            textcoords="offset points",
            xytext=(0, -16),
            ha="center",
        )
    axes.set(xlabel="processes", ylabel="images/s", title="ResNet-50, synthetic images", xticks=sizes)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    try:
        main()
    except DistError as error:
        sys.exit(f"error: {error}")
