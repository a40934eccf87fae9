"""`download`, repeated: what is here is skipped, what was interrupted continues; `--only` and `--so-far`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from needs import needs
from running import CLI, await_, call, run_here
from submitting import job, set_md5
from test_azure_run import at_the_workspace
from test_download import files_in, put

from azml_dist import AzureML, DistError, DownloadFailed, Job, Output
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, answer, delay, odd
from azml_dist.local.executor import Local
from azml_dist.runs.selection import Selection
from azml_dist.runs.target import NotWrittenError, Target

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]

LARGE = os.urandom(9_000_001)


@pytest.fixture
def run(emulator: Emulator, azure: AzureML) -> AzureRun:
    """A run with an output `model`, to which nothing has been written yet."""
    return azure.submit(job(outputs={"model": Output(), "table": Output()}))


def put_large(emulator: Emulator, path: str, data: bytes = LARGE) -> None:
    emulator.account.put(emulator.workspace.datastores["workspaceblobstore"].container, path, data)


def read_ranges(emulator: Emulator) -> list[str]:
    return [r.headers["x-ms-range"] for r in emulator.requests if r.route == "blobs.get" and "x-ms-range" in r.headers]


def test_a_large_file_that_was_interrupted_continues_where_it_stopped(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    put_large(emulator, f"azureml/{run.name}/model/large")
    emulator.job(run.name).advance("Completed")
    emulator.inject(delay(0), route="blobs.get", times=1)
    emulator.inject(answer(403, code="AuthorizationFailure"), route="blobs.get", times=1)

    first = run.fetch(tmp_path / "got", only=["outputs/model"])
    emulator.requests.clear()
    second = run.fetch(tmp_path / "got", only=["outputs/model"])

    assert [line.partition(":")[0] for line in first.missing] == ["outputs/model/large"]
    assert [(file.path, file.came) for file in second.files] == [("outputs/model/large", "new")]
    assert (tmp_path / "got/outputs/model/large").read_bytes() == LARGE
    assert [one.split("-")[0] for one in read_ranges(emulator)] == ["bytes=4194304", "bytes=8388608"]
    assert not (tmp_path / "got/.azml-dist/parts").exists()


def test_what_was_left_of_another_version_is_not_continued(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    put_large(emulator, f"azureml/{run.name}/model/large")
    emulator.job(run.name).advance("Completed")
    emulator.inject(delay(0), route="blobs.get", times=1)
    emulator.inject(answer(403, code="AuthorizationFailure"), route="blobs.get", times=1)
    run.fetch(tmp_path / "got", only=["outputs/model"])
    other = os.urandom(8_500_000)
    put_large(emulator, f"azureml/{run.name}/model/large", other)

    run.download(tmp_path / "got", only=["outputs/model"])

    assert (tmp_path / "got/outputs/model/large").read_bytes() == other
    assert not (tmp_path / "got/.azml-dist/parts").exists()


def test_a_file_that_is_replaced_while_it_is_read_comes_whole(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "old")
    emulator.job(run.name).advance("Completed")
    emulator.inject(delay(60), route="blobs.get", times=1)
    done: list[Any] = []

    reading = threading.Thread(target=lambda: done.append(run.fetch(tmp_path / "got", only=["outputs/model"])))
    reading.start()
    await_(lambda: "blobs.get" in emulator.counts())
    put(emulator, f"azureml/{run.name}/model/w.txt", "newer")
    emulator.end_delays()
    reading.join(timeout=60)

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "newer"}
    assert done[0].missing == []


def test_a_file_that_is_damaged_on_the_way_is_read_again(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    set_md5(emulator, f"azureml/{run.name}/model/w.txt", hashlib.md5(b"weights").digest())
    emulator.job(run.name).advance("Completed")
    wrong = odd(206, b"wEights", heard=False, Content_Range="bytes 0-6/7", Content_Length="7", ETag='"1"')
    emulator.inject(wrong, route="blobs.get", times=1)

    run.download(tmp_path / "got", only=["outputs/model"])

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}
    assert emulator.counts()["blobs.get"] == 2


def test_a_file_whose_md5_somebody_made_up_comes_all_the_same(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    set_md5(emulator, f"azureml/{run.name}/model/w.txt", bytes(16))
    emulator.job(run.name).advance("Completed")

    run.download(tmp_path / "got", only=["outputs/model"])

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}


def test_a_run_that_goes_on_is_fetched_so_far_and_later_to_its_end(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    here = emulator.job(run.name)
    here.advance("Running")
    here.write_log("user_logs/std_log.txt", "step 1\n")
    here.write_log("user_logs/retry_001/std_log.txt", "again\n")
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")

    early = at_the_workspace(emulator, tmp_path, "download", run.name)
    so_far = at_the_workspace(emulator, tmp_path, "download", run.name, "--so-far", "--to", "got", "--json")
    here.write_log("user_logs/std_log.txt", "step 2\n")
    put(emulator, f"azureml/{run.name}/table/t.txt")
    here.advance("Completed")
    done = run.fetch(tmp_path / "got")

    assert (early.returncode, early.stderr.splitlines()[0]) == (
        2,
        f"error: run {run.name} is still Running: not everything that it will have is there yet",
    )
    found = json.loads(so_far.stdout)
    assert (so_far.returncode, found["missing"]) == (0, []), so_far.stderr
    assert [one.partition(" at ")[0] for one in found["left_out"]] == ["output table: nothing yet"]
    assert {file.path: file.came for file in done.files} == {
        "outputs/model/w.txt": "here",
        "outputs/table/t.txt": "new",
        "user_logs/std_log.txt": "updated",
        "user_logs/retry_001/std_log.txt": "here",
    }
    assert files_in(tmp_path / "got")["user_logs/std_log.txt"] == "step 1\nstep 2\n"
    assert done.notes() == [
        "here already: 2 files",
        "replaced, because the run has changed them since: user_logs/std_log.txt",
    ]


def test_only_what_is_wanted_is_asked_for(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    for path in ("model/a.pt", "model/b.txt", "model/deep/c.pt", "table/t.txt"):
        put(emulator, f"azureml/{run.name}/{path}", path)
    emulator.job(run.name).write_log("user_logs/std_log.txt", "said\n")
    emulator.job(run.name).advance("Completed")
    emulator.requests.clear()

    run.download(tmp_path / "one", only=["outputs/model"])
    asked = emulator.counts()
    run.download(tmp_path / "two", only=["outputs/*/*.pt", "./user_logs/"])
    with pytest.raises(DistError, match="has nothing at `outputs/modle`") as failed:
        run.download(tmp_path / "three", only=["outputs/modle", "user_logs"])

    assert sorted(files_in(tmp_path / "one")) == [f"outputs/model/{name}" for name in ("a.pt", "b.txt", "deep/c.pt")]
    assert (asked["blobs.list"], asked["blobs.get"]) == (1, 3)
    assert sorted(files_in(tmp_path / "two")) == ["outputs/model/a.pt", "user_logs/std_log.txt"]
    assert failed.value.hint == "did you mean `outputs/model`?"
    assert not (tmp_path / "three").exists()


def test_logs_come_from_their_own_addresses_if_the_artifacts_may_not_be_read(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    here = emulator.job(run.name)
    for log in ("user_logs/std_log.txt", "user_logs/retry_001/std_log.txt"):
        here.write_log(log, f"{log}\n")
    here.fail("it failed")
    emulator.inject(answer(403, code="AuthorizationPermissionMismatch"), route="blobs.list", times=None)

    done = run.fetch(tmp_path / "got")

    assert sorted(files_in(tmp_path / "got")) == ["user_logs/retry_001/std_log.txt", "user_logs/std_log.txt"]
    assert [line.partition(":")[0] for line in done.missing] == ["output model", "output table", "artifacts"]
    with pytest.raises(DownloadFailed, match="Storage Blob Data"):
        run.download(tmp_path / "got")


def test_files_of_another_run_and_files_that_you_have_changed_stay_as_they_are(tmp_path: Path) -> None:
    first, second = (
        run_here(Job(command=f"echo {n} | tee ${{{{outputs.m}}}}/w", outputs={"m": Output()})) for n in (1, 2)
    )

    first.download(tmp_path / "got")
    done = second.fetch(tmp_path / "got")
    (tmp_path / "got/user_logs/std_log.txt").write_text("mine")
    again = first.fetch(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/m/w": "1\n", "user_logs/std_log.txt": "mine"}
    assert {file.came for file in done.files} == {"kept"}
    assert {file.path: file.came for file in again.files} == {"outputs/m/w": "here", "user_logs/std_log.txt": "kept"}


def test_a_local_run_that_goes_on_is_copied_so_far(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = Local().submit(
        Job(command=f"echo a; until [ -e {gate} ]; do sleep 0.02; done; echo b", outputs={"m": Output()})
    )
    await_(lambda: "a" in run.logs())

    early = call("download", run.name, "--to", tmp_path / "got")
    so_far = call("download", run.name, "--to", tmp_path / "got", "--so-far")
    gate.touch()
    run.wait(timeout=60)
    done = run.fetch(tmp_path / "got", only=["user_logs"])

    assert (early.returncode, so_far.returncode) == (2, 0), so_far.stderr
    assert "--so-far" in early.stderr
    assert [(file.path, file.came) for file in done.files] == [("user_logs/std_log.txt", "updated")]
    assert files_in(tmp_path / "got") == {"user_logs/std_log.txt": "a\nb\n"}


@needs("unshare")
@pytest.mark.parametrize("options", ["size=64k", "size=64m,nr_inodes=12"], ids=["before", "in the middle"])
def test_on_a_full_disk_what_did_not_come_is_named_and_comes_later(tmp_path: Path, options: str) -> None:
    run = run_here(
        Job(
            command="cd ${{outputs.m}}; for i in $(seq 20); do head -c 9999 /dev/zero > $i; done",
            outputs={"m": Output()},
        )
    )
    (tmp_path / "small").mkdir()
    download = " ".join([*CLI, "download", run.name, "--to", str(tmp_path / "small")])
    script = f"mount -t tmpfs -o {options} t {tmp_path}/small || exit 77; {download}; echo $?; "
    script += f"ls {tmp_path}/small/outputs/m | wc -l; mount -o remount,size=64m,nr_inodes=99 {tmp_path}/small; "
    script += f"{download} --json"
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if ended.returncode == 77:
        pytest.skip("no tmpfs may be mounted here")

    lines = ended.stdout.splitlines()
    if "nr_inodes" in options:
        assert lines[:2] == [str(tmp_path / "small"), "1"], ended
        assert 0 < int(lines[2]) < 20
        assert "error: incomplete download" in ended.stderr
        assert "no space left on device" in ended.stderr
        assert "hint: the rest is in" in ended.stderr
        assert "make space, then repeat the command" in ended.stderr
    else:
        assert lines[0] == "2", ended
        assert "199.9 kB do not fit into" in ended.stderr or "200.0 kB do not fit into" in ended.stderr
    found = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert (ended.returncode, found["missing"], len(found["files"])) == (0, [], 21)


@pytest.mark.parametrize("path", ["", ".", "/etc", "../x", "outputs/../../x"])
def test_only_is_a_path_in_a_run(path: str) -> None:
    with pytest.raises(DistError, match="is not a path in a run"):
        Selection([path])


@pytest.mark.parametrize("path", ["a/" * 1500 + "b", ".azml-dist/came.jsonl", ".azml-dist/parts/x"])
def test_a_path_that_no_run_has_makes_no_folder(tmp_path: Path, path: str) -> None:
    with Target(tmp_path / "got", "r") as target, pytest.raises(NotWrittenError):
        target.put(path, "1", lambda draft: draft.write_text("x"))

    assert list((tmp_path / "got").iterdir()) == []


def test_nothing_of_our_own_records_leads_elsewhere(tmp_path: Path) -> None:
    run = run_here(Job(command="echo w > ${{outputs.m}}/w", outputs={"m": Output()}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got/.azml-dist").symlink_to(tmp_path / "elsewhere")

    run.download(tmp_path / "got")

    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert files_in(tmp_path / "got") == {"outputs/m/w": "w\n", "user_logs/std_log.txt": ""}
