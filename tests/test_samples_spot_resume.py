"""`spot_resume` is killed half-way, goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from needs import needs
from running import await_
from sampling import job_of, train_alone, values

from azml_dist import Local
from azml_dist.local.run import LocalRun

pytestmark = needs("torch", "sklearn")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run all of whose training processes are killed at once, when its second checkpoint is there."""
    root = tmp_path_factory.mktemp("spot")
    run = Local(root=root, launcher="direct", retries=1).submit(job_of("spot_resume", steps=600))
    await_(lambda: list(run.outputs["checkpoints"].glob("step-000[1-9]*.pt")), 120)
    for process in run.state().processes:
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
    return run.wait(timeout=180)


def test_it_goes_on_where_it_was(killed: LocalRun) -> None:
    first, second = attempts(killed)

    done = begun_after(second)
    assert begun_after(first) == 0
    assert 100 <= done < 600
    assert f"step {done}:" in first
    assert f"step {done + 50}:" in second
    assert f"step {done}:" not in second


def test_it_ends_as_a_single_process_does_that_nobody_killed(killed: LocalRun, tmp_path: Path) -> None:
    alone = train_alone("spot_resume", tmp_path, "--steps", "600")

    for metric in ("step 600: loss", "step 600: test_accuracy"):
        assert values(attempts(killed)[1], metric) == pytest.approx(values(alone, metric), rel=0.05)
    assert values(alone, "step 600: test_accuracy")[0] >= 0.95


def test_the_last_two_checkpoints_are_kept(killed: LocalRun) -> None:
    names = sorted(file.name for file in killed.outputs["checkpoints"].iterdir())

    assert names == ["step-000550.pt", "step-000600.pt"]


def attempts(run: LocalRun) -> list[str]:
    """What rank 0 wrote, in each attempt."""
    logs = run.folder / "user_logs"
    return [(folder / "std_log_process_0.txt").read_text() for folder in (logs, logs / "retry_001")]


def begun_after(log: str) -> int:
    found = re.search(r"begins after step (\d+)", log)
    assert found, log
    return int(found[1])
