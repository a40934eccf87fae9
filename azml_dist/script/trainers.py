"""Compares the numbers of nodes and devices of Lightning's Trainers with the job."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from azml_dist.errors import Finding
from azml_dist.script.command_line import trainers_of_the_command
from azml_dist.script.guards import is_for_one_rank
from azml_dist.script.look import Look
from azml_dist.script.source import Module
from azml_dist.words import plural

_TRAINERS = (
    *("lightning.Trainer", "lightning.pytorch.Trainer", "pytorch_lightning.Trainer"),
    *("lightning.Fabric", "lightning.fabric.Fabric", "lightning_fabric.Fabric"),
)


class _Trainer(NamedTuple):
    """A Trainer, or what makes one, and the arguments that it gets."""

    module: Module
    call: ast.Call
    given: dict[str | None, ast.expr]
    what: str
    by_command: bool = False


def of_trainers(look: Look) -> Iterator[Finding]:
    """All findings about the counts of Trainers."""
    if look.kind not in ("PyTorch", None) or (look.kind is None and look.entry.launcher):
        return
    made = [*_made(look), *(_Trainer(*one, "Trainer", True) for one in trainers_of_the_command(look))]
    for one in made:
        yield from _compared(look, one, made)


def _made(look: Look) -> Iterator[_Trainer]:
    for module, call in look.calls(*_TRAINERS):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if None not in given:
            yield _Trainer(module, call, given, module.full_name(call.func).rpartition(".")[2])


def _compared(look: Look, one: _Trainer, made: Sequence[_Trainer]) -> Iterator[Finding]:
    """Ranks wait for each other if the number of processes of a Trainer differs from that of the job (seen).

    With one device and no strategy, each trains alone (seen): on purpose, if one rank tests after all have trained.
    """
    given = one.given
    if "horovod" in (look.value(given.get("accelerator")), look.value(given.get("strategy"))):
        return  # which counts the processes itself
    nodes = look.number(given["num_nodes"]) if "num_nodes" in given else 1
    devices = _devices(look, given.get("devices", given.get("gpus")))
    if nodes is None or is_for_one_rank(look, one.module, one.call):
        return
    if _is_alone(look, one):
        yield from _alone(look, one, made)
    elif nodes != look.job.node_count:
        yield from _of_other_nodes(look, one, nodes, devices)
    elif devices is not None and look.per_node is not None and look.kind == "PyTorch" and devices != look.per_node:
        yield from _of_other_devices(look, one, devices, look.per_node)


def _of_other_devices(look: Look, one: _Trainer, devices: int, per_node: int) -> Iterator[Finding]:
    by_argument = f"write `devices={per_node}`, or set `distribution.process_count_per_instance` to {devices}"
    by_option = f"pass `--trainer.devices {per_node}`, or set `distribution.process_count_per_instance` to {devices}"
    processes = plural(per_node, "process", "processes")
    yield from look.finding(
        "trainer-counts",
        look.level(one.call),
        (one.module, one.call),
        f"the {one.what} is for `devices={devices}`, but the job starts {processes} on each node: its ranks wait for"
        " each other forever",
        by_argument if not one.by_command else by_option,
    )


def _of_other_nodes(look: Look, one: _Trainer, nodes: int, devices: int | None) -> Iterator[Finding]:
    given, job_nodes = one.given, look.job.node_count
    wants = f"`num_nodes={nodes}`" if "num_nodes" in given else "`num_nodes=1`, its default"
    has_several_gpus = look.size is not None and look.size.gpu_count > 1 and "accelerator" not in given
    has_strategy = _has_strategy(look, given.get("strategy"))
    may_be_alone = nodes == 1 and devices is None and not has_strategy and not has_several_gpus
    by_argument = f"write `num_nodes={job_nodes}`, or `num_nodes=int(os.environ.get('AZUREML_NODE_COUNT', 1))`"
    by_option = f"pass `--trainer.num_nodes {job_nodes}`, or `--trainer.num_nodes $AZUREML_NODE_COUNT`"
    yield from look.finding(
        "trainer-counts",
        "warning" if may_be_alone else look.level(one.call),
        (one.module, one.call),
        f"the {one.what} is for {wants}, but the job has {plural(job_nodes, 'node')}: its ranks wait for each other"
        f" forever{', or each trains alone if it sees one device' if may_be_alone else ''}",
        by_argument if not one.by_command else by_option,
    )


def _has_strategy(look: Look, node: ast.expr | None) -> bool:
    """Whether it is one for several processes; `auto` and None leave that to the number of devices."""
    return isinstance(node, ast.Call) or look.value(node) not in (None, "auto")


def _is_alone(look: Look, one: _Trainer) -> bool:
    given = one.given
    nodes = look.number(given["num_nodes"]) if "num_nodes" in given else 1
    has_none = "strategy" not in given or look.value(given["strategy"]) == "auto"
    return nodes == 1 and _devices(look, given.get("devices", given.get("gpus"))) == 1 and has_none


def _alone(look: Look, one: _Trainer, made: Sequence[_Trainer]) -> Iterator[Finding]:
    processes = look.job.node_count * (look.per_node or 1)
    if look.kind is None or processes == 1 or not all(_is_alone(look, other) for other in made):
        return  # one rank may test a model that all have trained
    nodes, devices = look.job.node_count, look.per_node
    by_argument = f"write `num_nodes={nodes}, devices={devices}`, or start one process"
    by_option = f"pass `--trainer.num_nodes {nodes} --trainer.devices {devices}`, or start one process"
    yield from look.finding(
        "trainer-counts",
        "warning",
        (one.module, one.call),
        f"`devices=1` on one node and no `strategy`: each of the {processes} processes of the job trains alone",
        by_argument if not one.by_command else by_option,
    )


def _devices(look: Look, node: ast.expr | None) -> int | None:
    value = look.value(node)
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()] if "," in value else _whole(value)
    if isinstance(value, list | tuple):
        return len(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _whole(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
