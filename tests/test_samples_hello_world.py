"""`hello_world` sees, under every distribution, the world that was planned; its scripts need no framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from needs import needs
from sampling import script, submit_here

from azml_dist.local.run import LocalRun

WORLDS = {
    "pytorch": {"rank 0 of 4, node 0", "rank 1 of 4, node 0", "rank 2 of 4, node 1", "rank 3 of 4, node 1"},
    "mpi": {"rank 0 of 4, node 0", "rank 1 of 4, node 0", "rank 2 of 4, node 1", "rank 3 of 4, node 1"},
    "tensorflow": {"worker 0 of 2, node 0", "worker 1 of 2, node 1", "ps 0 of 1, node 0"},
    "ray": {"rank 0 of 1, node 0"},
    "single": {"rank 0 of 1, node 0"},
}


NEEDS = {"mpi": [needs("mpirun")], "ray": [needs("ray")]}


@pytest.mark.parametrize("distribution", [pytest.param(kind, marks=NEEDS.get(kind, [])) for kind in WORLDS])
def test_each_process_says_who_it_is(distribution: str, tmp_path: Path) -> None:
    run = submit_here("hello_world", tmp_path, "--distribution", distribution)

    assert {f"{one['name']} of {one['of']}, node {one['node']}" for one in seen(run)} == WORLDS[distribution]


def test_the_variables_it_writes_down_hold_no_secret(tmp_path: Path) -> None:
    run = submit_here("hello_world", tmp_path, "--distribution", "single")

    [one] = seen(run)

    assert one["environment"]["AZUREML_RUN_ID"] == run.name
    assert not [name for name in one["environment"] if "TOKEN" in name]


def test_it_runs_without_any_launcher(tmp_path: Path) -> None:
    ended = script("hello_world", "train.py", root=tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert "Hello from rank 0 of 1 on node 0 (no distribution)" in ended.stdout


def seen(run: LocalRun) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in run.outputs["seen"].iterdir()]
