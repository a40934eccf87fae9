"""For each finding a job that has it, and one much like it that does not; those of scripts are in `scriptscore`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from azml_dist import Environment, Input, Job, Mpi, Output, Pipeline, PyTorch, Ray, Sweep
from azml_dist.check.facts import Asset, Compute, Facts, Here, Holder, HourPrice, Missing, Nodes, Size, Usage
from azml_dist.check.judge import judge
from azml_dist.errors import Finding
from azml_dist.job import Queue
from azml_dist.model.search_space import Choice, LogUniform
from azml_dist.plan.probed import Probed, Seen, keep, service_file
from azml_dist.sweep import BayesianSampling, Limits, Objective, RandomSampling

Case: TypeAlias = "Callable[[Path], Iterable[Finding]]"
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


def job(command: str = "echo 1", files: Mapping[str, str] | None = None, **fields: Any) -> Case:
    """What the plan of a job says."""

    def case(folder: Path) -> Iterable[Finding]:
        return _job(folder, command, files, fields).plan().findings

    return case


def _job(folder: Path, command: str, files: Mapping[str, str] | None, fields: Mapping[str, Any]) -> Job:
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    code = {"code": str(folder)} if files else {}
    return Job(**{"command": command, "environment": "azureml:torch:1", **code, **fields})


def folder_with(make: Callable[[Path], Any]) -> Case:
    """What the plan says of a code folder that is not made of texts alone."""

    def case(folder: Path) -> Iterable[Finding]:
        (folder / "code").mkdir()
        (folder / "code/a.txt").write_text("a")
        make(folder / "code")
        return Job(command="echo 1", code=str(folder / "code"), environment="azureml:torch:1").plan().findings

    return case


def _probed(port: int | None) -> Case:
    """What a plan says where a probe found a port; None if the file is damaged."""

    def case(folder: Path) -> Iterable[Finding]:
        ids = {"AZUREML_ARM_SUBSCRIPTION": "s", "AZUREML_ARM_RESOURCEGROUP": "g", "AZUREML_ARM_WORKSPACE_NAME": "w"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ids, "HOME": str(folder)}.items():
                patch.setenv(name, value)
            if port is None:
                service_file().parent.mkdir()
                service_file().write_text("{")
            else:
                keep("s/g/w", Probed("w", {"batch_master_port": Seen(port, "2026-11-29")}))
            return Job(command="true", node_count=2, distribution=PyTorch()).plan().findings

    return case


def _large(folder: Path) -> None:
    with (folder / "large.bin").open("wb") as file:
        file.truncate(101 << 20)


def _odd_name(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("odd")


def _link(folder: Path) -> None:
    (folder.parent / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(folder.parent / "outside.txt")


def _table(file: str) -> Case:
    """What the plan says of a table whose folder has one file."""

    def case(folder: Path) -> Iterable[Finding]:
        (folder / file).write_text("paths: [{file: ./table.csv}]\n")
        return _job(folder, "echo 1", None, {"inputs": {"a": Input(path=str(folder), type="mltable")}}).plan().findings

    return case


def unlisted(folders: tuple[str, ...]) -> Case:
    """What the plan says where some folders of the code may not be listed, as root may always."""

    def case(folder: Path) -> Iterable[Finding]:
        plan = _job(folder, "echo 1", {"a.txt": "a"}, {}).plan()
        return replace(plan, code=plan.code._replace(unlisted=folders)).findings

    return case


def sweep(command: str = "echo ${{inputs.lr}}", space: Any = None, **fields: Any) -> Case:
    """What the plan of a sweep says."""

    def case(folder: Path) -> Iterable[Finding]:
        trial = Job(command=command, environment="azureml:torch:1", inputs={"lr": 0.1})
        objective = Objective(primary_metric="loss", goal="minimize")
        given: dict[str, Any] = {"search_space": {"lr": space or Choice(values=[0.1, 0.2])}, **fields}
        return Sweep(job=trial, objective=objective, **given).plan().findings

    return case


def pipeline(text: str) -> Case:
    """What the plan of a pipeline says."""

    def case(folder: Path) -> Iterable[Finding]:
        (folder / "pipeline.yml").write_text(text)
        return Pipeline.load(folder / "pipeline.yml").plan().findings

    return case


def yaml(text: str) -> Case:
    """What the plan of a job or component in a file says."""

    def case(folder: Path) -> Iterable[Finding]:
        (folder / "job.yml").write_text(text)
        return Job.load(folder / "job.yml").plan().findings

    return case


A100 = Size("Standard_ND96amsr_A100_v4", "standardNDAMSA100v4Family", 96, 8, 1900, 2_048_000, HourPrice(32.0, "USD"))
CPU = Size("Standard_DS3_v2", "standardDSv2Family", 4, 0, 14, 28_672, HourPrice(0.25, "USD"))
CLUSTER = Compute("gpu-cluster", "AmlCompute", "Succeeded", "eastus", size=A100.name, max_nodes=4, nodes=Nodes(idle=4))
FAMILY, TOTAL = "Standard NDAMSA100v4 Family Cluster Dedicated vCPUs", "Total Cluster Dedicated Regional vCPUs"
WHOLE = {"node_count": 2, "distribution": PyTorch(process_count_per_node=8), "shm_size": "900g"}


def check(
    compute: Compute | Missing = CLUSTER,
    *,
    command: str = "python train.py",
    script: str = "import torch.distributed as dist\n\ndist.init_process_group('nccl')\n",
    sizes: Iterable[Size] = (A100, CPU),
    quota: Mapping[str, tuple[int, int]] | None = None,
    own_limit: int | None = None,
    others: Iterable[Compute] = (),
    missing: Asset | None = None,
    new: bool = False,
    max_cost: float | None = None,
    **fields: Any,
) -> Case:
    """What a check says, of a job that would start at once in this workspace if nothing else is given."""

    def case(folder: Path) -> Iterable[Finding]:
        given = {"compute": "gpu-cluster", **WHOLE, **fields}
        one = _job(folder, command, {"train.py": script}, given)
        rows = {FAMILY: (384, 960), TOTAL: (384, 2000), **(quota or {})}
        written = Asset("environments", "CliV2AnonymousEnvironment", "1")
        assets: dict[Asset, Any] = {
            Asset("environments", "torch", "1"): Here(),
            Asset("data", "digits", "1"): Here(),
            Asset("models", "net", "1"): Here(),
            Asset("codes", "code", "1"): Here(),
            Asset("datastores", "store"): Here(),
            written: Missing() if new else Here(),
        }
        facts = Facts(
            region="eastus",
            computes={"gpu-cluster": compute},
            all_computes=[*others, *([compute] if isinstance(compute, Compute) else [])],
            holders={"gpu-cluster": [Holder("calm_fox", 3)]},
            sizes={"eastus": {size.name.lower(): size for size in sizes}},
            usages={"eastus": [Usage(row, used, limit) for row, (used, limit) in rows.items()]},
            own_limits={"eastus": [] if own_limit is None else [Usage(FAMILY, 0, own_limit)]},
            assets=assets | ({missing: Missing()} if missing else {}),
            written_out={repr(one.environment): written},
            on="2026-11-28",
        )
        return judge(one.plan(), facts, WORKSPACE, max_cost).findings

    return case


def _with(**fields: Any) -> Compute:
    return CLUSTER._replace(**fields)


def _named(kind: str, name: str) -> tuple[Case, Case]:
    """A job that refers to something, missing and there."""
    path = {"data": Input(path="azureml:digits:1"), "models": Input(type="custom_model", path="azureml:net:1")}
    store = Input(path="azureml://datastores/store/paths/a/")
    fields: dict[str, dict[str, Any]] = {
        "environments": {"environment": "azureml:torch:1"},
        "codes": {"code": "azureml:code:1", "command": "echo 1"},
        "datastores": {"inputs": {"data": store}},
    }
    given = fields.get(kind) or {"inputs": {"data": path[kind]}}
    asset = Asset(kind, name, None if kind == "datastores" else "1")
    return check(missing=asset, **given), check(**given)


def _component(folder: Path, version: str) -> Iterable[Finding]:
    step = f"{{type: command, component: azureml:score:{version}, compute: azureml:gpu-cluster}}"
    (folder / "pipeline.yml").write_text(f"type: pipeline\njobs:\n  score: {step}\n")
    known: dict[Asset, Here | Missing] = {
        Asset("components", "score", "1"): Here(),
        Asset("components", "score", "2"): Missing(),
    }
    return judge(Pipeline.load(folder / "pipeline.yml").plan(), Facts(assets=known), WORKSPACE).findings


KUBERNETES = _with(kind="Kubernetes", size=None, nodes=None, instance_types={"gpu-type": 8})
CONDA = Environment(image="mcr.microsoft.com/base", conda_file={"dependencies": ["python=3.11", {"pip": ["torch"]}]})
SPOT = _with(is_spot=True)
LOW = {"Total Cluster Low Priority Regional vCPUs": (384, 2000)}
SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json\n"
COMPONENT = f"{SCHEMA}name: train\ntype: command\ncommand: echo 1\nenvironment: azureml:torch:1\n"
STEPS = "type: pipeline\njobs:\n  a: {{command: echo 1, environment: 'azureml:torch:1'{}}}\n"
TORCHRUN = "torchrun --nproc-per-node 2 --max-restarts 1"
TRAIN = {"train.py": "print(1)\n"}

CASES: dict[str, tuple[Case, Case]] = {
    # In a job
    "windows-line-ends": (
        job("bash run.sh", {"run.sh": "cd data\r\nls\r\n"}),
        job("bash run.sh", {"run.sh": "cd data\nls\n"}),
    ),
    "accelerate-starts-one": (
        job("accelerate launch --num_processes 2 train.py", TRAIN),
        job("accelerate launch --multi_gpu --num_processes 2 train.py", TRAIN),
    ),
    "empty-input": (job(inputs={"a": ""}), job(inputs={"a": "none"})),
    "placeholder": (job(inputs={"a": "CHANGE-ME"}), job(inputs={"a": "change"})),
    "file-name-not-utf-8": (folder_with(_odd_name), folder_with(lambda folder: None)),
    "folder-from-the-web": (
        job(inputs={"a": Input(path="https://host/folder")}),
        job(inputs={"a": Input(path="https://host/file", type="uri_file")}),
    ),
    "hidden-files-uploaded": (
        job(files={"a.py": "", "__pycache__/a.pyc": ""}),
        job(files={"a.py": "", "__pycache__/a.pyc": "", ".amlignore": "__pycache__\n"}),
    ),
    "idle-gpus": (
        job(instance_type="Standard_ND96isr_H100_v5", distribution=PyTorch(process_count_per_node=4), shm_size="9g"),
        job(instance_type="Standard_ND96isr_H100_v5", distribution=PyTorch(process_count_per_node=8), shm_size="9g"),
    ),
    "installed-by-every-rank": (
        job("pip install x && python t.py", distribution=PyTorch(process_count_per_node=2)),
        job("pip install x && python t.py", distribution=PyTorch(process_count_per_node=1), node_count=2),
    ),
    "large-file": (folder_with(_large), folder_with(lambda folder: (folder / "small.bin").write_bytes(b"0"))),
    "line-without-backslash": (job("python t.py\n  --lr 0.1"), job("python t.py \\\n  --lr 0.1")),
    "links-out-of-the-code": (
        folder_with(_link),
        folder_with(lambda folder: (folder / "link.txt").symlink_to(folder / "a.txt")),
    ),
    "little-shared-memory": (check(shm_size=None), check()),
    "max-instance-count-dropped": (
        job(docker_args=["--ipc=host"], max_node_count=4),
        job(docker_args="--ipc=host", max_node_count=4),
    ),
    "more-processes-than-gpus": (check(distribution=Mpi(process_count_per_node=9)), check()),
    "mpi-process-count": (job(distribution=Mpi()), job(distribution=Mpi(process_count_per_node=1))),
    "no-environment": (job(environment=None), job()),
    "no-infiniband": (
        job(instance_type="Standard_NC40ads_H100_v5", node_count=2, distribution=PyTorch()),
        job(instance_type="Standard_NC40ads_H100_v5"),
    ),
    "not-as-its-type": (_table("table.csv"), _table("MLTable")),
    "optional-part-in-a-job": (
        yaml("command: echo $[[--a ${{inputs.a}}]]\ninputs: {a: 1}\nenvironment: azureml:torch:1\n"),
        yaml("command: echo --a ${{inputs.a}}\ninputs: {a: 1}\nenvironment: azureml:torch:1\n"),
    ),
    "ray-preview": (job(distribution=Ray()), job(distribution=PyTorch())),
    "restarts-at-a-fixed-port": (
        job(f"{TORCHRUN} --master-port 29500 train.py", TRAIN),
        job(f"{TORCHRUN} --rdzv-backend c10d train.py", TRAIN),
    ),
    "restarts-share-a-store": (
        job(f"{TORCHRUN} --rdzv-backend c10d train.py", TRAIN),
        job(
            f"{TORCHRUN} --rdzv-backend c10d train.py",
            TRAIN,
            environment_variables={"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        ),
    ),
    "retired-size": (job(instance_type="Standard_NC24s_v3"), job(instance_type="Standard_NC40ads_H100_v5")),
    "set-by-azure-ml": (job(environment_variables={"RANK": "1"}), job(environment_variables={"MY_RANK": "1"})),
    "torn-value": (
        yaml("command: echo ${{inputs.a}}\ninputs: {a: 'b c'}\nenvironment: azureml:torch:1\n"),
        yaml("command: echo '${{inputs.a}}'\ninputs: {a: 'b c'}\nenvironment: azureml:torch:1\n"),
    ),
    "braces-without-dollar": (
        job("echo {{inputs.a}}", inputs={"a": 1}),
        job("echo ${{inputs.a}} {{ other.a }}", inputs={"a": 1}),
    ),
    "unchecked-line": (job("pip install x\npython t.py"), job("set -e\npip install x\npython t.py")),
    "unknown-address": (
        job("python t.py ${{inputs.d}}", inputs={"d": Input(path="azureml://datastores/store/a")}),
        job("python t.py ${{inputs.d}}", inputs={"d": Input(path="azureml://datastores/store/paths/a")}),
    ),
    "unchecked-pipe": (job("python t.py | tee x"), job("set -o pipefail; python t.py | tee x")),
    "unexpanded-variable": (
        job(environment_variables={"PATH": "/opt/x/bin:$PATH"}),
        job(environment_variables={"PATH": "/opt/x/bin:/usr/bin", "PATHS": "$PATH"}),
    ),
    "unreadable-folder": (unlisted(("closed",)), unlisted(())),
    "unrendered-variable": (
        job("echo ${{inputs.a}}", inputs={"a": 1}, environment_variables={"A": "${{inputs.a}}"}),
        job("echo ${{inputs.a}}", inputs={"a": 1}, environment_variables={"A": "1"}),
    ),
    "unset-variable": (job("echo $AZUREML_NO_SUCH"), job("echo $AZUREML_RUN_ID")),
    "upload-from-several-nodes": (
        job(outputs={"o": Output(mode="upload")}, node_count=2, distribution=PyTorch()),
        job(outputs={"o": Output(mode="upload")}),
    ),
    "value-outside": (
        yaml(f"{COMPONENT}inputs: {{a: {{type: integer, default: 9, max: 3}}}}\n"),
        yaml(f"{COMPONENT}inputs: {{a: {{type: integer, default: 2, max: 3}}}}\n"),
    ),
    # In a sweep, a pipeline, a component
    "bounds-of-the-logarithm": (
        sweep(space=LogUniform(min_value=0.001, max_value=0.1)),
        sweep(space=LogUniform(min_value=-7, max_value=-2)),
    ),
    "sampled-at-random-here": (
        sweep(sampling_algorithm=BayesianSampling()),
        sweep(sampling_algorithm=RandomSampling()),
    ),
    "short-timeout": (sweep(limits=Limits(timeout=30)), sweep(limits=Limits(timeout=60))),
    "unused-hyperparameter": (sweep("echo 1"), sweep()),
    "no-compute": (pipeline(STEPS.format("")), pipeline(STEPS.format(", compute: 'azureml:c'"))),
    "step-does-not-run-here": (
        pipeline("type: pipeline\njobs:\n  a: {type: spark, entry: {file: a.py}, compute: 'azureml:c'}\n"),
        pipeline(STEPS.format(", compute: 'azureml:c'")),
    ),
    "component-without-name": (yaml(COMPONENT.replace("name: train\n", "")), yaml(COMPONENT)),
    "ignored-field": (yaml(f"{COMPONENT}compute: azureml:c\n"), yaml(COMPONENT)),
    "value-output": (
        yaml(f"{COMPONENT}outputs: {{o: {{type: number}}}}\n"),
        yaml(f"{COMPONENT}outputs: {{o: {{type: uri_folder}}}}\n"),
    ),
    # In the workspace
    "no-such-compute": (check(Missing()), check()),
    "no-such-instance-type": (
        check(KUBERNETES, instance_type="cpu-type"),
        check(KUBERNETES, instance_type="gpu-type"),
    ),
    "probed-service": (_probed(6001), _probed(6000)),
    "service-not-read": (_probed(None), _probed(6000)),
    "no-such-environment": _named("environments", "torch"),
    "no-such-data": _named("data", "digits"),
    "no-such-model": _named("models", "net"),
    "no-such-code": _named("codes", "code"),
    "no-such-datastore": _named("datastores", "store"),
    "no-such-component": (lambda folder: _component(folder, "2"), lambda folder: _component(folder, "1")),
    "compute-failed": (check(_with(state="Failed")), check()),
    "compute-changing": (check(_with(state="Updating")), check()),
    "compute-stopped": (
        check(_with(kind="ComputeInstance", vm_state="Stopped"), node_count=1),
        check(_with(kind="ComputeInstance", vm_state="Running"), node_count=1),
    ),
    "too-many-nodes": (check(node_count=5), check(node_count=4)),
    "size-not-offered": (check(sizes=[CPU]), check()),
    "nccl-without-gpu": (check(_with(size=CPU.name)), check(_with(size=CPU.name), script="print(1)\n")),
    "no-quota": (
        check(_with(nodes=Nodes()), quota={FAMILY: (0, 96)}),
        check(_with(nodes=Nodes()), quota={FAMILY: (0, 192), TOTAL: (0, 192)}),
    ),
    "short-quota": (
        check(_with(nodes=Nodes()), quota={FAMILY: (900, 960)}),
        check(_with(nodes=Nodes()), quota={FAMILY: (768, 960)}),
    ),
    "workspace-quota": (
        check(_with(nodes=Nodes()), own_limit=100),
        check(_with(nodes=Nodes()), own_limit=192),
    ),
    "waits-for-nodes": (check(_with(nodes=Nodes(running=3, idle=1))), check(_with(nodes=Nodes(running=2, idle=2)))),
    "starts-nodes": (check(_with(nodes=Nodes(idle=1))), check(_with(nodes=Nodes(idle=2)))),
    "starts-at-once-elsewhere": (
        check(_with(nodes=Nodes(running=4)), others=[_with(name="other", nodes=Nodes(idle=2))]),
        check(_with(nodes=Nodes(running=4)), others=[_with(name="other", nodes=Nodes(idle=1))]),
    ),
    "spot-without-resume": (
        check(SPOT, quota=LOW),
        check(SPOT, quota=LOW, command="python train.py --resume-from outputs"),
    ),
    "ignored-by-compute": (check(queue=Queue(tier="spot")), check(queue=Queue())),
    "builds-image": (check(environment=CONDA, new=True), check(environment=CONDA)),
    "small-disk": (
        lambda folder: check(inputs={"data": Input(path=_gigabytes(folder, 3000), mode="download")})(folder),
        lambda folder: check(inputs={"data": Input(path=_gigabytes(folder, 1), mode="download")})(folder),
    ),
    "unknown-price": (
        check(sizes=[A100._replace(price=None)], max_cost=10.0, timeout=60),
        check(max_cost=10.0, timeout=60),
    ),
    "above-max-cost": (check(max_cost=100.0, timeout=7200), check(max_cost=128.0, timeout=7200)),
    "max-cost-needs-timeout": (check(max_cost=100.0), check(max_cost=100.0, timeout=3600)),
}


def _gigabytes(folder: Path, count: int) -> str:
    """A file of zeros that take no room."""
    folder = folder.with_name(f"{folder.name}-data")
    folder.mkdir(exist_ok=True)
    with (folder / "zeros").open("wb") as file:
        file.truncate(count << 30)
    return str(folder)
