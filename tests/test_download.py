"""`download`: all that a run left comes, and what does not is named; nothing is overwritten or leads elsewhere."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import await_, call, cli, run_here
from submitting import job
from test_azure_run import at_the_workspace, login_at

import azml_dist
from azml_dist import AzureML, DistError, DownloadFailed, Job, Output, PyTorch
from azml_dist.azureml.run import AzureRun
from azml_dist.emulator import Emulator, answer, delay, odd, reset_after
from azml_dist.local.run import LocalRun
from azml_dist.runs.target import Target

pytestmark = [pytest.mark.filterwarnings(one) for one in SDK_WARNINGS]


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and not {"system_logs", ".azml-dist"} & {*path.parts}
    }


def put(emulator: Emulator, path: str, text: str = "x", store: str = "workspaceblobstore") -> None:
    emulator.account.put(emulator.workspace.datastores[store].container, path, text.encode())


# From Azure ML


@pytest.fixture
def run(emulator: Emulator, azure: AzureML) -> AzureRun:
    """A completed run with an output `model`, to which nothing has been written yet."""
    run = azure.submit(job(outputs={"model": Output()}))
    emulator.job(run.name).advance("Completed")
    return run


@pytest.mark.parametrize("status", ["Completed", "Failed", "Canceled", "NotResponding", "Paused"])
@pytest.mark.parametrize("kind", ["uri_folder", "mltable", "mlflow_model", "custom_model"])
def test_named_outputs_come_whatever_their_type_and_however_the_run_ended(
    emulator: Emulator, azure: AzureML, tmp_path: Path, status: str, kind: Any
) -> None:
    run = azure.submit(job(outputs={"model": Output(type=kind)}))
    put(emulator, f"azureml/{run.name}/model/deep/w.txt", "weights")
    emulator.job(run.name).write_log("user_logs/std_log.txt", "said\n")
    emulator.job(run.name).advance(status)

    done = run.fetch(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/model/deep/w.txt": "weights", "user_logs/std_log.txt": "said\n"}
    assert [(part.path, part.files, part.size) for part in done.parts] == [("outputs/model", 1, 7), ("user_logs", 1, 5)]
    assert done.missing == done.kept == []


@pytest.mark.parametrize(
    "address",
    [
        "azureml://datastores/workspaceblobstore/paths/mine/${{name}}",
        "azureml://datastores/workspaceblobstore/paths/mine/${{name}}/",
        "azureml://subscriptions/{s}/resourcegroups/{g}/workspaces/{w}/datastores/workspaceblobstore/paths/mine/${{name}}",
        "azureml:/{id}/datastores/workspaceblobstore/paths/mine/${{name}}",
        "https://{host}/{container}/mine/${{name}}",
        "wasbs://{container}@{host}/mine/${{name}}",
        "abfss://{container}@{account}.dfs.core.windows.net/mine/${{name}}/",
    ],
)
def test_outputs_are_found_under_every_kind_of_address(
    emulator: Emulator, azure: AzureML, tmp_path: Path, address: str
) -> None:
    here = emulator.workspace
    values = {
        "{s}": here.subscription_id,
        "{g}": here.resource_group,
        "{w}": here.name,
        "{id}": here.arm_id,
        "{host}": here.account.host,
        "{account}": here.account.name,
        "{container}": here.datastores["workspaceblobstore"].container,
    }
    for name, value in values.items():
        address = address.replace(name, value)
    run = azure.submit(job(outputs={"model": Output()}))
    emulator.job(run.name).body["outputs"]["model"]["uri"] = address
    emulator.job(run.name).advance("Completed")
    put(emulator, f"mine/{run.name}/w.txt", "weights")
    put(emulator, f"mine/{run.name}_2/other.txt", "of another run")

    run.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}


@pytest.mark.parametrize("secrets", ["key", "sas", "none"])
def test_words_of_the_service_are_read_in_any_case(
    emulator: Emulator, azure: AzureML, tmp_path: Path, secrets: str
) -> None:
    """Its enumerations know none: what echoes the request may not be what is answered."""
    emulator.workspace.other_case = True
    for store in emulator.workspace.datastores.values():
        store.secrets = secrets
    one = job(name="one", inputs={"epochs": 3}, outputs={"model": Output()}, distribution=PyTorch(), node_count=2)
    run = azure.submit(one)
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    emulator.job(run.name).advance("Completed")

    assert azure.submit(one).name == "one"
    assert run.wait(timeout=30).status == "Completed"
    assert AzureRun.latest(azure.workspace)[0]["status"] == "Completed"
    run.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}
    assert emulator.counts()["jobs.put"] == 1


def test_outputs_in_a_data_lake_are_read_as_blobs(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    here = emulator.workspace
    lake = {
        "datastoreType": "AzureDataLakeGen2",
        "accountName": here.account.name,
        "filesystem": here.datastores["workspaceblobstore"].container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "credentials": {"credentialsType": "ServicePrincipal"},
    }
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    emulator.inject(odd(200, json.dumps({"properties": lake}).encode(), heard=False), route="datastores.get")

    run.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}


def test_an_output_that_is_a_file_comes_under_its_own_name(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    run = azure.submit(
        job(outputs={"table": Output(type="uri_file", path="azureml://datastores/workspaceblobstore/paths/t.csv")})
    )
    put(emulator, "t.csv", "1,2")
    put(emulator, "t.csv.old", "of another")
    emulator.job(run.name).advance("Completed")

    run.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/table/t.csv": "1,2"}


def test_an_output_to_which_nothing_was_written_is_named_and_the_rest_comes(
    emulator: Emulator, run: AzureRun, tmp_path: Path
) -> None:
    emulator.job(run.name).write_log("user_logs/std_log.txt", "said\n")

    with pytest.raises(
        DownloadFailed, match=f"incomplete download of run {run.name}: output model: nothing found at"
    ) as failed:
        run.download(tmp_path / "got")

    assert failed.value.download.folder == tmp_path / "got"
    assert failed.value.hint
    assert files_in(tmp_path / "got") == {"user_logs/std_log.txt": "said\n"}


def test_the_command_line_lists_what_came_and_ends_with_1_where_something_is_missing(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = azure.submit(job(outputs={"model": Output(), "table": Output()}))
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    emulator.job(run.name).fail("it failed")

    ended = at_the_workspace(emulator, tmp_path, "download", run.name, "--to", "got")
    put(emulator, f"azureml/{run.name}/table/t.txt")
    again = at_the_workspace(emulator, tmp_path, "download", run.name, "--to", "got", "--json")

    assert (ended.returncode, ended.stdout) == (1, "got\n")
    assert ended.stderr.splitlines()[0].split() == ["outputs/model", "1", "file", "7", "bytes"]
    assert f"error: incomplete download of run {run.name}: output table: nothing found at azureml://" in ended.stderr
    found = json.loads(again.stdout)
    assert (again.returncode, found["missing"], found["kept"]) == (0, [], ["outputs/model/w.txt"])
    assert found["parts"] == [
        {"path": "outputs/model", "files": 1, "bytes": 7},
        {"path": "outputs/table", "files": 1, "bytes": 1},
    ]
    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights", "outputs/table/t.txt": "x"}


@pytest.mark.parametrize(
    "name",
    ["../../up.txt", "a/../../up.txt", "a/./b", "/etc/passwd", "a//b", "..", "a/.."],
    ids=lambda name: name.replace("/", "|"),
)
def test_a_name_in_the_storage_leads_nowhere_else(emulator: Emulator, run: AzureRun, tmp_path: Path, name: str) -> None:
    listing = (
        f"<EnumerationResults><Blobs><Blob><Name>azureml/{run.name}/model/{name}</Name><Properties><Content-Length>1"
        "</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob></Blobs><NextMarker/></EnumerationResults>"
    )
    emulator.inject(
        odd(200, listing.encode(), heard=False, Content_Type="application/xml"), route="blobs.list", times=1
    )

    done = run.fetch(tmp_path / "in" / "got")

    assert len(done.missing) == 1
    assert "this is not a valid file name" in done.missing[0]
    assert files_in(tmp_path) == {}


def test_nothing_is_written_through_a_link_in_the_target(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    put(emulator, f"azureml/{run.name}/model/v.txt", "weights")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got" / "outputs").mkdir(parents=True)
    (tmp_path / "got" / "outputs" / "model").symlink_to(tmp_path / "elsewhere")

    done = run.fetch(tmp_path / "got")

    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(done.missing) == 2
    assert "is a link, not a folder" in done.missing[0]


def test_a_file_where_a_folder_should_be_is_one_line(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    (tmp_path / "got").write_text("mine")

    with pytest.raises(DistError, match="a file has this name"):
        run.download(tmp_path / "got")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "outputs").write_text("mine")

    assert "is a file, not a folder" in run.fetch(tmp_path / "other").missing[0]
    assert (tmp_path / "got").read_text() == (tmp_path / "other" / "outputs").read_text() == "mine"


def test_what_the_storage_refuses_is_named_and_the_rest_comes(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = azure.submit(job(outputs={"model": Output()}))
    for name in "abc":
        put(emulator, f"azureml/{run.name}/model/{name}", name)
    emulator.job(run.name).advance("Completed")
    emulator.inject(answer(403, code="AuthorizationFailure"), route="blobs.get", times=1)

    done = run.fetch(tmp_path / "got")

    assert len(files_in(tmp_path / "got")) == 2
    assert len(done.missing) == 1
    assert "the workspace's storage blocks access from this network" in done.missing[0]
    assert not list((tmp_path / "got").glob(".download-*"))


@pytest.mark.parametrize("fault", [answer(503), reset_after()], ids=str)
def test_a_fault_on_the_way_loses_nothing(emulator: Emulator, run: AzureRun, tmp_path: Path, fault: Any) -> None:
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights" * 1000)
    for route in ("blobs.get", "blobs.list", "datastores.get", "datastores.listSecrets"):
        emulator.inject(fault, route=route, times=1)

    run.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights" * 1000}


def test_files_of_many_pieces_and_empty_ones_are_whole(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    large = os.urandom(9_000_001)
    store = emulator.workspace.datastores["workspaceblobstore"].container
    emulator.account.put(store, f"azureml/{run.name}/model/large", large)
    put(emulator, f"azureml/{run.name}/model/empty", "")

    run.download(tmp_path / "got")

    assert (tmp_path / "got/outputs/model/large").read_bytes() == large
    assert (tmp_path / "got/outputs/model/empty").read_bytes() == b""


@pytest.mark.parametrize("route", ["datastores.get", "datastores.listSecrets", "blobs.list"])
@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b"{}", b'{"properties": {"datastoreType": 5}}'])
def test_what_is_no_answer_about_a_datastore_is_named(
    emulator: Emulator, run: AzureRun, tmp_path: Path, route: str, body: bytes
) -> None:
    emulator.inject(odd(200, body, heard=False), route=route, times=None)

    done = run.fetch(tmp_path / "got")

    assert [line.partition(":")[0] for line in done.missing] == ["output model", "artifacts and logs"]


@pytest.mark.parametrize(
    "field", [{"endpoint": "elsewhere.example"}, {"protocol": "http"}, {"accountName": "elsewhere.example/"}]
)
def test_a_datastore_elsewhere_does_not_get_the_login(
    emulator: Emulator, run: AzureRun, tmp_path: Path, field: dict[str, str]
) -> None:
    said = {"datastoreType": "AzureBlob", "accountName": "acct", "containerName": "c", "endpoint": "core.windows.net"}
    body = json.dumps({"properties": {**said, "protocol": "https", **field}}).encode()
    emulator.inject(odd(200, body, heard=False), route="datastores.get", times=None)

    done = run.fetch(tmp_path / "got")

    assert len(done.missing) == 2
    assert all("your login was not sent there" in line for line in done.missing)


@pytest.mark.parametrize("route", ["blobs.list", "blobs.get"])
@pytest.mark.parametrize("place", ["https://elsewhere.example/c", "http://{host}/c", "https://{host}/elsewhere"])
def test_the_storage_sends_the_login_nowhere_else(
    emulator: Emulator, run: AzureRun, tmp_path: Path, route: str, place: str
) -> None:
    for store in emulator.workspace.datastores.values():
        store.secrets = "none"
    put(emulator, f"azureml/{run.name}/model/w.txt")
    location = place.format(host=emulator.account.host)
    emulator.inject(odd(307, b"", heard=False, Location=location), route=route, times=None)

    done = run.fetch(tmp_path / "got")

    assert done.missing
    assert {request.host for request in emulator.requests if "Authorization" in request.headers} == {
        "management.azure.com",
        "eastus.api.azureml.ms",
        emulator.account.host,
    }
    assert not [request for request in emulator.requests if "elsewhere" in request.host + request.path]


def test_of_a_sweep_the_best_trial_comes(emulator: Emulator, azure: AzureML, tmp_path: Path) -> None:
    best, sweep = (azure.submit(job(outputs={"model": Output()})) for _ in range(2))
    put(emulator, f"azureml/{best.name}/model/w.txt", "weights")
    emulator.job(best.name).write_log("user_logs/std_log.txt", "of the best\n")
    emulator.job(sweep.name).write_log("user_logs/std_log.txt", "of the sweep\n")
    there = emulator.job(sweep.name)
    for one in (best, sweep):
        emulator.job(one.name).advance("Completed")
    there.body["jobType"] = "Sweep"

    with pytest.raises(DownloadFailed, match="the best trial: Azure ML has none"):
        sweep.download(tmp_path / "none")
    there.body["properties"] = {"best_child_run_id": sweep.name}
    assert sweep.fetch(tmp_path / "itself").missing == ["the best trial: Azure ML has none"]
    there.body["properties"] = {"best_child_run_id": best.name}
    sweep.download(tmp_path / "got")

    assert files_in(tmp_path / "got") == {
        "outputs/model/w.txt": "weights",
        "user_logs/std_log.txt": "of the best\n",
        "sweep/user_logs/std_log.txt": "of the sweep\n",
    }


def test_outputs_of_a_pipeline_come_from_the_step_that_wrote_them(
    emulator: Emulator, azure: AzureML, tmp_path: Path
) -> None:
    run = azure.submit(job(outputs={"model": Output(), "table": Output()}))
    emulator.job(run.name).body["jobType"] = "Pipeline"
    emulator.job(run.name).advance("Completed")
    step = "azureml://datastores/workspaceblobstore/paths/azureml/a-step/trained/"
    asset = run._workspace.history.read(f"runs/{run.name}").object("outputs").object("model").needed("assetId")
    said = {"values": {asset: {"uri": step, "type": "UriFolder"}}}
    put(emulator, "azureml/a-step/trained/w.txt", "weights")
    emulator.inject(odd(200, json.dumps(said).encode(), heard=False), route="data.resolve", times=None)

    done = run.fetch(tmp_path / "got")

    assert run.outputs["model"] == step
    assert files_in(tmp_path / "got") == {"outputs/model/w.txt": "weights"}
    assert [line.partition(":")[0] for line in done.missing] == ["output table"]


def test_a_download_that_is_interrupted_ends_at_once_and_leaves_nothing_half_written(
    emulator: Emulator, run: AzureRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in login_at(emulator, tmp_path).items():
        monkeypatch.setenv(name, value)
    put(emulator, f"azureml/{run.name}/model/w.txt", "weights")
    emulator.inject(delay(60), route="blobs.get", times=None)

    with cli("download", run.name, "--to", "got", cwd=tmp_path) as started:
        await_(lambda: "blobs.get" in emulator.counts())
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=30) == 130
    emulator.end_delays()

    assert [path for path in (tmp_path / "got").rglob("*") if not path.is_dir()] == []
    assert not list((tmp_path / "got").glob(".download-*"))


def test_a_hostile_name_of_an_output_is_no_folder(emulator: Emulator, run: AzureRun, tmp_path: Path) -> None:
    body = emulator.job(run.name).body
    body["outputs"] = {"../../up": dict(body["outputs"]["model"])}
    put(emulator, f"azureml/{run.name}/../../up/w.txt")

    done = run.fetch(tmp_path / "in" / "got")

    assert done.missing == ["output ../../up: not a valid folder name"]
    assert files_in(tmp_path) == {}


# From here


def local_run(command: str, **outputs: Output) -> LocalRun:
    return run_here(Job(command=command, outputs=outputs or {"m": Output()}))


def test_links_within_a_run_stay_links_in_the_copy(tmp_path: Path) -> None:
    run = local_run(
        "cd ${{outputs.m}}; mkdir step_100; echo w > step_100/w; ln -s step_100 latest; ln -s $PWD/step_100/w best; "
        "ln -s latest/w last"
    )

    run.download(tmp_path / "got")
    model = tmp_path / "got/outputs/m"

    assert {name: os.readlink(model / name) for name in ("latest", "best", "last")} == {
        "latest": "step_100",
        "best": "step_100/w",
        "last": "step_100/w",
    }
    assert (model / "latest/w").read_text() == (model / "best").read_text() == "w\n"


def test_what_cannot_be_copied_is_named_and_the_rest_comes(tmp_path: Path) -> None:
    run = local_run(
        "cd ${{outputs.m}}; echo w > w; ln -s nowhere dangling; ln -s round round; mkfifo pipe; ln -s /etc out; "
        "ln -s /etc/passwd secret; ln -s pipe to_pipe; mkdir empty"
    )
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(run.folder / "outputs/m")
        bound.bind("socket")
        os.chdir(here)

    done = run.fetch(tmp_path / "got")

    assert [line.split(" and was not")[0] for line in done.left_out] == [
        "outputs/m/dangling is a broken link",
        "outputs/m/out is a link to something outside the run, /etc",
        "outputs/m/pipe is a FIFO",
        "outputs/m/round is a broken link",
        "outputs/m/secret is a link to something outside the run, /etc/passwd",
        "outputs/m/socket is a socket",
        "outputs/m/to_pipe is a link to something that is not a file",
    ]
    assert done.missing == []
    assert sorted(path.name for path in (tmp_path / "got/outputs/m").iterdir()) == ["empty", "w"]


def test_an_output_of_a_local_run_that_has_nothing_is_named(tmp_path: Path) -> None:
    run = local_run("echo w > ${{outputs.m}}/w", m=Output(), table=Output(), gone=Output(type="uri_file"))
    os.rmdir(run.folder / "outputs/gone")

    ended = call("download", run.name, "--to", tmp_path / "got")

    assert (ended.returncode, ended.stdout) == (1, f"{tmp_path / 'got'}\n")
    assert [line.split()[0] for line in ended.stderr.splitlines()] == ["outputs/m", "user_logs", "error:", "hint:"]
    assert "output table: the run wrote nothing to it; output gone: it is no longer in the run's folder" in ended.stderr


def test_a_download_of_a_local_run_goes_through_no_link_and_overwrites_nothing(tmp_path: Path) -> None:
    run = local_run("echo w > ${{outputs.m}}/w; echo v > ${{outputs.m}}/v")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got/outputs/m").mkdir(parents=True)
    (tmp_path / "got/user_logs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "got/outputs/m/w").write_text("mine")
    (tmp_path / "got/outputs/m/v").symlink_to(tmp_path / "elsewhere/v")

    done = run.fetch(tmp_path / "got")

    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "got/outputs/m/w").read_text() == "mine"
    assert sorted(done.kept) == ["outputs/m/v", "outputs/m/w"]
    assert done.missing == [f"user_logs/std_log.txt: {tmp_path}/got/user_logs is a link, not a folder"]


def test_names_that_are_no_text_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    run = local_run(r"printf x > ${{outputs.m}}/$(printf 'caf\351'); printf y > ${{outputs.m}}/$(printf '\033[31m')")
    ended = call("download", run.name, "--to", tmp_path / "got", "--json")
    shown = call("download", run.name, "--to", tmp_path / "got")

    assert ended.returncode == shown.returncode == 0, ended.stderr
    assert sorted(os.listdir(os.fsencode(tmp_path / "got/outputs/m"))) == [b"\x1b[31m", b"caf\xe9"]
    assert "\x1b" not in shown.stderr
    assert "here already: 3 files" in shown.stderr


def test_a_download_onto_a_file_is_one_line(tmp_path: Path) -> None:
    run = local_run("true")
    (tmp_path / "got").write_text("mine")

    for place in (tmp_path / "got", tmp_path / "got" / "in"):
        ended = call("download", run.name, "--to", place)

        assert ended.returncode == 2
        assert [line.split()[0] for line in ended.stderr.splitlines()] == ["error:", "hint:"]
    assert (tmp_path / "got").read_text() == "mine"


@pytest.mark.parametrize("label", ["../../up", "/up", "..", "a/b"])
def test_labels_of_a_hostile_record_lead_nowhere_else(tmp_path: Path, label: str) -> None:
    run = local_run("echo w > ${{outputs.m}}/w")
    group = run.folder.parent / "group"
    group.mkdir()
    member = {"label": label, "name": run.name, "status": "Completed", "started_at": 1.0}
    state = {"name": "group", "folder": str(group), "processes": [], "status": "Completed", "kind": "sweep"}
    record = {**state, "details": {}, "trials": [member, {**member, "label": "trial 0", "name": "group"}]}
    (group / "run.json").write_text(json.dumps(record))

    done = azml_dist.run("group").fetch(tmp_path / "in" / "got")

    assert [line.rpartition(": ")[2] for line in done.missing] == [
        "not a valid folder name, or a link",
        "its run group no longer exists",
    ]
    assert files_in(tmp_path / "in") == {}
    assert not list(tmp_path.glob("up*"))


def test_nothing_half_written_is_left_where_a_download_stops(tmp_path: Path) -> None:
    def stopped(fresh: Path) -> None:
        fresh.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Target(tmp_path / "got", "r") as target:
        target.put("a/b", "1", stopped)

    assert files_in(tmp_path / "got") == {}
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["a"]
