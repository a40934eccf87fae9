"""Writes the parts of the documents that repeat what the code says: `python docs/generate.py`, or `make docs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
from typing_extensions import TypeIs

from azml_dist import Input, Job, Mpi, Output, PyTorch, Ray, TensorFlow
from azml_dist.check.facts import NOUNS
from azml_dist.cli import cli
from azml_dist.emulator import Emulator, evidence
from azml_dist.emulator.knobs import table as knobs
from azml_dist.emulator.service import own_account
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
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
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
        *("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        *(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")),
        *("MLFLOW_RUN_ID", "AZUREML_PARAMETER_epochs"),
    ),
    "documented; the empty `ps` is seen": ("TF_CONFIG",),
    "documented for Azure Batch, seen in jobs": (
        *("AZ_BATCH_MASTER_NODE", "AZ_BATCH_HOST_LIST", "AZ_BATCH_NODE_LIST", "AZ_BATCH_IS_CURRENT_NODE_MASTER"),
    ),
    "seen": (
        *("AZ_BATCHAI_JOB_MASTER_NODE_IP", "AZ_BATCHAI_NODE_IP", "AZ_BATCHAI_TASK_INDEX", "OMPI_COMM_WORLD_NODE_RANK"),
        *("AZ_BATCHAI_IS_CURRENT_NODE_MASTER", "NCCL_SOCKET_IFNAME"),
        *("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"),
        *("AZUREML_CR_DATA_CAPABILITY_PATH", "AZUREML_CR_HT_CAP_user_logs_PATH", "AZUREML_CR_HT_CAP_logs_PATH"),
        *("AZUREML_CR_HT_CAP_outputs_PATH", "AZUREML_CR_HT_CAP_azureml_logs_PATH"),
        *("AZUREML_RUN_ID", "AZUREML_ROOT_RUN_ID", "AZUREML_EXPERIMENT_ID", "AZUREML_ARM_PROJECT_NAME"),
        *("AZUREML_NODE_COUNT", "AZUREML_CR_NODE_RANK", "AZUREML_CR_EXECUTION_WORKING_DIR_PATH"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
        *("AZURE_ML_INPUT_data", "AZUREML_DATAREFERENCE_data", "AZURE_ML_OUTPUT_model", "model"),
    ),
    "seen with MPI and with single processes; elsewhere inferred": ("AZ_BATCHAI_MPI_MASTER_NODE",),
    "seen on Kubernetes; on a cluster, what is in it is inferred": (
        *("AZUREML_CR_COMPUTE_CONTEXT", "AZUREML_CR_DISTRIBUTED_CONFIG"),
    ),
    "seen; the value is inferred": ("AZUREML_PROCESS_NAME",),
    "inferred": ("RAY_ADDRESS",),
}


def _everything() -> Iterator[str]:
    """Which variable is set in which world, and how we know."""
    worlds = {name: job.plan().processes[-1].env for name, job in _WORLDS.items() if "," not in name}
    names = dict.fromkeys(name for env in worlds.values() for name in env)
    evidence = {name: how for how, known in _EVIDENCE.items() for name in known}
    yield _line(("variable", *worlds, "that it is set is"))
    yield _line(["---"] * (len(worlds) + 2))
    for name in sorted(names, key=lambda name: all(name in env for env in worlds.values())):
        marks = ["yes" if name in env else "" for env in worlds.values()]
        if name not in worlds["single"] and all(name in worlds[other] for other in worlds if other != "single"):
            marks = ["on several nodes"] * (len(marks) - 1) + [""]
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


class Said(NamedTuple):
    """One place in the code that makes a finding."""

    code: str
    levels: tuple[str, ...]
    message: str
    """With `…` for the values in it."""
    hint: str
    where: str
    part: str
    """Of the package: `plan`, `script`, `check`, …"""


_OF_PIPELINES = """\
From `plan` and `check`, about a pipeline. They also list the findings of each step, and say which steps a finding is
of; with `--json`, the name is in `step`."""
_PARTS = {
    "plan": ("In a job", "From `plan`, `check` and `submit`; they need no workspace."),
    "sweep": ("In a sweep", "From `plan`, `check` and `submit`, about a sweep."),
    "pipeline": ("In a pipeline", _OF_PIPELINES),
    "files": ("In a component", "From `plan`, `check` and `submit`, about a component."),
    "script": ("In the training script", "From `plan`, `check` and `submit`: [what the script says](script.md)."),
    "check": ("In the workspace", "From `check` and `submit`: [before you submit](checking.md)."),
}
_BEHIND_VARIABLES = {
    "torn-value": ("bash would not pass a value with spaces or quotes on as one argument", ""),
    "step-does-not-run-here": ("step `…` is …; only command steps run locally", "run a single command step: `…:STEP`"),
    "component-without-name": ("the component has no `name`, or one that azure-ai-ml refuses", ""),
    "value-output": ("an output is a value, not data; locally it is the file with the value", ""),
    "value-outside": ("the value violates `enum`, `min` or `max`; azure-ai-ml accepts it anyway", ""),
}
"""The message and hint of findings that get their text elsewhere."""


def findings() -> str:
    """Every finding of the package, as the code has it."""
    return "\n".join(_findings())


def _findings() -> Iterator[str]:
    left = all_findings()
    yield "# Findings\n"
    yield _ABOUT
    for part, (title, who) in _PARTS.items():
        codes = sorted({one.code for one in left if one.part == part})
        yield f"## {title}\n\n{who}\n"
        for code in codes:
            yield from _finding(code, [one for one in left if one.code == code])
        left = [one for one in left if one.code not in codes]


_ABOUT = """\
Every finding has a code that never changes. In the texts, `…` stands for values. An `error` is certain: Azure ML or
azure-ai-ml refuses the job, or it fails or never starts: `plan` and `check` exit with 2, `submit` refuses it. With a
`warning`, the job may fail, wait, or not do what you mean. A `note` is good to know. Written by `docs/generate.py` from
the code.
"""


def _finding(code: str, said: Sequence[Said]) -> Iterator[str]:
    levels = [level for level in ("error", "warning", "note") if any(level in one.levels for one in said)]
    where = list(dict.fromkeys(one.where for one in said if one.where))
    places = f", at {' or '.join(where)}" if where else ""
    yield f"### {code}\n"
    yield f"{' or '.join(levels).capitalize()}{places}.\n"
    for message in dict.fromkeys(one.message for one in said):
        yield f"> {message}\n"
    for hint in dict.fromkeys(one.hint for one in said if one.hint):
        yield f"Hint: {hint}\n"


def all_findings() -> list[Said]:
    """Every place in the package that makes a finding with a code of its own."""
    files = sorted((DOCS.parent / "azml_dist").rglob("*.py"))
    return [one for file in files for one in _of_file(file)]


def _of_file(file: Path) -> Iterator[Said]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    relative = file.relative_to(DOCS.parent / "azml_dist")
    part = relative.stem if relative.stem in _PARTS else relative.parts[0]
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)):
        assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in ("Finding", "finding") and len(call.args) > 1:
                before = sorted((node for node in assigned if node.lineno < call.lineno), key=lambda node: node.lineno)
                values = {target.id: node.value for node in before for target in node.targets if _is_name(target)}
                for code in _codes(call.args[0]):
                    yield _said(code, call, name, values, part)


def _is_name(node: ast.expr) -> TypeIs[ast.Name]:
    return isinstance(node, ast.Name)


def _codes(node: ast.expr) -> list[str]:
    if isinstance(node, ast.JoinedStr):
        return [_template(node).replace("…", noun) for noun in NOUNS.values()]
    return [str(node.value)] if isinstance(node, ast.Constant) else []


def _said(code: str, call: ast.Call, name: str, values: dict[str, ast.expr], part: str) -> Said:
    of_script = name == "finding"  # code, level, place, message, hint
    texts = call.args[3:5] if of_script else call.args[2:4]
    message, hint = (_text(texts[i], values) if len(texts) > i else "" for i in range(2))
    if code in _BEHIND_VARIABLES:
        message, hint = _BEHIND_VARIABLES[code]
    where = "a line of the script" if of_script else _text(call.args[4], values) if len(call.args) > 4 else ""
    is_field = where and " " not in where and where != "…"
    place = f"`{where}`" if is_field else where.strip("…")
    return Said(code, _levels(call.args[1]), message.replace("……", "…"), hint if hint.strip("…") else "", place, part)


def _levels(node: ast.expr) -> tuple[str, ...]:
    found = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and one.value in _LEVELS]
    return tuple(found) or ("error", "warning")  # where only the case decides


_LEVELS = ("error", "warning", "note")


def _text(node: ast.expr, values: dict[str, ast.expr]) -> str:
    """What an expression says, with `…` for what only a run of it knows."""
    if isinstance(node, ast.Name) and node.id in values:
        return _text(values[node.id], {name: value for name, value in values.items() if name != node.id})
    if isinstance(node, ast.BinOp):
        return _text(node.left, values) + _text(node.right, values)
    if isinstance(node, ast.BoolOp):
        return _text(node.values[0], values)
    if isinstance(node, ast.IfExp):
        return _text(node.body, values)
    if isinstance(node, ast.Constant):
        return "" if node.value is None else str(node.value)
    return _template(node) if isinstance(node, ast.JoinedStr) else "…"


def _template(node: ast.JoinedStr) -> str:
    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "".join(map(str, parts))


def emulator() -> str:
    """The guide to the emulator with its table of knobs."""
    rows = [_line(("name", "default", "means")), _line(["---"] * 3)]
    rows += [_line((f"`{name}`", f"`{default}`" if default else "", text)) for name, default, text in knobs()]
    text = (DOCS / "emulator.md").read_text(encoding="utf-8")
    return _KNOBS.sub(lambda match: "\n".join([match[1], *rows, "", ""]), text)


_KNOBS = re.compile(r"(?<=<!-- knobs )(-->\n).*?(?=<!-- end of knobs -->)", re.DOTALL)


def emulator_routes() -> str:
    """What the emulator plays, and how that is known."""
    with closing(own_account()) as account:
        running = Emulator(account)
        rows = [
            row.replace("providers/Microsoft.MachineLearningServices", "{ML}")
            for row in evidence.tables(running.routes)
        ]
        operations = [f"- `{name}`" for name in account.service.operations]
        running.close()
    return "\n".join([_ABOUT_ROUTES, *rows, _ABOUT_STORAGE, *operations, ""])


_ABOUT_ROUTES = """\
# What the emulator plays

A request for anything else is answered with 501 and the name of what was asked for, and fails the test that caused it.
*Documented*: Microsoft says so. *Seen*: Microsoft's clients ask for it, or public output of a real workspace shows it.
*Inferred*: neither; please tell us if the service does something else. `{ML}` stands for
`providers/Microsoft.MachineLearningServices`, and `{WS}` for the path of the workspace:
`/subscriptions/…/resourceGroups/…/{ML}/workspaces/…`. Written by `docs/generate.py` from the code.
"""
_ABOUT_STORAGE = """\
## Storage

Operations on `ACCOUNT.blob.core.windows.net`, documented in the REST API of Blob Storage: block blobs and append blobs,
with account keys, service and account SAS, bearer tokens, ranges and conditions. The same tests pass on Azurite.
"""

PAGES: dict[str, Callable[[], str]] = {
    "cli.md": command_line,
    "emulator-routes.md": emulator_routes,
    "emulator.md": emulator,
    "findings.md": findings,
    "vm-sizes.md": sizes,
    "what-each-process-sees.md": worlds,
}

if __name__ == "__main__":
    main()
