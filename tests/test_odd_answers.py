"""One job is one job, whatever is answered to its submission: every odd answer, and when the job comes into being."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from submitting import code_in, job, routes, workspace_of

from azml_dist import AzureML, Environment, Job, SubmitError, Sweep, Workspace
from azml_dist.azureml import arm
from azml_dist.azureml.submission import _looks
from azml_dist.emulator import Emulator, answer, odd, reset_after, reset_before
from azml_dist.model.search_space import Choice
from azml_dist.sweep import Objective

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

STATUSES = (200, 201, 202, 204, 302, 307, 400, 403, 404, 408, 409, 429, 500, 503, 504)
OTHER = json.dumps({"id": "/x", "name": "other", "properties": {"jobType": "Command", "status": "Running"}}).encode()
BODIES = {
    "nothing": b"",
    "HTML": b"<!DOCTYPE html><html><body><h1>Gateway</h1></body></html>",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "cut": b'{"id": "/subscriptions/x", "name": "one", "proper',
    "another job": OTHER,
    "deep": b"[" * 20_000,
    "not UTF-8": b'{"name": "\xff"}',
    "error": b'{"error": {"code": "InternalError", "message": "Later."}}',
}
MADE = {"never": (False, 0), "at once": (True, 0), "later": (True, 6), "too late": (True, 100)}
NO = tuple(status for status in STATUSES if 400 <= status < 500 and status != 408)
"""Statuses that with Azure's own error as the body are a clear no: then nothing was made."""

CASES = [
    (status, body, made)
    for status, body, made in itertools.product(STATUSES, BODIES, MADE)
    if not (status == 204 and body != "nothing") and not (status in NO and body == "error" and made != "never")
]


@pytest.fixture
def at_once(emulator: Emulator, azure_sdk: None, monkeypatch: pytest.MonkeyPatch) -> AzureML:
    """Looks as often as ever, and waits for nothing in between."""
    monkeypatch.setattr(arm, "BACKOFF", 0)
    emulator.assets.add_environment("torch")
    return AzureML(workspace_of(emulator), look_for=0, check=False)


def test_every_odd_answer_ends_in_one_job_or_none_and_is_said(emulator: Emulator, at_once: AzureML) -> None:
    wrong = [f"{case}: {words}" for case in CASES if (words := what_is_wrong(emulator, at_once, *case))]

    assert not wrong, "\n".join(wrong)


def what_is_wrong(emulator: Emulator, azure: AzureML, status: int, body: str, made: str) -> str | None:
    """What a submission did wrong, of which every answer is this one."""
    heard, unseen = MADE[made]
    emulator.forget()
    emulator.jobs.jobs.clear()
    emulator.jobs.unseen.clear()
    emulator.inject(odd(status, BODIES[body], heard=heard, unseen=unseen), route="jobs.put", times=None)
    result, error = submitted(azure, job(name=None))
    there = list(emulator.jobs.jobs)
    if isinstance(error, Exception) and not isinstance(error, SubmitError):
        return f"{type(error).__name__}: {error}"
    if len(there) != heard:
        return f"{len(there)} jobs"
    if made in ("at once", "later"):
        return None if result == there[0] else f"an error, and the job runs: {error}"
    if error is None:
        return f"a run {result}, of which there is no job"
    is_clear = body == "error" and status in NO
    if is_clear is ("azml-dist cancel " in str(error)):
        return f"it is {'clear' if is_clear else 'unclear'} whether there is a job: {error}"
    if made == "too late" and f"`azml-dist cancel {there[0]}`" not in str(error):
        return f"which job: {error}"
    return None


def submitted(azure: AzureML, one: Job | Sweep) -> tuple[str | None, Exception | None]:
    try:
        return azure.submit(one).name, None
    except Exception as error:
        return None, error


SOME = [
    odd(200, heard=True),
    odd(200, BODIES["HTML"], heard=True, unseen=4),
    odd(302, heard=True, location="https://login.example.com/"),
    odd(408, heard=True, unseen=4),
    odd(504, BODIES["HTML"], heard=True, unseen=4),
    reset_after(),
]


@pytest.mark.parametrize("fault", SOME, ids=str)
@pytest.mark.parametrize("times", [1, None], ids=["once", "always"])
def test_of_one_client_the_user_brought_nothing_else_holds(
    emulator: Emulator, at_once: AzureML, ml_client: Any, fault: Any, times: int | None
) -> None:
    """Its requests are not ours to watch, and its own attempts are ten."""
    from azure.core.pipeline.policies import RetryPolicy

    brought = type(ml_client)(
        *(at_once.workspace.credential, ml_client.subscription_id, ml_client.resource_group_name),
        ml_client.workspace_name,
        retry_policy=RetryPolicy(retry_backoff_factor=0),
    )
    emulator.inject(fault, route="jobs.put", times=times)

    run = AzureML(Workspace(client=brought), look_for=0, check=False).submit(job())

    assert list(emulator.jobs.jobs) == [run.name]


@pytest.mark.parametrize("fault", SOME, ids=str)
def test_a_sweep_is_one_sweep(emulator: Emulator, at_once: AzureML, fault: Any) -> None:
    emulator.inject(fault, route="jobs.put", times=None)

    run = at_once.submit(sweep())

    assert {name: one.body["jobType"] for name, one in emulator.jobs.jobs.items()} == {run.name: "Sweep"}


def sweep() -> Sweep:
    return Sweep(
        job=job(command="echo ${{inputs.a}}", inputs={"a": 1}),
        search_space={"a": Choice(values=(1, 2))},
        objective=Objective(primary_metric="loss", goal="minimize"),
    )


def test_of_a_list_each_job_is_one_and_what_is_unknown_is_said_of_its_own(emulator: Emulator, at_once: AzureML) -> None:
    refused, unclear = answer(400, code="UserError", message="No."), odd(200, BODIES["HTML"], heard=False)
    for fault in (refused, unclear, *SOME):  # the first two are tried once, so that each is the answer to one job
        emulator.inject(fault, route="jobs.put")

    results = at_once.submit_all([*(job() for _ in range(11)), sweep()])

    runs = [one.name for one in results if not isinstance(one, SubmitError)]
    errors = [str(one) for one in results if isinstance(one, SubmitError)]
    assert sorted(runs) == sorted(emulator.jobs.jobs)
    assert ["cancel" in error for error in sorted(errors, key=len)] == [False, True]


def test_a_job_that_appears_in_the_end_is_found_by_its_name(emulator: Emulator, at_once: AzureML) -> None:
    emulator.inject(odd(504, heard=True, unseen=30), route="jobs.put", times=None)
    with pytest.raises(SubmitError) as caught:
        at_once.submit(job(name="one"))
    emulator.forget()
    emulator.jobs.unseen.clear()

    run = at_once.submit(job(name="one"))

    assert str(caught.value) == (
        "cannot submit job one: Azure answered 504: Gateway Timeout; it is unknown whether the job was created: "
        "it did not appear within 0 s\n\nhint: if it appears later, cancel it with `azml-dist cancel one`; you can "
        "safely submit again with `name: one`, which finds or creates this one job"
    )
    assert run.name == "one"
    assert routes(emulator) == ["jobs.get"]


def test_a_clear_no_needs_no_look(emulator: Emulator, at_once: AzureML) -> None:
    """What the service refused was not made, and its own words are all that is said."""
    for status in (400, 401, 403, 404, 422, 429):
        emulator.forget()
        emulator.inject(answer(status, message="No."), route="jobs.put", times=None)

        with pytest.raises(SubmitError) as caught:
            at_once.submit(job())

        assert "cannot be known" not in str(caught.value)
        assert "jobs.get" not in routes(emulator)


def test_what_never_left_this_machine_needs_no_look(
    emulator: Emulator, at_once: AzureML, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once.workspace.arm.log_in()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    with pytest.raises(SubmitError, match="the proxy in HTTPS_PROXY"):
        at_once.submit(job())

    assert emulator.requests == []


@pytest.mark.parametrize("first", [odd(504, heard=True), reset_after(), odd(408, heard=True)], ids=str)
@pytest.mark.parametrize("status", [400, 409])
def test_a_clash_with_itself_is_no_clash(emulator: Emulator, at_once: AzureML, first: Any, status: int) -> None:
    """The first attempt made the job, and the second is told that there is one."""
    emulator.inject(first, route="jobs.put")
    emulator.inject(answer(status, message="A job with this name already exists."), route="jobs.put", times=None)

    run = at_once.submit(job())

    assert list(emulator.jobs.jobs) == [run.name]


def test_a_gateway_that_sends_twice_passes_on_a_clash(emulator: Emulator, at_once: AzureML) -> None:
    clash = b'{"error": {"code": "Conflict", "message": "A job with this name already exists."}}'
    emulator.inject(odd(409, clash, heard=True), route="jobs.put")

    run = at_once.submit(job())

    assert list(emulator.jobs.jobs) == [run.name]


def test_a_clash_with_another_job_is_one(emulator: Emulator, at_once: AzureML) -> None:
    """Somebody took the name after it was seen to be free."""
    at_once.submit(job(name="one", command="false"))
    emulator.jobs.unseen["one"] = 1

    with pytest.raises(SubmitError, match="run one already exists, and differs in its command"):
        at_once.submit(job(name="one"))


@pytest.mark.parametrize("fault", [answer(503), odd(200, BODIES["HTML"], heard=False)], ids=str)
def test_a_job_is_looked_for_with_patience(emulator: Emulator, at_once: AzureML, fault: Any) -> None:
    emulator.inject(reset_after(), route="jobs.put", times=None)
    emulator.inject(fault, route="jobs.get", times=12)

    run = at_once.submit(job())

    assert {name: one.status for name, one in emulator.jobs.jobs.items()} == {run.name: "NotStarted"}


@pytest.mark.parametrize("heard", [True, False])
def test_a_job_that_cannot_be_looked_for_is_canceled(emulator: Emulator, at_once: AzureML, heard: bool) -> None:
    emulator.inject(reset_after() if heard else reset_before(), route="jobs.put", times=None)
    emulator.inject(answer(503, retry_after=0), route="jobs.get", times=None)

    with pytest.raises(SubmitError) as caught:
        at_once.submit(job())

    assert [one.status for one in emulator.jobs.jobs.values()] == ["CancelRequested"] * heard
    assert ("it was created, and has been cancelled" in str(caught.value)) is heard
    assert ("created: Azure gives no clear answer" in str(caught.value)) is not heard
    assert len(emulator.requests) < 40


def test_who_may_not_look_is_not_kept_waiting(emulator: Emulator, azure: AzureML) -> None:
    """Nor does looking again help: this one would last a minute."""
    emulator.workspace.forbidden = {"jobs.get", "jobs.cancel"}
    emulator.inject(reset_after(), route="jobs.put", times=None)

    with pytest.raises(SubmitError, match="created: Azure gives no clear answer") as caught:
        azure.submit(job())

    (name,) = emulator.jobs.jobs
    assert f"cancel it with `azml-dist cancel {name}`" in str(caught.value)
    assert emulator.counts()["jobs.get"] == 1


def test_the_looks_are_bounded_and_the_last_is_at_the_end() -> None:
    looks = list(_looks(60))

    assert (looks[0], round(looks[-1], 6)) == (0, 60)
    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert pauses == sorted(pauses)
    assert (pauses[0] < 1, pauses[-1] < 10) == (True, True)


ASKED = ("codes.list", "codes.startPendingUpload", "blobs.put", "codes.put", "environments.put")
"""What a submission with code and an environment of its own asks for before its job."""


@pytest.mark.parametrize("route", ASKED)
def test_an_odd_answer_to_what_goes_before_is_an_error_in_a_line_and_no_job(
    emulator: Emulator, at_once: AzureML, tmp_path: Path, route: str
) -> None:
    wrong = []
    for status, body in itertools.product((200, 302, 502), BODIES):
        emulator.forget()
        emulator.jobs.jobs.clear()
        code = code_in(tmp_path / f"{status} {body}", {"train.sh": f"{route} {status} {body}"})
        environment = Environment(image="python:3.11", conda_file={"dependencies": [f"{status}-{body}"]})
        emulator.inject(odd(status, BODIES[body], heard=False), route=route, times=None)
        result, error = submitted(at_once, job(name=None, code=code, environment=environment))
        if isinstance(error, Exception) and not (
            isinstance(error, SubmitError) and "\n" not in error.problems[0].message
        ):
            wrong.append(f"{status} {body}: {type(error).__name__}: {error}")
        if list(emulator.jobs.jobs) != ([result] if result else []):
            wrong.append(f"{status} {body}: {list(emulator.jobs.jobs)} and {result}")

    assert not wrong, "\n".join(wrong)
