"""What processes used: sampled by the supervisor, kept with the run, shown, and found odd only where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from running import await_, call, pytorch

from azml_dist import Local, RunFailed
from azml_dist.local import figures
from azml_dist.local.figures import findings, fullest, read_samples, values
from azml_dist.runs.system import System, Used


def samples(seconds: int = 60, **columns: list[Any]) -> list[figures.Sample]:
    """A sample every 5 s, all the same."""
    return [{"at": 1000.0 + at, "attempt": 0, **columns} for at in range(0, seconds + 1, 5)]


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ([98.0, 99.0, 97.0, 12.0], "rank 3 used 12 % of a core, the others 99 %"),
        ([98.0, 60.0, 97.0, 12.0], "rank 3 used 12 % of a core, the others 60 to 98 %"),
        ([98.0, 12.0], "rank 1 used 12 % of a core, rank 0 98 %"),
        ([100.0, 8.0, 9.0, 7.0], "rank 0 used 100 % of a core, the others 9 %"),
        ([100.0, 100.0, *[9.0] * 6], "ranks 0 and 1 used 100 % of a core, the others 9 %"),
    ],
)
def test_a_rank_unlike_all_others_is_named(cpu: list[float], said: str) -> None:
    assert findings(samples(cpu=cpu)) == [said]


@pytest.mark.parametrize(
    "cpu",
    [
        [98.0, 99.0, 97.0, 60.0],  # less, but not by far
        [3.0, 0.2],  # many times, of almost nothing
        [98.0, 12.0, 98.0, 12.0],  # two kinds of ranks
        [98.0],
        [98.0, None],  # its figures are not known
    ],
)
def test_ranks_that_differ_little_or_by_halves_are_not_worth_a_word(cpu: list[float | None]) -> None:
    assert findings(samples(cpu=cpu)) == []


def test_nothing_is_said_of_half_a_minute_or_of_servers() -> None:
    assert findings(samples(25, cpu=[98.0, 12.0])) == []
    assert findings(samples(cpu=[98.0, 97.0, 1.0]), serving=[2]) == []
    assert findings([]) == []


def test_gpus_are_found_idle_unlike_or_with_room() -> None:
    total = [80000.0, 80000.0]
    cpu = [90.0, 90.0]

    assert findings(samples(cpu=cpu, gpu=[0.0, 0.0], gpu_memory=[10.0, 10.0], gpu_total=total)) == [
        "no rank used its GPU: the run may have used the CPU"
    ]
    assert findings(samples(cpu=cpu, gpu=[95.0, 2.0], gpu_memory=[70000.0, 70000.0], gpu_total=total)) == [
        "the GPU of rank 1 was busy 2 % of the time, rank 0 95 %"
    ]
    assert findings(samples(cpu=cpu, gpu=[95.0, 95.0], gpu_memory=[30400.0, 20000.0], gpu_total=total)) == [
        "GPU memory at 38 %: a larger batch may fit"
    ]
    assert findings(samples(cpu=cpu, gpu=[95.0, 95.0], gpu_memory=[70000.0, 60000.0], gpu_total=total)) == []
    assert fullest(samples(cpu=cpu, gpu_memory=[1.0, None], gpu_total=[4.0, 0.0]), 1) is None


def test_lines_that_the_supervisor_did_not_write_are_left_out(tmp_path: Path) -> None:
    good = '{"at":1.5,"attempt":0,"cpu":[1.0,null],"memory":[10,20]}'
    bad = [
        '{"at":1',
        "[]",
        '{"at":"x","attempt":0,"cpu":[]}',
        '{"at":1.0,"attempt":0,"cpu":["a"]}',
        "\x00" * 9,
        "[" * 5000,
    ]
    bad += [f'{{"at":1.0,"attempt":0,"cpu":[{value}]}}' for value in ("9" * 400, "NaN", "Infinity", "true")]
    (tmp_path / figures.FILE).write_text("\n".join([good, *bad, good.replace('"attempt":0', '"attempt":1')]))

    found = read_samples(tmp_path, 0)

    assert values(found, figures.CPU, 0) == [(1.5, 1.0)]
    assert values(found, figures.CPU, 1) == values(found, figures.CPU, 7) == []
    assert read_samples(tmp_path / "none", 0) == []


def test_a_value_holds_for_the_time_since_the_one_before() -> None:
    system = System([Used("rank 0", cpu=[(0.0, 50.0), (1.0, 100.0), (10.0, 0.0)], memory=[(0.0, 2e9)])])

    assert system.summary() == "cpu 10 % of a core, memory up to 2.0 GB"
    assert system.to_dict()["used"][0]["cpu"] == {"mean": 10.0, "most": 100.0, "last": 0.0}
    assert "rank 0" in str(system)
    assert System([Used("rank 0")]).summary() == ""


# Real runs

SMI = """#!/bin/sh
# What nvidia-smi prints in its loop: of two devices, and of the processes that use them.
case "$1" in
    --query-gpu=*) printf '0, GPU-a, 95, 30400, 80000\\n1, GPU-b, [N/A], 100, 80000\\n' ;;
    *) printf '%s, GPU-b\\n' "$(cat "$SHARED/pid1")" ;;
esac
sleep 600
"""


@pytest.mark.slow
def test_a_run_is_sampled_and_its_gpus_belong_to_the_ranks_that_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that another rank would take by its local rank: the driver's word counts."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(SMI)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    (tmp_path / "pid1").write_text("1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SHARED", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    command = "if [ $RANK = 0 ]; then while :; do :; done; else sleep 600; fi"
    run = Local(root=tmp_path / "runs", launcher="direct").submit(pytorch(command, processes=2))

    def used() -> System | None:
        found = run.system()
        return found if found and all(len(one.cpu) > 1 for one in found.used) and found.used[0].gpu else None

    system = await_(used)
    shown, status = str(run), json.loads(call("status", run.name, "--root", tmp_path / "runs", "--json").stdout)
    plots = call("metrics", run.name, "--system", "--root", tmp_path / "runs").stdout
    run.cancel()
    with pytest.raises(RunFailed):
        run.wait(timeout=30)

    first, second = system.used
    assert sum(value for _, value in first.cpu) > 4 * sum(value for _, value in second.cpu)
    assert 1e6 <= second.memory[-1][1] < 1e9
    assert first.gpu[-1][1] == 95.0
    assert first.gpu_memory[-1][1] == 38.0
    assert not second.gpu  # [N/A]
    assert "used  cpu" in shown
    assert status["system"]["used"][0]["gpu_memory"]["most"] == 38.0
    assert plots.split()[:9] == [*(run.name, "sampled", "on", "this", "machine"), "cpu", "(mean)", "memory", "(most)"]


@pytest.mark.slow
def test_a_run_without_samples_as_older_versions_left_it_says_so(tmp_path: Path) -> None:
    run = Local(root=tmp_path, launcher="direct").submit(pytorch("true")).wait()

    asked = call("metrics", run.name, "--system", "--root", tmp_path)

    assert run.system() is None
    assert run.describe()["system"] is None
    assert asked.returncode == 0
    assert f"it is not known what run {run.name} used" in asked.stderr


@pytest.mark.slow
def test_what_is_odd_is_among_the_findings_of_a_run_that_has_ended(tmp_path: Path) -> None:
    """The samples of a minute, put where the supervisor writes them."""
    text = "".join(f"{json.dumps(sample)}\n" for sample in samples(cpu=[98.0, 12.0]))
    (tmp_path / "minute").write_text(text)
    command = f"cat {tmp_path / 'minute'} > {tmp_path / 'runs' / 'odd' / figures.FILE}"

    run = Local(root=tmp_path / "runs", launcher="direct").submit(pytorch(command, processes=2, name="odd"))

    assert "rank 1 used 12 % of a core, rank 0 98 %" in run.wait(timeout=60).state().findings
    assert "used  cpu 12 to 98 % of a core" in str(run)
