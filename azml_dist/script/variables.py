"""Variables that the script reads although this job does not set them, or sets to values that cannot be right here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from azml_dist.errors import Finding
from azml_dist.script.guards import is_guarded
from azml_dist.script.look import Look
from azml_dist.script.passed import is_plain
from azml_dist.script.reads import Read, is_asked_for, reads
from azml_dist.script.source import Module, is_main_block
from azml_dist.words import late, nearest, plural

_TORCH = late(
    r"(?:LOCAL_|NODE_|GROUP_|ROLE_)?RANK|(?:LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|ROLE_NAME|MASTER_(?:ADDR|PORT)"
    r"|TORCHELASTIC_\w+"
)
_MPI = late(r"(?:OMPI|PMI|PMIX|MV2)_\w+")
_OF_THE_JOB = late(r"(?P<kind>AZURE_ML_INPUT|AZURE_ML_OUTPUT|AZUREML_PARAMETER|AZUREML_DATAREFERENCE)_(?P<name>\w+)")
_ALMOST_OF_THE_JOB = late(r"(?:AZUREML_(?P<kind>INPUT|OUTPUT)|AZURE_ML_(?P<value>PARAMETER))_(?P<name>\w+)")
_BATCH_AI = late(r"AZ_BATCH(?:AI)?_\w+")
_RANKS = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
_OTHER_SOURCE = r"OMPI_COMM|PMI_RANK|mpi4py|horovod|\bhvd\b|init_distributed|SLURM_PROCID|TF_CONFIG|TFConfigCluster"
_SETS_THEM = r"init_distributed|lightning|accelerate|\bray\b|transformers|composer|colossalai|load_dotenv"
"""Packages that set torch's variables themselves, from those of other launchers."""
_SETS_TORCHRUNS = r"\bray\b|composer|load_dotenv"
"""Packages that set the variables of torchrun that Azure ML leaves out under PyTorch."""
_SETS_ANY = (
    r"(?i:env\w*)(?:\s*\[(?!\s*['\"][^'\"]*['\"]\s*\])[^=\n]+\]\s*=[^=]|\.update\(|\s*\|=)|load_dotenv"
    r"|(?:environ\.setdefault|putenv)\(\s*(?!['\"])"
)
"""What sets variables whose names the source does not say."""
_WITHIN_REACH = {
    "torchrun": _TORCH,
    "torch.distributed.launch": _TORCH,
    "deepspeed": _TORCH,
    "accelerate": _TORCH,
    **dict.fromkeys(["mpirun", "mpiexec", "horovodrun", "orterun"], _MPI),
}
"""What a launcher in the command sets for the processes that it starts."""


def of_variables(look: Look) -> Iterator[Finding]:
    """All findings about the environment of the processes."""
    said: set[str] = set()
    for read in reads(look):
        if read.name not in said and (found := list(_unset(look, read))):
            said.add(read.name)
            yield from found
    yield from _node_ranks(look)


def _unset(look: Look, read: Read) -> Iterator[Finding]:
    name = read.name
    if name in look.known or _is_set_by_the_launcher(look, name) or _is_set_by_the_script(look, name):
        return
    if own := _OF_THE_JOB.fullmatch(name):
        yield from _undeclared(look, read, own)
    elif almost := _ALMOST_OF_THE_JOB.fullmatch(name):
        yield from _misspelt(look, read, almost)
    elif _TORCH.fullmatch(name) or _MPI.fullmatch(name) or name == "TF_CONFIG":
        yield from _of_another_world(look, read)
    elif _BATCH_AI.fullmatch(name) and read.fails and not is_asked_for(read.module, read.node):
        message = f"as far as we know, `{name}` is not set in this job: `{ast.unparse(read.node)}` raises an error"
        yield from look.finding("variable-not-set", "warning", (read.module, read.node), message, _instead(look, name))


def _is_set_by_the_launcher(look: Look, name: str) -> bool:
    pattern = _WITHIN_REACH.get(look.entry.launcher or "")
    return bool(pattern and pattern.fullmatch(name) and name != "NODE_RANK")


def _is_set_by_the_script(look: Look, name: str) -> bool:
    quoted = rf"['\"]{name}['\"]"
    return look.program.says(
        rf"(?i:env\w*|\be)\s*\[\s*{quoted}\s*\]\s*=[^=]|setdefault\(\s*{quoted}|putenv\(\s*{quoted}|{_SETS_ANY}"
    )


def _of_another_world(look: Look, read: Read) -> Iterator[Finding]:
    sets_them = _SETS_TORCHRUNS if look.kind == "PyTorch" else _SETS_THEM
    if (_TORCH.fullmatch(read.name) and look.program.says(sets_them)) or is_asked_for(read.module, read.node):
        return
    if read.fails:
        level = look.level(read.node)
        if level == "warning" and (look.kind is None or _may_be_chosen(look, read)):
            return  # the code before it may test how it was started
        yield from look.finding(
            "variable-not-set",
            level,
            (read.module, read.node),
            f"`{read.name}` is not set in this job, {_this(look)}: `{ast.unparse(read.node)}` raises an error",
            _instead(look, read.name),
        )
    elif read.default and _is_rank_of_another_world(look, read.name):
        yield from look.finding(
            "rank-by-default",
            "warning",
            (read.module, read.node),
            f"`{read.name}` is not set in this job, {_this(look)}: every process uses the default on this line and acts"
            " as if it were the only one",
            _instead(look, read.name),
        )


def _is_rank_of_another_world(look: Look, name: str) -> bool:
    is_other = name in _RANKS and look.kind in ("Mpi", "TensorFlow") and look.is_parallel
    return is_other and not look.program.says(_OTHER_SOURCE)


def _this(look: Look) -> str:
    if look.kind is None:
        return "which has no distribution"
    return f"whose distribution is {look.kind}"


def _instead(look: Look, name: str) -> str | None:
    mpi = {
        "RANK": "OMPI_COMM_WORLD_RANK",
        "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
        "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
        "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
    }
    torch = {theirs: ours for ours, theirs in mpi.items() if ours != "LOCAL_WORLD_SIZE"}
    if look.kind == "Mpi":
        if name in mpi:
            return f"under MPI it is `{mpi[name]}`; or add `distribution: {{type: pytorch}}` to the job"
        return "add `distribution: {type: pytorch}` to the job, which sets torch's variables"
    if name == "LOCAL_WORLD_SIZE":
        count = plural(look.job.process_count_per_node, "process", "processes")
        return f"only torchrun sets it; this job runs {count} on each node: pass that number on, or use a default"
    if look.kind == "PyTorch":
        return f"under PyTorch it is `{torch[name]}`" if name in torch else _like(look, name)
    if _MPI.fullmatch(name):
        return "add `distribution: {type: mpi}` to the job"
    return "add `distribution: {type: pytorch}` to the job" if look.kind is None else _like(look, name)


def _like(look: Look, name: str) -> str | None:
    return nearest(name, look.known)


def _may_be_chosen(look: Look, read: Read) -> bool:
    """Whether the code before it may test how it was started, or choose the function that it is in."""
    if any(isinstance(parent, ast.Lambda) for parent, _ in read.module.above(read.node)):
        return not _is_default_of_an_object(look, read)
    function = read.module.function_of(read.node)
    is_known = function is not None and read.module.functions.get(function.name) is function
    is_passed_on = function is not None and is_known and not look.program.callers(read.module, function)
    return is_passed_on or is_guarded(look, read.module, read.node, _is_chosen)


def _is_default_of_an_object(look: Look, read: Read) -> bool:
    """Whether it is `field(default_factory=lambda: …)`, and the script makes an object with this default."""
    above = [parent for parent, _ in read.module.above(read.node)]
    made = next((parent for parent in above if isinstance(parent, ast.ClassDef)), None)
    field = next((parent for parent in above if isinstance(parent, ast.AnnAssign)), None)
    is_factory = any(isinstance(parent, ast.keyword) and parent.arg == "default_factory" for parent in above)
    if made is None or field is None or not is_factory:
        return False
    for module, call in look.calls(f".{made.name}"):
        is_left_out = not call.args and ast.unparse(field.target) not in {keyword.arg for keyword in call.keywords}
        if is_left_out and is_plain(call) and not is_guarded(look, module, call, _is_chosen):
            return True
    return False


def _is_chosen(module: Module, node: ast.AST) -> bool:
    """Whether a node is inside a condition, or in a function that is not called by its name."""
    function = module.function_of(node)
    is_alone = function is not None and function.name not in module.functions
    return is_alone or any(
        isinstance(parent, ast.If | ast.IfExp | ast.Try | ast.While | ast.match_case) and not is_main_block(parent)
        for parent, _ in module.above(node)
    )


def _undeclared(look: Look, read: Read, own: re.Match[str]) -> Iterator[Finding]:
    if not read.fails or is_asked_for(read.module, read.node):
        return
    what = "output" if own["kind"] == "AZURE_ML_OUTPUT" else "input"
    declared = look.job.outputs if what == "output" else look.job.inputs
    if own["name"] in declared:
        is_data = what == "output" or look.job.is_data(own["name"])
        right = f"AZURE_ML_{what.upper()}" if is_data else "AZUREML_PARAMETER"
        message = f"`{read.name}` is not set: the value of the {what} `{own['name']}` is in `{right}_{own['name']}`"
        hint: str | None = f"read `{right}_{own['name']}`"
    else:
        message = f"`{read.name}` is not set: the job has no {what} `{own['name']}`"
        hint = nearest(own["name"], declared) or f"add {what}s.{own['name']} to the job"
    yield from look.finding("variable-not-set", look.level(read.node), (read.module, read.node), message, hint)


def _misspelt(look: Look, read: Read, almost: re.Match[str]) -> Iterator[Finding]:
    """A name like those of Azure ML for an input or output that the job has."""
    name = almost["name"]
    what = "output" if almost["kind"] == "OUTPUT" else "input"
    if (
        name not in (look.job.outputs if what == "output" else look.job.inputs)
        or not read.fails
        or is_asked_for(read.module, read.node)
    ):
        return
    is_data = what == "output" or look.job.is_data(name)
    right = f"AZURE_ML_{what.upper()}_{name}" if is_data else f"AZUREML_PARAMETER_{name}"
    message = f"`{read.name}` is not set: the value of the {what} `{name}` is in `{right}`"
    yield from look.finding(
        "variable-not-set", look.level(read.node), (read.module, read.node), message, f"read `{right}`"
    )


def _node_ranks(look: Look) -> Iterator[Finding]:
    if look.kind != "Mpi" or look.job.process_count_per_node == 1:
        return
    for module in look.program.modules:
        for node in module.nodes:
            if not isinstance(node, ast.Assign) or not re.search(r"(?i)\bNODE_RANK\b", ast.unparse(node.targets[0])):
                continue
            values = [
                node.value,
                *(v for one in ast.walk(node.value) if isinstance(one, ast.Name) for v in module.assigned(one.id)),
            ]
            text = " ".join(map(ast.unparse, values))
            if "OMPI_COMM_WORLD_RANK" in text and "//" not in text:
                message = (
                    "OMPI_COMM_WORLD_RANK counts processes, not nodes: with"
                    f" {look.job.process_count_per_node} processes on a node it is not the rank of the node"
                )
                hint = "divide it by OMPI_COMM_WORLD_LOCAL_SIZE (`//`)"
                yield from look.finding("rank-taken-for-node", "warning", (module, node), message, hint)
