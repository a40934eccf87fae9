"""Files that all ranks write to the same path, and files that are lost when the run ends."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

from azml_dist.errors import Finding
from azml_dist.script.guards import is_for_one_rank, is_guarded, origins
from azml_dist.script.look import Look
from azml_dist.script.same import is_the_same, names_a_rank
from azml_dist.script.source import Module
from azml_dist.words import late

PARALLEL = r"\bDistributedDataParallel\b|\bDDP\(|FullyShardedDataParallel|fully_shard"
SEVERAL = PARALLEL + r"|init_process_group"
_RESULTS = late(r"(?:\./)?(?:outputs|logs)(?:/|$)")


class _Write(NamedTuple):
    """A call that writes a file, and the path of it."""

    module: Module
    call: ast.Call
    path: ast.expr


def of_files(look: Look) -> Iterator[Finding]:
    """All findings about files."""
    if not look.program.uses(SEVERAL):
        return
    opened: set[ast.AST] = set()
    for module, call in look.calls("torch.save"):
        target = _argument(call, 1, "f")
        if by := _opener(module, call, target):
            opened.add(by)
            target = by.args[0]
        if target is None or not is_a_path(module, target):
            continue
        if is_guarded(look, module, call, _asks_whether_it_exists):
            continue
        if not is_for_one_rank(look, module, call) and not names_a_rank(look, module, target):
            yield from _by_every_rank(look, module, call)
        elif (path := _path(look, module, target)) and _is_lost(look, path):
            yield from _lost(look, module, call, path)
    for write in _writes(look):
        if write.call in opened or is_guarded(look, write.module, write.call, _asks_for_more):
            continue
        if is_the_same(look, write.module, write.path) and not is_for_one_rank(look, write.module, write.call):
            yield from _by_every_rank(look, write.module, write.call)


def _by_every_rank(look: Look, module: Module, call: ast.Call) -> Iterator[Finding]:
    yield from look.finding(
        "saved-by-every-rank",
        "warning",
        (module, call),
        "all ranks write this file at the same time, and its content may end up mixed",
        "save it only on rank 0, or put the rank in its name",
    )


def _lost(look: Look, module: Module, call: ast.Call, path: str) -> Iterator[Finding]:
    yield from look.finding(
        "not-kept",
        "warning",
        (module, call),
        f"`{path}` is lost when the run ends: Azure ML keeps only `./outputs`, `./logs` and the outputs of the job",
        "write it to an output: pass the path `${{outputs.NAME}}` to the script",
    )


_SAFETENSORS = (
    *("safetensors.torch.save_file", "safetensors.torch.save_model"),
    *("safetensors.numpy.save_file", "safetensors.flax.save_file"),
)
_ARRAYS = ("numpy.save", "numpy.savez", "numpy.savez_compressed", "numpy.savetxt")
_METHODS = (".to_csv", ".to_parquet", ".savefig")


def _writes(look: Look) -> Iterator[_Write]:
    """Every other call that writes a whole file: weights anywhere, anything else in an output of the job."""
    for module, call in look.calls(*_SAFETENSORS):
        if path := _argument(call, 1, "filename"):
            yield _Write(module, call, path)
    for module, call in look.calls("joblib.dump", *_ARRAYS, *_METHODS):
        name = module.full_name(call.func)
        path = (
            _argument(call, 1, "filename") if name == "joblib.dump" else _argument(call, 0, _NAMES.get(name, "fname"))
        )
        if path and is_a_path(module, path) and _is_a_result(look, module, path):
            yield _Write(module, call, path)
    for module in look.program.modules:
        for call, name in module.calls:
            if (path := _opened(look, call, name)) and _is_a_result(look, module, path):
                yield _Write(module, call, path)


_NAMES = {"numpy.save": "file", "numpy.savez": "file", "numpy.savez_compressed": "file"}


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    by_name = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return by_name or (call.args[place] if len(call.args) > place else None)


def _opened(look: Look, call: ast.Call, name: str) -> ast.expr | None:
    """The path of `open(path, "w")`, `path.open("w")` and `path.write_text(…)`; None if it is only read or extended."""
    if name in ("open", "io.open", "gzip.open"):
        path, mode = _argument(call, 0, "file"), look.value(_argument(call, 1, "mode"))
    elif isinstance(call.func, ast.Attribute) and call.func.attr in ("write_text", "write_bytes"):
        return call.func.value
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "open":
        path, mode = call.func.value, look.value(_argument(call, 0, "mode"))
    else:
        return None
    return path if isinstance(mode, str) and mode.startswith("w") else None


def _is_a_result(look: Look, module: Module, path: ast.expr) -> bool:
    """Whether a path is in `./outputs`, `./logs` or an output of the job."""
    if found := _path(look, module, path):
        place = posixpath.normpath(posixpath.join(look.entry.folder, found))
        return not found.startswith("/") and bool(_RESULTS.match(place))
    first = _first(module, path)
    if isinstance(first, ast.Attribute) and isinstance(first.value, ast.Name):
        option = first.attr.replace("_", "[-_]")
        return bool(re.search(rf"--{option}[=\s]+[\"']?\$\{{\{{\s*outputs\.", look.job.shell_command))
    return first is not None and bool(re.search(r"['\"]AZURE_ML_OUTPUT_\w+['\"]", ast.unparse(first)))


def _first(module: Module, node: ast.expr, deep: int = 5) -> ast.expr | None:
    """What a path starts with: of `os.path.join(args.out, "a")`, `args.out`."""
    if not deep:
        return None
    if isinstance(node, ast.JoinedStr):
        first = node.values[0] if node.values else None
        return _first(module, first.value, deep - 1) if isinstance(first, ast.FormattedValue) else first
    if isinstance(node, ast.BinOp):
        return _first(module, node.left, deep - 1)
    if isinstance(node, ast.Call) and node.args and re.search(r"(?:\bPath|path\.join|\bstr)$", ast.unparse(node.func)):
        return _first(module, node.args[0], deep - 1)
    if isinstance(node, ast.Name) and (only := module.only(node.id)):
        return _first(module, only, deep - 1)
    return node


_MAY_BE_ONE = late(r"(?i)exists|distrib|world|\bsingle|debug|profil|multi|is_file|isfile|dry_run")
_EXISTS = late(r"(?i)exists|is_file|isfile|cache")
_LOCKS = late(r"(?i)lock")


def _asks_for_more(module: Module, node: ast.AST) -> bool:
    """Whether a test around it may leave one process, or find the file there, or a lock lets the ranks take turns."""
    around = [
        item.context_expr for parent, _ in module.above(node) if isinstance(parent, ast.With) for item in parent.items
    ]
    function = module.function_of(node)
    if any(_LOCKS.search(ast.unparse(one)) for one in around) or "lock(" in (ast.unparse(function) if function else ""):
        return True
    return any(_MAY_BE_ONE.search(ast.unparse(test)) for test in _tests(module, node))


def _asks_whether_it_exists(module: Module, node: ast.AST) -> bool:
    """`if not os.path.exists(path)` around it: a cache, of whose files each rank may write others."""
    return any(_EXISTS.search(ast.unparse(test)) for test in _tests(module, node))


def _tests(module: Module, node: ast.AST) -> list[ast.expr]:
    """What is tested around a node, and what may leave its function before it."""
    tests = [
        parent.test
        for parent, child in module.above(node)
        if isinstance(parent, ast.If | ast.IfExp) and child is not parent.test
    ]
    left = [one.test for one in module.before(node) if isinstance(one, ast.If) and _returns(one)]
    return tests + left


def _returns(node: ast.If) -> bool:
    return any(isinstance(inner, ast.Return | ast.Continue) for inner in ast.walk(node))


def _opener(module: Module, call: ast.Call, target: ast.expr | None) -> ast.Call | None:
    """The `open(path, "wb")` of the `with` around a call that writes into its file."""
    for parent, _ in module.above(call):
        for item in parent.items if isinstance(parent, ast.With) else ():
            by, name = item.context_expr, item.optional_vars
            if not isinstance(by, ast.Call) or not isinstance(name, ast.Name) or not isinstance(target, ast.Name):
                continue
            if name.id == target.id:
                return by if module.full_name(by.func) == "open" and by.args else None
    return None


def _path(look: Look, module: Module, node: ast.expr, deep: int = 5) -> str:
    """A path whose first folder is known, with what follows as it is written; empty if it is not known."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{…}" for part in node.values)
        first, slash, _ = text.partition("/")
        return text if "…" not in first or (not slash and isinstance(node.values[0], ast.Constant)) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Add):
        start, end = _path(look, module, node.left, deep), _path(look, module, node.right, deep) or "{…}"
        text = f"{start}/{end}" if isinstance(node.op, ast.Div) else f"{start}{end}"
        return text if start and "…" not in text.partition("/")[0] else ""
    if isinstance(node, ast.Call) and node.args and re.search(r"(?:\bPath|path\.join)$", ast.unparse(node.func)):
        first, *others = [_path(look, module, part, deep) for part in node.args]
        return posixpath.join(first, *(part or "{…}" for part in others)) if first else ""
    if isinstance(value := look.value(node), str):
        return value
    if deep and (isinstance(node, ast.Name) or ast.unparse(node).startswith("self.")):
        only = module.only(node.id) if isinstance(node, ast.Name) else None
        values = [(module, only)] if only else origins(look, module, node)
        found = {_path(look, other, one, deep - 1) for other, one in values}
        return found.pop() if len(found) == 1 else ""
    return ""


_MOVES = (
    r"log_artifact|log_model|upload|\bcopy\w*\(|\bmove\(|\brename\(|\breplace\(\s*['\"]\S+\.|symlink|chdir\(|hydra"
    r"|subprocess|os\.system"
)
"""What may bring a file to another place, or the process: Hydra runs a script in a folder below `outputs`."""
_COPIES = late(r"\b(?:cp|mv|ln|rsync|azcopy|tar|zip)\b")


def _is_lost(look: Look, path: str) -> bool:
    """Whether a file stays where Azure ML does not keep it, as far as the script and the command show."""
    place = path if path.startswith("/") else posixpath.normpath(posixpath.join(look.entry.folder, path))
    is_moved = look.program.uses(_MOVES) or _COPIES.search(look.job.shell_command)
    is_passed_on = place.startswith("/tmp/") and look.program.uses(r"torch\.load\(")
    return not _RESULTS.match(place) and not is_moved and not is_passed_on


_BUFFER = late(r"(?i)f|fp|fd|b|bio|\w*buf\w*|\w*stream|\w*file_?obj")


def is_a_path(module: Module, node: ast.expr) -> bool:
    """Whether it seems to be a path rather than a buffer in memory."""
    if isinstance(node, ast.Name) and _BUFFER.fullmatch(node.id):
        return False
    return not (
        isinstance(node, ast.Name) and re.search(rf"\b{node.id}\s*=\s*(?:io\.)?BytesIO|as\s+{node.id}\b", module.text)
    )
