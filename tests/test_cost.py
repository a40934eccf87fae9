"""What a job may cost and has cost: by the workspace's list prices, never by figures of ours."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checking import compute
from checking import job as job
from checking import workspace as workspace
from emulated import SDK_WARNINGS
from submitting import workspace_of
from test_who_submits import cli

from azml_dist import AzureML, Job, JobError, RunFailed, SubmitError, Workspace, submit
from azml_dist.azureml.cost import Cost, Rate
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.run import AzureRun
from azml_dist.check.facts import HourPrice
from azml_dist.check.price import Price, ceiling_findings, money
from azml_dist.emulator import Emulator
from azml_dist.errors import Finding

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


def price(found: Any) -> dict[str, Any]:
    given: dict[str, Any] = found.to_dict()["price"]
    return given


# What it may cost


def test_the_price_is_that_of_the_workspace(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    found = workspace.check(job.with_(timeout=7200))

    told = price(found)
    assert told.pop("as_of")
    assert told == {
        "currency": "USD",
        "per_node_hour": 32.0,
        "nodes": 2,
        "ceiling": 128.0,
        "seconds": 7200,
        "spot": False,
        "source": "list price of eastus",
    }
    assert "2 nodes x 32.00 $ an hour; at most 2 h: up to 128.00 $" in str(found)
    assert "plus preparing, and idle time until scale-down (2.13 $)" in str(found)


def test_a_price_that_the_list_lacks_is_unknown_and_never_0(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    here = emulator.workspace
    for amount in (None, 0.0):
        here.vm_sizes = tuple(replace(size, price=amount) for size in here.vm_sizes)

        found = workspace.check(job.with_(timeout=7200))

        assert (price(found)["per_node_hour"], price(found)["ceiling"]) == (None, None)
        assert "2 nodes; the price is unknown" in str(found)


def test_without_a_timeout_nothing_bounds_the_cost(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    found = workspace.check(job)

    assert (price(found)["seconds"], price(found)["ceiling"]) == (None, None)
    assert "without a `timeout` there is no limit" in str(found)


def test_spot_is_up_to_the_price_and_no_discount(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, priority="LowPriority")

    found = workspace.check(job.with_(timeout=3600))

    assert (price(found)["spot"], price(found)["per_node_hour"]) == (True, 32.0)
    assert "x up to 32.00 $ an hour" in str(found)


# A ceiling


def test_a_job_above_its_ceiling_is_refused(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    with pytest.raises(SubmitError, match=r"may cost 128.00 \$, but the limit is 100.00 \$") as refused:
        submit(job.with_(timeout=7200), on=AzureML(workspace), max_cost=100)

    assert "`limits.timeout` of 5,625 seconds would fit" in str(refused.value.hint)
    assert emulator.jobs.jobs == {}
    submit(job.with_(timeout=5625), on=AzureML(workspace), max_cost=100)
    assert len(emulator.jobs.jobs) == 1
    with pytest.raises(SubmitError) as hardly_anything:
        submit(job.with_(timeout=7200), on=AzureML(workspace), max_cost=1)
    assert "not even a minute of this job fits that amount" in str(hardly_anything.value.hint)


def test_a_price_that_is_unknown_holds_no_ceiling(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    emulator.workspace.forbidden = {"vmSizes.list"}

    with pytest.raises(SubmitError, match=r"the price of the nodes is unknown, so a limit of 100.00 cannot"):
        AzureML(workspace).submit(job, max_cost=100)


def test_without_a_timeout_a_ceiling_holds_only_while_something_waits(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    told: list[str] = []
    AzureML(workspace).submit(job, max_cost=100, tell=lambda found: told.extend(found.lines()))

    assert told == [
        "note: timeout: without a `timeout`, the limit of 100.00 $ is enforced only while something waits for the"
        " run, such as `--wait` or `run.wait()`",
        "hint: a `limits.timeout` of 5,625 seconds fits that amount and ends the run by itself",
    ]
    assert "timeout" not in (next(iter(emulator.jobs.jobs.values())).body.get("limits") or {})


def test_a_ceiling_without_a_check_is_refused(workspace: Workspace, job: Job) -> None:
    with pytest.raises(JobError, match="`max_cost` needs the check, which reads the price"):
        AzureML(workspace).submit(job, max_cost=10, check=False)


def test_amounts_are_compared_as_they_are_and_none_is_shown_as_nothing(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    """Two nodes cost 0.0178 $ a second."""
    with pytest.raises(SubmitError, match=r"may cost 2.667 \$, but the limit is 2.666 \$"):
        AzureML(workspace).submit(job.with_(timeout=150), max_cost=2.666)
    here = emulator.workspace
    here.vm_sizes = tuple(replace(size, price=0.25) for size in here.vm_sizes)

    with pytest.raises(SubmitError, match=r"may cost 0.00014 \$, but the limit is 0.00010 \$"):
        AzureML(workspace).submit(job.with_(timeout=1), max_cost=0.0001)
    assert price(workspace.check(job.with_(timeout=1)))["ceiling"] == 0.00014
    assert [money(amount, "USD") for amount in (0.0, 0.0014, 0.0099, 0.01, 12345.678)] == [
        "0.00 $",
        "0.0014 $",
        "0.0099 $",
        "0.01 $",
        "12,345.68 $",
    ]


def test_the_timeout_that_fits_an_amount_is_accepted() -> None:
    """Though floating-point numbers are a little off."""
    for amount in (0.1, 0.3, 0.7, 1.1, 61.0):
        seconds = int(re.findall(r"[\d,]+", str(_above(amount, 36000).hint))[0].replace(",", ""))

        assert list(ceiling_findings([_price(seconds)], amount)) == []


def _price(seconds: int) -> Price:
    return Price("USD", 0.25, 2, 2 * 0.25 / 3600 * seconds, seconds, spot=False, as_of="2026-11-29", source="a list")


def _above(amount: float, seconds: int) -> Finding:
    [found] = ceiling_findings([_price(seconds)._replace(ceiling=1e9)], amount)
    return found


def test_who_waits_ends_the_run_at_the_ceiling(
    emulator: Emulator, workspace: Workspace, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.play("Queued", "Running")
    run = AzureML(workspace).submit(job, max_cost=0.01)  # 0.02 $ a second

    with pytest.raises(RunFailed, match="was cancelled at its cost limit"):
        run.wait(timeout=60)
    verdict = azure_run(workspace_of(emulator), run.name).verdict()
    assert verdict
    assert (verdict.kind, verdict.summary) == ("canceled", "cancelled at its cost limit of 0.01 $ (estimated)")

    assert f"run {run.name} has reached its limit of 0.01 $ (estimated): it is cancelled" in capsys.readouterr().err
    assert emulator.job(run.name).status == "Canceled"


def test_a_run_in_the_queue_costs_nothing(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    emulator.play("Queued", "Queued", "Queued", "Queued")
    run = AzureML(workspace).submit(job, max_cost=0.001)

    with pytest.raises(TimeoutError):
        run.wait(timeout=1)

    assert emulator.job(run.name).status == "Queued"
    assert run.cost() is None


def test_amounts_in_different_currencies_have_no_limit_that_can_be_enforced() -> None:
    one = Price("USD", 1.0, 1, 2.0, 7200, spot=False, as_of="2026-11-29", source="a list")

    assert list(ceiling_findings([one, one], 5.0)) == []
    assert [found.code for found in ceiling_findings([one, one._replace(currency="EUR")], 5.0)] == ["unknown-price"]
    assert [found.code for found in ceiling_findings([], 5.0)] == ["unknown-price"]


def test_of_several_steps_a_ceiling_says_what_each_may_cost() -> None:
    small = Price("USD", 1.0, 1, 2.0, 7200, spot=False, as_of="2026-11-29", source="a list")
    large = Price("USD", 30.0, 2, 120.0, 7200, spot=False, as_of="2026-11-29", source="a list")

    [found] = ceiling_findings([small, large], 61.0)

    assert (
        found.message == "the job may cost 122.00 $, but the limit is 61.00 $: 120.00 $ for 2 nodes + 2.00 $ for 1 node"
    )
    assert found.hint == "a `limits.timeout` of 3,600 seconds in each step would fit; or use fewer nodes"


# What it has cost


def ended(emulator: Emulator, run: AzureRun, minutes: int) -> None:
    """The run, having run so long."""
    emulator.job(run.name).past = [
        ("NotStarted", "2026-01-01T00:00:00.0000001+00:00"),
        ("Running", "2026-01-01T01:00:00.0000002+00:00"),
        ("Completed", f"2026-01-01T01:{minutes:02d}:00.0000003+00:00"),
    ]
    emulator.job(run.name).status = "Completed"


def test_what_a_run_has_cost_is_an_estimate(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    run = AzureML(workspace).submit(job)
    ended(emulator, run, 30)

    found = azure_run(workspace_of(emulator), run.name).cost()  # as another process would

    assert found
    assert found.so_far == 32.0
    assert str(found).startswith(
        "about 32.00 $ so far, estimated: 2 nodes x 32.00 $ an hour, 30 min, list price of eastus"
    )
    assert found.to_dict()["is_estimate"] is True


def test_the_cost_on_spot_nodes_is_a_maximum(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    compute(emulator, priority="LowPriority")
    run = AzureML(workspace).submit(job)
    ended(emulator, run, 30)

    told = cli(emulator, "status", run.name)

    assert "cost  at most about 32.00 $ so far, estimated: 2 nodes x up to 32.00 $ an hour, 30 min" in told.stdout


def test_the_time_that_a_run_has_cost_is_written_for_people() -> None:
    rate = Rate(2, HourPrice(32.0, "USD"), spot=False, as_of="2026-11-28", place="eastus")

    assert [str(Cost(rate, seconds)).split(", ")[2] for seconds in (0, 45, 5000, 7205)] == [
        *("0 s", "45 s", "83 min", "2 h 0 min"),
    ]


def test_what_cannot_be_read_is_unknown(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    run = AzureML(workspace).submit(job)
    ended(emulator, run, 30)
    emulator.workspace.forbidden = {"vmSizes.list"}

    found = azure_run(workspace_of(emulator), run.name).cost()

    assert found
    assert found.so_far is None
    assert str(found) == "unknown: no price of the 2 nodes can be read"


def test_serverless_runs_cost_too(emulator: Emulator, workspace: Workspace, job: Job) -> None:
    run = AzureML(workspace).submit(job.with_(compute=None, instance_type="Standard_ND96amsr_A100_v4"))
    ended(emulator, run, 15)

    found = azure_run(workspace_of(emulator), run.name).cost()

    assert found
    assert found.so_far == 16.0


def test_a_run_that_began_before_somebody_waited_has_cost_since_then(
    emulator: Emulator, workspace: Workspace, job: Job
) -> None:
    run = AzureML(workspace).submit(job, max_cost=100)
    emulator.job(run.name).past.append(("Running", "2026-01-01T01:00:00.0000002+00:00"))
    emulator.job(run.name).status = "Running"

    with pytest.raises(RunFailed, match="cancelled at its cost limit"):
        run.wait(timeout=60)


def test_every_command_holds_a_job_against_its_ceiling_or_shows_its_cost(
    emulator: Emulator, workspace: Workspace, job: Job, tmp_path: Path
) -> None:
    job.with_(timeout=7200).dump(tmp_path / "job.yml")
    file = str(tmp_path / "job.yml")

    checked = cli(emulator, "check", file, "--json")
    refused = cli(emulator, "submit", file, "--max-cost", "100")
    wrong = cli(emulator, "submit", file, "--max-cost", "100", "--no-check")
    emulator.play("Running", "Completed")
    waited = cli(emulator, "submit", file, "--wait", "--json", "--set", "name=one")
    told = cli(emulator, "status", "one", "--json")

    assert checked.returncode == 0
    assert json.loads(checked.stdout)["price"]["ceiling"] == 128.0
    assert refused.returncode == wrong.returncode == 2
    assert "the job may cost 128.00 $, but the limit is 100.00 $" in refused.stderr
    assert re.match(r"error: \S*job.yml:\d+: limits.timeout: the job may cost", refused.stderr)
    assert "--max-cost needs the check" in wrong.stderr
    assert json.loads(waited.stdout)["cost"]["nodes"] == 2
    assert "cost: about 0.0" in waited.stderr
    assert json.loads(told.stdout)["cost"]["currency"] == "USD"
