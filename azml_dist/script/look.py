"""What a rule looks at: the job, and the script that it starts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
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

NAMES_OF_ARGUMENTS = frozenset(["args", "opt", "opts", "options", "flags", "hparams"])
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
            is_given = node.value.id in NAMES_OF_ARGUMENTS and not self._is_changed(node.attr)
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

    def is_off(self, module: Module, node: ast.AST, deep: int = 3) -> bool:
        """Whether an argument that the command passes, or leaves out, keeps the script from a node."""
        for parent, child in module.above(node):
            if isinstance(parent, ast.If) and self._leaves_out(parent, child):
                return True
            if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
                callers = self.program.callers(module, parent) if deep else []
                mentions = self.program.mentions(module, parent) if callers else []
                return bool(callers) and not mentions and all(self.is_off(*one, deep - 1) for one in callers)
        return False

    def _leaves_out(self, branch: ast.If, child: ast.AST) -> bool:
        return child is not branch.test and self._truth(branch.test) is (child not in branch.body)

    def _truth(self, test: ast.expr) -> bool | None:
        """Whether `args.export` and the like are true in this job; None if that is not known."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return None if (value := self._truth(test.operand)) is None else not value
        if isinstance(test, ast.BoolOp):
            decides = isinstance(test.op, ast.Or)
            values = [self._truth(one) for one in test.values]
            return decides if decides in values else None if None in values else not decides
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.NotEq):
            value, other = self.value(test.left), self.value(test.comparators[0])
            is_known = value is not None and other is not None and isinstance(test.left, ast.Attribute)
            return (value == other) is isinstance(test.ops[0], ast.Eq) if is_known else None
        if isinstance(test, ast.Attribute) and isinstance(test.value, ast.Name) and test.value.id in NAMES_OF_ARGUMENTS:
            is_known = test.attr in self._arguments and not self._is_changed(test.attr)
            return bool(self._arguments[test.attr]) if is_known else None
        return None

    def finding(
        self, code: str, level: Level, at: tuple[Module, ast.AST], message: str, hint: str | None = None
    ) -> Iterator[Finding]:
        """A finding at a line of the script, unless a comment there suppresses it, or nothing gets there."""
        module, node = at
        line = getattr(node, "lineno", 1)
        is_idle = level == "warning" and (self.program.is_unused(module, node) or self.is_off(module, node))
        if not is_idle and not module.is_ignored(line, code):
            yield Finding(code, level, message, hint, f"{module.path}:{line}")
