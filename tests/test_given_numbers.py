"""Numbers that callers give as limits: seconds, amounts, counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from running import call, run_here
from submitting import job

from azml_dist import AzureML, Job, JobError, Local, Workspace, list_runs, submit
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator
from azml_dist.emulator.knobs import KnobError
from azml_dist.local.run import LocalRun
from azml_dist.model.sweep import RandomSampling
from azml_dist.model.termination import Bandit

NOWHERE = Workspace("5ca1ab1e-0000-4000-8000-000000000001", "group", "name")
ON = AzureML(NOWHERE)
TAKES: dict[str, tuple[Callable[[Any], object], tuple[Any, ...]]] = {
    "timeout": (lambda value: Local(timeout=value), (nan, inf, -inf, -1, 0, "5", True)),
    "preempt_after": (lambda value: Local(preempt_after=value), (nan, inf, -1, 0, "5")),
    "stall_after": (lambda value: Local(stall_after=value), (nan, inf, -1, "5")),
    "stall_timeout": (lambda value: Local(stall_timeout=value), (nan, inf, -1, 0)),
    "grace": (lambda value: Local(grace=value), (nan, inf, -1, "5")),
    "retries": (lambda value: Local(retries=value), (nan, inf, -1, 1.5, "1", True)),
    "look_for": (lambda value: AzureML(look_for=value), (nan, inf, -1, "5")),
    "max_cost": (lambda value: submit(job(), on=ON, max_cost=value), (nan, inf, -1, 0, "5")),
    "max_wait": (lambda value: submit(job(), on=ON, max_wait=value), (nan, inf, -1, 0, "5")),
    "limit": (lambda value: list_runs(azure=False, limit=value), (nan, inf, -1, "5")),
    "sample": (lambda value: AzureRun(NOWHERE, "one").rerun(sample=value), (nan, inf, -1, 0, 1.5)),
    "slack_factor": (lambda value: Bandit(slack_factor=value), (nan, inf, -1)),
    "slack_amount": (lambda value: Bandit(slack_amount=value), (nan, inf, -1)),
    "logbase": (lambda value: RandomSampling(logbase=value), (nan, inf)),
    "seed": (lambda value: RandomSampling(seed=value), (nan, inf)),
    "node_count": (lambda value: Job(command="true", node_count=value), (nan, inf, -1, 0)),
}
"""What takes a number, by its name, and values that make no sense there."""


@pytest.mark.parametrize("name", TAKES)
def test_a_number_that_is_no_limit_is_refused_by_its_name(name: str) -> None:
    give, values = TAKES[name]
    for value in values:
        with pytest.raises(JobError, match=rf"^`?{name}`?\W"):
            give(value)


def test_a_wait_takes_any_number_but_nan(tmp_path: Path) -> None:
    """A caller may have used up the time that it had, or have no limit."""
    here: LocalRun = run_here(Job(command="true"), root=tmp_path, launcher="direct")
    for timeout in (0, -1, 5.0, inf):
        assert here.wait(timeout=timeout) is here

    for run in (here, AzureRun(NOWHERE, "one")):
        for wrong in (nan, "5", True):
            with pytest.raises(JobError, match="`timeout` must be a number"):
                run.wait(timeout=wrong)  # type: ignore[arg-type]  # as a script without types may
        for max_wait in (nan, inf, 0, -1):
            with pytest.raises(JobError, match="`max_wait` must be"):
                run.wait(max_wait=max_wait)
    for tail in (nan, -1, 1.5):
        with pytest.raises(JobError, match="`tail` must be"):
            here.logs(tail=tail)  # type: ignore[arg-type]  # the same


TYPED = {
    "wait --timeout": ("nan", "inf", "-inf", "1e400", "-1", "x"),
    "run job.yml --timeout": ("nan", "inf", "1e400", "-1", "0", "x"),
    "run job.yml --preempt-after": ("nan", "inf", "-1", "0"),
    "run job.yml --stall-after": ("nan", "inf", "-1"),
    "run job.yml --stall-timeout": ("nan", "inf", "-1", "0"),
    "run job.yml --retries": ("nan", "-1"),
    "submit job.yml --max-cost": ("nan", "inf", "-1", "0"),
    "submit job.yml --max-wait": ("nan", "inf", "-1", "0"),
    "probe cluster --max-cost": ("nan", "inf", "-1", "0"),
    "probe cluster --max-wait": ("nan", "inf", "-1", "0"),
    "prune --older-than": ("nan", "inf", "-1d", f"{'9' * 400}d"),
    "list --limit": ("nan", "inf", "0"),
    "logs --tail": ("nan", "inf", "-1"),
}
"""What takes a number on the command line, and values that make no sense there."""


@pytest.mark.parametrize("typed", TYPED)
def test_a_number_that_is_no_limit_is_one_line_with_a_hint(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yml").write_text("command: 'true'\nenvironment: azureml:torch:1\ncompute: azureml:cluster\n")
    for value in TYPED[typed]:
        ended = call(*typed.split(), value)

        assert (ended.returncode, ended.stdout) == (2, ""), value
        assert re.fullmatch(r"error: .+\nhint: .+\n", ended.stderr), ended.stderr


def test_the_emulator_takes_no_endless_seconds(emulator: Emulator) -> None:
    for value in (nan, inf):
        with pytest.raises(KnobError, match=r"queue_seconds cannot be .*: it is a finite number of seconds"):
            emulator.knobs.set("queue_seconds", value)
