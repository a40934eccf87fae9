"""What a rule looks at: the job, the script that it starts, and where in the script a rule must stay silent."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from azml_dist.errors import Finding, Level
from azml_dist.script.arguments import Parser, parser_of, values
from azml_dist.script.certain import certain_nodes
from azml_dist.script.entry import Entry
from azml_dist.script.passed import parameters, value_in
from azml_dist.script.source import Module, Program
from azml_dist.vmsizes import VmSize, vm_size
from azml_dist.words import late

if TYPE_CHECKING:
    from azml_dist.model.job import JobFields

_OF_A_RANK = late(
    r"(?i)rank|main_process|is_main|is_local_main|master|is_chief|is_primary|_zero\b|should_save|is_first|is_leader"
    r"|is_root|gpu|process_index|device_id|worker_id|proc(?:ess)?_?id\b|coordinator|is_host\b|is_head|is_writer"
)
_DECIDES = late(r"==|!=|>|<|\bnot\b|\bin\b|\bis_|else (?:None|False)")
"""A value that follows from a rank and is then tested: `rank == 0`, `open(…) if rank == 0 else None`."""
_PER_NODE = late(r"--nproc[-_]per[-_]node(?:=|\s+)(\d+)\b")


class Look:
    """A job and the script that it starts."""

    def __init__(self, job: JobFields, entry: Entry, program: Program, known: Mapping[str, str]) -> None:
        self.job, self.entry, self.program = job, entry, program
        self.known = frozenset(known) | entry.set | frozenset(job.environment_variables)
        """The variables that a process of the job has, including those that the command may set."""
        self.tf_config = known.get("TF_CONFIG", "")

    @property
    def kind(self) -> str | None:
        """`PyTorch`, `Mpi`, `TensorFlow`, `Ray`, or None for a single process."""
        return type(self.job.distribution).__name__ if self.job.distribution else None

    @cached_property
    def per_node(self) -> int | None:
        """How many processes of the script each node has; None if a launcher in the command decides."""
        if self.entry.launcher is None:
            return self.job.process_count_per_node
        found = _PER_NODE.search(self.job.shell_command)
        return int(found[1]) if found and self.job.process_count_per_node == 1 else None

    @property
    def is_parallel(self) -> bool:
        """Whether several processes run the script."""
        per_node = self.per_node
        return self.job.node_count > 1 or per_node is None or per_node > 1

    @cached_property
    def size(self) -> VmSize | None:
        """The VM size, if the job sets a known one with GPUs."""
        return vm_size(self.job.instance_type or "")

    @cached_property
    def certain(self) -> set[ast.AST]:
        """What the script always evaluates, if the command always reaches it."""
        return certain_nodes(self.program) if self.entry.certain else set()

    @cached_property
    def parser(self) -> Parser | None:
        """The argparse parser of the script, if there is only one and it is fully known."""
        return parser_of(self.program)

    def calls(self, *names: str) -> Iterator[tuple[Module, ast.Call]]:
        """The calls of a function by its full name, or by its last part if the name starts with a dot."""
        last = {one.rpartition(".")[2] for one in names}
        for module in self.program.modules:
            for call, name in module.calls:
                if name.rpartition(".")[2] in last and any(
                    f".{name}".endswith(one) if one.startswith(".") else name == one for one in names
                ):
                    yield module, call

    def number(self, node: ast.expr | None) -> int | None:
        """An integer in the script, or from an argument of the command; None if it is not known."""
        value = self.value(node)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def value(self, node: ast.expr | None) -> Any:
        """A plain value in the script, or from an argument of the command; None if it is not known."""
        if node is None:
            return None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and self.parser:
            is_given = node.value.id in _NAMES_OF_ARGUMENTS and not self._is_changed(node.attr)
            return self._arguments.get(node.attr) if is_given else None
        if isinstance(node, ast.Name):
            return self._of_name(node)
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None

    def _is_changed(self, argument: str) -> bool:
        """Whether the script may set an argument after it has parsed them: `args.url = …`, `setattr(args, …)`."""
        return self.program.uses(rf"\.{re.escape(argument)}\s*(?:[-+*/|]|//)?=[^=]|\bsetattr\(|\bvars\(args\)\.update")

    def _of_name(self, node: ast.Name, deep: int = 2) -> Any:
        """The value of a constant, or of a parameter to which every call gives the same value."""
        module = next((one for one in self.program.modules if node in one.parents), None)
        if module is None or (value := module.constant(node.id)) is not None:
            return value if module else None
        function = module.function_of(node)
        if not isinstance(function, ast.FunctionDef) or module.functions.get(function.name) is not function:
            return None
        if not deep or module.assigned(node.id) or node.id not in parameters(function):
            return None
        given = [value_in(call, function, node.id) for _, call in self.program.callers(module, function)]
        values = [self._of_name(one, deep - 1) if isinstance(one, ast.Name) else self.value(one) for one in given]
        return values[0] if values and all(value == values[0] for value in values) else None

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        return values(self.parser, self.entry.arguments) if self.parser else {}

    def level(self, node: ast.AST) -> Level:
        """`error` for what every run of the script reaches, otherwise `warning`."""
        return "error" if node in self.certain else "warning"

    def finding(
        self, code: str, level: Level, at: tuple[Module, ast.AST], message: str, hint: str | None = None
    ) -> Iterator[Finding]:
        """A finding at a line of the script, unless a comment there suppresses it, or nothing gets there."""
        module, node = at
        line = getattr(node, "lineno", 1)
        is_idle = level == "warning" and self.program.is_unused(module, node)
        if not is_idle and not module.is_ignored(line, code):
            yield Finding(code, level, message, hint, f"{module.path}:{line}")


Asks = Callable[[Module, ast.AST], bool]
"""Whether the function that contains a node tests something before it."""

_NAMES_OF_ARGUMENTS = frozenset(["args", "opt", "opts", "options", "flags", "hparams"])


def is_for_one_rank(look: Look, module: Module, node: ast.AST) -> bool:
    """Whether the rank is tested before the node is reached: around it, before it, or where its function is called."""
    return is_guarded(look, module, node, _asks_for_a_rank)


def is_guarded(look: Look, module: Module, node: ast.AST, asks: Asks, deep: int = 3) -> bool:
    """Whether something is tested on every path to a node, in its function or in those that call it; or not known."""
    if asks(module, node):
        return True
    function = module.function_of(node)
    if function is None:
        return False
    if not deep:
        return True  # callers of callers of callers: not known
    callers = look.program.callers(module, function)
    return bool(callers) and all(is_guarded(look, other, call, asks, deep - 1) for other, call in callers)


def _asks_for_a_rank(module: Module, node: ast.AST) -> bool:
    function = module.function_of(node)
    words = [function.name, *map(ast.unparse, function.decorator_list)] if function else []
    if any(map(_OF_A_RANK.search, words)):
        return True
    for parent, child in module.above(node):
        test = parent.test if isinstance(parent, ast.If | ast.IfExp | ast.While) else None
        test = parent.subject if isinstance(parent, ast.Match) else test
        if test is not None and child is not test and is_about_a_rank(module, test):
            return True
        if isinstance(parent, ast.With) and any(_OF_A_RANK.search(ast.unparse(i.context_expr)) for i in parent.items):
            return True
        if isinstance(parent, ast.BoolOp) and _OF_A_RANK.search(ast.unparse(parent)):
            return True
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    return any(_leaves_other_ranks(module, statement) for statement in module.before(node))


def is_about_a_rank(module: Module, test: ast.expr) -> bool:
    """Whether a test has a rank in it, or a name whose value follows from one."""
    if _OF_A_RANK.search(ast.unparse(test)):
        return True
    names = (ast.unparse(node) for node in ast.walk(test) if isinstance(node, ast.Name | ast.Attribute))
    values = (ast.unparse(value) for name in names for value in module.assigned(name))
    return any(_OF_A_RANK.search(value) and _DECIDES.search(value) for value in values)


def _leaves_other_ranks(module: Module, node: ast.stmt) -> bool:
    """`if rank != 0: return` and similar tests."""
    if not isinstance(node, ast.If) or not is_about_a_rank(module, node.test):
        return False
    leaves = (
        isinstance(inner, ast.Return | ast.Continue | ast.Raise) or exits(module, inner) for inner in ast.walk(node)
    )
    return any(leaves)


def is_always(module: Module, node: ast.AST) -> bool:
    """Whether each call of its function gets to a node: no branch is around it, and none before it may leave."""
    branches = ast.If | ast.IfExp | ast.BoolOp | ast.While | ast.Try | ast.match_case
    for parent, _ in module.above(node):
        if isinstance(parent, branches):
            return False
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    leaving = ast.Return | ast.Raise
    return not any(isinstance(n, leaving) for statement in module.before(node) for n in ast.walk(statement))


def exits(module: Module, node: ast.AST) -> bool:
    """Whether it ends the program."""
    return isinstance(node, ast.Call) and module.full_name(node.func) in ("exit", "quit", "sys.exit", "os._exit")
