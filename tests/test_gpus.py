"""Emulated nodes share out the GPUs of this machine, so that `LOCAL_RANK` is the index of a GPU, as on Azure ML."""

from azml_dist.local.gpus import share, visible_gpus


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
