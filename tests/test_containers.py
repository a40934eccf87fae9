"""`run --image`: each node is a container of the job's image.

No container can be started where this was written. What an engine understands of our command lines, podman's own parser
says (`podman create`); what we do with an engine runs on one that is made of namespaces (`namespaces_engine.py`).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import namespaces_engine
import pytest
from needs import needs
from running import LOG, await_, call, cli, find, living, log_of, run_here, together, write_job

from azml_dist import Environment, Input, Job, JobError, LaunchError, Local, Mpi, Output, PyTorch
from azml_dist.job import Build
from azml_dist.local.containers.words import Engine, Node, build_words, exec_words, kill_words, node_of, run_words
from azml_dist.plan import Place

IMAGE = Environment(image="localhost/azml-dist-test:1")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An engine made of namespaces, as the `podman` of this machine."""
    state, folder = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    folder.mkdir()
    script = f'#!/bin/sh\nexec {shlex.join([sys.executable, namespaces_engine.__file__])} "$@"\n'
    (folder / "podman").write_text(script)
    (folder / "podman").chmod(0o755)
    monkeypatch.setenv("NAMESPACES_ENGINE", str(state))
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    yield state
    await_(lambda: not [one for one in state.iterdir() if Path("/proc", one.read_text()).exists()])


def job(command: str, nodes: int = 2, processes: int = 2, **fields: Any) -> Job:
    given = {"environment": IMAGE, "distribution": PyTorch(process_count_per_node=processes), **fields}
    return Job(command=command, node_count=nodes, **given)


@needs("unshare", "ip")
def test_nodes_are_containers_with_one_network_of_their_own(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("read\n")
    script = "echo $RANK $LOCAL_RANK $NODE_RANK $MASTER_PORT $MINE $(cat ${{inputs.data}}/a.txt) $SHELL_OF_MINE;"
    script += "echo x > ${{outputs.up}}/$RANK; echo y > outputs/$RANK; touch ${{inputs.data}}/$RANK 2>&1 | tail -c 22;"
    script += "readlink /proc/self/ns/net; tr '\\0' ' ' < /proc/1/cmdline"
    monkeypatch.setenv("SHELL_OF_MINE", "hush")
    one = job(script, inputs={"data": Input(path=str(tmp_path / "data"))}, outputs={"up": Output()})

    run = run_here(one.with_(environment_variables={"MINE": "a b\nc"}), image=True)

    assert run.status == "Completed", [*run.logs()]
    logs = [log_of(run, rank).splitlines() for rank in range(4)]
    assert [log[0] for log in logs] == [f"{rank} {rank % 2} {rank // 2} 6105 a b c read" for rank in range(4)]
    assert {log[1] for log in logs} == {"Read-only file system"}
    assert len({log[2] for log in logs} - {os.readlink("/proc/self/ns/net")}) == 1
    assert all(log[3].startswith("bash -c echo up > /run/azml-dist/up") for log in logs)
    assert sorted(file.name for file in (run.folder / "outputs/up").iterdir()) == ["0", "1", "2", "3"]
    assert sorted(file.name for file in (run.folder / "artifacts/outputs").iterdir()) == ["0", "1", "2", "3"]
    assert any(
        one.startswith(f"the nodes are containers of {IMAGE.image}, started with podman")
        for one in run.state().findings
    )


@needs("unshare", "ip")
def test_the_first_failure_ends_the_run_and_its_containers(engine: Path) -> None:
    run = run_here(job(together("[ $RANK = 2 ] && exit 7; sleep 600"), outputs={"up": Output()}), image=True)

    assert (run.status, run.state().failed_rank) == ("Failed", 2)
    assert [process.exit_code for process in run.state().processes][2] == 7
    assert [process.signal for process in run.state().processes] == [15, 15, None, 15]


@needs("unshare", "ip")
def test_the_network_is_there_for_a_node_that_starts_after_the_work_of_the_first(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESPACES_ENGINE_SLOW", "2")

    run = run_here(job("readlink /proc/self/ns/net", nodes=3, processes=1), image=True)

    assert run.status == "Completed", [*run.logs()]
    assert len({log_of(run, rank) for rank in range(3)}) == 1


@needs("unshare", "ip")
def test_a_signal_reaches_the_command_and_how_it_ended_is_known(engine: Path) -> None:
    crash = run_here(job("kill -SEGV $$", nodes=1, processes=1), image=True)
    assert crash.state().processes[0].signal == signal.SIGSEGV


@needs("unshare", "ip")
def test_cancelling_lets_the_command_end_by_itself(engine: Path) -> None:
    run = Local(image=True).submit(
        job("trap 'echo told; exit 3' TERM; echo up; sleep 600 & wait", nodes=1, processes=1)
    )
    await_(lambda: "up" in "".join(run.logs()))

    run.cancel()
    await_(lambda: find(run.name).status == "Canceled")

    assert "told" in log_of(find(run.name), 0)


@needs("unshare", "ip")
def test_nothing_outlives_a_killed_run(engine: Path, tmp_path: Path) -> None:
    file = write_job(tmp_path, "echo up; sleep 600", 2, 1, environment={"image": IMAGE.image})
    with cli("run", file, "--image", mark="container") as process:
        assert process.stdout
        await_(lambda: len([*engine.iterdir()]) == 2)
        assert living("container")
        os.kill(process.pid, signal.SIGKILL)
        await_(lambda: not living("container"))
        await_(lambda: not [one for one in engine.iterdir() if Path("/proc", one.read_text()).exists()])


@needs("unshare", "ip")
def test_metrics_of_a_container_reach_the_run(engine: Path) -> None:
    script = shlex.join(["python3", "-c", LOG, "loss", "0.5"])
    retry = f"for i in 1 2 3 4 5 6 7 8 9 10; do {script} && exit 0; sleep 0.3; done; exit 1"

    run = run_here(job(retry, nodes=1, processes=1), image=True)

    assert run.status == "Completed", log_of(run, 0)
    assert dict(run.metrics()) == {"loss": 0.5}


def test_what_does_not_work_in_containers_is_refused() -> None:
    for options in ({"packages": "job"}, {"hosts": "apart"}, {"faults": ["kill:rank=0@1s"]}, {"pdb": True}):
        with pytest.raises(JobError, match="does not work in containers"):
            Local(image=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (None, "the job has no environment"),
        ("azureml:torch:1", "only the workspace knows the image of `azureml:torch:1`"),
        (Environment(image="x", conda_file={"dependencies": ["python"]}), "adds conda packages to an image"),
        (Environment(build=Build(path="https://example.com/x.git")), "which is not a folder on this machine"),
    ],
)
def test_an_environment_whose_image_is_not_known_is_refused(environment: Any, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Local(image=True).submit(Job(command="true", environment=environment))


@pytest.mark.slow
def test_a_launcher_of_the_image_is_refused() -> None:
    with pytest.raises(LaunchError, match="Mpi jobs cannot run in containers"):
        Local(image=True).submit(job("true", distribution=Mpi(process_count_per_node=2)))


@pytest.mark.slow
def test_without_an_engine_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="`--image` needs docker or podman, and neither is installed"):
        Local(image=True).submit(job("true"))


@pytest.mark.slow
def test_an_engine_that_starts_nothing_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, why in (("podman", "Error: crun: setrlimit: Operation not permitted"), ("docker", "Cannot connect")):
        (tmp_path / name).write_text(
            f'#!/bin/sh\n[ "$1" = run ] || [ {name} = docker ] || exit 0\necho "{why}" >&2\nexit 126\n'
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), os.environ["PATH"]]))

    done = call("run", write_job(tmp_path, "true", environment={"image": IMAGE.image}), "--image")

    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: no container of {IMAGE.image} can be started here: podman: crun: setrlimit: Operation not permitted;"
        " docker: Cannot connect\nhint: "
    )


# Podman's own parser


@pytest.fixture(scope="module")
def podman() -> Iterator[list[str]]:
    """Podman with a storage of its own, which has an empty image; its folder may have only a short name."""
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    words = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    with tarfile.open(folder / "image.tar", "w") as tar:
        tar.add(__file__, "file")
    subprocess.run([*words, "import", folder / "image.tar", str(IMAGE.image)], check=True, capture_output=True)
    yield words
    for _ in range(2):  # a container whose network another one uses is removed after that one
        subprocess.run([*words, "rm", "--all", "--force"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def created(podman: list[str], node: Node) -> dict[str, Any]:
    """What podman understands of the words that would start a container."""
    words = run_words(Engine("podman"), node, verb=("create", "--rm"))
    done = subprocess.run([*podman, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = subprocess.run([*podman, "inspect", node.name], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(told.stdout)[0]
    return found


@needs("podman")
def test_podman_understands_what_starts_a_node(podman: list[str], tmp_path: Path) -> None:
    for name in ("wd", "cap", "data dir", "out", "shared"):
        (tmp_path / name).mkdir()
    one = job(
        "true",
        inputs={"data": Input(path=str(tmp_path)), "more": Input(path=str(tmp_path), mode="download")},
        outputs={"model": Output(), "file": Output(type="uri_file")},
        shm_size="3g",
        docker_args="--cap-add SYS_PTRACE --env 'A=b c'",
    )
    place = Place(
        run_id="run-1",
        working_dirs=[str(tmp_path / "wd")] * 2,
        capabilities=[str(tmp_path / "cap")] * 2,
        inputs={"data": str(tmp_path / "data dir"), "more": str(tmp_path / "wd")},
        outputs={"model": str(tmp_path / "out"), "file": str(tmp_path / "out/file")},
    )
    plan = one.plan().at(place)

    nodes = [node_of(plan, node, str(IMAGE.image), str(tmp_path / "shared"), ()) for node in range(2)]
    first, second = (created(podman, node) for node in nodes)

    assert (first["Name"], second["Name"]) == ("azml-dist-run-1-1-0", "azml-dist-run-1-1-1")
    assert first["HostConfig"]["ShmSize"] == 3 << 30
    assert first["HostConfig"]["AutoRemove"]
    assert second["HostConfig"]["NetworkMode"] == f"container:{first['Id']}"
    assert {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in first["Mounts"]} == {
        "/run/azml-dist": (str(tmp_path / "shared"), True),
        str(tmp_path / "wd"): (str(tmp_path / "wd"), True),
        str(tmp_path / "cap"): (str(tmp_path / "cap"), True),
        str(tmp_path / "data dir"): (str(tmp_path / "data dir"), False),
        str(tmp_path / "out"): (str(tmp_path / "out"), True),
    }
    assert "CAP_SYS_PTRACE" in first["EffectiveCaps"]
    assert "A=b c" in first["Config"]["Env"]
    assert first["Config"]["Entrypoint"] in ("bash", ["bash"])
    assert first["Config"]["Cmd"][0] == "-c"


@needs("podman")
@pytest.mark.parametrize("name", ["podman", "docker"])
def test_the_engine_knows_every_option_that_we_give(name: str) -> None:
    """Also docker's own client, where it is installed; it reads options before it looks for its daemon."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    node = Node("n", "i", "2g", (), (), ["0", "1"], "m")
    engine = Engine(path)
    for words in (
        run_words(engine, node),
        exec_words(engine, "n", "7", "/", ["RANK"]),
        kill_words(engine, "n", "7", "TERM"),
        build_words(engine, "t", "/nowhere/Dockerfile", "/nowhere"),
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "unknown" not in done.stderr.lower(), done.stderr
        assert "invalid argument" not in done.stderr.lower(), done.stderr
    wrong = subprocess.run([path, "run", "--no-such-option", "i"], capture_output=True, text=True, check=False)
    assert "unknown" in wrong.stderr.lower()
