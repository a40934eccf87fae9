"""The emulator as a tool: its command, its state, its fixtures, and what comes at it that is wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from emulated import SDK_WARNINGS
from running import await_, is_gone

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(one) for one in SDK_WARNINGS)]

REPOSITORY = Path(__file__).parents[1]
SUBMIT = """
from azure.ai.ml import MLClient, command
from azure.ai.ml.entities import Environment
from azure.identity import EnvironmentCredential

client = MLClient.from_config(EnvironmentCredential(), path="{config}")
job = command(name="{name}", command="{command}", environment=Environment(image="any"), compute="gpu-cluster")
client.jobs.create_or_update(job)
"""


def started(*options: str, **env: str) -> subprocess.Popen[str]:
    """The command, in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "azml_dist.emulator", *options],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(*options: str, end: signal.Signals = signal.SIGINT) -> Iterator[Any]:
    """A workspace that serves, by what it says of itself; ended by Ctrl-C, or another signal."""
    running = started("--json", *options)
    try:
        yield told_by(running)
    finally:
        running.send_signal(end)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == (-end if end == signal.SIGKILL else 0), errors


def told_by(running: subprocess.Popen[str]) -> Any:
    """What a workspace says of itself once it serves."""
    assert running.stdout
    text = ""
    while not text.endswith("\n}\n"):
        line = running.stdout.readline()
        assert line, running.communicate()[1]
        text += line
    return json.loads(text)


def client(told: Any) -> Callable[..., Any]:
    """Requests to the emulator's own routes, with its token."""
    import requests

    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {told['environment']['AZML_EMULATOR_TOKEN']}"

    def ask(method: str, path: str, **options: Any) -> Any:
        return session.request(method, told["url"] + path, timeout=30, **options)

    return ask


def job_uri(told: Any, name: str) -> str:
    ids = told["workspace"]
    group = f"/subscriptions/{ids['subscription_id']}/resourceGroups/{ids['resource_group']}"
    kind = "Microsoft.MachineLearningServices"
    return f"/-/management.azure.com{group}/providers/{kind}/workspaces/{ids['workspace_name']}/jobs/{name}"


COMMAND = {
    "jobType": "Command",
    "environmentId": "azureml://registries/azureml/environments/any/versions/1",
    "computeId": None,
}


def test_a_command_finds_the_workspace_and_what_it_submitted_is_kept(tmp_path: Path) -> None:
    script, folder, config = tmp_path / "submit.py", tmp_path / "state", tmp_path / "config.json"
    script.write_text(SUBMIT.format(name="one", command="echo hello", config=config))

    ran = started("--folder", str(folder), "--config", str(config), "--", sys.executable, str(script))
    _, errors = ran.communicate(timeout=120)

    assert ran.returncode == 0, errors
    with serving("--folder", str(folder)) as told:
        ask = client(told)
        await_(lambda: ask("GET", "/emulator").json()["jobs"]["one"] in ("Completed", "Failed"))
        assert json.loads(config.read_text()) == told["workspace"]
    assert (folder / "emulator.json").stat().st_mode & 0o077 == 0

    with serving("--folder", str(folder), "--fresh") as told:
        assert client(told)("GET", "/emulator").json()["jobs"] == {}


def begin_long(told: Any, folder: Path) -> list[int]:
    """Submit a job that does not end, and return its processes once they run: one, and one in its own session."""
    own_session = f"setsid bash -c 'echo $$ > {folder}/second; sleep 600' &"
    body = {"properties": {**COMMAND, "command": f"{own_session} echo $$ > {folder}/first; sleep 600"}}
    assert client(told)("PUT", job_uri(told, "long"), json=body).status_code == 201
    files = [folder / "first", folder / "second"]
    await_(lambda: all(file.exists() and file.read_text().strip() for file in files))
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_ends_the_jobs_and_the_next_start_says_so(end: signal.Signals, tmp_path: Path) -> None:
    with serving("--folder", str(tmp_path / "state"), end=end) as told:
        pids, port = begin_long(told, tmp_path), told["url"]
    await_(lambda: all(map(is_gone, pids)))

    with serving("--folder", str(tmp_path / "state")) as told:
        job = client(told)("GET", job_uri(told, "long")).json()
        assert (told["url"], job["properties"]["status"]) == (port, "Canceled")


def test_an_emulator_that_is_killed_takes_its_jobs_and_their_folders_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with serving("--folder", str(tmp_path / "state"), end=signal.SIGKILL) as told:
        pids = begin_long(told, tmp_path)

    await_(lambda: all(map(is_gone, pids)))
    await_(lambda: not list((tmp_path / "tmp").glob("emulated-job-*")))


def test_a_signal_that_was_ignored_at_its_start_ends_nothing(tmp_path: Path) -> None:
    """As in `nohup azml-dist emulator &`, and with `&` in a script, which Ctrl-C is not for."""
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        running = started("--json", "--folder", str(tmp_path / "state"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    try:
        ask = client(told_by(running))
        for number in ignored:
            running.send_signal(number)
        assert ask("GET", "/emulator").status_code == 200
        [bits] = re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{running.pid}/status").read_text())
        assert [int(bits, 16) >> (number - 1) & 1 for number in ignored] == [1, 1]
    finally:
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors


def test_knobs_and_faults_by_http(tmp_path: Path) -> None:
    clusters = '{"small": {"vm_size": "STANDARD_D2_V2", "max_nodes": 1}}'
    with serving("--folder", str(tmp_path / "state"), "--set", f"clusters={clusters}") as told:
        ask = client(told)
        assert list(ask("GET", "/emulator/knobs").json()["clusters"]) == ["small"]

        assert ask("PATCH", "/emulator/knobs", json={"queue_seconds": 5}).json()["queue_seconds"] == 5
        wrong = ask("PATCH", "/emulator/knobs", json={"queue_seconds": 7, "queue_second": 1})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "BadKnob")
        assert "did you mean `queue_seconds`?" in wrong.json()["error"]["message"]
        assert ask("GET", "/emulator/knobs").json()["queue_seconds"] == 5

        ask("POST", "/emulator/faults", json={"fault": "429", "route": "jobs.get", "retry_after": 2})
        refused = ask("GET", job_uri(told, "none"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert ask("GET", job_uri(told, "none")).status_code == 404
        assert ask("POST", "/emulator/faults", json={"fault": "moon"}).json()["error"]["code"] == "BadFault"
        lost = ask("POST", "/emulator/faults", json={"fault": "429", "route": "moon.put"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (400, "BadFault")
        assert ask("POST", "/emulator/faults", json={"fault": "429", "route": "blobs.put"}).status_code == 201


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "queue_second=3"], "did you mean `queue_seconds`?"),
        (["--set", "queue_seconds=soon"], "it is a number of seconds"),
        (["--set", "nothing"], "write NAME=VALUE"),
        (["--set", "clusters=[]"], "it is an object, clusters by their names"),
        (["--set", 'clusters={"gpu": 3}'], "it is an object, such as"),
        (["--set", 'clusters={"gpu": {"max_node": 3}}'], "there is no field `max_node`, did you mean `max_nodes`?"),
        (["--set", 'clusters={"gpu": {"max_nodes": -1}}'], "`max_nodes` is a whole number from 0, not -1"),
        (["--set", 'clusters={"gpu": {"vm_size": 5}}'], "`vm_size` is a text, not 5"),
        (["--set", 'clusters={"gpu": {"priority": "Spot"}}'], "`priority` is Dedicated or LowPriority"),
        (["--set", 'quota={"moon": 3}'], "there is no row `moon`; there are Total Cluster"),
        (["--set", 'quota={"Total Cluster Dedicated Regional vCPUs": "many"}'], "a limit is a whole number"),
        (["--set", 'sizes={"big": {"gpus": 8}}'], "`family` is missing"),
        (["--set", 'prices={"STANDARD_DS3_V3": 1}'], "did you mean `STANDARD_DS3_V2`?"),
        (["--set", 'identity={"moon": "key"}'], "there is no datastore `moon`"),
        (["--set", "runtime=3"], "it is an object, what jobs find, by name"),
        (["--fault", "moon"], "there is no fault `moon`"),
        (["--fault", "429:route=jobs.putt"], "there is no route `jobs.putt`, did you mean `jobs.put`?"),
        (["--fault", "429:route=moon.*"], "there is no route `moon.*`"),
        (["--fault", "429:times=0"], "`times` is a whole number from 1"),
        (["--", "no-such-program"], "no-such-program cannot be started"),
        (["--storage", "azurite", "--azurite", "/nowhere"], "Azurite"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_a_hint(tmp_path: Path, options: list[str], said: str) -> None:
    ran = started("--folder", str(tmp_path / "state"), *options)
    _, errors = ran.communicate(timeout=60)

    assert ran.returncode == 2
    assert re.fullmatch(r"error: .*\nhint: .*\n", errors), errors
    assert said in errors


def test_a_port_in_use_a_folder_in_use_and_a_newer_state(tmp_path: Path) -> None:
    folder = tmp_path / "state"

    def refusal(*options: str) -> str:
        ran = started(*options)
        assert (ran.wait(timeout=60), ran.returncode) == (2, 2)
        return ran.communicate()[1]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} cannot be used: Address already in use" in refusal("--folder", str(folder), "--port", port)
    with serving("--folder", str(folder)):
        assert "another emulator uses" in refusal("--folder", str(folder))
    (folder / "emulator.json").write_text('{"version": 99}')
    assert "is of another version of the emulator (99, not 1)" in refusal("--folder", str(folder))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    assert "has other files in it" in refusal("--folder", str(tmp_path / "mine"), "--fresh")
    assert (tmp_path / "mine/thesis.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A workspace that serves, for what does not change it."""
    with serving("--folder", str(tmp_path_factory.mktemp("state"))) as said:
        yield said


def test_who_has_no_token_gets_nothing(told: Any) -> None:
    import requests

    def status(path: str, **headers: str) -> int:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(told["url"] + path, headers=headers, timeout=30).status_code

    assert [status(path) for path in ("/emulator", "/emulator/knobs", job_uri(told, "x"))] == [401] * 3
    assert status(job_uri(told, "x"), Authorization="Bearer wrong") == 401
    port = int(told["url"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as tunnel:
        tunnel.sendall(b"CONNECT management.azure.com:443 HTTP/1.1\r\nProxy-Authorization: Basic d3Jvbmc=\r\n\r\n")
        assert tunnel.recv(100).startswith(b"HTTP/1.1 407 ")
    login = "/-/login.microsoftonline.com/7e4a47e4-0000-4000-8000-000000000002/oauth2/v2.0/token"
    refused = client(told)("POST", login, data={"client_secret": "guessed"})
    assert (refused.status_code, refused.json()["error_codes"]) == (401, [7000215])


def test_it_listens_on_loopback_only(told: Any) -> None:
    port = int(told["url"].rpartition(":")[2])
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = [fields[1] for fields in lines if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")]
    assert addresses == [f"0100007F:{port:04X}"]


def test_a_body_or_a_route_that_is_wrong_is_refused_by_its_name(told: Any) -> None:
    ask = client(told)

    no_json = ask("PUT", job_uri(told, "x"), data=b"{nothing")
    assert (no_json.status_code, no_json.json()["error"]["code"]) == (400, "InvalidRequestContent")
    assert ask("PUT", job_uri(told, "x"), json=[1]).status_code == 400
    assert ask("GET", "/-/example.com/x").status_code == 501
    route = ask("GET", "/-/management.azure.com/subscriptions/x/providers/y")
    assert (route.status_code, route.json()["error"]["code"]) == (501, "NotEmulated")
    assert "GET management.azure.com/subscriptions/x/providers/y" in route.json()["error"]["message"]


def test_half_a_request_does_nothing(told: Any) -> None:
    port, token = int(told["url"].rpartition(":")[2]), told["environment"]["AZML_EMULATOR_TOKEN"]
    head = f"PATCH /emulator/knobs HTTP/1.1\r\nAuthorization: Bearer {token}\r\n"
    lengths = ('Content-Length: 100\r\n\r\n{"latency": 9}', "Content-Length: many\r\n\r\n")
    for rest in (*lengths, "Transfer-Encoding: chunked\r\n\r\nzz"):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as half, suppress(OSError):  # it is reset
            half.sendall((head + rest).encode())
            half.shutdown(socket.SHUT_WR)
            assert half.recv(1000) == b""
    assert client(told)("GET", "/emulator/knobs").json()["latency"] == 0


@contextmanager
def many_files() -> Iterator[None]:
    """As many open files as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_clients_at_once(told: Any) -> None:
    port, token = int(told["url"].rpartition(":")[2]), told["environment"]["AZML_EMULATOR_TOKEN"]
    ask = f"GET /emulator HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    with many_files():
        clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(1000)]
    try:
        for one in clients:
            one.sendall(ask)
        assert {one.recv(15) for one in clients} == {b"HTTP/1.1 200 OK"}
    finally:
        for one in clients:
            one.close()


def test_it_does_nothing_while_nobody_asks(tmp_path: Path) -> None:
    running = started("--json", "--folder", str(tmp_path / "state"))
    assert running.stdout
    try:
        while running.stdout.readline() != "}\n":
            pass
        client_seen = time.monotonic() + 2

        def ticks() -> int:
            fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        await_(lambda: time.monotonic() > client_seen - 1)  # what the start left to do
        before = ticks()
        await_(lambda: time.monotonic() > client_seen)
        assert ticks() - before <= 1
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0
        running.communicate()


DEMO = (
    "$ azml-dist submit job.yml --set name=first",
    "$ azml-dist logs first --follow",
    "KeyError: 'label'",
    "$ azml-dist why first",
    "why      rank 2: KeyError: 'label'",
    "$ azml-dist rerun first",
    "the same failure on the same rank (run first)",
    "$ sed ",
    "$ azml-dist submit job.yml --set name=second --wait",
    "run second: Completed",
    "result/outputs/model/3.txt",
)
"""What `make demo-azure` shows, in this order."""


def test_the_demo_fails_explains_and_mends_a_job_without_an_account(tmp_path: Path) -> None:
    make = ["make", "--no-print-directory", "-n", "demo-azure"]  # `make test` is a make above it
    recipe = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    steps = recipe[recipe.index("folder=$(mktemp") :]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "TMPDIR": str(tmp_path), "PATH": path}

    ran = subprocess.run(
        ["bash", "-c", steps],
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout
    lines = iter(ran.stdout.splitlines())
    assert not [text for text in DEMO if not any(text in line for line in lines)], ran.stdout
    assert list(tmp_path.iterdir()) == []
