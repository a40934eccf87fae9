"""Addresses of the master that are right only on one node."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial

from azml_dist.errors import Finding
from azml_dist.notation import shell
from azml_dist.script.guards import is_about_a_rank
from azml_dist.script.look import Look
from azml_dist.script.reads import is_environ
from azml_dist.script.source import Module, is_main_block
from azml_dist.words import late, plural

_LOCAL = frozenset(["localhost", "127.0.0.1", "::1", "0.0.0.0"])
_LOCAL_URL = late(r"tcp://(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0)\b")
_LOCAL_ENDPOINT = late(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::\d+)?")
_SET_IN_THE_COMMAND = late(r"\bMASTER_ADDR=[\"']?(localhost|127\.0\.0\.1)\b")
_OF_A_NODE = late(r"(?:file://)?/(?:tmp|dev/shm|var/tmp|run)/.")
"""Folders that each node has for itself."""
_METHOD, _SIZE = 1, 3
"""The places of `init_method` and `world_size` in `init_process_group`."""
_STORE_SIZE, _STORE_MASTER = 2, 3
"""Those of `world_size` and `is_master` in `TCPStore`."""


def of_masters(look: Look) -> Iterator[Finding]:
    """A master address that other nodes cannot reach, and a port that may be in use."""
    if look.job.node_count == 1:
        return
    yield from _in_the_command(look)
    yield from _in_the_environment(look)
    yield from _in_the_call(look)
    yield from _in_a_store(look)


def _but(look: Look) -> str:
    nodes = plural(look.job.node_count, "node")
    return f"but the job has {nodes}: each node would wait for its own rank 0"


def _in_the_call(look: Look) -> Iterator[Finding]:
    """`init_process_group(init_method="tcp://localhost:…")`, and the like."""
    for module, call in look.calls("torch.distributed.init_process_group", "deepspeed.init_distributed"):
        at = _METHOD if module.full_name(call.func).startswith("torch.") else len(call.args)
        address = _address(look, _given(call, "init_method", at))
        if _is_of_one_node(look, module, call, _given(call, "world_size", _SIZE)):
            continue
        hint = "remove `init_method`: torch then reads MASTER_ADDR and MASTER_PORT"
        if _LOCAL_URL.match(address):
            message = f"the processes meet at {address}, {_but(look)}"
            yield from look.finding("master-on-every-node", look.level(call), (module, call), message, hint)
        elif _OF_A_NODE.match(address):
            message = f"the processes meet at {address}, {_but_each_has_its_own(look)}"
            yield from look.finding("master-on-every-node", look.level(call), (module, call), message, hint)


def _in_a_store(look: Look) -> Iterator[Finding]:
    """`TCPStore("localhost", …)` and `FileStore("/tmp/…")`, for the ranks of all nodes."""
    for module, call in look.calls("torch.distributed.TCPStore"):
        address, master = _address(look, _given(call, "host_name", 0)), _given(call, "is_master", _STORE_MASTER)
        if address not in _LOCAL or _is_of_one_node(look, module, call, _given(call, "world_size", _STORE_SIZE)):
            continue
        is_of_one_rank = master is not None and is_about_a_rank(module, master) and "local" not in ast.unparse(master)
        if is_of_one_rank or _is_for_a_group(look, module, call):
            message = f"the store of the processes is on {address}, {_but(look)}"
            hint = 'write `TCPStore(os.environ["MASTER_ADDR"], …)`, or leave the store to `init_process_group()`'
            yield from look.finding("master-on-every-node", look.level(call), (module, call), message, hint)
    for module, call in look.calls("torch.distributed.FileStore"):
        path = _address(look, _given(call, "file_name", 0))
        is_of_one = _is_of_one_node(look, module, call, _given(call, "world_size", 1))
        if _OF_A_NODE.match(path) and not is_of_one and _is_for_a_group(look, module, call):
            message = f"the store of the processes is the file {path}, {_but_each_has_its_own(look)}"
            hint = "leave the store to `init_process_group()`, which reads MASTER_ADDR and MASTER_PORT"
            yield from look.finding("master-on-every-node", look.level(call), (module, call), message, hint)


def _but_each_has_its_own(look: Look) -> str:
    nodes = plural(look.job.node_count, "node")
    return f"but the job has {nodes}, and each has its own: its ranks wait there for those of the others"


def _given(call: ast.Call, name: str, place: int) -> ast.expr | None:
    by_name = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return by_name or (call.args[place] if len(call.args) > place else None)


_ONE_PROCESS = late(r"(?i)environ|getenv|\bsingle|local|debug|launcher|slurm|mpi")
_SEVERAL = late(r"(?i)environ|getenv|distrib|world|rank|ddp|multi|num_gpus|ngpus|device_count")


def _is_of_one_node(look: Look, module: Module, call: ast.Call, size: ast.expr | None) -> bool:
    """Whether a call is for one process, or for those of one node: by its size, or by what is tested before it."""
    if size is not None and re.search(r"(?i)local|per_node|device_count", ast.unparse(size)):
        return True
    if (count := look.number(size)) is not None and count in (1, look.per_node):
        return True
    for parent, child in module.above(call):
        if isinstance(parent, ast.If | ast.IfExp) and not is_main_block(parent) and child is not parent.test:
            is_else = child is parent.orelse or (isinstance(parent, ast.If) and child in parent.orelse)
            if (_SEVERAL if is_else else _ONE_PROCESS).search(ast.unparse(parent.test)):
                return True
        if isinstance(parent, ast.ExceptHandler):
            return True
    return any(map(_has_met, module.before(call)))


def _has_met(node: ast.stmt) -> bool:
    """`if "RANK" in os.environ: init_process_group(); return`."""
    is_left = isinstance(node, ast.If) and any(isinstance(inner, ast.Return) for inner in ast.walk(node))
    return is_left and "init_process_group" in ast.unparse(node)


def _is_for_a_group(look: Look, module: Module, store: ast.Call) -> bool:
    """Whether `init_process_group` gets a store: as it is, or by its name."""
    names = {
        ast.unparse(target)
        for node in module.nodes
        if isinstance(node, ast.Assign) and node.value is store
        for target in node.targets
    }
    for other, call in look.calls("torch.distributed.init_process_group"):
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "store"), None)
        if given is store or (other is module and given is not None and ast.unparse(given) in names):
            return True
    return False


def _address(look: Look, node: ast.expr | None) -> str:
    """An address as far as it is known: of `f"tcp://localhost:{port}"`, all but the port."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
        return "".join(map(partial(_part, look), parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _part(look, node.left) + _part(look, node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        filled = [_part(look, one) for one in node.args]
        return re.sub(r"\{\d*\}", lambda _: filled.pop(0) if filled else "…", _address(look, node.func.value))
    value = look.value(node)
    return value if isinstance(value, str) else ""


def _part(look: Look, node: ast.expr) -> str:
    value = look.value(node)
    return str(value) if isinstance(value, str | int) else _address(look, node) or "…"


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
