"""Emulated nodes share out the GPUs of this machine, so that `LOCAL_RANK` is the index of a GPU, as on Azure ML."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needs
from running import call, lines_of, run_here, write_job

from azml_dist import Job, Mpi, PyTorch
from azml_dist.local.gpus import no_gpu_here, share, visible_gpus


def test_one_node_sees_all_gpus_as_the_caller_does() -> None:
    assert share(["0", "1"], 1, 2) == ([{}], None)


def test_each_node_gets_its_slice() -> None:
    nodes, finding = share(["0", "1", "4", "5"], 2, 2)

    assert nodes == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "4,5"}]
    assert finding is None


def test_with_too_few_the_run_uses_the_cpu_and_says_so() -> None:
    nodes, finding = share(["0"], 2, 2)

    assert nodes == [{"CUDA_VISIBLE_DEVICES": ""}] * 2
    assert finding == "4 processes on 1 GPU(s): this run uses the CPU"


def test_a_machine_without_gpus_is_left_alone() -> None:
    assert share([], 2, 4) == ([{}, {}], None)


def test_what_the_caller_may_see_is_what_is_shared() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}) == ["2", "3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_a_script_that_asks_nvidia_smi_on_several_nodes_is_told_what_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    (tmp_path / "start.sh").write_text("nvidia-smi -L | wc -l || true\n")
    job = Job(command="bash start.sh; true", code=str(tmp_path), node_count=2, distribution=PyTorch())

    [finding] = run_here(job, launcher="direct").state().findings

    assert finding.startswith("start.sh uses `nvidia-smi`, which shows all 4 GPUs of this machine on each node")
    assert "not the node's 2" in finding
    assert run_here(job.with_(node_count=1), launcher="direct").state().findings == []


# Jobs for GPUs, on a machine without


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"instance_type": "Standard_NC80adis_H100_v5"}, "this run has no GPU; Standard_NC80adis_H100_v5 has 2 GPUs"),
        ({"compute": "azureml:my-gpu-cluster"}, "`my-gpu-cluster` seems to have some"),
        ({"instance_type": "Standard_DS3_v2"}, None),
        ({"compute": "cpu-cluster"}, None),
        ({}, None),
    ],
)
def test_a_job_for_gpus_is_told_that_there_are_none_here(fields: dict[str, str], said: str | None) -> None:
    found = no_gpu_here(Job(command="x", **fields), [])  # type: ignore[arg-type]

    assert said in found if said and found else found is said
    assert no_gpu_here(Job(command="x", **fields), ["0"]) is None  # type: ignore[arg-type]


def test_only_jobs_that_may_use_torch_are_told_of_gloo() -> None:
    torch, mpi = (no_gpu_here(Job(command="x", compute="gpus", distribution=one), []) for one in (PyTorch(), Mpi()))

    assert torch == "this run has no GPU, and `gpus` seems to have some: it uses the CPU, and `gloo`"
    assert mpi == "this run has no GPU, and `gpus` seems to have some: it uses the CPU"


def test_it_is_told_before_the_run_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = write_job(tmp_path, "echo up >&2", compute="azureml:gpu-cluster")

    done = call("run", job, "--launcher", "direct")

    title, note, *rest = done.stderr.splitlines()
    assert (done.returncode, title.split()[0], note.split(",")[0]) == (0, "run", "note: this run has no GPU")
    assert not any(line.startswith("note:") for line in rest)


@pytest.mark.parametrize(
    "said",
    [
        "RuntimeError: Distributed package doesn't have NCCL built in",
        "AssertionError: Torch not compiled with CUDA enabled",
        "ValueError: ProcessGroupNCCL is only supported with GPUs, no GPUs found!",
        "RuntimeError: No CUDA GPUs are available",
    ],
)
def test_a_script_that_insists_on_a_gpu_gets_the_hint(said: str) -> None:
    run = run_here(Job(command=["python", "-c", f"raise SystemExit({said!r})"]))

    assert "the CPU and `gloo`" in (run.state().hint or "")


@needs("torch")
@pytest.mark.parametrize(
    "insists",
    [
        "import torch; torch.zeros(1).cuda()",
        "import torch.distributed as d; d.init_process_group('nccl', 'tcp://127.0.0.1:0', rank=0, world_size=1)",
    ],
)
def test_torch_says_it_in_these_words(insists: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = run_here(Job(command=["python", "-c", insists]), timeout=60)

    assert "the CPU and `gloo`" in (run.state().hint or ""), lines_of(run)
