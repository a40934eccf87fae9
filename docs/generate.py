"""Writes the parts of the documents that repeat what the code says: `python docs/generate.py`, or `make docs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import click

from azml_dist import Input, Job, Mpi, Output, PyTorch, Ray, TensorFlow
from azml_dist.cli import cli
from azml_dist.vmsizes import VmSize, vm_sizes

DOCS = Path(__file__).parent
_WIDTH = 100
_PART = re.compile(r"(?<=<!-- sees: )(.*?)( -->\n).*?(?=<!-- end of sees -->)", re.DOTALL)
_SIZES = re.compile(r"(?<=<!-- sizes: )(.*? -->\n).*?(?=<!-- end of sizes -->)", re.DOTALL)


def main() -> None:
    for page in PAGES:
        (DOCS / page).write_text(generated(page), encoding="utf-8")


def generated(page: str) -> str:
    """The text that a page of `docs/` should have."""
    return PAGES[page]()


def command_line() -> str:
    """Every command with its help, as it is printed."""
    return "\n".join(_command_line())


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    yield "What `azml-dist COMMAND --help` prints. `-h` is short for `--help`. Written by `docs/generate.py`.\n"
    yield _fence(_help(cli, "azml-dist"))
    for name, command in cli.commands.items():
        yield f"## azml-dist {name}\n"
        yield _fence(_help(command, f"azml-dist {name}"))


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context)


def _fence(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def sizes() -> str:
    """The guide to VM sizes with its table."""
    text = (DOCS / "vm-sizes.md").read_text(encoding="utf-8")
    return _SIZES.sub(lambda match: match[1] + _sizes_table(), text)


def _sizes_table() -> str:
    headings = ("size", "GPUs", "GB each", "joined by", "InfiniBand, Gbit/s", "GB of the VM", "")
    kept = [size for size in vm_sizes() if not size.retired]
    gone = [size for size in vm_sizes() if size.retired]
    lines = [_line(headings), _line(["---"] * len(headings)), *(_line(_row(size)) for size in kept)]
    days = sorted({size.retired for size in gone if size.retired}, reverse=True)
    names = [", ".join(f"`{size.name}`" for size in gone if size.retired == day) for day in days]
    retired = [_line((str(day), name)) for day, name in zip(days, names, strict=True)]
    retired = ["Azure has retired these:", "", "| on | sizes |", "|---|---|", *retired]
    return "\n".join(["", *lines, "", *retired, "", ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(size: VmSize) -> Iterator[str]:
    yield f"`{size.name}`"
    yield f"{size.gpus} x {size.gpu.removeprefix('NVIDIA ')}"
    yield str(size.gpu_memory_gib)
    yield size.gpu_link or ("PCIe" if size.gpu_count > 1 else "")
    yield f"{size.infiniband_gbps:,}" if size.has_infiniband else "none"
    yield f"{size.memory_gib:,}" if size.memory_gib else ""
    yield "" if size.status == "current" else size.status


def worlds() -> str:
    """The guide to what each process sees with its tables."""
    text = (DOCS / "what-each-process-sees.md").read_text(encoding="utf-8")
    parts: dict[str, Callable[[], Iterator[str]]] = {"everything": _everything}
    parts |= {name: partial(_places, name) for name in _WORLDS}
    return _PART.sub(lambda match: f"{match[1]}{match[2]}\n{chr(10).join(parts[match[1]]())}\n\n", text)


_JOB = Job(
    command="python train.py --epochs ${{inputs.epochs}} --data ${{inputs.data}} --output ${{outputs.model}}",
    inputs={"epochs": 3, "data": Input(path="azureml:digits:1")},
    outputs={"model": Output()},
    experiment_name="digits",
)
_WORLDS = {
    "PyTorch": _JOB.with_(node_count=2, distribution=PyTorch(process_count_per_node=2)),
    "PyTorch, per node": _JOB.with_(node_count=2, distribution=PyTorch()),
    "Mpi": _JOB.with_(node_count=2, distribution=Mpi(process_count_per_node=2)),
    "Mpi, one node": _JOB.with_(distribution=Mpi(process_count_per_node=2)),
    "TensorFlow": _JOB.with_(node_count=2, distribution=TensorFlow()),
    "TensorFlow, with ps": _JOB.with_(node_count=2, distribution=TensorFlow(parameter_server_count=1)),
    "Ray": _JOB.with_(node_count=2, distribution=Ray()),
    "single": _JOB,
}
_EVIDENCE = {
    "documented": (
        *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG"),
        *(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
        *("MLFLOW_RUN_ID", "AZUREML_PARAMETER_epochs"),
    ),
    "seen": (
        *("AZ_BATCH_MASTER_NODE", "AZ_BATCH_HOST_LIST", "AZ_BATCHAI_MPI_MASTER_NODE", "OMPI_COMM_WORLD_NODE_RANK"),
        *("AZUREML_RUN_ID", "AZUREML_ROOT_RUN_ID", "AZUREML_EXPERIMENT_ID", "AZUREML_ARM_PROJECT_NAME"),
        *("AZUREML_NODE_COUNT", "AZUREML_CR_NODE_RANK", "AZUREML_CR_EXECUTION_WORKING_DIR_PATH"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
        *("AZURE_ML_INPUT_data", "AZUREML_DATAREFERENCE_data", "AZURE_ML_OUTPUT_model", "model"),
    ),
    "seen; the value is inferred": ("NCCL_SOCKET_IFNAME", "AZUREML_PROCESS_NAME"),
    "inferred": ("RAY_ADDRESS",),
}


def _everything() -> Iterator[str]:
    """Which variable is set in which world, and how we know."""
    worlds = {name: job.plan().processes[-1].env for name, job in _WORLDS.items() if "," not in name}
    one_node = _WORLDS["Mpi, one node"].plan().processes[-1].env
    names = dict.fromkeys(name for env in (*worlds.values(), one_node) for name in env)
    evidence = {name: how for how, known in _EVIDENCE.items() for name in known}
    yield _line(("variable", *worlds, "that it is set is"))
    yield _line(["---"] * (len(worlds) + 2))
    for name in sorted(names, key=lambda name: all(name in env for env in worlds.values())):
        marks = ["yes" if name in env else "" for env in worlds.values()]
        if name in one_node and name not in worlds["Mpi"]:
            marks[list(worlds).index("Mpi")] = "on one node"
        yield _line((f"`{name}`", *marks, evidence[name]))


def _places(name: str) -> Iterator[str]:
    """Each process of a world: its log, and the variables that only this kind of job has, or that differ in it."""
    plan = _WORLDS[name].plan()
    alone = _WORLDS["single"].plan().processes[0].env
    own = [key for key in plan.processes[0].env if plan.processes[0].env[key] != alone.get(key) or name == "single"]
    differing = [key for key in own if len({process.env.get(key) for process in plan.processes}) > 1]
    shown = list(dict.fromkeys([*differing, *own, "AZUREML_CR_NODE_RANK"]))
    if name == "single":
        shown = list(alone)
    ranks = [f"rank {p.rank}" + f", {p.role}" * (p.role not in ("worker", "main")) for p in plan.processes]
    yield _line(("variable", *ranks))
    yield _line(["---"] * (len(ranks) + 1))
    for key in shown:
        yield _line((f"`{key}`", *(f"`{process.env[key]}`" for process in plan.processes)))
    yield _line(("log", *(f"`{process.log}`" for process in plan.processes)))


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": command_line,
    "vm-sizes.md": sizes,
    "what-each-process-sees.md": worlds,
}

if __name__ == "__main__":
    main()
