"""MLflow in local runs: a server of the run's own writes one store a root, and refuses what Azure ML refuses."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from needs import imported
from running import LOG, log_of, pytorch, run_here, together

from azml_dist import Job, Local, Output, RunFailed
from azml_dist.local.tracking import server
from azml_dist.local.tracking.begin import Tracking, begin_tracking
from azml_dist.local.tracking.store import end_run, gather
from azml_dist.plan.world import SERVICE, Service

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def file_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow reads such a store only when it is told to."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with `log.py`."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "log.py").write_text(LOG)
    return tmp_path / "src"


class Running:
    """A server of a run that has no processes, and MLflow's client of it."""

    def __init__(self, folder: Path, tracking: Tracking) -> None:
        self.folder, self.tracking, self.run_id = folder, tracking, folder.name
        fd = tracking.listener.fileno()
        command = [sys.executable, "-I", server.__file__, str(fd)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[fd])
        assert self.process.stdin
        self.process.stdin.write(json.dumps(tracking.specification()).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Status and answer of one request, sent with the token where the headers name no other."""
        headers = {"Authorization": f"Bearer {self.tracking.token}"} | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.tracking.listener.getsockname()[1], timeout=30)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def log(self, kind: str, **fields: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/api/2.0/mlflow/runs/{kind}", json.dumps({"run_id": self.run_id, **fields}).encode())

    def data(self) -> Any:
        return self.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={self.run_id}")[1]["run"]["data"]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.tracking.listener.close()


def serve(root: Path, name: str = "first", service: Service = SERVICE, **inputs: Any) -> Running:
    (root / name).mkdir(parents=True)
    return Running(root / name, begin_tracking(Job(command="true", inputs=inputs), root / name, service))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = serve(tmp_path / "root", lr="1.0e-3", epochs=3)
    yield found
    found.close()


@pytest.fixture
def client(running: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    mlflow = imported("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", running.tracking.token)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return mlflow.MlflowClient(running.tracking.uri)


def store_of(root: Path) -> Any:
    """MLflow's own view of a root, as `mlflow ui` has it."""
    return imported("mlflow").MlflowClient((root / "mlruns").as_uri())


def test_ranks_that_log_the_same_at_once_all_succeed(tmp_path: Path) -> None:
    script = "import mlflow; mlflow.log_params({f'p{i}': i for i in range(20)}); mlflow.log_metric('loss', 1.0)"
    command = together(f'python -W ignore -c "{script}"')

    run = run_here(pytorch(command, 2, 2, code=None), launcher="direct", root=tmp_path)

    assert run.status == "Completed", [log_of(run, rank) for rank in range(4)]
    assert run.metric_histories() == {"loss": [1.0] * 4}


def test_nothing_is_lost_of_what_many_log_at_once(running: Running) -> None:
    with ThreadPoolExecutor(32) as pool:
        params = [pool.submit(running.log, "log-parameter", key=f"p{i % 50}", value=str(i % 50)) for i in range(400)]
        metrics = [pool.submit(running.log, "log-metric", key="loss", value=i, step=i, timestamp=1) for i in range(400)]

    assert {answer.result()[0] for answer in params + metrics} == {200}
    assert len(running.data()["params"]) == 52
    lines = (running.tracking.run / "metrics" / "loss").read_text().splitlines()
    assert sorted(float(line.split()[1]) for line in lines) == [float(i) for i in range(400)]


def test_literal_inputs_are_parameters_and_none_changes_its_text(running: Running) -> None:
    """Azure ML has logged them before the script starts: seen in Azure/mlops-v2#93."""
    status, answer = running.log("log-parameter", key="lr", value="0.001")

    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "A given key of Parameters can not modify its value after it is set" in answer["message"]
    assert running.log("log-parameter", key="lr", value="1.0e-3") == (200, {})
    assert running.log("log-batch", params=[{"key": "new", "value": "1"}, {"key": "epochs", "value": "4"}])[0] == 400
    assert {p["key"]: p["value"] for p in running.data()["params"]} == {"lr": "1.0e-3", "epochs": "3"}


def test_a_batch_that_contradicts_itself_is_refused(running: Running) -> None:
    assert running.log("log-batch", params=[{"key": "a", "value": "1"}, {"key": "a", "value": "2"}])[0] == 400
    assert running.log("log-batch", params=[{"key": "a", "value": "1"}, {"key": "a", "value": "1"}])[0] == 200


def test_a_run_has_as_many_parameters_as_on_azure_ml(running: Running) -> None:
    """Seen in azure-sdk-for-python#35685. The two of the inputs count."""
    params = [{"key": f"p{i}", "value": str(i)} for i in range(199)]

    status, answer = running.log("log-batch", params=params)

    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "FieldName=Parameters, Limit=200, Size=201" in answer["message"]
    assert running.log("log-batch", params=params[:198]) == (200, {})
    assert running.log("log-batch", params=params[:198]) == (200, {})  # the same once more adds none
    assert running.log("log-parameter", key="one-more", value="1")[0] == 400


def test_a_request_holds_as_many_values_of_one_metric_as_on_azure_ml(running: Running) -> None:
    def rows(key: str, count: int) -> list[dict[str, Any]]:
        return [{"key": key, "value": i, "step": i, "timestamp": 1} for i in range(count)]

    status, answer = running.log("log-batch", metrics=rows("loss", 251))

    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251" in answer["message"]
    assert running.log("log-batch", metrics=rows("loss", 250) + rows("accuracy", 250)) == (200, {})


def test_what_the_service_does_can_be_taken_to_be_otherwise(tmp_path: Path) -> None:
    service = Service(logs_inputs=False, parameters_a_run=3, metric_rows_a_batch=1)
    running = serve(tmp_path, service=service, lr="1.0e-3")
    try:
        assert running.log("log-batch", params=[{"key": key, "value": "1"} for key in ("lr", "a", "b")])[0] == 200
        assert running.log("log-parameter", key="c", value="1")[0] == 400
        assert running.log("log-batch", metrics=[{"key": "m", "value": i} for i in range(2)])[0] == 400
    finally:
        running.close()


@pytest.mark.parametrize("key", ["../up", "/etc/x", "a/../b", ".", "..", "a//b", "", "tab\t", "x" * 251, None, 5])
@pytest.mark.parametrize("kind", ["log-parameter", "log-metric", "set-tag"])
def test_a_key_leads_nowhere_else(running: Running, kind: str, key: Any) -> None:
    status, answer = running.log(kind, key=key, value="1")

    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("value", ["x", None, [], {}, ""])
def test_a_metric_is_a_number(running: Running, value: Any) -> None:
    assert running.log("log-metric", key="loss", value=value)[0] == 400
    assert running.data()["metrics"] == []


def test_a_name_that_is_a_folder_already_is_refused_and_the_server_goes_on(running: Running) -> None:
    assert running.log("log-metric", key="train", value=1)[0] == 200
    assert running.log("log-metric", key="train/loss", value=1)[0] == 400
    assert running.log("log-metric", key="loss", value=1)[0] == 200


@pytest.mark.parametrize("run_id", ["nobody", "../first", "*", "", None, 5])
def test_there_is_no_other_run_than_those_of_the_root(running: Running, run_id: Any) -> None:
    body = json.dumps({"run_id": run_id, "key": "a", "value": "1"}).encode()

    status, answer = running.ask("POST", "/api/2.0/mlflow/runs/log-parameter", body)

    assert (status, answer["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Basic eDp5", "Bearer \u00e9"])
def test_nobody_else_may_log(running: Running, given: str) -> None:
    status, answer = running.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={running.run_id}", Authorization=given)

    assert (status, answer["error_code"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"null", {}, 400),
        (b'{"params": 5}', {}, 404),
        (b"", {"Content-Length": "999999999999"}, 413),
        (b"", {"Content-Length": "-1"}, 413),
        (b"", {"Content-Length": "x"}, 413),
    ],
)
def test_an_odd_request_is_refused(running: Running, body: bytes, headers: dict[str, str], status: int) -> None:
    assert running.ask("POST", "/api/2.0/mlflow/runs/log-batch", body, **headers)[0] == status
    assert running.log("log-metric", key="loss", value=1)[0] == 200


def test_what_is_not_offered_is_said(running: Running) -> None:
    status, answer = running.ask("POST", "/api/2.0/mlflow/webhooks/create", b"{}")

    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


Step = Callable[[Any, str], Any]


def _dataset(client: Any, run_id: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = DatasetInput(Dataset("d", "1", "local", "here"), [InputTag("context", "train")])
    client.log_inputs(run_id, [data])
    return client.get_run(run_id).inputs.dataset_inputs[0].dataset.name


def _nested(client: Any, run_id: str) -> Any:
    experiment = client.get_run(run_id).info.experiment_id
    child = client.create_run(experiment, run_name="child", tags={"mlflow.parentRunId": run_id}).info.run_id
    client.log_metric(child, "loss", 3, step=1, timestamp=5)
    client.log_param(child, "lr", "of the child")
    client.set_terminated(child)
    found = client.get_run(child)
    return found.info.status, found.info.run_name, found.data.metrics, found.data.params


def _registered(client: Any, run_id: str) -> Any:
    client.create_registered_model("mine", {"a": "b"}, "words")
    version = client.create_model_version("mine", "file:///model", run_id)
    client.set_registered_model_alias("mine", "best", version.version)
    client.set_model_version_tag("mine", version.version, "k", "v")
    client.update_model_version("mine", version.version, "better words")
    found = client.get_model_version_by_alias("mine", "best")
    return (
        int(found.version),
        found.tags,
        found.description,
        found.run_id == run_id,
        len(client.search_model_versions()),
    )


def _logged_model(client: Any, run_id: str) -> Any:
    if not hasattr(client, "create_logged_model"):
        pytest.skip("this MLflow keeps no account of models")
    experiment = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment, "net", run_id, {"t": "1"}, {"p": "2"}, "torch")
    client.log_metric(run_id, "accuracy", 0.5, step=1, timestamp=5, model_id=model.model_id)
    client.finalize_logged_model(model.model_id, "READY")
    client.set_logged_model_tags(model.model_id, {"u": "3"})
    found = client.get_logged_model(model.model_id)
    several = client.search_logged_models([experiment])
    return found.name, found.status, found.params, found.tags["u"], found.metrics[0].value, len(several)


STEPS: dict[str, Step] = {
    "metrics": lambda client, run: [
        *(client.log_metric(run, "loss", value, step=step, timestamp=7) for step, value in enumerate((3, 2, 2.5))),
        client.get_run(run).data.metrics,
        [(m.value, m.step, m.timestamp) for m in client.get_metric_history(run, "loss")],
    ],
    "the last step counts, not the last to come": lambda client, run: [
        *(client.log_metric(run, "late", value, step=step, timestamp=7) for step, value in ((2, 1.0), (1, 2.0))),
        client.get_run(run).data.metrics,
    ],
    "odd numbers": lambda client, run: [
        *(
            client.log_metric(run, f"odd{i}", float(v), timestamp=7)
            for i, v in enumerate(("nan", "inf", "-inf", "1e300"))
        ),
        sorted(map(str, client.get_run(run).data.metrics.items())),
    ],
    "names in folders": lambda client, run: [
        client.log_metric(run, "train/a b-c.d_e", 1.0, timestamp=7),
        client.log_param(run, "net/depth", "3"),
        client.get_run(run).data.metrics,
        client.get_run(run).data.params,
    ],
    "parameters of several lines, and empty ones": lambda client, run: [
        client.log_param(run, "text", "one\ntwo"),
        client.log_param(run, "none", ""),
        client.log_param(run, "letters", "grün"),
        client.get_run(run).data.params,
    ],
    "tags": lambda client, run: [
        client.set_tag(run, "kept", "1"),
        client.set_tag(run, "kept", "2"),
        client.set_tag(run, "gone", "3"),
        client.delete_tag(run, "gone"),
        {key: value for key, value in client.get_run(run).data.tags.items() if not key.startswith("mlflow.")},
    ],
    "a batch": lambda client, run: [
        client.log_batch(run, params=_params(a="1", b="2"), metrics=_metrics(m=1.0, n=2.0)),
        client.get_run(run).data.params,
        client.get_run(run).data.metrics,
    ],
    "artifacts": lambda client, run: [
        client.log_text(run, "hello", "folder/file.txt"),
        [one.path for one in client.list_artifacts(run, "folder")],
    ],
    "a search": lambda client, run: [
        client.log_metric(run, "loss", 0.5, timestamp=7),
        [
            one.info.run_id == run
            for words in ("metrics.loss < 1", "metrics.loss > 1")
            for one in client.search_runs([client.get_run(run).info.experiment_id], words)
        ],
    ],
    "experiments": lambda client, run: [
        client.get_experiment(client.create_experiment("another")).name,
        client.get_experiment_by_name("nothing"),
        client.set_experiment_tag(client.get_experiment_by_name("another").experiment_id, "k", "v"),
        client.get_experiment_by_name("another").tags,
        sorted(one.name for one in client.search_experiments(filter_string="name LIKE 'ano%'")),
    ],
    "a nested run": _nested,
    "data sets": _dataset,
    "the registry": _registered,
    "logged models": _logged_model,
}


def _params(**values: str) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, value) for key, value in values.items()]


def _metrics(**values: float) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(key, value, 7, 0) for key, value in values.items()]


@pytest.mark.parametrize("step", STEPS)
def test_mlflow_finds_here_what_its_own_store_has(step: str, tmp_path: Path, client: Any, running: Running) -> None:
    mlflow = imported("mlflow")
    client.log_param(running.run_id, "lr", "1.0e-3")
    own = mlflow.MlflowClient((tmp_path / "own").as_uri())
    other = own.create_run("0").info.run_id
    for key, value in (("lr", "1.0e-3"), ("epochs", "3")):
        own.log_param(other, key, value)

    assert STEPS[step](client, running.run_id) == STEPS[step](own, other)


def test_what_a_nested_run_is_goes_with_the_run_it_belongs_to(client: Any, running: Running) -> None:
    child = client.create_run(running.tracking.experiment_id).info.run_id

    in_root = running.folder.parent / "mlruns" / running.tracking.experiment_id / child
    assert in_root.is_symlink()
    assert in_root.resolve().is_relative_to(running.folder.resolve())


def test_the_service_says_how_a_run_ended_and_not_its_script(client: Any, running: Running) -> None:
    client.set_terminated(running.run_id, "FAILED")
    assert client.get_run(running.run_id).info.status == "RUNNING"

    end_run(running.tracking.run, 3)

    assert client.get_run(running.run_id).info.status == "FINISHED"


def test_a_run_can_be_renamed_by_its_script(client: Any, running: Running) -> None:
    client.update_run(running.run_id, name="better")

    assert client.get_run(running.run_id).info.run_name == "better"
    assert store_of(running.folder.parent).get_run(running.run_id).info.run_name == "better"


def test_two_servers_of_one_root_write_one_store(tmp_path: Path) -> None:
    """An experiment has one number, whoever makes it; nobody's line is torn; each run is found from the other."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: _made(tmp_path / str(i), "digits"), range(8)))
    assert len(set(made)) == 1

    first, second = serve(tmp_path, "a"), serve(tmp_path, "b")
    try:
        with ThreadPoolExecutor(16) as pool:
            work = [
                pool.submit(server.ask, "POST", "/api/2.0/mlflow/runs/log-metric", body)
                for i in range(100)
                for server in (first, second)
                for body in [json.dumps({"run_id": "a", "key": "loss", "value": i, "timestamp": 1}).encode()]
            ]
        assert {answer.result()[0] for answer in work} == {200}
    finally:
        first.close()
        second.close()
    assert len(store_of(tmp_path).get_metric_history("a", "loss")) == 200


def _made(folder: Path, experiment: str) -> str:
    folder.mkdir()
    tracking = begin_tracking(Job(command="true", experiment_name=experiment), folder, SERVICE)
    tracking.listener.close()
    return tracking.experiment_id


# Whole runs.


def test_mlflow_shows_the_runs_of_a_root_side_by_side(tmp_path: Path, code: Path) -> None:
    root = tmp_path / "root"
    good = run_here(Job(command="python log.py loss 1 2", code=str(code), experiment_name="digits"), root=root)
    bad = run_here(Job(command="python log.py loss 3; exit 5", code=str(code), experiment_name="digits"), root=root)
    run_here(Job(command="true", experiment_name="words"), root=root)

    client = store_of(root)
    digits = client.get_experiment_by_name("digits").experiment_id
    runs = {run.info.run_id: (run.info.status, run.data.metrics) for run in client.search_runs([digits])}
    assert runs == {good.name: ("FINISHED", {"loss": 2.0}), bad.name: ("FAILED", {"loss": 3.0})}
    assert good.metric_histories() == {"loss": [1.0, 2.0]}
    assert all(run.info.end_time for run in client.search_runs([digits]))


def test_a_run_whose_folder_is_deleted_is_forgotten(tmp_path: Path) -> None:
    for name in ("gone", "kept"):
        run_here(Job(command="true", name=name), root=tmp_path)
    shutil.rmtree(tmp_path / "gone")

    assert [run.info.run_id for run in store_of(tmp_path).search_runs(["0"])] == ["kept"]
    run_here(Job(command="true", name="gone"), root=tmp_path)
    assert len(store_of(tmp_path).search_runs(["0"])) == 2
    shutil.rmtree(tmp_path / "gone")
    run_here(Job(command="true", name="third"), root=tmp_path)
    assert sorted(os.listdir(tmp_path / "mlruns" / "0")) == ["kept", "meta.yaml", "third"]


def test_a_canceled_run_is_killed_for_mlflow(tmp_path: Path) -> None:
    run = Local(root=tmp_path).submit(Job(command="sleep 60"))
    run.cancel()
    with pytest.raises(RunFailed, match="cancelled"):
        run.wait(timeout=30)

    assert store_of(tmp_path).get_run(run.name).info.status == "KILLED"


def test_a_script_that_logs_an_input_in_other_words_fails_as_on_azure_ml(tmp_path: Path) -> None:
    script = "import mlflow; mlflow.log_param('lr', float('${{inputs.lr}}'))"
    job = Job(command=f'python -W ignore -c "{script}"', inputs={"lr": "1.0e-3"})

    run = run_here(job, root=tmp_path)

    assert run.status == "Failed"
    assert "can not modify its value" in log_of(run, 0)
    assert run_here(job, root=tmp_path, service=Service(logs_inputs=False)).status == "Completed"


def test_a_run_made_before_keeps_its_metrics(tmp_path: Path) -> None:
    """Its store was its own, with one experiment."""
    run = run_here(Job(command="true", name="old"), root=tmp_path)
    folder = tmp_path / "old" / "mlruns"
    (folder / run_id_folder(folder)).rename(folder.parent / "kept")
    old = folder / "0" / "old" / "metrics"
    old.mkdir(parents=True, exist_ok=True)
    (old / "loss").write_text("0 0.5 0\n0 0.25 1\n0 0.1")

    assert run.metric_histories() == {"loss": [0.5, 0.25]}


def run_id_folder(folder: Path) -> str:
    return next(path.name for path in folder.iterdir())


WATCH = """\
import os, subprocess, sys
def servers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{pid}/cmdline", "rb").read()
            parent = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getppid() and b"tracking/server.py" in command:
            found.append(int(pid))
    return found
def log(value):
    subprocess.run([sys.executable, "log.py", "loss", value], check=True)
"""
"""Run by the direct launcher, whose ranks are children of the supervisor, as the server is."""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_a_run_has_a_server_only_once_it_logs(tmp_path: Path, code: Path) -> None:
    script = WATCH + "assert servers() == [], servers()\nlog('1')\nassert len(servers()) == 1, servers()\n"
    (code / "watch.py").write_text(script)

    run = run_here(Job(command="python watch.py", code=str(code)), root=tmp_path / "root")

    assert run.status == "Completed", log_of(run, 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_a_server_that_is_killed_is_followed_by_another(tmp_path: Path, code: Path) -> None:
    script = WATCH + (
        "import signal, time\nlog('1')\nfirst = servers()\nos.kill(first[0], signal.SIGKILL)\n"
        "while servers() == first: time.sleep(0.01)\nlog('2')\n"
    )
    (code / "watch.py").write_text(script)

    run = run_here(Job(command="python watch.py", code=str(code)), root=tmp_path / "root")

    assert run.status == "Completed", log_of(run, 0)
    assert run.metric_histories() == {"loss": [1.0, 2.0]}


def test_the_server_ends_with_its_run_and_listens_no_more(tmp_path: Path, code: Path) -> None:
    (code / "tell.py").write_text("import os; print(os.environ['MLFLOW_TRACKING_URI'])")

    run = run_here(Job(command="python log.py loss 1; python tell.py", code=str(code)), root=tmp_path / "root")

    port = int(log_of(run, 0).strip().rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_server_ends_when_its_supervisor_is_killed(running: Running) -> None:
    assert running.process.stdin
    running.process.stdin.close()

    assert running.process.wait(timeout=60) == 0


def test_the_token_is_in_no_file_and_no_command_line(running: Running) -> None:
    token = running.tracking.token
    command = Path(f"/proc/{running.process.pid}/cmdline")

    assert not command.exists() or token.encode() not in command.read_bytes()
    assert not any(token in path.read_text() for path in running.folder.parent.rglob("*") if path.is_file())


def test_a_further_attempt_logs_into_the_same_run(tmp_path: Path, code: Path) -> None:
    again = "${{outputs.up}}/again"
    command = f"python log.py loss 1; [ -e {again} ] || {{ touch {again}; exit 3; }}"
    job = Job(command=command, code=str(code), outputs={"up": Output()})

    run = run_here(job, root=tmp_path / "root", retries=1)

    assert run.status == "Completed", log_of(run, 0)
    assert run.metric_histories() == {"loss": [1.0, 1.0]}


def test_a_proxy_is_not_asked_for_the_runs_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    script = "import mlflow; mlflow.log_metric('loss', 1)"
    job = Job(command=f'python -W ignore -c "{script}"; echo $no_proxy $NO_PROXY')

    run = run_here(job, root=tmp_path)

    assert run.status == "Completed", log_of(run, 0)
    assert log_of(run, 0).splitlines()[-1] == "example.org,127.0.0.1 example.org,127.0.0.1"


def test_without_a_proxy_no_variable_speaks_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    run = run_here(Job(command="echo ${no_proxy-unset} ${NO_PROXY-unset}"), root=tmp_path)

    assert log_of(run, 0) == "unset unset\n"


def test_the_callers_own_tracking_server_is_not_the_runs(
    tmp_path: Path, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN", "SERVER_CERT_PATH"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "theirs")

    run = run_here(
        Job(command="env | grep -c '^MLFLOW_TRACKING_.*theirs'; python log.py loss 1", code=str(code)),
        root=tmp_path / "root",
    )

    assert (run.status, log_of(run, 0)) == ("Completed", "0\n")


def test_more_metrics_and_tags_than_documented_are_pointed_out(tmp_path: Path, code: Path) -> None:
    (code / "many.py").write_text(
        LOG.split("for step")[0]
        + "metrics = [{'key': f'm{i}', 'value': 1, 'timestamp': 1} for i in range(51)]\n"
        + "tags = [{'key': 'long', 'value': 'x' * 1001}]\n"
        + "body = json.dumps({'run_id': os.environ['MLFLOW_RUN_ID'], 'metrics': metrics, 'tags': tags}).encode()\n"
        + "urllib.request.urlopen(urllib.request.Request(address.replace('log-metric', 'log-batch'), body, token))\n"
    )

    run = run_here(Job(command="python many.py", code=str(code)), root=tmp_path / "root")

    findings = "\n".join(run.state().findings)
    assert run.status == "Completed", log_of(run, 0)
    assert "51 metrics: Azure ML documents a limit of 50 names per run" in findings
    assert "the MLflow tag `long` has 4 characters in its key and 1,001 in its value" in findings
    assert run_here(Job(command="python log.py loss 1", code=str(code)), root=tmp_path / "root").state().findings == []


def test_no_run_takes_the_name_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="a run named mlruns already exists"):
        Local(root=tmp_path / "new").submit(Job(command="true", name="mlruns"))


def test_runs_of_older_versions_and_copied_ones_are_gathered_in_the_store(tmp_path: Path) -> None:
    """Before there was a store for all, each run had one of its own: MLflow's page shows those, too."""
    logged = serve(tmp_path / "root", "here")
    logged.log("log-metric", key="loss", value=1.0, step=0, timestamp=1)
    logged.close()
    shutil.copytree(tmp_path / "root" / "here" / "mlruns", tmp_path / "other" / "here" / "mlruns")
    shutil.rmtree(next((tmp_path / "other").glob("here/mlruns/*/here/tags")))
    (tmp_path / "other" / "mlruns").mkdir()

    gather(tmp_path / "other")
    gather(tmp_path / "other")

    found = store_of(tmp_path / "other").search_runs(["0"])
    assert [(one.info.run_id, one.data.metrics) for one in found] == [("here", {"loss": 1.0})]
    assert found[0].data.tags == {"mlflow.runName": "here"}  # without any, MLflow's page fails
