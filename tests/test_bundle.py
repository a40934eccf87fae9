"""`bundle`: one zip for others, without secrets; `status`, `logs` and `why` say of it what they say of its run."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import CLI, LOG, call, pytorch, run_here, together
from submitting import job
from test_azure_run import at_the_workspace

import azml_dist
from azml_dist import AzureML, DistError, NotFound, PyTorch, RunFailed, Sweep, submit
from azml_dist.emulator import Emulator, answer
from azml_dist.local.run import LocalRun
from azml_dist.runs.bundle import bundle_of
from azml_dist.verdict.cleaning import MAIL, VALUES, Cleaner, looks_random

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

SECRET = "s3cr3t-Of-Mine/42"
SAS = "sig=aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fH3jL5nP7rT9%3D"
KEY = base64.b64encode(bytes(range(64))).decode()
LEAKS = (
    SECRET,
    base64.b64encode(SECRET.encode()).decode().rstrip("="),
    "s3cr3t-Of-Mine%2F42",
    "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bD1fH3jL5nP7rT9",
    KEY,
    "hunter2hunter2",
    "someone@contoso.com",
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj",
    "hf_abcdefghijklmnopqrst",
)
LINE = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
SAYS = f"""\
import base64, os, sys
from urllib.parse import quote
secret = os.environ["MINE"]
rank = os.environ["RANK"]
print("step 1 of rank", rank, flush=True)
print(secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
print("https://acct.blob.core.windows.net/c/x?sv=2021&{SAS}")
print("AccountKey={KEY};")
print("login of someone@contoso.com, git@github.com:a/b.git")
print("password: hunter2hunter2, token hf_abcdefghijklmnopqrst")
line = "{LINE}"
print("-----BEGIN PRIVATE KEY-----", line, line, "-----END PRIVATE KEY-----", sep="\\n")
print("step 2 of rank", rank, flush=True)
"""


def texts_in(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {one.filename: archive.read(one).decode() for one in archive.infolist()}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRun:
    """A run of two ranks that prints secrets, logs a metric, and fails on rank 1."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/says.py").write_text(SAYS)
    (tmp_path / "code/log.py").write_text(LOG)
    monkeypatch.setenv("MINE", SECRET)
    command = "python says.py && if [ $RANK = 1 ]; then python log.py loss 3 2 1 && echo boom >&2; exit 7; fi; sleep 60"
    variables = {"MINE": None, "MY_TOKEN": "hunter2hunter2", "NCCL_DEBUG": "INFO"}
    return run_here(
        pytorch(command, processes=2, code=str(tmp_path / "code"), environment_variables=variables), launcher="direct"
    )


def test_a_bundle_has_no_secret_and_is_read_like_its_run(failed: LocalRun, tmp_path: Path) -> None:
    listed = call("bundle", failed.name, "--list")
    made = call("bundle", failed.name, "--to", "b.zip")
    texts = texts_in(tmp_path / "b.zip")

    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    assert (made.returncode, made.stdout) == (0, "b.zip\n"), made.stderr
    assert "the job, as a file for `az ml`" in made.stderr
    assert "removed: " in made.stderr
    assert not [(leak, name) for leak in LEAKS for name, text in texts.items() if leak in text]
    assert "git@github.com:a/b.git" in texts["user_logs/std_log_process_0.txt"]
    assert json.loads(texts["plan.json"])["processes"][0]["env"]["NCCL_DEBUG"] == "INFO"
    packages = json.loads(texts["versions.json"])["packages"]
    assert packages["click"]
    assert "***" not in packages.values(), "the name of `asttokens` says nothing about its version"

    # Said the same, but for the secrets and where it is.
    for command in (["status"], ["why"], ["metrics", "--json"]):
        of_run, of_zip = (call(command[0], name, *command[1:]).stdout for name in (failed.name, "b.zip"))
        cleaned = Cleaner([SECRET]).text(of_run).replace(LINE, "***")
        assert plain(of_zip, "b.zip", failed.name) == plain(cleaned, failed.name), command
    of_run, of_zip = (call("logs", name, "--rank", "1").stdout for name in (failed.name, "b.zip"))
    assert of_zip.count("\n") == of_run.count("\n")
    assert [one for one in of_zip.splitlines() if "step" in one] == [
        f"[node0 rank1] step {n} of rank 1" for n in (1, 2)
    ]
    assert call("logs", "b.zip", "--rank", "1", "--tail", "1").stdout == "[node0 rank1] boom\n"
    described = json.loads(call("status", "b.zip", "--json").stdout)
    assert (described["failed_rank"], described["verdict"]["kind"]) == (1, "exit-code")
    assert json.loads(call("why", "b.zip", "--json").stdout)["verdict"] == described["verdict"]
    again = azml_dist.run(str(tmp_path / "b.zip"))
    assert (again.name, again.status) == (failed.name, "Failed")
    assert dict(again.metrics()) == dict(failed.metrics())
    said, known = again.verdict(), failed.verdict()
    assert said
    assert known
    assert (said.summary, said.evidence, said.followers) == (known.summary, known.evidence, known.followers)

    # Unpacked, too.
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert [*azml_dist.run(str(tmp_path / "unpacked")).logs()] == [*again.logs()]
    assert "exit code 7" in call("why", "./unpacked").stdout
    assert call("status", "unpacked").stdout == call("status", "./unpacked").stdout
    for refused in (["cancel"], ["download"], ["bundle"]):
        ended = call(refused[0], "b.zip")
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"error: b.zip is the bundle of run {failed.name}, which ")


def plain(text: str, *names: str) -> list[str]:
    """The words of each line, whatever the name is, without the one that says that it is a bundle."""
    for name in names:
        text = text.replace(name, "NAME")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and " NAME of 20" not in line]


def test_a_secret_that_is_not_known_any_more_is_named(
    failed: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINE")

    ended = call("bundle", failed.name)
    again = call("bundle", failed.name)

    assert "note: the value of MINE is not known here, so it was not looked for" in ended.stderr
    assert (ended.stdout, again.stdout) == (f"{failed.name}-bundle.zip\n", f"{failed.name}-bundle-2.zip\n")


def test_of_long_logs_the_ends_are_kept_in_the_order_of_arrival(tmp_path: Path) -> None:
    lines = "[print(i, chr(120) * 40) for i in range(9000)]"
    says = f"python -c \"import os; {lines}; print(os.environ['RANK'], 'last')\""
    run = run_here(pytorch(f"{says}; {together('exit $((RANK == 1))')}", processes=2), launcher="direct")

    run.bundle(tmp_path / "b.zip")
    text = texts_in(tmp_path / "b.zip")["user_logs/std_log_process_1.txt"]
    bundled = azml_dist.run(str(tmp_path / "b.zip"))
    kept = list(bundled.logs())

    left_out = re.search(r"\.\.\. ([\d,]+) lines are left out here \.\.\.", text)
    assert left_out
    assert text.count("\n") - 1 + int(left_out[1].replace(",", "")) == 9001
    assert text.splitlines()[-1] == "1 last"
    assert (tmp_path / "b.zip").stat().st_size < 60_000
    assert [*bundled.logs(rank=1)] == text.splitlines()
    of_run = [line for line in run.logs() if line in set(kept)]
    assert [line for line in kept if "left out" not in line] == of_run
    assert [*bundled.logs(rank=0, tail=1)] == ["0 last"]


def test_every_attempt_is_in_a_bundle(tmp_path: Path) -> None:
    run = run_here(pytorch("echo attempt; exit 3", processes=1), launcher="direct", retries=1)

    run.bundle(tmp_path / "b.zip")
    bundled = azml_dist.run(str(tmp_path / "b.zip"))

    assert [*bundled.logs()] == [*run.logs()]
    assert "user_logs/retry_001/std_log_process_0.txt" in texts_in(tmp_path / "b.zip")
    assert bundled.verdict() == run.verdict()


def test_a_bundle_of_a_sweep_has_the_logs_of_its_trials(tmp_path: Path) -> None:
    sweep = {
        "type": "sweep",
        "trial": {"command": "echo lr ${{search_space.lr}}; exit $((LR == 2))", "environment": "azureml:env:1"},
        "search_space": {"lr": {"type": "choice", "values": [1, 2]}},
        "sampling_algorithm": "grid",
        "objective": {"primary_metric": "loss", "goal": "minimize"},
        "limits": {"max_total_trials": 2},
    }
    (tmp_path / "sweep.yml").write_text(json.dumps(sweep).replace("LR", "${{search_space.lr}}"))
    run = submit(Sweep.load(tmp_path / "sweep.yml"), on="local")
    with contextlib.suppress(RunFailed):
        run.wait(timeout=60)

    run.bundle(tmp_path / "b.zip")
    bundled = azml_dist.run(str(tmp_path / "b.zip"))

    assert sorted(bundled.logs()) == sorted(run.logs())
    assert bundled.verdict() == run.verdict()
    assert "trial_1/user_logs/std_log.txt" in texts_in(tmp_path / "b.zip")


@needs("unshare")
def test_on_a_full_disk_no_half_of_a_bundle_is_left(tmp_path: Path) -> None:
    run = run_here(pytorch("true"), launcher="direct")
    (tmp_path / "small").mkdir()
    command = " ".join([*CLI, "bundle", run.name, "--to", "small/b.zip"])
    script = f"mount -t tmpfs -o size=4k t small || exit 77; {command}; echo $?; ls -A small"
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if ended.returncode == 77:
        pytest.skip("no tmpfs may be mounted here")

    assert ended.stdout == "2\n", ended
    assert "error: cannot write the bundle small/b.zip: no space left on device" in ended.stderr


# From Azure ML


def test_a_run_on_azure_is_bundled_with_its_request_ids(
    emulator: Emulator, azure: AzureML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", SECRET)
    variables = {"MINE": None, "MY_TOKEN": "hunter2hunter2", "RANDOM": "q8Zr2Lx9Vb4Nw7Tk", "NCCL_DEBUG": "INFO"}
    run = azure.submit(
        job(distribution=PyTorch(process_count_per_node=2), environment_variables=variables, inputs={"epochs": 3})
    )
    here = emulator.job(run.name)
    for rank in (0, 1):
        here.write_log(f"user_logs/std_log_process_{rank}.txt", f"step 1\n{SECRET}\nmailto someone@contoso.com\n")
    trace = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\nValueError: no such thing\n'
    here.write_log("user_logs/std_log_process_1.txt", trace)
    here.write_log("system_logs/lifecycler/execution-wrapper.log", f"uploading to https://a/b?{SAS}\n")
    here.fail("Execution failed. User process 'python' exited with status code 1.")

    made = at_the_workspace(emulator, tmp_path, "bundle", run.name, "--to", "b.zip")
    texts = texts_in(tmp_path / "b.zip")
    of_run = at_the_workspace(emulator, tmp_path, "why", run.name)
    of_zip = call("why", "b.zip", cwd=tmp_path)

    assert (made.returncode, made.stdout) == (0, "b.zip\n"), made.stderr
    assert not [(leak, name) for leak in (*LEAKS, "q8Zr2Lx9Vb4Nw7Tk") for name, t in texts.items() if leak in t]
    service = json.loads(texts["service.json"])
    assert service["workspace"] == emulator.workspace.arm_id
    assert {one["status"] for one in service["requests"]} == {200}
    assert all(one["request_id"] for one in service["requests"])
    request = json.loads(texts["request.json"])["properties"]
    assert request["environmentVariables"]["NCCL_DEBUG"] == "INFO"
    assert request["inputs"]["epochs"]["value"] == "3"
    assert "command: " in texts["job.yml"]
    assert "uploading to" in texts["system_logs/lifecycler/execution-wrapper.log"]
    assert json.loads(texts["details.json"])["error"]["error"]["message"].startswith("Execution failed")
    assert "ValueError: no such thing" in of_zip.stdout
    assert plain(of_zip.stdout, "b.zip", run.name) == plain(Cleaner([SECRET]).text(of_run.stdout), run.name)
    logs = call("logs", "b.zip", "--rank", "1", cwd=tmp_path).stdout.splitlines()
    assert logs[:3] == [f"[node0 rank1] {text}" for text in ("step 1", "***", "mailto ***")]
    assert logs[-1] == "[node0 rank1] ValueError: no such thing"


def test_what_may_not_be_read_is_named_in_the_bundle(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(job())
    emulator.job(run.name).write_log("user_logs/std_log.txt", "said\n")
    emulator.job(run.name).body["jobType"] = "AutoML"
    emulator.job(run.name).fail("it failed")
    for route in ("blobs.get", "metrics.run"):
        emulator.inject(answer(403, code="AuthorizationPermissionMismatch"), route=route, times=None)

    made = bundle_of(run)

    assert [re.sub(r" is not in it.*| are not in it.*", "", note) for note in made.notes] == [
        "plan.json and job.yml",
        "metrics.json",
        "user_logs/std_log.txt",
    ]
    assert f"run {run.name} is an AutoML job" in made.notes[0]
    assert "the storage answers 403" in made.notes[2]


# Bad input


def zip_of(path: Path, files: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value if isinstance(value, str | bytes) else json.dumps(value))
    return path


INDEX = {
    "format": 1,
    "name": "r",
    "status": "Failed",
    "attempt": 0,
    "processes": [{"rank": 0, "node_rank": 0, "role": "", "member": ""}],
    "logs": [{"path": "user_logs/std_log.txt", "rank": 0, "node": 0, "attempt": 0}],
    "order": [],
}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"bundle.json": "not json"}, "bundle.json: "),
        ({"bundle.json": []}, "bundle.json is not an object"),
        ({"bundle.json": {**INDEX, "format": 99}}, "newer version"),
        ({"bundle.json": "[" * 100_000}, "bundle.json: "),
        ({"bundle.json": INDEX}, "it has no "),
        ({"bundle.json": INDEX, "status.json": [], "pages.json": {}}, "is not a"),
        ({"bundle.json": {**INDEX, "processes": 5}, "status.json": {}, "pages.json": {}}, "cannot read the bundle"),
        (
            {"bundle.json": INDEX, "status.json": {}, "pages.json": {"status": {"kind": "Page", "title": 5}}},
            "pages.json",
        ),
        ({"bundle.json": INDEX, "status.json": {}, "pages.json": b" " * 65_000_000}, "more than 64,000,000 bytes"),
    ],
)
def test_a_damaged_bundle_is_one_line(tmp_path: Path, files: dict[str, Any], says: str) -> None:
    zip_of(tmp_path / "b.zip", files)

    with pytest.raises(DistError) as failed:  # noqa: PT012 (which of them fails depends on what is damaged)
        run = azml_dist.run(str(tmp_path / "b.zip"))
        str(run)
        list(run.logs())

    assert says in str(failed.value)
    assert failed.value.hint


def test_a_bundle_reads_no_file_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("outside\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/link").symlink_to(tmp_path / "secret.txt")
    for path in ("../secret.txt", "link", "/etc/passwd", str(tmp_path / "secret.txt")):
        (tmp_path / "b/bundle.json").write_text(json.dumps({**INDEX, "logs": [{**INDEX["logs"][0], "path": path}]}))  # type: ignore[index]

        with pytest.raises(DistError, match="cannot read the bundle"):
            list(azml_dist.run(f"{tmp_path}/b").logs())


def test_what_is_no_bundle_is_no_run(tmp_path: Path) -> None:
    zip_of(tmp_path / "other.zip", {"readme.txt": "hello"})

    with pytest.raises(NotFound, match=r"other\.zip is not a bundle"):
        azml_dist.run(str(tmp_path / "other.zip"))
    ended = call("bundle", "nowhere")
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        2,
        "error: there is no run 'nowhere' on this machine, and no workspace is configured",
    )


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    run = run_here(pytorch("true"), launcher="direct")
    (tmp_path / "there.zip").write_text("mine")

    full = call("bundle", run.name, "--to", "/dev/full/x.zip")
    there = call("bundle", run.name, "--to", "there.zip")

    assert (full.returncode, there.returncode) == (2, 2)
    assert there.stderr.startswith("error: cannot write the bundle there.zip: it already exists"), "before any work"
    assert (tmp_path / "there.zip").read_text() == "mine"
    assert not list(tmp_path.glob(".*.zip*"))


# Cleaning


def test_long_texts_are_cleaned_in_bounded_time() -> None:
    cleaner = Cleaner(["secret-value"])
    hostile = [
        "a1-" * 30_000,
        "token" * 20_000,
        "x@" * 50_000,
        "-----BEGIN PRIVATE KEY-----" * 3_000,
        "A" * 64 + "\n",
        ("B" * 64 + "\n") * 1_000,
        "https://" * 20_000,
        "password=" * 10_000,
    ]
    begun = os.times().user

    for text in hostile:
        assert cleaner.text(text).count("\n") == text.count("\n")

    assert os.times().user - begun < 10


def test_json_is_cleaned_by_names_and_by_values() -> None:
    cleaner = Cleaner(["of-the-job"])
    value = {
        "tags": ["of-the-job", 1, ("me@example.com", None)],
        "password": "hunter22",
        "Key": "a-name",
        "keys": ["password"],
        "of-the-job": True,
        "loss": float("nan"),
        "worst": float("inf"),
        "best": 0.5,
        "env": {"HF_TOKEN": "<from your environment>", "MODE": "fast", "N": 3, "X": "q8Zr2Lx9Vb4Nw7Tk"},
        "environmentVariables": ["q8Zr2Lx9Vb4Nw7Tk"],
    }

    assert cleaner.value(value) == {
        "tags": ["***", 1, ["***", None]],
        "password": "***",
        "Key": "a-name",
        "keys": ["password"],
        "***": True,
        "loss": None,
        "worst": None,
        "best": 0.5,
        "env": {"HF_TOKEN": "<from your environment>", "MODE": "fast", "N": 3, "X": "***"},
        "environmentVariables": ["q8Zr2Lx9Vb4Nw7Tk"],
    }
    assert {kind: count for kind, count in cleaner.removed.items() if count} == {VALUES: 4, MAIL: 1}


def test_of_variables_those_that_say_a_secret_or_look_like_one_are_hidden() -> None:
    cleaner = Cleaner()
    given = {"API_KEY": "a-key", "HIDDEN": "a ***", "PASSWORD": "***", "PATH": "/a/b", "RUN": "3f2a91c7e4d84b0a9c1d"}

    assert cleaner.variables(given) == {**given, "API_KEY": "***", "PASSWORD": "***", "RUN": "***"}
    assert cleaner.removed[VALUES] == 2


@pytest.mark.parametrize("form", ["a secret/+é", "a%20secret%2F%2B%C3%A9", "a secret/+\\u00e9", "YSBzZWNyZXQvK8Op"])
def test_a_secret_is_found_however_it_is_written(form: str) -> None:
    cleaner = Cleaner(["a secret/+é", "abc"])

    assert cleaner.text(f"x {form} abc {form}") == "x *** abc ***", "three letters may be anything"
    assert cleaner.removed[VALUES] == 2


def test_lines_of_a_secret_are_found_and_lines_stay_lines() -> None:
    cleaner = Cleaner(["first line\nsecond\nthe third line"])

    assert cleaner.text("a\nfirst line\nsecond\nthe third line\nb") == "a\n***\n\n\nb"
    assert cleaner.text("the third line, second") == "***, second"


@pytest.mark.parametrize(
    ("value", "is_random"),
    [
        ("q8Zr2Lx9Vb4Nw7Tk", True),
        ("3f2a91c7e4d84b0a9c1d", True),
        ("/mnt/data/train2017/images", False),
        ("mcr.microsoft.com.azureml.v1", False),
        ("Standard_NC24s_v3_x", False),
        ("0,1,2,3,4,5,6,7,8,9", False),
        ("a-name-of-an-experiment", False),
        ("expandable_segments", False),
    ],
)
def test_only_values_that_look_random_are_taken_for_secrets(value: str, is_random: bool) -> None:
    assert looks_random(value) == is_random


def test_a_bundle_of_a_run_whose_loss_became_nan_has_its_metrics(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "log.py").write_text(LOG)
    run = run_here(pytorch("python log.py loss 0.5 NaN", code=str(tmp_path / "src")), launcher="direct")

    run.bundle(tmp_path / "b.zip")

    values = [point.value for point in azml_dist.run(str(tmp_path / "b.zip")).metrics().history("loss")]
    assert values[0] == 0.5
    assert math.isnan(values[1])
