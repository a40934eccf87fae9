"""A local run is the run that Azure ML would do: the same processes, environment, files and rules."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import needs
from running import CLI, here, launchers, lines_of, log_of, pytorch, run_here, together

from azml_dist import Input, Job, JobError, LaunchError, Local, Output, RunFailed, RunStatus, submit
from azml_dist.local.environment import base_environment
from azml_dist.plan.folders import UPLOADED
from azml_dist.plan.world import Service

DUMP = "env -0 > ${{outputs.seen}}/${RANK:-0}; pwd >> cwd"
OF_OTHER_LAUNCHERS = re.compile(
    r"LOCAL_WORLD_SIZE|GROUP_.*|ROLE_(RANK|NAME|WORLD_SIZE)|TORCHELASTIC_.*|OMP_NUM_THREADS|TORCH_NCCL.*|OMPI_.*|TF_CONFIG"
)
WORLD = re.compile(r"RANK|LOCAL_RANK|NODE_RANK|WORLD_SIZE|MASTER_.*|AZUREML_.*|AZURE_ML_.*|MLFLOW_.*")
ONLY_HERE = {"MLFLOW_TRACKING_TOKEN", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"}


def seen_by(run_folder: Path, rank: int) -> dict[str, str]:
    pairs = (run_folder / "outputs" / "seen" / str(rank)).read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


@launchers
@pytest.mark.parametrize(("nodes", "processes"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_every_process_sees_the_planned_environment(nodes: int, processes: int, launcher: str) -> None:
    job = pytorch(
        DUMP, nodes, processes, inputs={"lr": 0.1}, outputs={"seen": Output()}, environment_variables={"MINE": "a b"}
    )

    run = run_here(job, launcher=launcher)

    plan = json.loads((run.folder / "plan.json").read_text())
    assert run.status == "Completed"
    assert len(plan["processes"]) == nodes * processes
    for process in plan["processes"]:
        seen = seen_by(run.folder, process["rank"])
        assert {name: seen.get(name) for name in process["env"]} == process["env"]
        assert {name for name in seen if WORLD.fullmatch(name)} - ONLY_HERE <= process["env"].keys()
        assert not [name for name in seen if OF_OTHER_LAUNCHERS.fullmatch(name)]


def test_a_single_process_sees_the_planned_environment_and_no_rank() -> None:
    run = run_here(Job(command=DUMP, outputs={"seen": Output()}))

    [process] = json.loads((run.folder / "plan.json").read_text())["processes"]
    seen = seen_by(run.folder, 0)
    assert {name: seen.get(name) for name in process["env"]} == process["env"]
    assert "RANK" not in seen
    assert (run.folder / "user_logs" / "std_log.txt").exists()


@launchers
def test_marks_of_the_offline_plan_are_all_that_differs_from_the_run(launcher: str) -> None:
    job = pytorch(DUMP, 2, 2, outputs={"seen": Output()})

    run = run_here(job, launcher=launcher)

    for process in job.plan().processes:
        seen = seen_by(run.folder, process.rank)
        differing = {name for name, value in process.env.items() if seen[name] != value}
        assert differing == {name for name, value in process.env.items() if "<" in value}


@launchers
def test_variables_of_another_run_do_not_reach_the_processes(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "TF_CONFIG", "AZUREML_RUN_TOKEN"):
        monkeypatch.setenv(name, "another")

    run = run_here(pytorch(DUMP, outputs={"seen": Output()}), launcher=launcher)

    assert "another" not in seen_by(run.folder, 0).values()


@launchers
def test_the_callers_own_settings_reach_the_processes(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    run = run_here(pytorch("echo threads=$OMP_NUM_THREADS", processes=2), launcher=launcher)

    assert log_of(run, 1) == "threads=7\n"


def test_rank_0_can_listen_on_master_port_without_any_option() -> None:
    listen = "import os, socket; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['MASTER_PORT']))); s.listen()"

    run = run_here(pytorch(["python", "-c", listen]), launcher="torchrun")

    assert run.status == "Completed", log_of(run, 0)


def test_torch_distributed_finds_its_world_by_itself() -> None:
    script = """
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        total = torch.tensor(float(dist.get_rank()))
        dist.all_reduce(total)
        print("sum", total.item())
        dist.destroy_process_group()
    """

    run = run_here(pytorch(["python", "-c", textwrap.dedent(script)], 2, 2), launcher="torchrun")

    assert [log_of(run, rank) for rank in range(4)] == ["sum 6.0\n"] * 4


@launchers
def test_processes_of_a_node_share_its_writable_copy_of_the_code(launcher: str, tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "package").mkdir(parents=True)
    (code / "package" / "data.txt").write_text("data")
    (code / "secret.env").write_text("left out")
    (code / ".amlignore").write_text("*.env\n")
    command = "cat package/data.txt && ls secret.env; echo $NODE_RANK-$LOCAL_RANK >> shared; pwd"

    run = run_here(pytorch(command, 2, 2, code=str(code)), launcher=launcher)

    assert sorted((run.folder / "nodes/1/shared").read_text().split()) == ["1-0", "1-1"]
    folders = [log_of(run, rank).splitlines()[-1] for rank in range(4)]
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert "No such file" in log_of(run, 0)
    assert not (code / "shared").exists()


def test_a_file_that_is_not_writable_here_is_in_the_copy(tmp_path: Path) -> None:
    (tmp_path / "config.txt").write_text("old")
    (tmp_path / "config.txt").chmod(0o444)

    run = run_here(Job(command="stat -c %A config.txt", code=str(tmp_path)))

    assert log_of(run, 0).startswith("-rw")


def test_each_element_of_an_argv_arrives_as_one_argument() -> None:
    words = ["a b", "$HOME", "it's", '"', "*", "", "${{inputs.text}}"]
    command = [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words]

    run = run_here(pytorch(command, inputs={"text": "x"}))

    assert json.loads(log_of(run, 0)) == [*words[:-1], "x"]


@launchers
def test_variables_in_the_command_are_each_processs_own(launcher: str) -> None:
    run = run_here(pytorch("echo rank=$RANK of $WORLD_SIZE", processes=2), launcher=launcher)

    assert [log_of(run, rank) for rank in range(2)] == ["rank=0 of 2\n", "rank=1 of 2\n"]


def test_a_local_input_is_used_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("found")

    run = run_here(Job(command="cat ${{inputs.data}}/a.txt", inputs={"data": Input(path=str(tmp_path / "data"))}))

    assert log_of(run, 0) == "found"


def test_a_path_that_the_shell_would_read_otherwise_arrives_whole(tmp_path: Path) -> None:
    """Inputs without a single blank in them, and the folder of the outputs beside them."""
    names = ["a$HOME", "a;b", "a&b", "it's", "a`id`", "a*", "a#b", "{a,b}", "a(b", "a<b", "-n"]
    inputs = {f"i{number}": Input(path=str(tmp_path / name), type="uri_file") for number, name in enumerate(names)}
    for name in names:
        (tmp_path / name).write_text(f"{name}\n")
    files = " ".join(f"${{{{inputs.{name}}}}}" for name in inputs)
    command = f"cat {files} | tee ${{{{outputs.o}}}}/all"

    run = run_here(Job(command=command, inputs=inputs, outputs={"o": Output()}), root=tmp_path / "runs;$HOME")

    assert log_of(run, 0).splitlines() == names
    assert (run.outputs["o"] / "all").read_text().splitlines() == names


def test_data_on_azure_needs_a_path_on_this_machine(tmp_path: Path) -> None:
    job = Job(command="ls ${{inputs.data}}", inputs={"data": Input(path="azureml:cifar10:1")})

    with pytest.raises(JobError, match="azureml:cifar10:1") as error:
        submit(job, on="local")
    assert "--input data=PATH" in (error.value.hint or "")

    (tmp_path / "image.png").touch()
    assert "image.png" in log_of(run_here(job, inputs={"data": tmp_path}), 0)


@pytest.mark.parametrize(
    "name", ["my data $HOME", "$HOME", "a;b", "a&b", "it's", 'say"so"', "`id`", "a(b)", "*", "~", "#1"]
)
def test_paths_are_safe_without_quotes_in_the_command_whatever_is_in_them(name: str, tmp_path: Path) -> None:
    data = tmp_path / name
    data.mkdir()
    (data / "a.txt").write_text("found\n")
    job = pytorch(
        "cat ${{inputs.data}}/a.txt; cp ${{inputs.data}}/a.txt ${{outputs.out}}; cd $PWD && touch here",
        inputs={"data": Input(path=str(data))},
        outputs={"out": Output()},
    )

    run = run_here(job, root=tmp_path / f"runs {name}", launcher="direct")

    assert run.status == "Completed"
    assert log_of(run, 0) == "found\n"
    assert (run.outputs["out"] / "a.txt").read_text() == "found\n"
    assert (run.folder / "nodes/0/here").exists()


@pytest.mark.parametrize("nodes", [1, 2])
def test_code_may_be_one_file(tmp_path: Path, nodes: int) -> None:
    (tmp_path / "train.sh").write_text("ls -A; echo trained")
    (tmp_path / "beside.txt").write_text("stays")

    run = run_here(pytorch("bash train.sh", nodes, code=str(tmp_path / "train.sh")), launcher="direct")

    assert run.status == "Completed"
    assert log_of(run, nodes - 1).split() == [*sorted([*UPLOADED, "train.sh"]), "trained"]


def test_named_outputs_are_there_before_the_command_starts_and_are_shared_by_all_nodes() -> None:
    job = pytorch("echo $RANK > ${{outputs.model}}/$RANK", 2, outputs={"model": Output()})

    run = run_here(job)

    assert sorted(path.name for path in run.outputs["model"].iterdir()) == ["0", "1"]


def test_outputs_and_logs_of_each_node_are_collected() -> None:
    run = run_here(pytorch("echo $RANK > outputs/result-$RANK; mkdir logs/tb; echo $RANK > logs/tb/events-$RANK", 2))

    found = {path.relative_to(run.folder / "artifacts").as_posix() for path in run.folder.glob("artifacts/*/**/*-*")}
    assert found == {"outputs/result-0", "outputs/result-1", "logs/tb/events-0", "logs/tb/events-1"}
    assert run.state().findings == []


def test_a_file_that_two_nodes_wrote_is_reported_and_kept_from_both() -> None:
    run = run_here(pytorch("echo $RANK > outputs/model.pt", 2))

    [finding] = run.state().findings
    assert "./outputs/model.pt was written by node 0 and node 1" in finding
    assert (run.folder / "artifacts/outputs/model.pt").read_text() == "0\n"
    assert (run.folder / "artifacts/node_1/outputs/model.pt").read_text() == "1\n"


def test_a_file_that_azure_would_not_keep_is_reported(tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_text("touch model.pt")

    run = run_here(Job(command="bash train.sh", code=str(tmp_path)))

    [finding] = run.state().findings
    assert finding.startswith("model.pt would be lost on Azure ML")


def test_mlflow_logs_into_the_run_without_any_set_up() -> None:
    script = "import mlflow; mlflow.log_metric('loss', 0.5); mlflow.log_metric('loss', 0.25); mlflow.log_param('lr', 1)"

    run = run_here(Job(command=["python", "-W", "ignore", "-c", script], experiment_name="digits"))

    assert run.status == "Completed", log_of(run, 0)
    assert run.metrics() == {"loss": 0.25}


def test_a_variable_taken_from_here_reaches_the_process_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-value")
    job = pytorch("test ${#WANDB_API_KEY} = 12", processes=2, environment_variables={"WANDB_API_KEY": None})

    run = run_here(job, launcher="torchrun")

    assert run.status == "Completed"
    assert "s3cr3t" not in f"{job.plan()} {job!r} {run!r} {job.plan()!r}"
    written = [path for path in run.folder.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert written == []


def test_a_variable_that_is_not_set_here_is_asked_for() -> None:
    with pytest.raises(JobError, match="takes NOT_SET_HERE from your environment"):
        submit(Job(command="true", environment_variables={"NOT_SET_HERE": None}), on="local")


@launchers
def test_a_run_is_canceled_at_its_timeout(launcher: str) -> None:
    run = here(launcher).submit(pytorch("sleep 60", processes=2, timeout=1))

    with pytest.raises(RunFailed, match="longer than its timeout of 1 s"):
        run.wait(timeout=30)
    assert run.status == "Canceled"


def test_two_runs_at_the_same_time_have_ports_of_their_own() -> None:
    job = pytorch("echo $MASTER_PORT; sleep 60")
    first, second = Local(launcher="direct").submit(job), Local(launcher="direct").submit(job)
    try:
        ports = [next(iter(run.logs(rank=0, follow=True))) for run in (first, second)]
        assert ports[0] != ports[1]
    finally:
        for run in (first, second):
            run.cancel()
            with pytest.raises(RunFailed):
                run.wait(timeout=30)


def test_without_torch_the_same_world_is_started_directly_and_said_once(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare/bin/python")

    run = run_here(pytorch("echo $RANK; command -v python", processes=2), python=python)

    assert log_of(run, 1) == f"1\n{python}\n"
    assert run.state().launcher == "direct"
    assert [f for f in run.state().findings if "has no torch" in f]
    chosen = run_here(pytorch("true"), python=python, launcher="torchrun")
    assert "torchrun cannot be started" in (chosen.state().error or "")


def test_python_in_the_command_is_the_given_one_whatever_its_name(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (tmp_path / "bare/bin/python").rename(tmp_path / "bare/bin/python-of-mine")
    (tmp_path / "bare/bin/python3").unlink()

    run = run_here(
        Job(command="python -c 'import sys; print(sys.prefix)'"), python=str(tmp_path / "bare/bin/python-of-mine")
    )

    assert log_of(run, 0) == f"{tmp_path}/bare\n"


def test_what_is_inferred_of_the_service_can_be_said_otherwise() -> None:
    service = Service(process_name="task_{rank}", rank_log_width=lambda world_size: 2)

    run = run_here(pytorch("echo $AZUREML_PROCESS_NAME"), launcher="direct", service=service)

    assert (run.folder / "user_logs/std_log_process_00.txt").read_text() == "task_0\n"


def test_a_name_that_is_taken_is_refused() -> None:
    job = Job(command="true", name="mine")
    run_here(job)

    with pytest.raises(JobError, match="a run named mine already exists in"):
        submit(job, on="local")


def test_a_root_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LaunchError, match=r"cannot write .*Not a directory"):
        Local(root=tmp_path / "file" / "runs").submit(Job(command="true"))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


mounts = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk, as root")


@mounts
@launchers
def test_a_disk_that_becomes_full_ends_the_run_with_one_clear_line(launcher: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        run = run_here(pytorch(together("yes 0123456789"), processes=2), root=disk, launcher=launcher)

        state = run.state()
        assert (state.status, state.failed_rank) == ("Failed", None)
        assert state.error == "cannot write to the run's folder: No space left on device"
        assert [(p.signal, p.stopped) for p in state.processes] == [(signal.SIGTERM, True)] * 2
        assert "never started" not in str(run)
        assert "free some space" in str(run)
        verdict = run.verdict()
        assert verdict
        assert (verdict.kind, verdict.certainty, verdict.rank) == ("disk-full", "certain", None)
        assert "No space left on device" in verdict.summary


@mounts
@pytest.mark.parametrize("free", [0, 150])
def test_a_disk_without_room_for_another_attempt_is_said_to_be_full(free: int, tmp_path: Path) -> None:
    """Whether it is the attempt's note or its code that has none."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "large").write_bytes(bytes(400_000))
    with small_disk(tmp_path / "disk", "2m") as disk:
        fill = f"dd if=/dev/zero of=fill bs=1k 2> /dev/null; truncate --size=-{free}K fill; exit 3"

        state = run_here(Job(command=fill, code=str(tmp_path / "src")), root=disk, retries=1).state()

        assert (state.status, state.earlier[0].failed_rank, state.earlier[0].exit_code) == ("Failed", 0, 3)
        assert "No space left on device" in (state.error or "")
        assert "free some space" in (state.hint or "")
        assert state.ended_at


@mounts
def test_a_python_of_another_name_is_never_taken_for_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / "python-of-mine").symlink_to(sys.executable)
    with small_disk(tmp_path / "disk", "2m") as disk:
        subprocess.run(["mount", "-o", "remount,noexec", disk], check=True)
        with pytest.raises(LaunchError, match=r"no file in .* can be executed"):
            base_environment(str(tmp_path / "python-of-mine"), str(disk))


@mounts
@pytest.mark.parametrize("options", ["size=64k", "size=20m,noexec"])
def test_a_temporary_folder_that_will_not_do_is_not_taken(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python of another name needs a script of ours that can be written and executed."""
    (tmp_path / "python-of-mine").symlink_to(sys.executable)
    with small_disk(tmp_path / "disk", options.removeprefix("size=")) as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr("tempfile.tempdir", None)

        run = run_here(Job(command="python -c 'print(1)'"), python=str(tmp_path / "python-of-mine"))

        assert (run.status, log_of(run, 0)) == ("Completed", "1\n"), run.state().error
        assert os.listdir(disk) == []


@mounts
@needs("unshare")
def test_without_any_temporary_folder_that_is_said(tmp_path: Path) -> None:
    folders = "/tmp /var/tmp /dev/shm"
    mounted = "mount --bind $f $f; mount -o remount,bind,ro $f"  # what is there is still seen: Python may be
    read_only = f'for f in {folders}; do {mounted}; done; cd /proc; unset TMPDIR; exec "$@"'

    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", read_only, "sh", *CLI, "run", "job.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: no space for temporary files in /tmp, /var/tmp, /dev/shm",
        "hint: free some space, or set TMPDIR to a writable folder with a short path",
    ]


@mounts
def test_a_disk_that_is_full_for_a_while_does_not_end_a_run_that_logs_nothing_meanwhile(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        # Long enough for some looks at the state to fail to be written.
        job = Job(command="dd if=/dev/zero of=fill 2> /dev/null; sleep 1.2; rm fill; echo done", name="full")

        run = run_here(job, root=disk)

        assert run.status == "Completed", run.state().error
        assert log_of(run, 0).splitlines()[-1] == "done"
        # What the watch keeps for `stacks` belongs there; half-written files do not.
        assert sorted(p.name for p in run.folder.iterdir() if p.name.startswith(".")) in ([], [".watch"])


@mounts
def test_the_last_word_of_many_processes_has_room_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        fill = "if [ $RANK = 0 ]; then dd if=/dev/zero of=fill 2> /dev/null; exit 3; fi; sleep 60"

        run = run_here(pytorch(fill, processes=150), root=disk, launcher="direct")

        assert run.status == "Failed"
        assert os.path.getsize(run.folder / "run.json") > 30_000
        assert run.state().ended_at


def as_others(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, without what root may do beyond others."""
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return subprocess.run([*without, *CLI, *args], capture_output=True, text=True, timeout=60, check=False)


def test_code_that_cannot_be_read_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "secret.py").touch(mode=0)
    (tmp_path / "job.yml").write_text("command: echo\ncode: src\n")

    ended = as_others("run", tmp_path / "job.yml")

    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"error: {tmp_path}/job.yml:2: code: cannot read secret.py in the code folder: Permission denied",
        "hint: make it readable, or exclude it in `.amlignore`",
    ]


def test_a_folder_of_the_code_that_cannot_be_listed_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "src" / "secret").mkdir(parents=True)
    (tmp_path / "src" / "train.py").touch()
    (tmp_path / "src" / "secret").chmod(0)
    (tmp_path / "job.yml").write_text("command: echo\ncode: src\n")

    ended = as_others("plan", tmp_path / "job.yml")

    assert ended.returncode == 0
    assert (
        "you have no permission to list secret: azure-ai-ml silently skips what is inside"
        in ended.stdout + ended.stderr
    )


def test_a_script_that_does_not_wait_ends_with_its_run(tmp_path: Path) -> None:
    script = "from azml_dist import *; submit(Job(command='sleep 0.5; echo done', name='late'), on=Local(root='.'))"

    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert "waiting for run late" in ended.stderr
    assert (tmp_path / "late/user_logs/std_log.txt").read_text() == "done\n"


def test_an_interrupt_of_that_wait_ends_the_run(tmp_path: Path) -> None:
    script = "from azml_dist import *; submit(Job(command='sleep 300', name='late'), on=Local(root='.'))"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "waiting for run late" in process.stderr.readline()
        process.send_signal(signal.SIGINT)

        said = process.stderr.read()

    assert said == "error: run late was cancelled with Ctrl-C\n"


def test_the_same_run_is_found_by_its_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import azml_dist

    run = run_here(Job(command="echo here"), root=tmp_path / "elsewhere")
    monkeypatch.chdir("/")

    again = azml_dist.run(run.name)

    assert again.status == "Completed"
    assert list(again.logs(rank=0)) == ["here"]
    assert lines_of(run) == ["[node0 rank0] here"]


def test_download_copies_outputs_artifacts_and_logs(tmp_path: Path) -> None:
    run = run_here(Job(command="echo 1 > ${{outputs.m}}/w; echo 2 > outputs/o; echo 3", outputs={"m": Output()}))

    target = run.download(tmp_path / "got")

    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {"outputs/m/w", "artifacts/outputs/o", "user_logs/std_log.txt", ".azml-dist/came.jsonl"}


def test_a_status_is_its_word() -> None:
    """As `run.json`, a message and a table of words have it."""
    assert json.dumps(RunStatus.COMPLETED) == '"Completed"'
    assert f"{RunStatus.COMPLETED}" == "Completed"
    assert {"Completed": 0}[RunStatus.COMPLETED] == 0
    assert "Completed" in {RunStatus.COMPLETED}
    assert (RunStatus("completed"), RunStatus("Preempted")) == (RunStatus.COMPLETED, RunStatus.UNKNOWN)


def test_the_class_of_an_executor_is_not_an_executor() -> None:
    with pytest.raises(LaunchError, match="`on` is <class"):
        submit(pytorch("true"), on=Local)  # type: ignore[call-overload]  # as a user may


def test_earlier_runs_in_the_code_folder_are_pointed_out_unless_they_are_ignored(tmp_path: Path) -> None:
    job = Job(command="true", code=str(tmp_path))
    (tmp_path / "train.py").write_text("")

    def notes() -> list[str]:
        found = run_here(job, root=tmp_path / "runs", launcher="direct").state().findings
        return [note for note in found if "folder of runs" in note]

    assert notes() == [], "there is none yet"
    [note] = notes()
    assert "add `runs/` to .amlignore" in note
    (tmp_path / ".amlignore").write_text("runs/\n")
    assert notes() == []


def test_earlier_runs_that_are_beside_the_code_are_pointed_out(tmp_path: Path) -> None:
    job = Job(command="true", code=str(tmp_path))
    (tmp_path / "train.py").write_text("")

    first, second = (run_here(job, root=tmp_path, launcher="direct") for _ in range(2))

    assert (second.folder / "nodes" / "0" / first.name / "run.json").exists()
    assert not [note for note in first.state().findings if "folder of runs" in note]
    assert [note for note in second.state().findings if "the folder of runs is the code folder itself" in note]
