"""Whether a job uses NCCL, according to its command and the script that it starts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import Enum

from azml_dist.plan.plan import LaunchPlan
from azml_dist.script.findings import looks
from azml_dist.script.look import Look
from azml_dist.script.source import Module

_IN_COMMAND = re.compile(r"(?i)backend[\s=\"']+(?P<backend>nccl|gloo|mpi|ucc)\b")
_STARTS = ("torch.distributed.init_process_group", "deepspeed.init_distributed", "deepspeed.comm.init_distributed")


class Nccl(Enum):
    """How certain it is that the processes communicate over NCCL."""

    NO = "no"
    """Nothing says so, or another backend is set."""
    ON_GPUS = "on GPUs"
    """Only if the script finds GPUs."""
    ALWAYS = "always"


def nccl_of(plan: LaunchPlan) -> Nccl:
    """What the command says, or else the scripts that it starts."""
    if named := _IN_COMMAND.search(plan.job.shell_command):
        return Nccl.ALWAYS if named["backend"].lower() == "nccl" else Nccl.NO
    if not plan.reads_script:
        return Nccl.NO
    found = {one for look in looks_of(plan) for one in _in_script(look)}
    return next((one for one in (Nccl.ALWAYS, Nccl.ON_GPUS) if one in found), Nccl.NO)


def looks_of(plan: LaunchPlan) -> Iterator[Look]:
    """The scripts that the command starts."""
    files = {file.path: file.source for file in plan.code.files}
    return looks(plan.job, files, plan.processes[0].env)


def _in_script(look: Look) -> Iterator[Nccl]:
    for module, call in look.calls(*_STARTS):
        is_certain = call in look.certain
        for argument in _backends(call):
            if look.value(argument) == "nccl":
                yield Nccl.ALWAYS if is_certain else Nccl.ON_GPUS if _is_for_gpus(module, call) else Nccl.NO
            elif isinstance(argument, ast.IfExp) and look.value(argument.body) == "nccl" and _asks(argument.test):
                yield Nccl.ON_GPUS if is_certain else Nccl.NO


def _backends(call: ast.Call) -> list[ast.expr]:
    return [*call.args[:1], *(word.value for word in call.keywords if word.arg in ("backend", "dist_backend"))]


def _is_for_gpus(module: Module, call: ast.Call) -> bool:
    """Whether the only questions before a call, in its function, are whether there are GPUs."""
    top = module.function_of(call) or module.tree
    path = _path(top, call)
    conditions = [one for one in path if isinstance(one, ast.If | ast.IfExp | ast.Try | ast.While | ast.Match)]
    return bool(conditions) and all(
        isinstance(one, ast.If) and _asks(one.test) and any(inner in path for inner in one.body) for one in conditions
    )


def _path(top: ast.AST, node: ast.AST) -> list[ast.AST]:
    """The nodes from `top` down to `node`; empty where it is not below."""
    for inner in ast.iter_child_nodes(top):
        if inner is node:
            return [top, inner]
        if found := _path(inner, node):
            return [top, *found]
    return []


def _asks(test: ast.expr) -> bool:
    """Whether a condition asks for GPUs, and not for their absence."""
    is_turned = any(isinstance(one, ast.Not) for one in ast.walk(test))
    return not is_turned and re.search(r"cuda|gpu", ast.dump(test).lower()) is not None
