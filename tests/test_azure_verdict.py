"""Why a run on Azure ML failed: what the service and the logs say, read by the real client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import run_here
from submitting import code_in, job
from test_azure_run import at_the_workspace

from azml_dist import AzureML, PyTorch, RunFailed, TensorFlow
from azml_dist.azureml.judged import noted_verdict
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, answer
from azml_dist.overview import overview
from azml_dist.verdict.verdict import Verdict

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

CODE = "/mnt/azureml/cr/j/0a1b2c/exe/wd"
LOST = "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.4]:38032\n"
FAILED = "Execution failed. User process 'python' exited with status code 1."


@pytest.fixture
def run(azure: AzureML) -> AzureRun:
    """A run of 2 x 2 processes that waits for the test."""
    return azure.submit(job(node_count=2, distribution=PyTorch(process_count_per_node=2)))


def raised(error: str, file: str = "train.py", line: int = 12, source: str = "step()") -> str:
    return f'Traceback (most recent call last):\n  File "{CODE}/{file}", line {line}, in main\n    {source}\n{error}\n'


def fail(emulator: Emulator, run: AzureRun, logs: Mapping[int | str, str], message: str = FAILED) -> Verdict:
    """The verdict on the run, once it has these logs and failed."""
    here = emulator.job(run.name)
    here.advance("Running")
    for name, text in logs.items():
        here.write_log(name if isinstance(name, str) else f"user_logs/std_log_process_{name}.txt", text)
    here.fail(message)
    found = run.verdict()
    assert found
    return found


# --- who and what


def test_all_ranks_are_read_and_the_one_with_a_cause_is_named(emulator: Emulator, run: AzureRun) -> None:
    logs: dict[int | str, str] = {rank: raised(LOST) for rank in range(4)}
    logs[3] = "step 7\n" + raised("KeyError: 'labels'", "crash.py", 15, 'batch["labels"]')
    found = fail(emulator, run, logs)

    assert (found.rank, found.node, found.kind, found.certainty) == (3, 1, "user-code", "certain")
    assert (found.exception, found.file, found.line) == ("KeyError", "crash.py", 15)
    assert found.followers == [0, 1, 2]
    assert found.evidence[0].log == "user_logs/std_log_process_3.txt"
    assert found.evidence[0].line == 5


def test_the_same_logs_here_and_there_give_the_same_verdict(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """Apart from how each process ended, which only a run here knows."""
    script = "import os, sys, time\nprint('step 1', flush=True)\nif os.environ['RANK'] == '2':\n    {}['labels']\n"
    code = code_in(tmp_path / "code", {"crash.py": script + "time.sleep(60)\n"})
    four = job(command="python crash.py", code=str(code), distribution=PyTorch(process_count_per_node=4))
    here = run_here(four, root=tmp_path / "runs", launcher="direct")
    there = azure.submit(four)
    logs: dict[int | str, str] = {
        f"user_logs/{log.name}": log.read_text() for log in (here.folder / "user_logs").iterdir()
    }
    local, remote = here.verdict(), fail(emulator, there, logs)

    assert local
    same = ("kind", "certainty", "rank", "ranks", "node", "exception", "message", "file", "line", "source", "summary")
    assert [getattr(local, name) for name in same] == [getattr(remote, name) for name in same]
    assert (local.file, local.rank, local.evidence) == ("crash.py", 2, remote.evidence)


def test_the_service_may_blame_a_process_that_it_stopped_itself(emulator: Emulator, run: AzureRun) -> None:
    message = (
        "Process 'worker 0' exited with code -2. It was terminated by the runtime due to failure in other processes on "
        "the same node. Process 'worker 2' exited with code 3 and error message 'Execution failed.'"
    )
    found = fail(emulator, run, {0: "step 1\n", 2: "step 1\n"}, message)

    assert (found.kind, found.rank, found.certainty) == ("exit-code", 2, "likely")
    assert run.describe()["failed_rank"] == 2


def test_a_cause_in_a_log_goes_before_the_rank_that_the_service_names(emulator: Emulator, run: AzureRun) -> None:
    message = f"{FAILED} Please check log file 'user_logs/std_log_process_0.txt' for error details."
    found = fail(emulator, run, {0: raised(LOST), 1: raised("ValueError: no")}, message)

    assert (found.rank, found.exception) == (1, "ValueError")
    assert run.describe()["failed_rank"] == 1


def test_the_rank_that_the_service_names_is_likely_the_first_of_two(emulator: Emulator, run: AzureRun) -> None:
    message = "Process 'worker 1' exited with code 1 and error message 'Execution failed.'"
    found = fail(emulator, run, {0: raised("KeyError: 'a'"), 1: raised("TypeError: b")}, message)

    assert (found.rank, found.exception, found.certainty) == (1, "TypeError", "likely")


def test_the_only_process_is_the_one_that_failed(emulator: Emulator, azure: AzureML) -> None:
    """Its log has no rank in its name."""
    message = "Execution failed. User process 'bash' exited with status code 7. Please check log file '{}'."
    found = fail(
        emulator,
        azure.submit(job()),
        {"user_logs/std_log.txt": "start\n"},
        message.format("user_logs/std_log.txt"),
    )

    assert (found.kind, found.certainty, found.rank, found.node) == ("exit-code", "likely", 0, 0)
    assert found.summary == "rank 0: exit code 7"


def test_codes_and_warnings_of_the_service_count(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.warnings = ["PreemptionError: Nodes of this job got pre-empted"]
    found = fail(emulator, run, {0: "step 1\n"}, "The job failed.")

    assert (found.kind, found.rank) == ("preempted", None)


def test_a_run_that_was_canceled_says_so_and_no_log_is_read(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.write_log("user_logs/std_log_process_0.txt", raised("KeyError: 'x'"))
    here.advance("Canceled")
    emulator.forget()
    found = run.verdict()

    assert found
    assert (found.kind, found.rank) == ("canceled", None)
    assert emulator.workspace.account.host not in emulator.bytes_by_host()


def test_the_last_attempt_counts(emulator: Emulator, run: AzureRun) -> None:
    first, last = "user_logs/std_log_process_0.txt", "user_logs/retry_001/std_log_process_1.txt"
    found = fail(emulator, run, {first: raised("KeyError: 'first'"), last: raised("ValueError: second")})

    assert (found.rank, found.message, found.evidence[0].log) == (1, "second", last)


def test_parameter_servers_come_after_the_workers(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(node_count=2, distribution=TensorFlow(parameter_server_count=1)))
    found = fail(emulator, run, {"user_logs/std_log_node_00_ps.txt": raised("KeyError: 'x'")})

    assert (found.rank, found.exception) == (2, "KeyError")


def test_the_log_of_an_image_that_was_not_built_is_read_too(emulator: Emulator, run: AzureRun) -> None:
    log = "ERROR: No matching distribution found for torhc==2.1\n"
    found = fail(emulator, run, {"azureml-logs/20_image_build_log.txt": log}, "Image build failed. For more details")

    assert (found.kind, found.rank) == ("image-build", None)
    assert any("torhc" in one.text for one in found.evidence)


def test_the_last_lines_of_a_build_show_why_it_failed_if_nothing_else_does(emulator: Emulator, run: AzureRun) -> None:
    log = "Step 1/3\nStep 2/3\n\nSetting up libfoo\nlibfoo: no space for boot files\n"
    found = fail(emulator, run, {"azureml-logs/20_image_build_log.txt": log}, "Image build failed. For more details")

    assert (found.kind, found.certainty) == ("image-build", "certain")
    assert [(one.line, one.text) for one in found.evidence[1:]] == [
        (2, "Step 2/3"),
        (4, "Setting up libfoo"),
        (5, "libfoo: no space for boot files"),
    ]


# --- what is read, and what cannot be


def test_of_a_long_log_only_the_ends_are_read_and_lines_keep_their_numbers(emulator: Emulator, run: AzureRun) -> None:
    line = "step 1 loss 0.123 of a log that is much longer than what anybody would read\n"
    emulator.forget()
    found = fail(emulator, run, {0: line * 20_000 + raised("KeyError: 'x'"), 1: line * 20_000 + raised(LOST)})
    downloaded = emulator.bytes_by_host()[emulator.workspace.account.host][1]

    assert found.evidence[0].line == 20_004
    # All of the one that matters, to count its lines; of the other only its ends.
    assert downloaded < 1.2 * 20_000 * len(line)


@pytest.mark.parametrize("message", ["x" * 2_500_000, "weight = [0.1, 0.2]\n" * 100_000])
def test_an_exception_with_a_very_long_message_is_named(emulator: Emulator, run: AzureRun, message: str) -> None:
    line = "step 1 loss 0.123 of a log that is much longer than what anybody would read\n"
    emulator.forget()
    found = fail(emulator, run, {0: line * 20_000, 1: line * 20_000 + raised(f"ValueError: bad state {message}")})
    downloaded = emulator.bytes_by_host()[emulator.workspace.account.host][1]

    assert (found.rank, found.exception, found.file, found.line) == (1, "ValueError", "train.py", 12)
    assert found.evidence[0].line == 20_004
    # Of the log with steps at its end, nothing more is read.
    assert downloaded < len(message) + 1.2 * 20_000 * len(line) + (1 << 20)


def test_logs_that_may_not_be_read_are_part_of_the_answer(emulator: Emulator, run: AzureRun) -> None:
    emulator.workspace.forbidden.add("blobs.get")
    found = fail(emulator, run, {0: raised("KeyError: 'x'")}, "The job failed.")

    assert (found.kind, found.certainty, found.rank) == ("unknown", "unknown", None)
    assert found.summary == ("unknown, because user_logs/std_log_process_0.txt cannot be read: the storage answers 403")
    assert found.hint == "your login needs the role Storage Blob Data Reader on the storage account of the workspace"


def test_a_storage_that_fails_for_a_moment_is_asked_again(emulator: Emulator, run: AzureRun) -> None:
    emulator.inject(answer(503), route="blobs.get", times=2)
    found = fail(emulator, run, {0: raised(LOST), 1: raised("KeyError: 'x'")})

    assert (found.rank, found.certainty) == (1, "certain")


# --- values at hand


def test_hints_have_the_environment_and_the_command_of_the_job(emulator: Emulator, azure: AzureML) -> None:
    run = azure.submit(job(command="python train.py --batch-size ${{inputs.size}}", inputs={"size": 64}))
    found = fail(emulator, run, {0: raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")})
    other = azure.submit(job())
    module = fail(emulator, other, {0: raised("ModuleNotFoundError: No module named 'einops'")})

    assert found.hint
    assert module.hint
    assert "`--batch-size` is 64: try 32" in found.hint
    assert "add `einops` to environment `torch:1`" in module.hint


def test_secrets_of_the_job_are_not_shown(emulator: Emulator, azure: AzureML) -> None:
    secret = "plain-words-that-nobody-may-see"
    run = azure.submit(job(environment_variables={"HF_TOKEN": secret, "MODE": "fast"}))
    found = fail(emulator, run, {0: raised(f"RuntimeError: bad {secret} in mode fast", source=f"use('{secret}')")})

    assert secret not in json.dumps(found.to_dict())
    assert found.message == "bad *** in mode fast"


# --- where people see it


def test_a_failure_carries_the_verdict(emulator: Emulator, run: AzureRun) -> None:
    found = fail(emulator, run, {0: raised(LOST), 2: raised("KeyError: 'x'")})

    with pytest.raises(RunFailed) as failed:
        run.wait(timeout=30)

    assert failed.value.verdict == found
    assert failed.value.failed_rank == 2
    assert run.describe()["verdict"] == found.to_dict()


def test_a_run_that_goes_on_or_ended_well_has_no_verdict(emulator: Emulator, run: AzureRun) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    going_on = run.verdict()
    here.advance("Completed")

    assert going_on is run.verdict() is None


def test_the_command_line_explains_runs_of_others(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    def asked(*args: str) -> Any:
        return at_the_workspace(emulator, tmp_path, *args)

    here = emulator.job(run.name)
    here.advance("Running")
    early = asked("why", run.name)
    assert early.returncode == 0
    assert f"run {run.name} is Running and has not failed" in early.stderr
    fail(emulator, run, {0: raised(LOST), 1: raised("KeyError: 'labels'", "crash.py", 15)})

    found = json.loads(asked("why", run.name, "--json").stdout)
    status = json.loads(asked("status", run.name, "--json").stdout)
    followed = asked("logs", run.name, "--follow", "--json")

    assert (found["name"], found["status"]) == (run.name, "Failed")
    assert (found["verdict"]["rank"], found["verdict"]["file"], found["verdict"]["line"]) == (1, "crash.py", 15)
    assert status["verdict"] == found["verdict"] == json.loads(followed.stdout)["verdict"]
    assert followed.returncode == 1
    assert "rank 1: KeyError: 'labels'\n" in asked("why", run.name).stdout


def test_a_run_that_wrote_nothing_says_so(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    emulator.job(run.name).fail("The cluster went away.")

    logs = at_the_workspace(emulator, tmp_path, "logs", run.name)
    of_a_rank = at_the_workspace(emulator, tmp_path, "logs", run.name, "--rank", "1")
    download = at_the_workspace(emulator, tmp_path, "download", run.name, "--to", "there")

    assert (logs.returncode, logs.stdout) == (0, "")
    assert logs.stderr == f"note: run {run.name} has written no lines\n"
    assert of_a_rank.stderr == f"note: run {run.name} has written no such lines\n"
    assert (download.returncode, download.stderr) == (0, f"note: run {run.name} has written no files\n")


def test_a_run_without_logs_has_the_words_of_the_service(emulator: Emulator, run: AzureRun) -> None:
    found = fail(emulator, run, {}, "The cluster went away.")

    assert (found.kind, found.rank, found.message) == ("unknown", None, "The cluster went away.")


def test_submit_with_wait_ends_with_the_card_and_exits_with_1(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    code = code_in(tmp_path / "src", {"crash.py": "import os\nif os.environ['RANK'] == '1':\n    {}['labels']\n"})
    (tmp_path / "job.yml").write_text(
        "command: python crash.py\ncode: src\nenvironment: azureml:torch:1\ncompute: azureml:gpu-cluster\n"
        "distribution: {type: pytorch, process_count_per_instance: 2}\nname: crashes\n"
    )
    emulator.run_what_is_submitted()
    done = at_the_workspace(emulator, tmp_path, "submit", "job.yml", "--wait", "--json", "--no-check")
    assert done.stdout, done.stderr
    found, lines = json.loads(done.stdout), done.stderr.splitlines()
    begin = next(at for at, line in enumerate(lines) if line.startswith("run crashes: Failed"))

    assert done.returncode == 1
    assert (found["status"], found["verdict"]["rank"], found["verdict"]["file"]) == ("Failed", 1, "crash.py")
    assert lines[begin + 1 : begin + 4] == [
        "  why      rank 1: KeyError: 'labels'",
        f"  where    {code / 'crash.py'}:3",
        "             {}['labels']",
    ]
    assert lines[-1] == "  next     azml-dist why crashes"
    assert any(line.startswith("  studio   https://ml.azure.com/") for line in lines)


LOGS_OF_A_BUILD = {"azureml-logs/20_image_build_log.txt": "ERROR: No matching distribution found for torhc==2.1\n"}
REPEATED = "`azml-dist rerun one` repeats it on this machine"
SUBMITTED = "`azml-dist submit one` submits its job again, as a new run"


@pytest.mark.parametrize(
    ("logs", "message", "hint"),
    [
        ({0: raised("KeyError: 'labels'")}, FAILED, REPEATED),
        ({}, FAILED, REPEATED),
        (LOGS_OF_A_BUILD, "Image build failed. For more details", None),
        ({0: raised("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")}, FAILED, None),
        ({}, "AllocationFailed: there is not enough capacity", None),
        ({}, "Received preemption signal.", SUBMITTED),
    ],
)
def test_a_repetition_is_suggested_only_where_it_can_show_something(
    emulator: Emulator, azure: AzureML, tmp_path: Path, logs: Mapping[int | str, str], message: str, hint: str | None
) -> None:
    fail(emulator, azure.submit(job(name="one")), logs, message)

    why = at_the_workspace(emulator, tmp_path, "why", "one")

    assert why.stderr == (f"hint: {hint}\n" if hint else "")


def test_nothing_is_suggested_after_a_cancellation(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(job(name="one"))
    emulator.job(run.name).advance("Running")

    cancelled = at_the_workspace(emulator, tmp_path, "cancel", "one")
    why, waited = (at_the_workspace(emulator, tmp_path, command, "one") for command in ("why", "wait"))

    assert cancelled.returncode == 0
    assert "why      cancelled with `azml-dist cancel`" in why.stdout
    assert (why.stderr, "next" in waited.stderr) == ("", False)


def test_a_module_that_is_here_is_named_with_what_brings_it(emulator: Emulator, run: AzureRun) -> None:
    found = fail(emulator, run, {0: raised("ModuleNotFoundError: No module named 'click'")})

    assert found.hint
    assert f"here it comes from click {version('click')}" in found.hint


def test_a_list_says_why_runs_failed_that_were_judged_here(
    emulator: Emulator, azure: AzureML, run: AzureRun, tmp_path: Path
) -> None:
    """A list itself reads no logs, and a run of the same name in another workspace is another run."""
    other = azure.submit(job())
    emulator.job(other.name).fail(FAILED)
    found = fail(emulator, run, {2: raised("KeyError: 'labels'")})

    known = {one["name"]: one["verdict"] for one in AzureRun.latest(azure.workspace)}
    table = overview(tmp_path, there=AzureRun.latest(azure.workspace))

    assert known == {run.name: found.to_dict(), other.name: None}
    status = {one[0].strip(): one[4].strip() for one in table.lines()}
    assert status[run.name] == f"Failed: {found.summary}"
    assert status[other.name] == "Failed"
    assert noted_verdict("/subscriptions/another", run.name) is None
