"""Submission through the real client: what is sent, how often, and what is left when something goes wrong."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from submitting import build_in, code_in, job, routes, workspace_of

from azml_dist import AuthError, AzureML, Environment, Input, JobError, PyTorch, SubmitError, Workspace, submit
from azml_dist.azureml.git import without_secrets
from azml_dist.emulator import Emulator, StaticToken, answer, delay, odd, reset_after, reset_before
from azml_dist.plan.snapshot import take_snapshot

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return code_in(tmp_path / "code")


# What is sent


def test_a_submitted_job_runs_in_the_planned_world(emulator: Emulator, azure: AzureML, code: Path) -> None:
    planned = job(code=code, command="bash train.sh", node_count=2, distribution=PyTorch(process_count_per_node=2))

    run = azure.submit(planned)

    ran = emulator.run(run.name)
    assert ran.job.status == "Completed"
    for process in planned.plan().processes:
        assert ran.job.log(process.log) == f"rank {process.rank} of 4\n"


def test_a_first_submit_asks_no_more_than_it_must(emulator: Emulator, azure: AzureML, code: Path) -> None:
    azure.submit(job(code=code))

    assert routes(emulator) == [
        "codes.list",
        "codes.startPendingUpload",
        *["blobs.put"] * 3,
        "codes.put",
        "jobs.put",
    ]


def test_the_same_code_is_not_uploaded_again(emulator: Emulator, azure: AzureML, code: Path) -> None:
    azure.submit(job(code=code))
    emulator.forget()

    azure.submit(job(code=code))
    assert routes(emulator) == ["jobs.put"]
    AzureML(workspace_of(emulator), check=False).submit(job(code=code))  # as another process would

    assert routes(emulator) == ["jobs.put", "codes.list", "jobs.put"]


def test_changed_code_is_uploaded(emulator: Emulator, azure: AzureML, code: Path) -> None:
    azure.submit(job(code=code))
    (code / "notes.txt").write_text("other notes\n")

    azure.submit(job(code=code))

    assert emulator.counts()["codes.put"] == 2


def test_code_that_azure_ai_ml_uploaded_is_found(
    emulator: Emulator, azure: AzureML, ml_client: Any, code: Path
) -> None:
    (code / ".amlignore").write_text("notes.txt\n")
    (code / "Upper.py").write_text("1\n")
    ml_client.jobs.create_or_update(job(name="theirs", code=code).to_command())
    emulator.forget()

    azure.submit(job(code=code))

    assert routes(emulator) == ["codes.list", "jobs.put"]


def test_the_uploaded_files_are_those_of_the_plan(emulator: Emulator, azure: AzureML, code: Path) -> None:
    (code / ".amlignore").write_text("notes.txt\n")
    (code / "empty file").write_text("")
    (code / "50% + {more}, ünïcode?&#;=~.txt").write_text("odd\n")

    run = azure.submit(job(code=code))

    body = emulator.job(run.name).body
    uri = emulator.assets.by_id(body["codeId"])["properties"]["codeUri"]
    container, folder = uri.rsplit("/", 2)[1:]
    blobs = [name.partition("/")[2] for name in emulator.account.names(container, folder)]
    assert sorted(blobs) == [file.path for file in take_snapshot(code).files]
    assert emulator.account.get(container, f"{folder}/lib/part.txt") == b"part\n"
    assert emulator.account.get(container, f"{folder}/50% + {{more}}, ünïcode?&#;=~.txt") == b"odd\n"


def test_several_threads_upload_the_same_folder_once(emulator: Emulator, azure: AzureML, code: Path) -> None:
    threads = [threading.Thread(target=azure.submit, args=[job(code=code)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert emulator.counts()["codes.put"] == 1
    assert emulator.counts()["blobs.put"] == 3
    assert len(emulator.jobs.jobs) == 6


def test_a_large_file_is_sent_in_blocks(emulator: Emulator, azure: AzureML, code: Path) -> None:
    (code / "weights.bin").write_bytes(os.urandom(9 << 20))

    run = azure.submit(job(code=code, command="sha256sum weights.bin"))

    ran = emulator.run(run.name)
    expected = subprocess.run(["sha256sum", "weights.bin"], cwd=code, capture_output=True, text=True, check=True)
    assert ran.job.log("user_logs/std_log.txt") == expected.stdout


def test_one_file_of_code_is_in_a_folder_of_its_own(emulator: Emulator, azure: AzureML, code: Path) -> None:
    """As azure-ai-ml does: code is a folder there, and under the hash that azure-ai-ml gives the file."""
    run = azure.submit(job(code=code / "train.sh", command="ls *.*; test ! -e lib"))

    assert emulator.run(run.name).job.log("user_logs/std_log.txt") == "train.sh\n"
    assert emulator.run(run.name).job.status == "Completed"


def test_a_code_asset_is_referred_to(emulator: Emulator, azure: AzureML, code: Path) -> None:
    body = emulator.job(azure.submit(job(code=code)).name).body
    name = body["codeId"].split("/")[-3]

    for reference in (f"azureml:{name}:1", f"azureml:{body['codeId']}"):
        assert emulator.job(azure.submit(job(code=reference)).name).body["codeId"] == body["codeId"]


def test_the_compute_local_is_not_azure(emulator: Emulator, azure: AzureML) -> None:
    with pytest.raises(JobError, match="the compute `local` is this machine"):
        azure.submit(job(compute="local"))

    assert emulator.requests == []


# Local inputs


@pytest.mark.parametrize("secrets", ["key", "sas", "none"])
def test_local_inputs_are_uploaded_once(emulator: Emulator, azure: AzureML, code: Path, secrets: str) -> None:
    """Whatever the datastore answers: a key, a SAS, or that one's own login must do."""
    for store in emulator.workspace.datastores.values():
        store.secrets = secrets
    inputs = {"d": Input(path=str(code)), "f": Input(type="uri_file", path=str(code / "notes.txt"))}
    command = "cat ${{inputs.d}}/lib/part.txt ${{inputs.f}}"

    first, _ = azure.submit_all([job(inputs=inputs, command=command) for _ in range(2)])
    assert emulator.counts()["blobs.put"] == 4
    emulator.forget()
    AzureML(workspace_of(emulator), check=False).submit(job(inputs=inputs, command=command))  # as another process would

    assert emulator.counts()["blobs.put"] == 0
    assert not isinstance(first, SubmitError)
    assert emulator.run(first.name).job.log("user_logs/std_log.txt") == "part\nnotes\n"


def test_azure_ai_ml_uploads_a_table_without_its_file_unseen(
    emulator: Emulator, ml_client: Any, tmp_path: Path
) -> None:
    """So a plan must say it."""
    table = Input(type="mltable", path=str(code_in(tmp_path / "table", {"a.csv": "1\n"})))
    emulator.assets.add_environment("torch")
    one = job(name="table", inputs={"t": table})

    ml_client.jobs.create_or_update(one.to_command())

    assert emulator.job("table").body["inputs"]["t"]["jobInputType"] == "mltable"
    assert [found.code for found in one.plan().findings] == ["not-as-its-type"]


# Docker builds


def test_a_docker_build_is_uploaded_once_for_each_content(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    first, second = build_in(tmp_path / "one/context"), build_in(tmp_path / "two/context")
    azure.submit_all([job(environment=first), job(environment=first)])
    assert emulator.counts()["blobs.put"] == 2
    assert emulator.counts()["environments.put"] == 1
    emulator.forget()

    AzureML(workspace_of(emulator), check=False).submit(job(environment=second))  # as another process would

    assert emulator.counts()["blobs.put"] == 0
    assert len({emulator.job(name).body["environmentId"] for name in emulator.jobs.jobs}) == 1


def test_a_changed_docker_build_is_another_environment(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """Also where a rule brings the file back from an ignored folder, which azure-ai-ml's own hash passes over."""
    environment = build_in(tmp_path / "context")
    code_in(tmp_path / "context", {".amlignore": "kept/\n!kept/it.txt\n", "kept/it.txt": "1\n"})
    runs = [azure.submit(job(environment=environment))]
    (tmp_path / "context/kept/it.txt").write_text("2\n")

    runs.append(AzureML(workspace_of(emulator), check=False).submit(job(environment=environment)))

    uris = []
    for run in runs:
        found = emulator.assets.by_id(emulator.job(run.name).body["environmentId"])["properties"]
        uris.append(found["build"]["contextUri"])
    assert [text_at(emulator, f"{uri}kept/it.txt") for uri in uris] == ["1\n", "2\n"]


def text_at(emulator: Emulator, url: str) -> str:
    container, blob = url.removeprefix(f"https://{emulator.account.host}/").split("/", 1)
    return emulator.account.get(container, blob).decode()


def test_a_docker_build_that_azure_ai_ml_registered_is_no_obstacle(
    emulator: Emulator, azure: AzureML, ml_client: Any, tmp_path: Path
) -> None:
    one = job(name="theirs", environment=build_in(tmp_path / "context"))
    ml_client.jobs.create_or_update(one.to_command())

    azure.submit(one.with_(name="ours"))

    ids = {emulator.job(name).body["environmentId"] for name in ("theirs", "ours")}
    assert {emulator.assets.by_id(found)["properties"]["isAnonymous"] for found in ids} == {True}


@pytest.mark.parametrize("route", ["environments.*", "datastores.*", "blobs.*", "codes.*", "jobs.put"])
def test_nobody_sends_a_submission_elsewhere(emulator: Emulator, tmp_path: Path, route: str) -> None:
    """Whoever answers with a redirect gets neither the login nor data sent on."""
    for store in emulator.workspace.datastores.values():
        store.secrets = "none"
    emulator.assets.add_environment("torch")
    elsewhere = odd(307, b"", heard=False, Location="https://elsewhere.example/all")
    emulator.inject(elsewhere, route=route, times=None)
    data = code_in(tmp_path / "data")
    wanted = job(
        code=code_in(tmp_path / "code"), environment="azureml:torch@latest", inputs={"data": Input(path=str(data))}
    )

    with pytest.raises(SubmitError):
        AzureML(workspace_of(emulator), look_for=0, check=False).submit(wanted)

    assert "elsewhere.example" not in {request.host for request in emulator.requests}


def test_a_dockerfile_that_would_stay_here_is_said_before_any_request(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    environment = build_in(tmp_path / "context")
    (tmp_path / "context/.gitignore").write_text("*\n!*.txt\n")

    with pytest.raises(JobError, match=r"Dockerfile is not uploaded: \.gitignore:1: \*"):
        azure.submit(job(environment=environment))

    assert emulator.requests == []


# Lists


def test_a_list_is_uploaded_and_looked_up_once(emulator: Emulator, azure: AzureML, code: Path) -> None:
    jobs = [
        job(name=None, code=code, environment="azureml:torch@latest", inputs={"lr": i}, display_name=f"lr {i}")
        for i in range(12)
    ]

    runs = submit(jobs, on=azure)

    assert emulator.counts() == {
        "codes.list": 1,
        "codes.startPendingUpload": 1,
        "blobs.put": 3,
        "codes.put": 1,
        "environments.list": 1,
        "jobs.put": 12,
    }
    sent = [emulator.job(run.name).body["inputs"]["lr"]["value"] for run in runs if not isinstance(run, SubmitError)]
    assert sent == [str(i) for i in range(12)]


def test_a_refused_upload_does_not_stop_the_other_jobs(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """The upload of one job fails at once; those of the others take longer than that, and go through."""
    codes = [code_in(tmp_path / str(i), {"train.py": f"print({i})"}) for i in range(3)]
    emulator.inject(answer(403, code="AuthorizationFailure"), route="blobs.put", times=1)
    emulator.inject(delay(1), route="jobs.put", times=None)

    results = azure.submit_all([job(code=code) for code in codes])

    assert sorted(isinstance(result, SubmitError) for result in results) == [False, False, True]
    assert len(emulator.jobs.jobs) == 2


def test_one_bad_job_of_a_list_leaves_the_others(emulator: Emulator, azure: AzureML) -> None:
    good, bad, also_good = azure.submit_all([job(), job(compute="nope"), job()])

    assert isinstance(bad, SubmitError)
    assert "nope" in str(bad)
    assert not isinstance(good, SubmitError)
    assert not isinstance(also_good, SubmitError)
    assert len(emulator.jobs.jobs) == 2


def test_an_inline_environment_is_registered_once(emulator: Emulator, azure: AzureML) -> None:
    environment = Environment(image="python:3.11", conda_file={"dependencies": ["pip"]})

    azure.submit_all([job(environment=environment) for _ in range(3)])

    assert emulator.counts() == {"environments.put": 1, "jobs.put": 3}


@needs("git")
@pytest.mark.parametrize("state", ["clean", "changed", "detached", "no repository"])
def test_git_is_asked_once_for_a_list_and_its_answers_are_azure_ai_mls(
    emulator: Emulator,
    azure: AzureML,
    ml_client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    monkeypatch.chdir(repository(tmp_path / "repository", state))
    ml_client.jobs.create_or_update(job(name="theirs").to_command())
    asked = count_git(tmp_path, monkeypatch)
    environment = dict(os.environ)

    azure.submit_all([job(name=f"ours-{i}") for i in range(12)])

    expected = emulator.job("theirs").body["properties"]
    assert ("azureml.git.dirty" in expected) is (state != "no repository")
    assert [emulator.job(f"ours-{i}").body["properties"] for i in range(12)] == [expected] * 12
    again = 2 if state == "detached" else 1  # a branch that is not there is asked for again
    assert len(asked.read_text().splitlines()) <= 5 + again * 12
    assert dict(os.environ) == environment


REMOTES = {
    "https://example.com/team/repository.git": "https://example.com/team/repository.git",
    "git@example.com:team/repository.git": "git@example.com:team/repository.git",
    "ssh://git@example.com:22/team/repository.git": "ssh://git@example.com:22/team/repository.git",
    "/srv/git/repository": "/srv/git/repository",
    "https://SECRET@example.com/repository": "https://example.com/repository",
    "https://user:SECRET@example.com/repository": "https://example.com/repository",
    "http://user:SECRET@example.com/repository": "http://example.com/repository",
    "http://user:SEC/RET@example.com/repository": "http://example.com/repository",
    "https://example.com/repository.git?token=SECRET&x=1": "https://example.com/repository.git",
    "https://example.com/repository.git;token=SECRET": "https://example.com/repository.git",
    "https://example.com/repository.git#SECRET": "https://example.com/repository.git",
    "https://example.com/SECRET@example.com/repository": "https://example.com/repository",
    "ssh://git:SECRET@example.com/repository": "ssh://git@example.com/repository",
    "oauth2:SECRET@example.com:team/repository.git": "example.com:team/repository.git",
    "git+https://user:SECRET@example.com/repository": "git+https://example.com/repository",
    "ftp://user:SECRET@example.com/repository": "ftp://example.com/repository",
    "codecommit::region://user:SECRET@repository": "codecommit::region://repository",
    "ext::sh -c 'git-over --token SECRET %S repository'": "ext::",
    "https://example.com/ghp_0123456789abcdefghijSECRET/repository": "https://example.com/***/repository",
    "git@example.com:glpat-0123456789abcdefSECRET/repository": "git@example.com:***/repository",
}


@pytest.mark.parametrize(("remote", "noted"), REMOTES.items())
def test_a_remote_is_noted_without_its_secrets(remote: str, noted: str) -> None:
    assert without_secrets(remote) == noted
    assert without_secrets(noted) == noted


@needs("git")
@pytest.mark.parametrize("count", [1, 2])
def test_secrets_of_the_repository_stay_here(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Those of the remote, of what git makes of it (`insteadOf`), of variables; branch and commit are noted anyway."""
    monkeypatch.chdir(repository(tmp_path / "repository", "clean"))
    for command in (
        ("remote", "set-url", "origin", "ours:repository?token=SECRET"),
        ("config", "url.https://user:SECRET@example.com/.insteadOf", "ours:"),
    ):
        subprocess.run(["git", *command], check=True)
    monkeypatch.setenv("AZUREML_GIT_BUILD_URI", "https://SECRET@example.com/builds/1?sig=SECRET")

    azure.submit_all([job(name=f"ours-{i}") for i in range(count)])

    noted = emulator.job("ours-0").body["properties"]
    assert noted["mlflow.source.git.repoURL"] == "https://example.com/repository"
    assert noted["mlflow.source.git.branch"] == "trunk"
    assert "SECRET" not in str([emulator.job(f"ours-{i}").body for i in range(count)])
    assert os.environ["AZUREML_GIT_BUILD_URI"] == "https://SECRET@example.com/builds/1?sig=SECRET"


def repository(folder: Path, state: str) -> Path:
    """A folder in a git repository, or in none."""
    (folder / "here").mkdir(parents=True)
    if state == "no repository":
        return folder / "here"
    (folder / "here/file").write_text("1\n")
    author = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    for command in (
        ("init", "-q", "-b", "trunk"),
        ("remote", "add", "origin", "https://example.com/repository.git"),
        ("add", "."),
        (*author, "commit", "-qm", "One"),
        *([("checkout", "-q", "--detach")] if state == "detached" else []),
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    if state == "changed":
        (folder / "here/file").write_text("2\n")
    return folder / "here"


def count_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each call of git from now on."""
    asked, real = folder / "asked", shutil.which("git")
    asked.touch()
    (folder / "bin").mkdir()
    script = folder / "bin/git"
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return asked


def test_a_dry_run_of_a_list_is_its_plans(code: Path) -> None:
    plans = submit([job(code=code), job(node_count=2, distribution=PyTorch())], dry_run=True)

    assert [plan.world.world_size for plan in plans] == [1, 2]


def test_two_jobs_of_one_name_are_refused(emulator: Emulator, azure: AzureML) -> None:
    with pytest.raises(JobError, match="two jobs in the list are named one"):
        azure.submit_all([job(name="one"), job(name="one", command="false")])

    assert emulator.requests == []


def test_what_all_jobs_need_fails_once(emulator: Emulator, azure: AzureML, code: Path) -> None:
    emulator.workspace.forbidden = {"codes.list"}

    results = azure.submit_all([job(code=code) for _ in range(5)])

    assert all(isinstance(result, AuthError) for result in results)
    assert routes(emulator) == ["codes.list"]


def test_no_jobs_are_no_requests(emulator: Emulator, azure: AzureML) -> None:
    assert azure.submit_all([]) == []


# Names


def test_the_name_is_fixed_before_the_first_request(emulator: Emulator, azure: AzureML) -> None:
    emulator.inject(reset_after(), route="jobs.put", times=3)

    run = azure.submit(job())

    assert list(emulator.jobs.jobs) == [run.name]


def test_a_named_job_that_is_there_is_not_submitted_again(
    emulator: Emulator, azure: AzureML, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = job(name="one", code=code, node_count=2, distribution=PyTorch(process_count_per_node=2), inputs={"a": 1})
    azure.submit(one)
    emulator.job("one").advance("Running")
    emulator.forget()

    again = azure.submit(one)

    assert again.name == "one"
    assert "run one was submitted before and is Running; nothing new was started" in capsys.readouterr().err
    assert routes(emulator) == ["jobs.get"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"command": "false"}, "command"),
        ({"inputs": {"a": 2}}, "inputs"),
        ({"node_count": 3}, "resources"),
        ({"distribution": PyTorch(process_count_per_node=3)}, "distribution"),
        ({"environment_variables": {"A": "c"}}, "environment variables"),
        ({"environment": "azureml:torch:2"}, "environment"),
        ({"compute": "other"}, "compute"),
        ({"timeout": 5}, "timeout"),
    ],
)
def test_a_changed_job_under_the_name_of_another_is_refused(
    emulator: Emulator, azure: AzureML, change: dict[str, Any], word: str
) -> None:
    one = job(
        name="one",
        node_count=2,
        distribution=PyTorch(process_count_per_node=2),
        inputs={"a": 1},
        environment_variables={"A": "b"},
        timeout=9,
    )
    azure.submit(one)

    with pytest.raises(SubmitError, match=f"run one already exists, and differs in its {word}"):
        azure.submit(one.with_(**change))

    assert emulator.job("one").body["command"] == "true"


def test_changed_code_under_the_name_of_another_is_refused(emulator: Emulator, azure: AzureML, code: Path) -> None:
    azure.submit(job(name="one", code=code))
    (code / "notes.txt").write_text("other")

    with pytest.raises(SubmitError, match="differs in its code"):
        azure.submit(job(name="one", code=code))


# Variables of the caller


def test_own_variables_are_sent_and_shown_nowhere(
    emulator: Emulator,
    azure: AzureML,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    own_home: Path,
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-value")
    caplog.set_level(logging.DEBUG)
    one = job(environment_variables={"TOKEN": None})

    run = azure.submit(one)

    assert emulator.job(run.name).body["environmentVariables"] == {"TOKEN": "s3cret-value"}
    shown = "".join([*capfd.readouterr(), caplog.text, str(one.plan()), repr(one), repr(run)])
    assert "s3cret-value" not in shown
    assert not [file for file in own_home.rglob("*") if file.is_file() and b"s3cret-value" in file.read_bytes()]


def test_own_variables_are_in_no_error(emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the service quotes what it refuses: the value is the name of a compute, too."""
    import traceback

    monkeypatch.setenv("TOKEN", "s3cret-value")
    one = job(compute="s3cret-value", environment_variables={"TOKEN": None})

    with pytest.raises(SubmitError) as caught:
        azure.submit(one)

    assert "s3cret-value" not in "".join(traceback.format_exception(caught.value))


def test_an_own_variable_that_is_not_set_is_said_before_any_request(emulator: Emulator, azure: AzureML) -> None:
    with pytest.raises(JobError, match="the job takes NOT_SET from your environment"):
        azure.submit(job(environment_variables={"NOT_SET": None}))

    assert emulator.requests == []


# Faults


FAULTS = {
    "429": answer(429, retry_after=0.1),
    "503": answer(503),
    "reset before": reset_before(),
    "reset after": reset_after(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_at_any_request_ends_in_one_job(emulator: Emulator, azure_sdk: None, code: Path, fault: Any) -> None:
    """Every request of a submit, in turn; each in a workspace that does not know the code yet."""
    emulator.assets.add_environment("torch")
    environment = build_in(code / "context")
    client = workspace_of(emulator).client
    whole = job(code=code, environment=environment, inputs={"d": Input(path=str(code / "lib"))})

    def submit_one(name: str) -> Any:
        return AzureML(Workspace(client=client), check=False).submit(whole.with_(name=name))

    submit_one("whole")
    count = len(emulator.requests)
    assert count > 15

    for index in range(count):
        (code / "notes.txt").write_text(f"{fault} {index}\n")
        for file in ("lib/part.txt", "context/part.txt"):
            (code / file).write_text(f"{fault} {index}\n")
        emulator.jobs.jobs.clear()
        emulator.forget()
        emulator.inject(fault, at=index)

        run = submit_one(f"one-{index}")

        assert list(emulator.jobs.jobs) == [run.name]
        assert emulator.job(run.name).status == "NotStarted"
        assert emulator.requests[index].fault, f"there was no request {index}"


@pytest.mark.parametrize("fault", [answer(503), answer(429, retry_after=0), reset_before()])
def test_a_fault_that_stays_is_an_error_and_no_job(emulator: Emulator, azure: AzureML, code: Path, fault: Any) -> None:
    """What happens where it stays at the job's own request: `test_odd_answers.py`."""
    emulator.inject(fault, route="codes.startPendingUpload", times=None)

    with pytest.raises(SubmitError, match=r"cannot submit job run-\w+: "):
        azure.submit(job(code=code))

    assert emulator.jobs.jobs == {}
    assert len(emulator.requests) < 20


def test_a_failing_blob_request_costs_no_pause_worth_the_name(emulator: Emulator, azure: AzureML, code: Path) -> None:
    for fault in (answer(503), reset_before()):
        (code / "notes.txt").write_text(str(fault))
        emulator.inject(fault, route="blobs.put")
        began = time.monotonic()

        azure.submit(job(code=code))

        assert time.monotonic() - began < 10  # azure-storage-blob's own pause is 15 s


# The workspace


CONFIG = '{"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}'
FOREIGN = {
    "of a model": '{"model_type": "bert", "architectures": ["BertModel"]}',
    "with a scope of its own": '{"Scope": "read/write"}',
    "with ids that are none": '{"subscription_id": 1, "resource_group": null, "workspace_name": "w"}',
    "a list": "[1, 2]",
    "null": "null",
    "broken": '{"subscription_id": "s',
    "not UTF-8": b"\xff\xfe",
    "a folder": None,
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("place", ["config.json", ".azureml/config.json"])
def test_a_config_file_of_something_else_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: str, place: str
) -> None:
    """Both lie where the same kind of file is looked for, and the foreign one is nearer."""
    near, far = tmp_path / "deep" / place, tmp_path / place
    for file in (near, far):
        file.parent.mkdir(parents=True, exist_ok=True)
    far.write_text(CONFIG)
    text = FOREIGN[foreign]
    near.mkdir() if text is None else near.write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "deep/er").mkdir()
    monkeypatch.chdir(tmp_path / "deep/er")

    here = Workspace()

    assert (here.subscription_id, here.resource_group, here.name) == ("s", "g", "w")
    assert Workspace(name="other").name == "other"


def test_a_config_file_in_its_own_folder_goes_before_a_nearer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `MLClient.from_config` looks: everywhere for `.azureml/config.json`, then for `config.json`."""
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml/config.json").write_text(CONFIG)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/config.json").write_text(CONFIG.replace('"w"', '"other"'))
    monkeypatch.chdir(tmp_path / "deep")

    assert Workspace().name == "w"


@pytest.mark.parametrize(
    ("environment", "given", "found"),
    [
        ((), {}, ("s", "g", "w")),
        (("es",), {}, ("s", "g", "w")),
        (("es", "eg"), {}, ("s", "g", "w")),
        (("", "eg", "ew"), {}, ("s", "g", "w")),
        (("es", "eg", "ew"), {}, ("es", "eg", "ew")),
        (("es", "eg", "ew"), {"name": "given"}, ("es", "eg", "given")),
        (("es", "eg"), {"name": "given"}, ("es", "eg", "given")),
        (("es",), {"name": "given"}, ("s", "g", "given")),
        (("es",), {"subscription_id": "given"}, ("given", "g", "w")),
    ],
)
def test_ids_of_the_environment_and_of_a_file_are_never_mixed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: tuple[str, ...],
    given: dict[str, str],
    found: tuple[str, str, str],
) -> None:
    (tmp_path / "config.json").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    names = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")
    for name, value in zip(names, environment, strict=False):
        monkeypatch.setenv(name, value)

    here = Workspace(**given)

    assert (here.subscription_id, here.resource_group, here.name) == found


def test_the_workspace_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZUREML_ARM_SUBSCRIPTION", "s")
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "g")
    with pytest.raises(SubmitError, match="no Azure ML workspace is configured") as caught:
        _ = Workspace().name
    assert "AZUREML_ARM_WORKSPACE_NAME" in str(caught.value)
    assert "AZUREML_ARM_SUBSCRIPTION" not in str(caught.value)

    monkeypatch.setenv("AZURE_ML_WORKSPACE_NAME", "w")

    assert (Workspace().subscription_id, Workspace().resource_group, Workspace().name) == ("s", "g", "w")


def test_an_existing_client_is_used(emulator: Emulator, ml_client: Any, code: Path) -> None:
    emulator.assets.add_environment("torch")
    workspace = Workspace(client=ml_client)

    run = AzureML(workspace, check=False).submit(job(code=code))

    assert workspace.client is ml_client
    assert list(emulator.jobs.jobs) == [run.name]


def test_in_a_sovereign_cloud_only_its_own_hosts_are_asked(azure_sdk: None, emulator: Emulator) -> None:
    """The names of that cloud are asked, which the emulator does not have."""
    workspace = Workspace("s", "g", "w", credential=StaticToken(emulator.workspace), cloud="AzureUSGovernment")
    assert workspace.studio_url("one").startswith("https://ml.azure.us/runs/one?")
    try:
        with pytest.raises(SubmitError):
            AzureML(workspace, check=False).submit(job(name="one"))
        assert {request.host for request in emulator.requests} == {"management.usgovcloudapi.net"}
    finally:
        emulator.problems.clear()
        Workspace("s", "g", "w", credential=StaticToken(emulator.workspace), cloud="AzureCloud").client  # noqa: B018
