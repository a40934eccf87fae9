"""Compares numbers of nodes and processes in the script and its launchers with the job; checks the process group."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from azml_dist.errors import Finding
from azml_dist.notation import shell
from azml_dist.script.look import Look
from azml_dist.script.source import Module, Program
from azml_dist.script.trainers import of_trainers
from azml_dist.words import late, plural

_WRAPPERS = (".DistributedDataParallel", "torch.distributed.fsdp.FullyShardedDataParallel")
_STARTS_A_GROUP = (
    r"init_process_group|init_distributed|init_device_mesh|Accelerator|lightning|deepspeed|horovod|transformers"
    r"|init_dist|ray\.train|colossalai|composer"
)
_KNOWN_PACKAGES = frozenset(
    [
        *("torch", "torchvision", "torchaudio", "torchtext", "numpy", "scipy", "pandas", "PIL", "sklearn", "tqdm"),
        *("matplotlib", "yaml", "tensorboard", "mlflow", "datasets", "timm", "wandb", "cv2", "einops", "azure"),
    ]
)
"""Packages that do not start a process group by themselves."""


def of_counts(look: Look) -> Iterator[Finding]:
    """All findings about numbers of nodes and processes, and about what starts the process group."""
    yield from of_trainers(look)
    yield from _launchers(look)
    yield from _groups(look)
    yield from _parameter_servers(look)
    yield from _empty_ps(look)


_NODES = {"torchrun": ("--nnodes",), "accelerate launch": ("--num_machines", "--num-machines")}


def _launchers(look: Look) -> Iterator[Finding]:
    for launcher in shell.launchers(look.job.shell_command):
        names = _NODES.get("torchrun" if "torch.distributed" in launcher.text else launcher.text)
        count = launcher.option(*names) if names else None
        if count is None and launcher.text == "torchrun" and look.job.node_count > 1 and look.kind == "PyTorch":
            yield from _without_nodes(look)
        if count is None or not count.isdigit() or int(count) == look.job.node_count:
            continue
        few = int(count) < look.job.node_count
        yield Finding(
            "launcher-counts",
            "warning" if few else "error",
            f"`{launcher.text}` is for {plural(int(count), 'node')}, but the job has {look.job.node_count}: "
            + ("each node starts a separate run" if few else "it waits for the others forever"),
            "write `$AZUREML_NODE_COUNT`, the number of nodes of the job",
            "command",
        )


def _without_nodes(look: Look) -> Iterator[Finding]:
    """torchrun's `--nnodes` is 1 by default, or what `PET_NNODES` says."""
    if "PET_NNODES" not in look.known:
        nodes = look.job.node_count
        message = f"`torchrun` is for 1 node by default, but the job has {nodes}: each node starts a separate run"
        hint = "write `--nnodes $AZUREML_NODE_COUNT --node-rank $NODE_RANK --master-addr $MASTER_ADDR`"
        yield Finding("launcher-counts", "warning", message, hint, "command")


def _groups(look: Look) -> Iterator[Finding]:
    """A model that is wrapped for several processes before the process group exists."""
    wrapped = [*look.calls(*_WRAPPERS)] if look.is_parallel else []
    if not wrapped or not look.program.is_whole or look.program.says(_STARTS_A_GROUP):
        return
    if not all(_is_understood(look.program, module) for module in look.program.modules):
        return
    for module, call in wrapped:
        if not module.full_name(call.func).startswith("torch."):
            continue
        message = "nothing starts the process group that `DistributedDataParallel` needs, so it raises an error"
        hint = "call `torch.distributed.init_process_group()` first"
        yield from look.finding("no-process-group", look.level(call), (module, call), message, hint)
        return


def _is_understood(program: Program, module: Module) -> bool:
    """Whether a file imports nothing that may start a process group by itself."""
    for node in module.nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in _KNOWN_PACKAGES and not program.find(name, module):
                return False
    return True


def _parameter_servers(look: Look) -> Iterator[Finding]:
    if look.kind != "TensorFlow" or not getattr(look.job.distribution, "parameter_server_count", 0):
        return
    if look.program.says(r"chief"):
        return
    for module, call in look.calls(".distribute.ParameterServerStrategy", ".experimental.ParameterServerStrategy"):
        if ".v1." in module.full_name(call.func):
            continue
        message = "`ParameterServerStrategy` needs a chief, but Azure ML's `TF_CONFIG` has only workers and servers"
        hint = "make worker 0 the chief: change `TF_CONFIG` before you create the strategy"
        yield from look.finding("no-chief", "warning", (module, call), message, hint)


def _empty_ps(look: Look) -> Iterator[Finding]:
    """Microsoft's sample removes it, "necessary for TensorFlow 2.13 and later" (azureml-examples,
    `tensorflow/mnist-distributed`); TensorFlow 2.21 ends with SIGSEGV (seen)."""
    if '"ps":[]' not in look.tf_config or look.program.says(
        r"""["']ps["']|environ\[["']TF_CONFIG["']\]\s*=|(?:pop\(|del\s+[\w.]+\[)\s*["']TF_CONFIG"""
    ):
        return
    names = (".distribute.MultiWorkerMirroredStrategy", ".experimental.MultiWorkerMirroredStrategy")
    for module, call in look.calls(*names):
        if call.args or any(keyword.arg in ("cluster_resolver", None) for keyword in call.keywords):
            continue
        message = 'without parameter servers, `TF_CONFIG` has `"ps":[]`, which crashes TensorFlow 2.13 and later'
        hint = "remove it before you create the strategy, as `samples/tensorflow_multiworker/train.py` does"
        yield from look.finding("empty-ps", "warning", (module, call), message, hint)


_CPU_SIZE = late(r"(?i)Standard_[ABDEFHLM]\w*")
"""Azure's series without GPUs; those with GPUs start with an N."""


def of_backends(look: Look) -> Iterator[Finding]:
    """NCCL on a VM size without GPUs."""
    size = look.job.instance_type or ""
    if not _CPU_SIZE.fullmatch(size):
        return
    for module, call in look.calls("torch.distributed.init_process_group"):
        first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "backend"), None)
        if look.value(first) == "nccl":
            message = f"NCCL needs GPUs, but {size} has none"
            hint = "write `gloo`, or use a size with GPUs"
            yield from look.finding("nccl-without-gpu", look.level(call), (module, call), message, hint)


_DUMPS = frozenset(["TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"])


def of_dumps(look: Look) -> Iterator[Finding]:
    """A job that asks for dumps of hangs, and a script that will not leave any."""
    if not _DUMPS & set(look.job.environment_variables):
        return
    hint = "rehearse it with `azml-dist run`, whose watch also names the rank and line here"
    if look.kind in ("TensorFlow", "Ray"):
        message = f"if this job hangs, no dump will come: torch writes one over NCCL, and this is {look.kind}"
        yield Finding("no-dump-of-a-hang", "note", message, hint, "environment_variables")
    for module, call in look.calls("torch.distributed.init_process_group"):
        first = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "backend"), None)
        if look.value(first) == "gloo":
            message = "if this job hangs, no dump will come: only NCCL writes one when it times out, and this is gloo"
            yield from look.finding("no-dump-of-a-hang", "note", (module, call), message, hint)
