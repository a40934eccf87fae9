"""Silent mistakes in data-parallel training: every rank reads all data, writes the same file, or waits alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from azml_dist.errors import Finding
from azml_dist.script.files import PARALLEL, SEVERAL, of_files
from azml_dist.script.guards import is_about_a_rank, is_always, is_for_one_rank, is_guarded
from azml_dist.script.look import Look
from azml_dist.script.same import names_a_rank
from azml_dist.script.source import Module
from azml_dist.words import late, plural

_DOES_IT_ITSELF = (
    r"lightning|accelerate|Accelerator|transformers|deepspeed|horovod|composer|ignite|ray\.train|torchtitan"
    r"|colossalai|StatefulDataLoader|webdataset|wds\.|IterableDataset|split_by_node|split_dataset_by_node|dali|ffcv|torchrec"
    r"|parallelize_module|tensor_parallel|PipelineStage"
)
"""Frameworks and kinds of datasets that split the data among ranks by themselves."""
_SPLITS = (
    r"(?m)^(?!\s*(?:from|import)\s).*DistributedSampler|batch_sampler|BatchSampler|\bSampler\b|[rR]ank\s*:{2}|skip\(|shard\("
    r"|range\([^)\n]*[rR]ank|[\w)\]]\[[^\]\n'\"]*\b[rR]ank\b|[rR]ank\s*\*|%\s*(?:\w+\.)*(?:world|num_replicas)|[pP]artition|array_split"
)
_COLLECTIVES = (
    *("barrier", "all_reduce", "all_gather", "all_gather_object", "all_gather_into_tensor", "broadcast"),
    *("broadcast_object_list", "reduce", "reduce_scatter", "all_to_all", "gather", "gather_object", "scatter"),
)


def of_training(look: Look) -> Iterator[Finding]:
    """All findings about what several ranks do together."""
    if not look.is_parallel or look.kind not in ("PyTorch", None):
        return
    rules = (_samplers, _epochs, _devices, of_files, _downloads, _seeds)
    found = [finding for rule in rules for finding in rule(look)]
    # All of the code is searched last: most scripts have nothing to be silent about.
    if found and look.program.is_whole and not look.program.says(_DOES_IT_ITSELF):
        yield from found
    yield from _logged(look)
    yield from _collectives(look)
    yield from _workers(look)


def _keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def _samplers(look: Look) -> Iterator[Finding]:
    if not look.program.uses(PARALLEL) or look.program.says(_SPLITS):
        return
    for module, call in look.calls("torch.utils.data.DataLoader", "torch.utils.data.dataloader.DataLoader"):
        given = _keywords(call)
        if None in given or given.keys() & {"sampler", "batch_sampler"} or len(call.args) > 2:
            continue
        if not look.value(given.get("shuffle")) and not _is_for_training(module, call):
            continue
        yield from look.finding(
            "no-distributed-sampler",
            "warning",
            (module, call),
            "every rank reads all of the data: an epoch takes as long as on one GPU, and each sample is used several"
            " times",
            "pass `sampler=DistributedSampler(dataset)` to the DataLoader, without `shuffle`",
        )


def _is_for_training(module: Module, call: ast.Call) -> bool:
    statement: Any = next((parent for parent, _ in module.above(call) if isinstance(parent, ast.stmt)), None)
    targets = " ".join(map(ast.unparse, getattr(statement, "targets", [])))
    return "train" in f"{targets} {ast.unparse(call)}".lower()


def _is_for_evaluation(module: Module, call: ast.Call) -> bool:
    statement: Any = next((parent for parent, _ in module.above(call) if isinstance(parent, ast.stmt)), None)
    function = module.function_of(call)
    return bool(re.search(r"(?i)val|test|eval", f"{function.name if function else ''} {ast.unparse(statement)}"))


def _epochs(look: Look) -> Iterator[Finding]:
    if look.program.says(r"set_epoch") or not look.program.uses(r"for \w*epoch\w* in|for \w+ in \w+\([^\n]*epochs"):
        return
    samplers = list(look.calls(".DistributedSampler"))
    for module, call in samplers:
        if not module.full_name(call.func).startswith("torch."):
            continue
        shuffle = _keywords(call).get("shuffle")
        is_the_only_one = len(samplers) == 1 and not _is_for_evaluation(module, call)
        is_for_training = is_the_only_one or _is_for_training(module, call)
        if (shuffle is not None and look.value(shuffle) is not True) or not is_for_training:
            continue
        yield from look.finding(
            "no-set-epoch",
            "warning",
            (module, call),
            "nothing calls `set_epoch`, so every epoch has the samples in the same order",
            "call `sampler.set_epoch(epoch)` at the start of each epoch",
        )


_HAS_A_DEVICE = (
    r"set_device|cuda\.device\(|device_id|CUDA_VISIBLE_DEVICES|cuda:|local_rank|LOCAL_RANK|device_count\(|\.cuda\(\s*[^)\s]"
    r"|device\(\s*(?:type\s*=\s*)?['\"]cuda['\"]\s*,|\.to\(\s*(?:\w+\.)*(?:rank|gpu)"
)
"""What gives each process a GPU of its own."""


def _devices(look: Look) -> Iterator[Finding]:
    """NCCL with the first GPU in every process of a node."""
    begun = [*look.calls("torch.distributed.init_process_group")]
    if look.per_node == 1 or not begun or "CUDA_VISIBLE_DEVICES" in look.entry.set or look.program.says(_HAS_A_DEVICE):
        return
    for module, call in begun:
        first = call.args[0] if call.args else _keywords(call).get("backend")
        if look.value(first) == "nccl" and look.program.uses(r"\.cuda\(\)|['\"]cuda['\"]"):
            yield from look.finding(
                "no-device-of-its-own",
                "warning",
                (module, call),
                "every process of a node uses the first GPU: NCCL fails, or the GPU runs out of memory",
                'call `torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))` first',
            )


_DOWNLOADS = (
    "urllib.request.urlretrieve",
    "wget.download",
    "gdown.download",
    "torch.hub.download_url_to_file",
    "torchvision.datasets.utils.download_url",
    "torchvision.datasets.utils.download_and_extract_archive",
)


def _downloads(look: Look) -> Iterator[Finding]:
    """The same files, by all processes of a node at the same time; Hugging Face's own downloads lock them."""
    if look.per_node in (None, 1) or not look.program.uses(SEVERAL):
        return
    for module, call, name in ((one, *found) for one in look.program.modules for found in one.calls):
        is_dataset = name.startswith(("torchvision.datasets.", "torchaudio.datasets."))
        if name not in _DOWNLOADS and not (is_dataset and look.value(_keywords(call).get("download")) is True):
            continue
        if (
            is_for_one_rank(look, module, call)
            or names_a_rank(look, module, call)
            or _is_ahead(look, module, call, name)
        ):
            continue
        yield from look.finding(
            "downloaded-by-every-rank",
            "warning",
            (module, call),
            f"the {look.per_node} processes of a node download the same files to the same place at the same time, and"
            " may read what is not complete",
            "download only with LOCAL_RANK 0, and let the others wait in `dist.barrier()`",
        )
        return


def _is_ahead(look: Look, module: Module, call: ast.Call, name: str) -> bool:
    """Whether one rank has downloaded it before: the others wait in a barrier, or another call is for that rank."""
    if is_guarded(look, module, call, _waits_for_one_rank) or _is_in_turn(look, module, call):
        return True
    return any(is_for_one_rank(look, other, first) for other, first in look.calls(name))


def _is_in_turn(look: Look, module: Module, call: ast.Call) -> bool:
    """Whether it is in a `with` of a context manager of the code that lets ranks wait: `with local_main_first():`."""
    around = [
        item.context_expr for parent, _ in module.above(call) if isinstance(parent, ast.With) for item in parent.items
    ]
    names = {module.full_name(by.func).rpartition(".")[2] for by in around if isinstance(by, ast.Call)}
    functions = (n for one in look.program.modules for n in one.nodes if isinstance(n, ast.FunctionDef | ast.ClassDef))
    return any(one.name in names and "barrier" in ast.unparse(one) for one in functions)


def _waits_for_one_rank(module: Module, node: ast.AST) -> bool:
    """`if rank != 0: dist.barrier()` before it."""
    return any(
        isinstance(statement, ast.If)
        and is_about_a_rank(module, statement.test)
        and re.search(r"barrier|wait|download|sleep", ast.unparse(statement))
        for statement in module.before(node)
    )


_LOGGED = late(
    r"mlflow\.(?:log_(?:metrics?|params?|artifacts?|figure|image|text|dict|table)|(?:pytorch\.|tensorflow\.|keras\."
    r"|transformers\.|sklearn\.|pyfunc\.)log_model)"
)


def _logged(look: Look) -> Iterator[Finding]:
    said: set[str] = set()
    logged = [(m, call) for m in look.program.modules for call, name in m.calls if _LOGGED.fullmatch(name)]
    for module, call in logged:
        if module.path in said or is_for_one_rank(look, module, call) or "rank" in ast.unparse(call).lower():
            continue
        said.add(module.path)
        yield from look.finding(
            "logged-by-every-rank",
            "warning",
            (module, call),
            "all ranks log to the same MLflow run, so every value is logged once per rank",
            "log only on rank 0, or put the rank in the name",
        )


def _collectives(look: Look) -> Iterator[Finding]:
    """A collective that only one rank enters, and in which it waits forever."""
    for module, call in look.calls(*(f"torch.distributed.{name}" for name in _COLLECTIVES)):
        name = module.full_name(call.func).rpartition(".")[2]
        if any(k.arg == "group" for k in call.keywords) or len(call.args) > (0 if name == "barrier" else 2):
            continue
        test = _test_of_one_rank(look, module, call, name)
        if test is None:
            continue
        yield from look.finding(
            "collective-on-one-rank",
            "warning",
            (module, call),
            f"only ranks with `{test}` reach `{name}`, which waits for all ranks",
            "move it to where all ranks get",
        )


def _test_of_one_rank(look: Look, module: Module, call: ast.Call, name: str) -> str | None:
    """What only one rank fulfils to reach a collective: in its function, or wherever that is called."""
    if test := _test_around(look, module, call):
        return None if _is_met_elsewhere(look, module, call, name) else test
    function = module.function_of(call)
    if function is None or module.functions.get(function.name) is not function or not is_always(module, call):
        return None
    tests = set()
    for other, caller in look.program.callers(module, function):
        test = _test_around(look, other, caller)
        if test is None or _is_met_elsewhere(look, other, caller, name):
            return None
        tests.add(test)
    return tests.pop() if len(tests) == 1 else None


def _test_around(look: Look, module: Module, call: ast.Call) -> str | None:
    """What is true only on one rank where a call is: an `if` around it, or one before it that the others leave by."""
    for parent, child in module.above(call):
        if isinstance(parent, ast.If) and child in parent.body and _is_one_rank(look, module, parent.test):
            return ast.unparse(parent.test)
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
            break
    for statement in module.before(call):
        if (
            isinstance(statement, ast.If)
            and isinstance(statement.body[-1], ast.Return)
            and not statement.orelse
            and _is_one_rank(look, module, statement.test, ast.NotEq)
        ):
            return ast.unparse(statement.test).replace("!=", "==")
    return None


def _is_met_elsewhere(look: Look, module: Module, call: ast.Call, name: str) -> bool:
    """Whether the other ranks may meet a collective: in the same function, or in one that it calls."""
    scope = module.function_of(call) or module.tree
    functions = () if isinstance(scope, ast.FunctionDef) else module.functions.values()
    for other in ast.walk(scope):
        if not isinstance(other, ast.Call) or other is call or module.function_of(other) in functions:
            continue
        full = module.full_name(other.func)
        found = look.program.function(full, module)
        if full.rpartition(".")[2] == name or (found and name in ast.unparse(found[1])):
            return True
    return False


_A_RANK = late(r"(?i)\b(?:local_|global_)?rank\b|get_rank\(\)")


def _is_one_rank(look: Look, module: Module, test: ast.expr, how: type[ast.cmpop] = ast.Eq) -> bool:
    """Only `rank == 0`, `not rank` and similar tests, and names and functions for them."""
    if isinstance(test, ast.Name | ast.Attribute):
        values = module.assigned(ast.unparse(test))
        return len(values) == 1 and isinstance(values[0], ast.Compare) and _is_one_rank(look, module, values[0], how)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and how is ast.Eq:
        return bool(_A_RANK.fullmatch(ast.unparse(test.operand).rpartition("dist.")[2]))
    if isinstance(test, ast.Call) and how is ast.Eq:
        found = look.program.function(module.full_name(test.func), module)
        returns = [n.value for n in ast.walk(found[1]) if isinstance(n, ast.Return) and n.value] if found else []
        one = returns[0] if len(returns) == 1 else None
        return bool(found and isinstance(one, ast.Compare) and _is_one_rank(look, found[0], one))
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], how):
        sides = [test.left, test.comparators[0]]
        zero = any(isinstance(side, ast.Constant) and side.value == 0 for side in sides)
        return zero and any(_A_RANK.search(ast.unparse(side)) for side in sides)
    return False


_RANDOM = r"transforms\.(?:v2\.)?Random|\bRandom(?:Crop|Resized|Horizontal|Vertical|Rotation|Affine)|albumentations"


_OTHER_SEEDS = r"worker_init_fn|fork_rng|seed\w*\([^)\n]*rank|seed\s*\+=?[^\n]*rank|rank\w*(?:\(\))?\s*\+\s*\w*seed"


def _seeds(look: Look) -> Iterator[Finding]:
    """The same seed for the augmentation on all ranks."""
    if not look.program.uses(PARALLEL) or not look.program.uses(_RANDOM) or look.program.says(_OTHER_SEEDS):
        return
    for module, call in look.calls("torch.manual_seed", "random.seed", "numpy.random.seed"):
        if call.args and look.number(call.args[0]) is not None:
            yield from look.finding(
                "same-seed",
                "warning",
                (module, call),
                "every rank draws the same random numbers, so all augment their samples in the same way",
                "add the rank to the seed after you create the model",
            )
            return


def _workers(look: Look) -> Iterator[Finding]:
    if look.size is None or look.per_node is None:
        return
    for module, call in look.calls("torch.utils.data.DataLoader"):
        workers = look.number(_keywords(call).get("num_workers"))
        if workers and workers * look.per_node > look.size.vcpus:
            yield from look.finding(
                "too-many-workers",
                "warning",
                (module, call),
                f"{plural(look.per_node, 'process', 'processes')} x {workers} workers need more than the"
                f" {look.size.vcpus} cores of {look.size.name}",
                f"write `num_workers={max(1, look.size.vcpus // look.per_node - 1)}`",
            )
            return
