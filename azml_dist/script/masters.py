"""Addresses of the master that are right only on one node."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from azml_dist.errors import Finding
from azml_dist.notation import shell
from azml_dist.script.look import Look
from azml_dist.script.source import Module, is_main_block
from azml_dist.script.variables import is_environ
from azml_dist.words import late, plural

_LOCAL = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])
_LOCAL_URL = late(r"tcp://(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0)\b")
_LOCAL_ENDPOINT = late(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d+)?")
_SET_IN_THE_COMMAND = late(r"\bMASTER_ADDR=[\"']?(localhost|127\.0\.0\.1)\b")
_METHOD = 1
"""The place of `init_method` in `init_process_group`."""


def of_masters(look: Look) -> Iterator[Finding]:
    """A master address that other nodes cannot reach, and a port that may be in use."""
    if look.job.node_count == 1:
        return
    yield from _in_the_command(look)
    yield from _in_the_environment(look)
    for module, call in look.calls("torch.distributed.init_process_group"):
        method = next((k.value for k in call.keywords if k.arg == "init_method"), None)
        method = method or (call.args[_METHOD] if len(call.args) > _METHOD else None)
        address = _address(look, method)
        if _LOCAL_URL.match(address):
            hint = "remove `init_method`: torch then reads MASTER_ADDR and MASTER_PORT"
            message = f"the processes meet at {address}, {_but(look)}"
            yield from look.finding("master-on-every-node", look.level(call), (module, call), message, hint)


def _but(look: Look) -> str:
    nodes = plural(look.job.node_count, "node")
    return f"but the job has {nodes}: each node would wait for its own rank 0"


def _address(look: Look, node: ast.expr | None) -> str:
    """An address as far as it is known: of `f"tcp://localhost:{port}"`, all but the port."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    value = look.value(node)
    return value if isinstance(value, str) else ""


def _in_the_command(look: Look) -> Iterator[Finding]:
    if found := _SET_IN_THE_COMMAND.search(look.job.shell_command):
        message = f"the master is {found[1]}, {_but(look)}"
        yield Finding("master-on-every-node", "warning", message, "keep the MASTER_ADDR that the run sets", "command")
    for launcher in shell.launchers(look.job.shell_command):
        if launcher.text != "torchrun" and "torch.distributed" not in launcher.text:
            continue
        names = ("--master_addr", "--master-addr", "--rdzv_endpoint", "--rdzv-endpoint")
        address = launcher.option(*names) or ""
        if _LOCAL_ENDPOINT.fullmatch(address) and (launcher.option("--nnodes") or "1") != "1":
            message = f"the processes meet at {address}, {_but(look)}"
            hint = "write `--master-addr $MASTER_ADDR`, or `--rdzv-endpoint $MASTER_ADDR:$MASTER_PORT`"
            yield Finding("master-on-every-node", "warning", message, hint, "command")


def _in_the_environment(look: Look) -> Iterator[Finding]:
    given = list(_set_in_the_script(look))
    for module, node, name, value in given:
        if name == "MASTER_ADDR" and value in _LOCAL:
            hint = "keep the MASTER_ADDR that the run sets"
            message = f"the master is {value}, {_but(look)}"
            yield from look.finding("master-on-every-node", look.level(node), (module, node), message, hint)
        elif (
            name == "MASTER_PORT"
            and "MASTER_PORT" in look.known
            and not any(n == "MASTER_ADDR" for _, _, n, _ in given)
        ):
            message = f"the port of the master is always {value}, whatever the run sets, and may be in use on node 0"
            hint = "keep the MASTER_PORT that the run sets"
            yield from look.finding("fixed-master-port", "warning", (module, node), message, hint)


def _set_in_the_script(look: Look) -> Iterator[tuple[Module, ast.AST, str, str]]:
    """Plain values that the script gives variables without testing whether they are set."""
    for module in look.program.modules:
        for node in module.nodes:
            for name, given in _assignments(module, node):
                value = look.value(given)
                if isinstance(value, str) and not any(map(_is_branch, (parent for parent, _ in module.above(node)))):
                    yield module, node, name, value


def _is_branch(node: ast.AST) -> bool:
    return isinstance(node, ast.If | ast.Try) and not is_main_block(node)


def _assignments(module: Module, node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The variables that a statement sets: `os.environ["A"] = …`, `os.environ.update(A=…)`, `update({"A": …})`."""
    if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Subscript):
        if is_environ(module, target.value) and isinstance(target.slice, ast.Constant):
            yield str(target.slice.value), node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
        if not is_environ(module, node.func.value):
            return
        yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg)
        for pairs in (arg for arg in node.args if isinstance(arg, ast.Dict)):
            keyed = zip(pairs.keys, pairs.values, strict=True)
            yield from ((str(key.value), value) for key, value in keyed if isinstance(key, ast.Constant))
