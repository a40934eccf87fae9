"""What a rerun fetches: code and data of the emulated workspace, and what it says when it cannot."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from submitting import code_in, job, set_md5, workspace_of

from azml_dist import AuthError, AzureML, Input, Job, JobError, NotFound, Output, PyTorch, SubmitError, TensorFlow
from azml_dist.azureml.group import azure_run
from azml_dist.azureml.run import AzureRun
from azml_dist.contents.code import kept_code
from azml_dist.contents.store import Contents, Kept
from azml_dist.emulator import Emulator, answer, delay, odd, reset_before
from azml_dist.errors import DistError
from azml_dist.job import Mpi, Ray
from azml_dist.plan.snapshot import take_snapshot

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AZML_DIST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def submitted(azure: AzureML, **fields: Any) -> AzureRun:
    """A run, as whoever knows only its name has it."""
    return azure_run(azure.workspace, azure.submit(job(**fields)).name)


# The code


def test_the_code_is_exactly_what_was_uploaded(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    """Also files that an ignore rule in it excludes, empty ones, and odd names."""
    files = {
        "a.py": "a",
        ".gitignore": "*.py",
        "sub/b c.txt": "b",
        "empty": "",
        "sub/\u00e9\u20ac.txt": "c",
        "big": "x" * 5_000_000,
    }
    run = submitted(azure, code=str(code_in(tmp_path / "code", {**files, ".amlignore": ""})))
    run.job()
    emulator.forget()

    code = run.code()

    assert code
    assert {path: (code.folder / path).read_text() for path in code.files} == {**files, ".amlignore": ""}
    assert {file.path for file in take_snapshot(code.folder).files} == code.files.keys()
    emulator.forget()
    assert run.code() == code
    assert not emulator.requests


def test_content_that_is_here_already_is_not_fetched_again(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    folder = code_in(tmp_path / "code", {"a.py": "a", "b.py": "b"})
    submitted(azure, code=str(folder)).code()
    (folder / "b.py").write_text("changed")
    run = submitted(azure, code=str(folder))
    emulator.forget()

    code = run.code()

    assert code
    assert (code.folder / "b.py").read_text() == "changed"
    assert [request.path.rpartition("/")[2] for request in emulator.requests if request.route == "blobs.get"] == [
        "b.py"
    ]


def test_code_that_was_changed_in_the_cache_is_fetched_again(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = submitted(azure, code=str(code_in(tmp_path / "code", {"a.py": "a"})))
    code = run.code()
    assert code
    (code.folder / "a.py").chmod(0o644)
    (code.folder / "a.py").write_text("b")

    again = run.code()

    assert again
    assert (again.folder / "a.py").read_text() == "a"


def test_a_fetch_that_broke_off_goes_on_where_it_was(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = submitted(azure, code=str(code_in(tmp_path / "code", {f"{n}.py": str(n) for n in range(40)})))
    emulator.inject(answer(403), route="blobs.get", times=1)
    with pytest.raises(AuthError, match="cannot be read: the storage answers 403"):
        run.code()
    emulator.forget()
    emulator.inject(reset_before(), route="blobs.get", times=1)

    code = run.code()

    assert code
    assert len(code.files) == 40
    assert emulator.counts()["blobs.get"] < 40


def test_code_of_which_nothing_is_left(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = submitted(azure, code=str(code_in(tmp_path / "code")))
    emulator.inject(answer(404, code="ContainerNotFound"), route="blobs.list")

    with pytest.raises(NotFound, match=f"the code of run {run.name} was deleted") as found:
        run.code()

    assert "--set code=FOLDER" in str(found.value.hint)


@pytest.mark.parametrize("path", ["../evil", "a/../../evil", "/etc/evil", "a//b", "a/\0b", "a/."])
def test_code_with_a_path_that_leads_elsewhere_is_refused(
    emulator: Emulator, azure: AzureML, tmp_path: Path, cache: Path, path: str
) -> None:
    from azml_dist.azureml.datastores import Blob
    from azml_dist.azureml.snapshot import check_paths

    with pytest.raises(SubmitError, match="has a file with the path"):
        check_paths([Blob(path, path, 1)], "the code of run a")
    with pytest.raises(SubmitError, match="both a file and a folder"):
        check_paths([Blob("a", "a", 1), Blob("a/b", "a/b", 1)], "the code of run a")
    with pytest.raises(SubmitError, match="more than azml_dist fetches"):
        check_paths([Blob("a", "a", 1 << 50)], "the code of run a")


def test_a_full_disk_is_said_and_what_is_complete_is_kept(
    azure: AzureML, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that is full is /dev/full."""
    contents = Contents(tmp_path / "contents")
    contents.add([b"a"])

    def full() -> Any:
        yield b"b"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DistError, match=r"cannot write .*No space left on device"):
        contents.add(full())

    assert [
        path.name for path in (tmp_path / "contents").rglob("*") if path.is_file() and path.stat().st_size != 1
    ] == []
    assert len([path for path in (tmp_path / "contents").rglob("*") if path.is_file()]) == 1


def test_kept_content_is_one_file_for_all(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    one, other = contents.add([b"ab", b"c"]), contents.add([b"abc"])

    assert one == other
    assert contents.with_md5("900150983cd24fb0d6963f7d28e17f72", 3) == one
    assert contents.with_md5("900150983cd24fb0d6963f7d28e17f72", 4) is None
    assert not contents.has(Kept("0" * 96, 3))
    assert kept_code(tmp_path) is None
    contents.path(one).chmod(0o644)
    contents.path(one).write_text("xyz")
    assert not contents.has(one)


# The job


STORE = "azureml://datastores/workspaceblobstore/paths"
DISTRIBUTIONS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "pytorch": {"distribution": PyTorch(process_count_per_node=2), "node_count": 2},
    "mpi": {"distribution": Mpi(process_count_per_node=2), "node_count": 2},
    "tensorflow": {"distribution": TensorFlow(worker_count=2, parameter_server_count=1), "node_count": 2},
    "ray": {"distribution": Ray(include_dashboard=False, port=6379), "node_count": 2},
    "all": {
        "distribution": PyTorch(process_count_per_node=2),
        "node_count": 2,
        "inputs": {
            "epochs": 3,
            "rate": 1e-05,
            "flag": True,
            "word": "007",
            "data": Input(path="azureml:digits:1", mode="download"),
        },
        "outputs": {
            "model": Output(),
            "table": Output(
                type="uri_file", mode="upload", path="azureml://datastores/workspaceblobstore/paths/t/${{name}}/x.csv"
            ),
        },
        "command": "echo ${{inputs.epochs}} ${{inputs.rate}} ${{inputs.flag}} ${{inputs.word}} ${{inputs.data}}"
        " ${{outputs.model}} ${{outputs.table}}",
        "environment_variables": {"A": "b", "WANDB_API_KEY": "0123456789abcdef"},
        "timeout": 3661,
        "shm_size": "16g",
        "docker_args": "--ipc=host",
        "identity": {"type": "managed"},
        "services": {"tb": {"type": "tensor_board", "log_dir": "logs"}},
        "tags": {"a": "b"},
        "description": "words",
        "display_name": "shown",
        "experiment_name": "nights",
    },
}


@pytest.mark.parametrize("other_case", [False, True])
@pytest.mark.parametrize("fields", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_the_job_of_a_run_is_what_was_submitted(
    emulator: Emulator, azure: AzureML, fields: Mapping[str, Any], other_case: bool
) -> None:
    emulator.assets.add_data("digits", "1", {"a.csv": b"1"})
    emulator.workspace.other_case = other_case
    run = submitted(azure, **fields)

    again = azure.submit(Job.from_run(run))

    before, after = emulator.job(run.name).body, emulator.job(again.name).body
    assert {**after, "displayName": None} == {**before, "displayName": None}
    assert after["displayName"] == fields.get("display_name", again.name)
    assert (
        emulator.job(run.name).output_uri("model") != emulator.job(again.name).output_uri("model")
        if "outputs" in fields
        else True
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [("AutoML", "an AutoML job"), ("Spark", "a Spark job"), ("Pipeline", "a pipeline"), ("Sweep", "a sweep")],
)
def test_another_kind_of_job_is_named(emulator: Emulator, azure: AzureML, kind: str, words: str) -> None:
    run = submitted(azure)
    emulator.job(run.name).body["jobType"] = kind

    with pytest.raises(JobError, match=f"run {run.name} is {words}, not a single command job"):
        run.rerun()


def test_a_trial_has_what_its_sweep_chose(emulator: Emulator, azure: AzureML) -> None:
    sweep, trial = submitted(azure), submitted(azure, inputs={"rate": 1.0}, command="echo ${{inputs.rate}}")
    emulator.job(sweep.name).body["jobType"] = "Sweep"
    emulator.job(trial.name).body |= {
        "command": "echo ${{search_space.lr}} ${{inputs.rate}}",
        "parameters": {"lr": "0.5"},
        "parentJobName": sweep.name,
    }

    found = azure_run(azure.workspace, trial.name).job()

    assert found.command == "echo ${{inputs.lr}} ${{inputs.rate}}"
    assert found.inputs == {"lr": 0.5, "rate": 1.0}
    assert found.parent_job_name is None


def test_code_that_does_not_arrive_as_it_is_stored_is_read_again(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    run = submitted(azure, code=str(tmp_path))
    emulator.inject(odd(206, b"print(2)", heard=False, Content_Range="bytes 0-7/8"), route="blobs.get")

    code = run.code()

    assert code
    assert (code.folder / "train.py").read_text() == "print(1)"


# The data


def test_data_is_downloaded_if_that_is_said(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    files = {f"part/{n}.csv": bytes([n]) * n for n in range(5)}
    emulator.assets.add_data("digits", "1", files)
    emulator.assets.add_data("digits", "2", {"other.csv": b"newer"})
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")

    with pytest.raises(
        JobError, match="it is in the workspace, not on this machine: azureml:digits:1, 5 files, 10 bytes"
    ) as left:
        run.rerun()
    assert "--download data" in str(left.value.hint)

    found = run.rerun(download="all")

    place = Path(_input(found.job))
    assert {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    } == files
    emulator.forget()
    assert _input(run.rerun(download=["data"]).job) == str(place)
    assert "blobs.get" not in emulator.counts()

    few = Path(_input(run.rerun(sample=2).job))
    assert sorted(path.name for path in few.rglob("*.csv")) == ["0.csv", "1.csv"]
    assert few != place
    own = run.rerun(run.job().with_(inputs={"data": Input(path=str(tmp_path))}))
    assert _input(own.job) == str(tmp_path)


def _input(found: Any) -> str:
    data = found.inputs["data"]
    assert isinstance(data, Input)
    return data.path


def test_a_download_that_broke_off_continues_with_the_byte_that_is_missing(emulator: Emulator, azure: AzureML) -> None:
    big = bytes(range(256)) * 40_000
    emulator.assets.add_data("digits", "1", {"a.bin": big})
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    emulator.inject(delay(0), route="blobs.get")
    emulator.inject(answer(403), route="blobs.get")
    with pytest.raises(AuthError):
        run.rerun(download="all")
    emulator.forget()

    place = Path(_input(run.rerun(download="all").job))

    assert (place / "a.bin").read_bytes() == big
    assert [request.headers["Range"] for request in emulator.requests if request.route == "blobs.get"] == [
        "bytes=4194304-8388607",
        "bytes=8388608-10239999",
    ]


def test_data_that_changed_is_fetched_again(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("digits", "1", {"a.csv": b"1", "b.csv": b"2"})
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    place = Path(_input(run.rerun(download="all").job))
    emulator.assets.add_data("digits", "1", {"a.csv": b"3"})

    assert Path(_input(run.rerun(download="all").job)) == place
    assert (place / "a.csv").read_bytes() == b"3"


def test_data_that_somebody_changed_here_is_fetched_again(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("digits", "1", {"a.csv": b"1", "b/c.csv": b"2"})
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    place = Path(_input(run.rerun(download="all").job))
    for file in (place / "a.csv", place / "b" / "c.csv"):
        file.chmod(0o644)
    (place / "a.csv").write_bytes(b"9")
    (place / "b" / "c.csv").unlink()
    (place / "b" / "d.csv").write_bytes(b"4")

    run.rerun(download="all")

    assert {path.name: path.read_bytes() for path in place.rglob("*.csv")} == {"a.csv": b"1", "c.csv": b"2"}


def test_two_that_fetch_the_same_data_at_once_both_have_it(emulator: Emulator, azure: AzureML) -> None:
    files = {f"{n}.bin": bytes([n]) * 9_000_000 for n in range(4)}
    emulator.assets.add_data("digits", "1", files)
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    emulator.latency = 0.01

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: run.rerun(download="all"), range(3)))

    [place] = {Path(_input(one.job)) for one in found}
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files


def test_data_that_does_not_arrive_as_it_is_stored_is_read_again(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("digits", "1", {"a.csv": b"right"})
    set_md5(emulator, "data/digits/1/a.csv", hashlib.md5(b"right").digest())
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    emulator.inject(odd(206, b"wrong", heard=False, Content_Range="bytes 0-4/5"), route="blobs.get")

    place = Path(_input(run.rerun(download="all").job))

    assert (place / "a.csv").read_bytes() == b"right"


def test_data_without_rights_and_data_that_is_gone(emulator: Emulator, azure: AzureML) -> None:
    emulator.assets.add_data("digits", "1", {"a.csv": b"1"})
    run = submitted(azure, inputs={"data": Input(path="azureml:digits:1")}, command="ls ${{inputs.data}}")
    refusal = answer(403, code="AuthorizationPermissionMismatch")
    emulator.inject(refusal, route="blobs.list", times=None)

    with pytest.raises(AuthError, match=r"your login may not read input data \(azureml:digits:1\)") as refused:
        run.rerun(download="all")
    assert "Storage Blob Data Reader" in str(refused.value.hint)
    with pytest.raises(JobError, match="its size is not known: your login may not read"):
        run.rerun()


def test_an_unknown_input_is_named(azure: AzureML) -> None:
    run = submitted(azure, inputs={"epochs": 1})

    with pytest.raises(JobError, match="no data input `dat` to download"):
        run.rerun(download=["dat"])


def test_outputs_start_with_what_the_run_had_written(emulator: Emulator, azure: AzureML) -> None:
    run = submitted(
        azure, outputs={"model": Output(), "none": Output()}, command="ls ${{outputs.model}} ${{outputs.none}}"
    )
    store = emulator.workspace.datastores["workspaceblobstore"].container
    emulator.account.put(store, f"azureml/{run.name}/model/ckpt/3.pt", b"weights")

    found = run.rerun(resume=True)

    assert (found.outputs["model"] / "ckpt" / "3.pt").read_bytes() == b"weights"
    assert "output none starts empty: that run has written nothing there" in found.notes


# What is not the same


def test_what_differs_is_said(emulator: Emulator, azure: AzureML, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    emulator.assets.add(
        "environments",
        "torch",
        "1",
        {"image": "mcr.microsoft.com/x", "condaFile": "dependencies: [{pip: [torch==1.0]}]"},
    )
    run = submitted(
        azure, environment_variables={"WANDB_API_KEY": "0123456789abcdef", "A": "b"}, identity={"type": "managed"}
    )
    emulator.job(run.name).write_log("user_logs/std_log.txt", "PyTorch version: 1.9.0\nnumpy==1.0.1\nrank 0\n")

    found = run.rerun()

    notes = "\n".join(found.notes)
    assert "it ran in mcr.microsoft.com/x (environment torch:1), and here with the packages of your Python" in notes
    assert "its logs show " in notes
    assert "torch 1.9.0" in notes
    assert "numpy 1.0.1" in notes
    assert "WANDB_API_KEY has the value that the workspace keeps" in notes
    assert "it accessed data with the identity `managed`, and here as you" in notes
    assert found.job.environment_variables == {"WANDB_API_KEY": None, "A": "b"}
    assert found.secrets == {"WANDB_API_KEY": "0123456789abcdef"}
    assert "0123456789abcdef" not in repr(found)
    assert found.environment
    assert found.environment.image == "mcr.microsoft.com/x"


def test_a_run_that_still_runs_can_be_repeated(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = submitted(azure, code=str(code_in(tmp_path / "code")))
    emulator.job(run.name).advance("Running")

    found = run.rerun()

    assert found.origin.status == "Running"
    assert found.origin.verdict is None
    assert found.origin.workspace == workspace_of(emulator).name
